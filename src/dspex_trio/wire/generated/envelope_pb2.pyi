import datetime

from . import duration_pb2 as _duration_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union
from google.protobuf import duration_pb2 as _public_duration_pb2
from typing import Any as _Any

DESCRIPTOR: _descriptor.FileDescriptor

class TrialEnvelope(_message.Message):
    __slots__ = ("session_id", "program_spec", "timeout", "trial_id", "metadata", "options")
    class MetadataEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    SESSION_ID_FIELD_NUMBER: _ClassVar[int]
    PROGRAM_SPEC_FIELD_NUMBER: _ClassVar[int]
    TIMEOUT_FIELD_NUMBER: _ClassVar[int]
    TRIAL_ID_FIELD_NUMBER: _ClassVar[int]
    METADATA_FIELD_NUMBER: _ClassVar[int]
    OPTIONS_FIELD_NUMBER: _ClassVar[int]
    session_id: str
    program_spec: ProgramEnvelope
    timeout: _duration_pb2.Duration
    trial_id: str
    metadata: _containers.ScalarMap[str, str]
    options: OptionsEnvelope
    def __init__(self, session_id: _Optional[str] = ..., program_spec: _Optional[_Union[ProgramEnvelope, _Mapping[str, _Any]]] = ..., timeout: _Optional[_Union[datetime.timedelta, _Union[_duration_pb2.Duration, _public_duration_pb2.Duration], _Mapping[str, _Any]]] = ..., trial_id: _Optional[str] = ..., metadata: _Optional[_Mapping[str, str]] = ..., options: _Optional[_Union[OptionsEnvelope, _Mapping[str, _Any]]] = ...) -> None: ...

class ProgramEnvelope(_message.Message):
    __slots__ = ("name", "python_class", "config_space")
    NAME_FIELD_NUMBER: _ClassVar[int]
    PYTHON_CLASS_FIELD_NUMBER: _ClassVar[int]
    CONFIG_SPACE_FIELD_NUMBER: _ClassVar[int]
    name: str
    python_class: str
    config_space: _containers.RepeatedCompositeFieldContainer[BindingEnvelope]
    def __init__(self, name: _Optional[str] = ..., python_class: _Optional[str] = ..., config_space: _Optional[_Iterable[_Union[BindingEnvelope, _Mapping[str, _Any]]]] = ...) -> None: ...

class BindingEnvelope(_message.Message):
    __slots__ = ("parameter", "variable")
    PARAMETER_FIELD_NUMBER: _ClassVar[int]
    VARIABLE_FIELD_NUMBER: _ClassVar[int]
    parameter: str
    variable: str
    def __init__(self, parameter: _Optional[str] = ..., variable: _Optional[str] = ...) -> None: ...

class OptionsEnvelope(_message.Message):
    __slots__ = ("omit_trace", "omit_prompts", "max_trace_bytes", "no_cache")
    OMIT_TRACE_FIELD_NUMBER: _ClassVar[int]
    OMIT_PROMPTS_FIELD_NUMBER: _ClassVar[int]
    MAX_TRACE_BYTES_FIELD_NUMBER: _ClassVar[int]
    NO_CACHE_FIELD_NUMBER: _ClassVar[int]
    omit_trace: bool
    omit_prompts: bool
    max_trace_bytes: int
    no_cache: bool
    def __init__(self, omit_trace: _Optional[bool] = ..., omit_prompts: _Optional[bool] = ..., max_trace_bytes: _Optional[int] = ..., no_cache: _Optional[bool] = ...) -> None: ...
