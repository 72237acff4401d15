from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from typing import ClassVar as _ClassVar
from google.protobuf import empty_pb2 as _public_empty_pb2
from typing import Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class Empty(_message.Message):
    def CopyFrom(self, other_msg: _Union[Empty, _public_empty_pb2.Empty]) -> None: ...
    def MergeFrom(self, other_msg: _Union[Empty, _public_empty_pb2.Empty]) -> None: ...
    __slots__ = ()
    def __init__(self) -> None: ...
