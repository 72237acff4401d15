from google.protobuf.internal import well_known_types as _well_known_types
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from typing import ClassVar as _ClassVar, Optional as _Optional
from google.protobuf import any_pb2 as _public_any_pb2
from typing import Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class Any(_message.Message, _well_known_types.Any):
    def CopyFrom(self, other_msg: _Union[Any, _public_any_pb2.Any]) -> None: ...
    def MergeFrom(self, other_msg: _Union[Any, _public_any_pb2.Any]) -> None: ...
    __slots__ = ("type_url", "value")
    TYPE_URL_FIELD_NUMBER: _ClassVar[int]
    VALUE_FIELD_NUMBER: _ClassVar[int]
    type_url: str
    value: bytes
    def __init__(self, type_url: _Optional[str] = ..., value: _Optional[bytes] = ...) -> None: ...
