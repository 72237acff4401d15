import datetime

from . import any_pb2 as _any_pb2
from . import duration_pb2 as _duration_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union
from google.protobuf import any_pb2 as _public_any_pb2
from google.protobuf import duration_pb2 as _public_duration_pb2
from typing import Any as _Any

DESCRIPTOR: _descriptor.FileDescriptor

class Stage(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    STAGE_UNSPECIFIED: _ClassVar[Stage]
    STAGE_ADMISSION: _ClassVar[Stage]
    STAGE_SESSION: _ClassVar[Stage]
    STAGE_HYDRATE: _ClassVar[Stage]
    STAGE_SYNC: _ClassVar[Stage]
    STAGE_EXECUTE: _ClassVar[Stage]
    STAGE_SERIALIZE: _ClassVar[Stage]

class FailureKind(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    FAILURE_KIND_UNSPECIFIED: _ClassVar[FailureKind]
    FAILURE_KIND_DEADLINE_EXCEEDED: _ClassVar[FailureKind]
    FAILURE_KIND_CANCELLED: _ClassVar[FailureKind]
    FAILURE_KIND_INVALID_SPEC: _ClassVar[FailureKind]
    FAILURE_KIND_CLASS_NOT_FOUND: _ClassVar[FailureKind]
    FAILURE_KIND_IMPORT_NOT_ALLOWED: _ClassVar[FailureKind]
    FAILURE_KIND_VARIABLE_NOT_FOUND: _ClassVar[FailureKind]
    FAILURE_KIND_VARIABLE_INVALID: _ClassVar[FailureKind]
    FAILURE_KIND_STORE_UNAVAILABLE: _ClassVar[FailureKind]
    FAILURE_KIND_INVALID_INPUT: _ClassVar[FailureKind]
    FAILURE_KIND_LM_ERROR: _ClassVar[FailureKind]
    FAILURE_KIND_TOOL_ERROR: _ClassVar[FailureKind]
    FAILURE_KIND_PROGRAM_ERROR: _ClassVar[FailureKind]
    FAILURE_KIND_SERIALIZATION_ERROR: _ClassVar[FailureKind]
    FAILURE_KIND_OVERLOADED: _ClassVar[FailureKind]
    FAILURE_KIND_SHUTTING_DOWN: _ClassVar[FailureKind]
    FAILURE_KIND_BUDGET_EXCEEDED: _ClassVar[FailureKind]
    FAILURE_KIND_WORKER_LOST: _ClassVar[FailureKind]
    FAILURE_KIND_INTERNAL: _ClassVar[FailureKind]
STAGE_UNSPECIFIED: Stage
STAGE_ADMISSION: Stage
STAGE_SESSION: Stage
STAGE_HYDRATE: Stage
STAGE_SYNC: Stage
STAGE_EXECUTE: Stage
STAGE_SERIALIZE: Stage
FAILURE_KIND_UNSPECIFIED: FailureKind
FAILURE_KIND_DEADLINE_EXCEEDED: FailureKind
FAILURE_KIND_CANCELLED: FailureKind
FAILURE_KIND_INVALID_SPEC: FailureKind
FAILURE_KIND_CLASS_NOT_FOUND: FailureKind
FAILURE_KIND_IMPORT_NOT_ALLOWED: FailureKind
FAILURE_KIND_VARIABLE_NOT_FOUND: FailureKind
FAILURE_KIND_VARIABLE_INVALID: FailureKind
FAILURE_KIND_STORE_UNAVAILABLE: FailureKind
FAILURE_KIND_INVALID_INPUT: FailureKind
FAILURE_KIND_LM_ERROR: FailureKind
FAILURE_KIND_TOOL_ERROR: FailureKind
FAILURE_KIND_PROGRAM_ERROR: FailureKind
FAILURE_KIND_SERIALIZATION_ERROR: FailureKind
FAILURE_KIND_OVERLOADED: FailureKind
FAILURE_KIND_SHUTTING_DOWN: FailureKind
FAILURE_KIND_BUDGET_EXCEEDED: FailureKind
FAILURE_KIND_WORKER_LOST: FailureKind
FAILURE_KIND_INTERNAL: FailureKind

class ExecuteProgramRequest(_message.Message):
    __slots__ = ("session_id", "program_spec", "inputs", "timeout", "trial_id", "metadata", "options")
    class InputsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: _any_pb2.Any
        def __init__(self, key: _Optional[str] = ..., value: _Optional[_Union[_Union[_any_pb2.Any, _public_any_pb2.Any], _Mapping[str, _Any]]] = ...) -> None: ...
    class MetadataEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    SESSION_ID_FIELD_NUMBER: _ClassVar[int]
    PROGRAM_SPEC_FIELD_NUMBER: _ClassVar[int]
    INPUTS_FIELD_NUMBER: _ClassVar[int]
    TIMEOUT_FIELD_NUMBER: _ClassVar[int]
    TRIAL_ID_FIELD_NUMBER: _ClassVar[int]
    METADATA_FIELD_NUMBER: _ClassVar[int]
    OPTIONS_FIELD_NUMBER: _ClassVar[int]
    session_id: str
    program_spec: ProgramSpecification
    inputs: _containers.MessageMap[str, _any_pb2.Any]
    timeout: _duration_pb2.Duration
    trial_id: str
    metadata: _containers.ScalarMap[str, str]
    options: TrialOptions
    def __init__(self, session_id: _Optional[str] = ..., program_spec: _Optional[_Union[ProgramSpecification, _Mapping[str, _Any]]] = ..., inputs: _Optional[_Mapping[str, _Union[_any_pb2.Any, _public_any_pb2.Any]]] = ..., timeout: _Optional[_Union[datetime.timedelta, _Union[_duration_pb2.Duration, _public_duration_pb2.Duration], _Mapping[str, _Any]]] = ..., trial_id: _Optional[str] = ..., metadata: _Optional[_Mapping[str, str]] = ..., options: _Optional[_Union[TrialOptions, _Mapping[str, _Any]]] = ...) -> None: ...

class ExecuteProgramResponse(_message.Message):
    __slots__ = ("success", "failure")
    SUCCESS_FIELD_NUMBER: _ClassVar[int]
    FAILURE_FIELD_NUMBER: _ClassVar[int]
    success: TrialSuccess
    failure: TrialFailure
    def __init__(self, success: _Optional[_Union[TrialSuccess, _Mapping[str, _Any]]] = ..., failure: _Optional[_Union[TrialFailure, _Mapping[str, _Any]]] = ...) -> None: ...

class ProgramSpecification(_message.Message):
    __slots__ = ("name", "python_class", "signature", "config_space", "dependencies", "description", "lm", "parameters", "state_json")
    class DependenciesEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: _any_pb2.Any
        def __init__(self, key: _Optional[str] = ..., value: _Optional[_Union[_Union[_any_pb2.Any, _public_any_pb2.Any], _Mapping[str, _Any]]] = ...) -> None: ...
    class ParametersEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: _any_pb2.Any
        def __init__(self, key: _Optional[str] = ..., value: _Optional[_Union[_Union[_any_pb2.Any, _public_any_pb2.Any], _Mapping[str, _Any]]] = ...) -> None: ...
    NAME_FIELD_NUMBER: _ClassVar[int]
    PYTHON_CLASS_FIELD_NUMBER: _ClassVar[int]
    SIGNATURE_FIELD_NUMBER: _ClassVar[int]
    CONFIG_SPACE_FIELD_NUMBER: _ClassVar[int]
    DEPENDENCIES_FIELD_NUMBER: _ClassVar[int]
    DESCRIPTION_FIELD_NUMBER: _ClassVar[int]
    LM_FIELD_NUMBER: _ClassVar[int]
    PARAMETERS_FIELD_NUMBER: _ClassVar[int]
    STATE_JSON_FIELD_NUMBER: _ClassVar[int]
    name: str
    python_class: str
    signature: Signature
    config_space: _containers.RepeatedCompositeFieldContainer[VariableBinding]
    dependencies: _containers.MessageMap[str, _any_pb2.Any]
    description: str
    lm: LanguageModel
    parameters: _containers.MessageMap[str, _any_pb2.Any]
    state_json: bytes
    def __init__(self, name: _Optional[str] = ..., python_class: _Optional[str] = ..., signature: _Optional[_Union[Signature, _Mapping[str, _Any]]] = ..., config_space: _Optional[_Iterable[_Union[VariableBinding, _Mapping[str, _Any]]]] = ..., dependencies: _Optional[_Mapping[str, _Union[_any_pb2.Any, _public_any_pb2.Any]]] = ..., description: _Optional[str] = ..., lm: _Optional[_Union[LanguageModel, _Mapping[str, _Any]]] = ..., parameters: _Optional[_Mapping[str, _Union[_any_pb2.Any, _public_any_pb2.Any]]] = ..., state_json: _Optional[bytes] = ...) -> None: ...

class Signature(_message.Message):
    __slots__ = ("text", "fields")
    TEXT_FIELD_NUMBER: _ClassVar[int]
    FIELDS_FIELD_NUMBER: _ClassVar[int]
    text: str
    fields: SignatureFields
    def __init__(self, text: _Optional[str] = ..., fields: _Optional[_Union[SignatureFields, _Mapping[str, _Any]]] = ...) -> None: ...

class SignatureFields(_message.Message):
    __slots__ = ("instructions", "inputs", "outputs", "name")
    INSTRUCTIONS_FIELD_NUMBER: _ClassVar[int]
    INPUTS_FIELD_NUMBER: _ClassVar[int]
    OUTPUTS_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    instructions: str
    inputs: _containers.RepeatedCompositeFieldContainer[Field]
    outputs: _containers.RepeatedCompositeFieldContainer[Field]
    name: str
    def __init__(self, instructions: _Optional[str] = ..., inputs: _Optional[_Iterable[_Union[Field, _Mapping[str, _Any]]]] = ..., outputs: _Optional[_Iterable[_Union[Field, _Mapping[str, _Any]]]] = ..., name: _Optional[str] = ...) -> None: ...

class Field(_message.Message):
    __slots__ = ("name", "type", "description")
    NAME_FIELD_NUMBER: _ClassVar[int]
    TYPE_FIELD_NUMBER: _ClassVar[int]
    DESCRIPTION_FIELD_NUMBER: _ClassVar[int]
    name: str
    type: str
    description: str
    def __init__(self, name: _Optional[str] = ..., type: _Optional[str] = ..., description: _Optional[str] = ...) -> None: ...

class VariableBinding(_message.Message):
    __slots__ = ("parameter", "variable", "optional", "default")
    PARAMETER_FIELD_NUMBER: _ClassVar[int]
    VARIABLE_FIELD_NUMBER: _ClassVar[int]
    OPTIONAL_FIELD_NUMBER: _ClassVar[int]
    DEFAULT_FIELD_NUMBER: _ClassVar[int]
    parameter: str
    variable: str
    optional: bool
    default: _any_pb2.Any
    def __init__(self, parameter: _Optional[str] = ..., variable: _Optional[str] = ..., optional: _Optional[bool] = ..., default: _Optional[_Union[_Union[_any_pb2.Any, _public_any_pb2.Any], _Mapping[str, _Any]]] = ...) -> None: ...

class LanguageModel(_message.Message):
    __slots__ = ("model", "params")
    class ParamsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: _any_pb2.Any
        def __init__(self, key: _Optional[str] = ..., value: _Optional[_Union[_Union[_any_pb2.Any, _public_any_pb2.Any], _Mapping[str, _Any]]] = ...) -> None: ...
    MODEL_FIELD_NUMBER: _ClassVar[int]
    PARAMS_FIELD_NUMBER: _ClassVar[int]
    model: str
    params: _containers.MessageMap[str, _any_pb2.Any]
    def __init__(self, model: _Optional[str] = ..., params: _Optional[_Mapping[str, _Union[_any_pb2.Any, _public_any_pb2.Any]]] = ...) -> None: ...

class TrialOptions(_message.Message):
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

class TrialSuccess(_message.Message):
    __slots__ = ("prediction", "trace", "latency_ms", "cost", "timings", "variables", "trial_id", "warnings", "trace_truncated", "completions")
    class PredictionEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: _any_pb2.Any
        def __init__(self, key: _Optional[str] = ..., value: _Optional[_Union[_Union[_any_pb2.Any, _public_any_pb2.Any], _Mapping[str, _Any]]] = ...) -> None: ...
    class VariablesEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: BoundVariable
        def __init__(self, key: _Optional[str] = ..., value: _Optional[_Union[BoundVariable, _Mapping[str, _Any]]] = ...) -> None: ...
    PREDICTION_FIELD_NUMBER: _ClassVar[int]
    TRACE_FIELD_NUMBER: _ClassVar[int]
    LATENCY_MS_FIELD_NUMBER: _ClassVar[int]
    COST_FIELD_NUMBER: _ClassVar[int]
    TIMINGS_FIELD_NUMBER: _ClassVar[int]
    VARIABLES_FIELD_NUMBER: _ClassVar[int]
    TRIAL_ID_FIELD_NUMBER: _ClassVar[int]
    WARNINGS_FIELD_NUMBER: _ClassVar[int]
    TRACE_TRUNCATED_FIELD_NUMBER: _ClassVar[int]
    COMPLETIONS_FIELD_NUMBER: _ClassVar[int]
    prediction: _containers.MessageMap[str, _any_pb2.Any]
    trace: _containers.RepeatedCompositeFieldContainer[TraceEntry]
    latency_ms: float
    cost: Cost
    timings: Timings
    variables: _containers.MessageMap[str, BoundVariable]
    trial_id: str
    warnings: _containers.RepeatedScalarFieldContainer[str]
    trace_truncated: bool
    completions: _containers.RepeatedCompositeFieldContainer[Completion]
    def __init__(self, prediction: _Optional[_Mapping[str, _Union[_any_pb2.Any, _public_any_pb2.Any]]] = ..., trace: _Optional[_Iterable[_Union[TraceEntry, _Mapping[str, _Any]]]] = ..., latency_ms: _Optional[float] = ..., cost: _Optional[_Union[Cost, _Mapping[str, _Any]]] = ..., timings: _Optional[_Union[Timings, _Mapping[str, _Any]]] = ..., variables: _Optional[_Mapping[str, BoundVariable]] = ..., trial_id: _Optional[str] = ..., warnings: _Optional[_Iterable[str]] = ..., trace_truncated: _Optional[bool] = ..., completions: _Optional[_Iterable[_Union[Completion, _Mapping[str, _Any]]]] = ...) -> None: ...

class TrialFailure(_message.Message):
    __slots__ = ("error_type", "error_message", "traceback", "kind", "stage", "retryable", "retry_after", "causes", "timings", "partial_trace", "cost", "trial_id", "details", "variables")
    class DetailsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    class VariablesEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: BoundVariable
        def __init__(self, key: _Optional[str] = ..., value: _Optional[_Union[BoundVariable, _Mapping[str, _Any]]] = ...) -> None: ...
    ERROR_TYPE_FIELD_NUMBER: _ClassVar[int]
    ERROR_MESSAGE_FIELD_NUMBER: _ClassVar[int]
    TRACEBACK_FIELD_NUMBER: _ClassVar[int]
    KIND_FIELD_NUMBER: _ClassVar[int]
    STAGE_FIELD_NUMBER: _ClassVar[int]
    RETRYABLE_FIELD_NUMBER: _ClassVar[int]
    RETRY_AFTER_FIELD_NUMBER: _ClassVar[int]
    CAUSES_FIELD_NUMBER: _ClassVar[int]
    TIMINGS_FIELD_NUMBER: _ClassVar[int]
    PARTIAL_TRACE_FIELD_NUMBER: _ClassVar[int]
    COST_FIELD_NUMBER: _ClassVar[int]
    TRIAL_ID_FIELD_NUMBER: _ClassVar[int]
    DETAILS_FIELD_NUMBER: _ClassVar[int]
    VARIABLES_FIELD_NUMBER: _ClassVar[int]
    error_type: str
    error_message: str
    traceback: str
    kind: FailureKind
    stage: Stage
    retryable: bool
    retry_after: _duration_pb2.Duration
    causes: _containers.RepeatedCompositeFieldContainer[Cause]
    timings: Timings
    partial_trace: _containers.RepeatedCompositeFieldContainer[TraceEntry]
    cost: Cost
    trial_id: str
    details: _containers.ScalarMap[str, str]
    variables: _containers.MessageMap[str, BoundVariable]
    def __init__(self, error_type: _Optional[str] = ..., error_message: _Optional[str] = ..., traceback: _Optional[str] = ..., kind: _Optional[_Union[FailureKind, str]] = ..., stage: _Optional[_Union[Stage, str]] = ..., retryable: _Optional[bool] = ..., retry_after: _Optional[_Union[datetime.timedelta, _Union[_duration_pb2.Duration, _public_duration_pb2.Duration], _Mapping[str, _Any]]] = ..., causes: _Optional[_Iterable[_Union[Cause, _Mapping[str, _Any]]]] = ..., timings: _Optional[_Union[Timings, _Mapping[str, _Any]]] = ..., partial_trace: _Optional[_Iterable[_Union[TraceEntry, _Mapping[str, _Any]]]] = ..., cost: _Optional[_Union[Cost, _Mapping[str, _Any]]] = ..., trial_id: _Optional[str] = ..., details: _Optional[_Mapping[str, str]] = ..., variables: _Optional[_Mapping[str, BoundVariable]] = ...) -> None: ...

class Cause(_message.Message):
    __slots__ = ("error_type", "error_message", "traceback", "causes", "relation")
    ERROR_TYPE_FIELD_NUMBER: _ClassVar[int]
    ERROR_MESSAGE_FIELD_NUMBER: _ClassVar[int]
    TRACEBACK_FIELD_NUMBER: _ClassVar[int]
    CAUSES_FIELD_NUMBER: _ClassVar[int]
    RELATION_FIELD_NUMBER: _ClassVar[int]
    error_type: str
    error_message: str
    traceback: str
    causes: _containers.RepeatedCompositeFieldContainer[Cause]
    relation: str
    def __init__(self, error_type: _Optional[str] = ..., error_message: _Optional[str] = ..., traceback: _Optional[str] = ..., causes: _Optional[_Iterable[_Union[Cause, _Mapping[str, _Any]]]] = ..., relation: _Optional[str] = ...) -> None: ...

class TraceEntry(_message.Message):
    __slots__ = ("predictor", "class_name", "signature", "inputs", "outputs", "lm_calls", "started_ms", "latency_ms")
    class InputsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: _any_pb2.Any
        def __init__(self, key: _Optional[str] = ..., value: _Optional[_Union[_Union[_any_pb2.Any, _public_any_pb2.Any], _Mapping[str, _Any]]] = ...) -> None: ...
    class OutputsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: _any_pb2.Any
        def __init__(self, key: _Optional[str] = ..., value: _Optional[_Union[_Union[_any_pb2.Any, _public_any_pb2.Any], _Mapping[str, _Any]]] = ...) -> None: ...
    PREDICTOR_FIELD_NUMBER: _ClassVar[int]
    CLASS_NAME_FIELD_NUMBER: _ClassVar[int]
    SIGNATURE_FIELD_NUMBER: _ClassVar[int]
    INPUTS_FIELD_NUMBER: _ClassVar[int]
    OUTPUTS_FIELD_NUMBER: _ClassVar[int]
    LM_CALLS_FIELD_NUMBER: _ClassVar[int]
    STARTED_MS_FIELD_NUMBER: _ClassVar[int]
    LATENCY_MS_FIELD_NUMBER: _ClassVar[int]
    predictor: str
    class_name: str
    signature: str
    inputs: _containers.MessageMap[str, _any_pb2.Any]
    outputs: _containers.MessageMap[str, _any_pb2.Any]
    lm_calls: _containers.RepeatedCompositeFieldContainer[LmCall]
    started_ms: float
    latency_ms: float
    def __init__(self, predictor: _Optional[str] = ..., class_name: _Optional[str] = ..., signature: _Optional[str] = ..., inputs: _Optional[_Mapping[str, _Union[_any_pb2.Any, _public_any_pb2.Any]]] = ..., outputs: _Optional[_Mapping[str, _Union[_any_pb2.Any, _public_any_pb2.Any]]] = ..., lm_calls: _Optional[_Iterable[_Union[LmCall, _Mapping[str, _Any]]]] = ..., started_ms: _Optional[float] = ..., latency_ms: _Optional[float] = ...) -> None: ...

class LmCall(_message.Message):
    __slots__ = ("model", "messages_json", "response_json", "usage", "cost_usd", "cost_known", "cache_hit", "started_ms", "latency_ms")
    MODEL_FIELD_NUMBER: _ClassVar[int]
    MESSAGES_JSON_FIELD_NUMBER: _ClassVar[int]
    RESPONSE_JSON_FIELD_NUMBER: _ClassVar[int]
    USAGE_FIELD_NUMBER: _ClassVar[int]
    COST_USD_FIELD_NUMBER: _ClassVar[int]
    COST_KNOWN_FIELD_NUMBER: _ClassVar[int]
    CACHE_HIT_FIELD_NUMBER: _ClassVar[int]
    STARTED_MS_FIELD_NUMBER: _ClassVar[int]
    LATENCY_MS_FIELD_NUMBER: _ClassVar[int]
    model: str
    messages_json: str
    response_json: str
    usage: Usage
    cost_usd: float
    cost_known: bool
    cache_hit: bool
    started_ms: float
    latency_ms: float
    def __init__(self, model: _Optional[str] = ..., messages_json: _Optional[str] = ..., response_json: _Optional[str] = ..., usage: _Optional[_Union[Usage, _Mapping[str, _Any]]] = ..., cost_usd: _Optional[float] = ..., cost_known: _Optional[bool] = ..., cache_hit: _Optional[bool] = ..., started_ms: _Optional[float] = ..., latency_ms: _Optional[float] = ...) -> None: ...

class Usage(_message.Message):
    __slots__ = ("prompt_tokens", "completion_tokens", "total_tokens", "cached_tokens", "reasoning_tokens")
    PROMPT_TOKENS_FIELD_NUMBER: _ClassVar[int]
    COMPLETION_TOKENS_FIELD_NUMBER: _ClassVar[int]
    TOTAL_TOKENS_FIELD_NUMBER: _ClassVar[int]
    CACHED_TOKENS_FIELD_NUMBER: _ClassVar[int]
    REASONING_TOKENS_FIELD_NUMBER: _ClassVar[int]
    prompt_tokens: int
    completion_tokens: int
    total_tokens: int
    cached_tokens: int
    reasoning_tokens: int
    def __init__(self, prompt_tokens: _Optional[int] = ..., completion_tokens: _Optional[int] = ..., total_tokens: _Optional[int] = ..., cached_tokens: _Optional[int] = ..., reasoning_tokens: _Optional[int] = ...) -> None: ...

class Cost(_message.Message):
    __slots__ = ("total_usd", "known", "usage", "lm_calls", "cache_hits")
    TOTAL_USD_FIELD_NUMBER: _ClassVar[int]
    KNOWN_FIELD_NUMBER: _ClassVar[int]
    USAGE_FIELD_NUMBER: _ClassVar[int]
    LM_CALLS_FIELD_NUMBER: _ClassVar[int]
    CACHE_HITS_FIELD_NUMBER: _ClassVar[int]
    total_usd: float
    known: bool
    usage: Usage
    lm_calls: int
    cache_hits: int
    def __init__(self, total_usd: _Optional[float] = ..., known: _Optional[bool] = ..., usage: _Optional[_Union[Usage, _Mapping[str, _Any]]] = ..., lm_calls: _Optional[int] = ..., cache_hits: _Optional[int] = ...) -> None: ...

class Timings(_message.Message):
    __slots__ = ("queued_ms", "hydrate_ms", "sync_ms", "execute_ms", "serialize_ms", "total_ms")
    QUEUED_MS_FIELD_NUMBER: _ClassVar[int]
    HYDRATE_MS_FIELD_NUMBER: _ClassVar[int]
    SYNC_MS_FIELD_NUMBER: _ClassVar[int]
    EXECUTE_MS_FIELD_NUMBER: _ClassVar[int]
    SERIALIZE_MS_FIELD_NUMBER: _ClassVar[int]
    TOTAL_MS_FIELD_NUMBER: _ClassVar[int]
    queued_ms: float
    hydrate_ms: float
    sync_ms: float
    execute_ms: float
    serialize_ms: float
    total_ms: float
    def __init__(self, queued_ms: _Optional[float] = ..., hydrate_ms: _Optional[float] = ..., sync_ms: _Optional[float] = ..., execute_ms: _Optional[float] = ..., serialize_ms: _Optional[float] = ..., total_ms: _Optional[float] = ...) -> None: ...

class Completion(_message.Message):
    __slots__ = ("fields",)
    class FieldsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: _any_pb2.Any
        def __init__(self, key: _Optional[str] = ..., value: _Optional[_Union[_Union[_any_pb2.Any, _public_any_pb2.Any], _Mapping[str, _Any]]] = ...) -> None: ...
    FIELDS_FIELD_NUMBER: _ClassVar[int]
    fields: _containers.MessageMap[str, _any_pb2.Any]
    def __init__(self, fields: _Optional[_Mapping[str, _Union[_any_pb2.Any, _public_any_pb2.Any]]] = ...) -> None: ...

class BoundVariable(_message.Message):
    __slots__ = ("variable", "value", "version", "from_default", "parameter")
    VARIABLE_FIELD_NUMBER: _ClassVar[int]
    VALUE_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    FROM_DEFAULT_FIELD_NUMBER: _ClassVar[int]
    PARAMETER_FIELD_NUMBER: _ClassVar[int]
    variable: str
    value: _any_pb2.Any
    version: int
    from_default: bool
    parameter: str
    def __init__(self, variable: _Optional[str] = ..., value: _Optional[_Union[_Union[_any_pb2.Any, _public_any_pb2.Any], _Mapping[str, _Any]]] = ..., version: _Optional[int] = ..., from_default: _Optional[bool] = ..., parameter: _Optional[str] = ...) -> None: ...

class ProgramEvent(_message.Message):
    __slots__ = ("stage", "lm_started", "lm_finished", "tool_started", "tool_finished", "output", "response", "dropped", "at_ms")
    STAGE_FIELD_NUMBER: _ClassVar[int]
    LM_STARTED_FIELD_NUMBER: _ClassVar[int]
    LM_FINISHED_FIELD_NUMBER: _ClassVar[int]
    TOOL_STARTED_FIELD_NUMBER: _ClassVar[int]
    TOOL_FINISHED_FIELD_NUMBER: _ClassVar[int]
    OUTPUT_FIELD_NUMBER: _ClassVar[int]
    RESPONSE_FIELD_NUMBER: _ClassVar[int]
    DROPPED_FIELD_NUMBER: _ClassVar[int]
    AT_MS_FIELD_NUMBER: _ClassVar[int]
    stage: StageStarted
    lm_started: LmStarted
    lm_finished: LmFinished
    tool_started: ToolStarted
    tool_finished: ToolFinished
    output: OutputChunk
    response: ExecuteProgramResponse
    dropped: EventsDropped
    at_ms: float
    def __init__(self, stage: _Optional[_Union[StageStarted, _Mapping[str, _Any]]] = ..., lm_started: _Optional[_Union[LmStarted, _Mapping[str, _Any]]] = ..., lm_finished: _Optional[_Union[LmFinished, _Mapping[str, _Any]]] = ..., tool_started: _Optional[_Union[ToolStarted, _Mapping[str, _Any]]] = ..., tool_finished: _Optional[_Union[ToolFinished, _Mapping[str, _Any]]] = ..., output: _Optional[_Union[OutputChunk, _Mapping[str, _Any]]] = ..., response: _Optional[_Union[ExecuteProgramResponse, _Mapping[str, _Any]]] = ..., dropped: _Optional[_Union[EventsDropped, _Mapping[str, _Any]]] = ..., at_ms: _Optional[float] = ...) -> None: ...

class StageStarted(_message.Message):
    __slots__ = ("stage",)
    STAGE_FIELD_NUMBER: _ClassVar[int]
    stage: Stage
    def __init__(self, stage: _Optional[_Union[Stage, str]] = ...) -> None: ...

class LmStarted(_message.Message):
    __slots__ = ("call", "predictor", "model")
    CALL_FIELD_NUMBER: _ClassVar[int]
    PREDICTOR_FIELD_NUMBER: _ClassVar[int]
    MODEL_FIELD_NUMBER: _ClassVar[int]
    call: int
    predictor: str
    model: str
    def __init__(self, call: _Optional[int] = ..., predictor: _Optional[str] = ..., model: _Optional[str] = ...) -> None: ...

class LmFinished(_message.Message):
    __slots__ = ("call", "lm_call", "error_type")
    CALL_FIELD_NUMBER: _ClassVar[int]
    LM_CALL_FIELD_NUMBER: _ClassVar[int]
    ERROR_TYPE_FIELD_NUMBER: _ClassVar[int]
    call: int
    lm_call: LmCall
    error_type: str
    def __init__(self, call: _Optional[int] = ..., lm_call: _Optional[_Union[LmCall, _Mapping[str, _Any]]] = ..., error_type: _Optional[str] = ...) -> None: ...

class ToolStarted(_message.Message):
    __slots__ = ("call", "tool", "arguments")
    class ArgumentsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: _any_pb2.Any
        def __init__(self, key: _Optional[str] = ..., value: _Optional[_Union[_Union[_any_pb2.Any, _public_any_pb2.Any], _Mapping[str, _Any]]] = ...) -> None: ...
    CALL_FIELD_NUMBER: _ClassVar[int]
    TOOL_FIELD_NUMBER: _ClassVar[int]
    ARGUMENTS_FIELD_NUMBER: _ClassVar[int]
    call: int
    tool: str
    arguments: _containers.MessageMap[str, _any_pb2.Any]
    def __init__(self, call: _Optional[int] = ..., tool: _Optional[str] = ..., arguments: _Optional[_Mapping[str, _Union[_any_pb2.Any, _public_any_pb2.Any]]] = ...) -> None: ...

class ToolFinished(_message.Message):
    __slots__ = ("call", "result", "error_type", "latency_ms")
    CALL_FIELD_NUMBER: _ClassVar[int]
    RESULT_FIELD_NUMBER: _ClassVar[int]
    ERROR_TYPE_FIELD_NUMBER: _ClassVar[int]
    LATENCY_MS_FIELD_NUMBER: _ClassVar[int]
    call: int
    result: _any_pb2.Any
    error_type: str
    latency_ms: float
    def __init__(self, call: _Optional[int] = ..., result: _Optional[_Union[_Union[_any_pb2.Any, _public_any_pb2.Any], _Mapping[str, _Any]]] = ..., error_type: _Optional[str] = ..., latency_ms: _Optional[float] = ...) -> None: ...

class OutputChunk(_message.Message):
    __slots__ = ("predictor", "field", "text", "is_last")
    PREDICTOR_FIELD_NUMBER: _ClassVar[int]
    FIELD_FIELD_NUMBER: _ClassVar[int]
    TEXT_FIELD_NUMBER: _ClassVar[int]
    IS_LAST_FIELD_NUMBER: _ClassVar[int]
    predictor: str
    field: str
    text: str
    is_last: bool
    def __init__(self, predictor: _Optional[str] = ..., field: _Optional[str] = ..., text: _Optional[str] = ..., is_last: _Optional[bool] = ...) -> None: ...

class EventsDropped(_message.Message):
    __slots__ = ("count",)
    COUNT_FIELD_NUMBER: _ClassVar[int]
    count: int
    def __init__(self, count: _Optional[int] = ...) -> None: ...
