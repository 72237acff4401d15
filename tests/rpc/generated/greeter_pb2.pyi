from . import empty_protobuf_pb2 as _empty_pb2
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from typing import ClassVar as _ClassVar, Optional as _Optional

DESCRIPTOR: _descriptor.FileDescriptor

class HelloRequest(_message.Message):
    __slots__ = ("name", "times", "body")
    NAME_FIELD_NUMBER: _ClassVar[int]
    TIMES_FIELD_NUMBER: _ClassVar[int]
    BODY_FIELD_NUMBER: _ClassVar[int]
    name: str
    times: int
    body: bytes
    def __init__(self, name: _Optional[str] = ..., times: _Optional[int] = ..., body: _Optional[bytes] = ...) -> None: ...

class HelloReply(_message.Message):
    __slots__ = ("text", "body")
    TEXT_FIELD_NUMBER: _ClassVar[int]
    BODY_FIELD_NUMBER: _ClassVar[int]
    text: str
    body: bytes
    def __init__(self, text: _Optional[str] = ..., body: _Optional[bytes] = ...) -> None: ...

class Outer(_message.Message):
    __slots__ = ()
    class Inner(_message.Message):
        __slots__ = ("name",)
        NAME_FIELD_NUMBER: _ClassVar[int]
        name: str
        def __init__(self, name: _Optional[str] = ...) -> None: ...
    def __init__(self) -> None: ...
