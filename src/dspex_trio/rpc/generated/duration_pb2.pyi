from google.protobuf.internal import well_known_types as _well_known_types
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from typing import ClassVar as _ClassVar, Optional as _Optional
from google.protobuf import duration_pb2 as _public_duration_pb2
from typing import Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class Duration(_message.Message, _well_known_types.Duration):
    def CopyFrom(self, other_msg: _Union[Duration, _public_duration_pb2.Duration]) -> None: ...
    def MergeFrom(self, other_msg: _Union[Duration, _public_duration_pb2.Duration]) -> None: ...
    __slots__ = ("seconds", "nanos")
    SECONDS_FIELD_NUMBER: _ClassVar[int]
    NANOS_FIELD_NUMBER: _ClassVar[int]
    seconds: int
    nanos: int
    def __init__(self, seconds: _Optional[int] = ..., nanos: _Optional[int] = ...) -> None: ...
