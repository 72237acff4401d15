"""What is fuzzed: each decoder with valid inputs for it and the errors that are its own; and hostile inputs."""

from __future__ import annotations

import json
import math
import struct
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Final

from google.protobuf import struct_pb2, wrappers_pb2
from google.protobuf.message import DecodeError

from dspex_trio.model import (
    Binding,
    Field,
    LanguageModel,
    LmStarted,
    Program,
    Signature,
    TraceEntry,
    TrialRequest,
    TrialSuccess,
    Variable,
)
from dspex_trio.model.errors import InvalidInput, InvalidSpec, ValueNotDecodable, VariableInvalid
from dspex_trio.model.values import plain
from dspex_trio.model.variable_types import TYPES, check_constraints, check_value, check_variable, show
from dspex_trio.rpc import Call, RpcError
from dspex_trio.sessions import MemoryStore
from dspex_trio.snakepit.trial_tool import _read
from dspex_trio.store.servicer import SessionStore
from dspex_trio.wire import (
    decode_any,
    decode_constraints,
    decode_event,
    decode_json,
    decode_outcome,
    decode_request,
    decode_tool_arguments,
    decode_tool_result,
    decode_tool_spec,
    decode_variable,
    encode_any,
    encode_event,
    encode_json,
    encode_outcome,
    encode_request,
    encode_tool_arguments,
    encode_typed,
    encode_variable,
    event_to_json,
    jsonable,
    outcome_to_json,
    program_from_json,
    program_to_json,
    seconds_of,
)
from dspex_trio.wire.arrays import decode_array
from dspex_trio.wire.generated import any_pb2, bridge_pb2, program_pb2

Errors = tuple[type[Exception], ...]
_GOOGLE: Final = "type.googleapis.com/google.protobuf."
_SNAKEPIT: Final = "type.googleapis.com/snakepit."
_MAX_REPLY: Final = 1 << 24


@dataclass(frozen=True, slots=True)
class Target:
    """A decoder.

    Attributes:
        name: What it is called in reports.
        run: Decodes bytes, and sends what it made out again.
        errors: What it may raise.
        seeds: Valid inputs.
    """

    name: str
    run: Callable[[bytes], object]
    errors: Errors
    seeds: Sequence[bytes]


# ---- values ---------------------------------------------------------------------------------------------------------


def _again(value: Any) -> None:
    """Whatever was decoded can be shown, copied and sent."""
    show(value)
    copy = plain(value)
    encode_any(copy)
    decode_json(encode_json(jsonable(copy)))
    for kind in TYPES:
        with suppress(ValueError):
            encode_typed(kind, check_value(kind, copy, {}))


def _json(raw: bytes) -> None:
    _again(decode_json(raw))


def _any(raw: bytes) -> None:
    message = any_pb2.Any.FromString(raw)
    for unwrap in (True, False):
        with suppress(ValueNotDecodable):
            decode_tool_result(message, b"")
        _again(decode_any(message, unwrap=unwrap))


def _array(raw: bytes) -> None:
    """A line with the description, and the bytes."""
    line, _, rest = raw.partition(b"\n")
    description = decode_json(line)
    if isinstance(description, dict):
        _again(decode_array(rest, description))


def _constraints(raw: bytes) -> None:
    constraints = decode_constraints(raw.decode("utf-8", "replace"))
    for kind in TYPES:
        with suppress(ValueError):
            check_constraints(kind, constraints)
        for value in ("aaaa", 1, 0.5, [1.0], {"a": 1}, True):
            with suppress(ValueError):
                check_value(kind, value, constraints)


_VALUES: Final[tuple[Any, ...]] = (
    None,
    True,
    -7,
    2**80,
    0.5,
    "text",
    '{"a": 1}',
    [1, [2.5, None], "x"],
    {"a": {"b": [True]}, "ü": "\u2028"},
    b"\x00\xff",
)
_STRUCT: Final = struct_pb2.Struct()
_STRUCT.update({"a": [1, "x", None, True, {"b": 2.5}]})
_PACKED: Final = (
    wrappers_pb2.StringValue(value="text"),
    wrappers_pb2.DoubleValue(value=0.1),
    wrappers_pb2.BytesValue(value=b"\x00"),
    _STRUCT,
    _STRUCT["a"],
    struct_pb2.Value(list_value=struct_pb2.ListValue(values=[struct_pb2.Value(number_value=1)])),
)


def _anys() -> list[any_pb2.Any]:
    bare = [any_pb2.Any(type_url=f"{_GOOGLE}StringValue", value=encode_json(value)) for value in _VALUES]
    typed = [
        encode_typed(kind, value) for kind in TYPES for value in ("x", 1, 0.5, [1, 2], {"shape": [1], "data": [1]})
    ]
    packed = [
        any_pb2.Any(type_url=_GOOGLE + message.DESCRIPTOR.name, value=message.SerializeToString())
        for message in _PACKED
    ]
    named = [
        any_pb2.Any(type_url=_GOOGLE + name, value=b"\x08\x80\x01\x10\x05")
        for name in ("Duration", "Timestamp", "Empty")
    ]
    return [*map(encode_any, _VALUES), *bare, *typed, *packed, *named]


_NPY: Final = (
    b"\x93NUMPY\x01\x00"
    + struct.pack("<H", 70)
    + b"{'descr': '<f4', 'fortran_order': False, 'shape': (2, 1), }".ljust(70)
)


# ---- messages -------------------------------------------------------------------------------------------------------


def _variable(raw: bytes) -> None:
    variable = check_variable(decode_variable(bridge_pb2.Variable.FromString(raw)))
    _again(variable.value)
    encode_variable(variable).SerializeToString()


def _request(raw: bytes) -> None:
    message = program_pb2.ExecuteProgramRequest.FromString(raw)
    seconds_of(message)
    request = decode_request(message)
    encode_request(request).SerializeToString()
    program_from_json(program_to_json(request.program))


def _program_json(raw: bytes) -> None:
    spec = decode_json(raw)
    program = program_from_json(spec)
    encode_json(program_to_json(program))
    encode_request(TrialRequest(program, {})).SerializeToString()


def _trial_tool(raw: bytes) -> None:
    """The arguments of the tool `execute_program`, as JSON text and as snakepit sends them."""
    try:
        arguments = decode_tool_arguments(bridge_pb2.ExecuteToolRequest.FromString(raw).parameters)
    except DecodeError:
        arguments = decode_json(raw)
    if isinstance(arguments, dict) and math.isnan(_read(arguments).timeout):
        raise AssertionError("a deadline that is no time")


def _outcome(raw: bytes) -> None:
    outcome = decode_outcome(program_pb2.ExecuteProgramResponse.FromString(raw))
    encode_outcome(outcome, max_bytes=_MAX_REPLY).SerializeToString()
    decode_json(encode_json(outcome_to_json(outcome)))


def _event(raw: bytes) -> None:
    event = decode_event(program_pb2.ProgramEvent.FromString(raw))
    encode_event(event, 1.0).SerializeToString()
    encode_json(event_to_json(event, 1.0))


def _tools(raw: bytes) -> None:
    for spec in bridge_pb2.GetExposedElixirToolsResponse.FromString(raw).tools:
        decode_tool_spec(spec)


def _tool_call(raw: bytes) -> None:
    _again(decode_tool_arguments(bridge_pb2.ExecuteElixirToolRequest.FromString(raw).parameters))


_PROGRAM: Final = Program(
    python_class="dspy.ReAct",
    signature=Signature(
        inputs=(Field("question"), Field("photo", "dspy.Image", "what is seen")),
        outputs=(Field("answer", "list[str]"),),
        instructions="Answer.",
    ),
    config_space=(Binding("temperature", "temp", optional=True, default=0.5), Binding("max_iters", "n")),
    dependencies={"tools": [{"tool": "search"}, {"elixir_tool": "find"}]},
    parameters={"predict.instructions": "Be brief.", "top_p": 0.9},
    state={"demos": [{"question": "q"}]},
    lm=LanguageModel("openai/gpt-4o", {"temperature": 0.1}),
    name="p",
    description="d",
)
_SUCCESS: Final = TrialSuccess(
    prediction={"answer": ["a", {"b": 1.5}]},
    completions=({"answer": "x"},),
    trace=(TraceEntry(predictor="p", class_name="Predict", signature="q -> a", inputs={"q": 1}, outputs={"a": None}),),
    trial_id="t",
)


def _failure() -> bytes:
    message = program_pb2.ExecuteProgramResponse()
    failure = message.failure
    failure.kind, failure.stage = program_pb2.FAILURE_KIND_LM_ERROR, program_pb2.STAGE_EXECUTE
    failure.error_message, failure.retryable = "no", True
    failure.retry_after.seconds = 1
    cause = failure.causes.add(error_type="A")
    cause.causes.add(error_type="B", relation="member")
    failure.details["rung"] = "check"
    raw: bytes = message.SerializeToString()
    return raw


def _trial_tool_calls() -> list[bytes]:
    arguments = {
        "program_spec": program_to_json(_PROGRAM),
        "inputs": {"question": "q", "n": [1]},
        "session_id": "s",
        "timeout_ms": 1500.5,
        "trial_id": "t",
        "options": {"omit_trace": True, "max_trace_bytes": 10},
        "metadata": {"a": "b"},
    }
    message = bridge_pb2.ExecuteToolRequest(tool_name="execute_program", parameters=encode_tool_arguments(arguments))
    other = bridge_pb2.ExecuteToolRequest(parameters=encode_tool_arguments(arguments))
    other.parameters["timeout_ms"].CopyFrom(
        any_pb2.Any(type_url=_GOOGLE + "DoubleValue", value=wrappers_pb2.DoubleValue(value=1.5).SerializeToString())
    )
    return [encode_json(arguments), message.SerializeToString(), other.SerializeToString()]


# ---- the store's requests -------------------------------------------------------------------------------------------

_METHODS: Final = {
    "InitializeSession": "InitializeSessionRequest",
    "RegisterVariable": "RegisterVariableRequest",
    "SetVariable": "SetVariableRequest",
    "SetVariables": "BatchSetVariablesRequest",
    "GetVariables": "BatchGetVariablesRequest",
    "ListVariables": "ListVariablesRequest",
    "DeleteVariable": "DeleteVariableRequest",
}


def _store_call(raw: bytes) -> None:
    """A byte that says which method, and its request; the session `s` has one variable of each type."""
    memory = MemoryStore()
    memory.initialize("s")
    for kind, value in _OF_TYPE.items():
        memory.register("s", kind, kind, value, constraints={"max": 10, "pattern": "^a", "max_length": 100})
    servicer = SessionStore(memory)
    name, request_type = list(_METHODS.items())[(raw or b"\0")[0] % len(_METHODS)]
    request = getattr(bridge_pb2, request_type).FromString(raw[1:])
    for method, message in ((name, request), ("ListVariables", _LIST)):
        try:
            getattr(servicer, method)(message, Call(method)).send(None)
        except StopIteration as done:
            done.value.SerializeToString()
        else:
            raise AssertionError("it waits for something")


_LIST: Final = bridge_pb2.ListVariablesRequest(session_id="s")
_OF_TYPE: Final[dict[str, Any]] = {
    "float": 1.0,
    "integer": 1,
    "string": "a",
    "boolean": True,
    "choice": "a",
    "module": "a",
    "embedding": [1.0],
    "tensor": [[1.0]],
    "map": {"a": 1},
    "list": [1],
}


def _store_calls() -> list[bytes]:
    fields: dict[str, dict[str, Any]] = {
        "InitializeSession": {"metadata": {"a": "b"}, "config": {"cache_ttl_seconds": 5}},
        "RegisterVariable": {
            "name": "new",
            "type": "float",
            "initial_value": encode_any(0.5),
            "constraints_json": '{"min": 0, "choices": [0.5]}',
            "metadata": {"unit": "K"},
        },
        "SetVariable": {"variable_identifier": "map", "value": encode_any({"a": 2}), "expected_version": 1},
        "SetVariables": {"updates": {kind: encode_any(value) for kind, value in _OF_TYPE.items()}, "atomic": True},
        "GetVariables": {"variable_identifiers": list(TYPES)},
        "ListVariables": {"pattern": "*a*"},
        "DeleteVariable": {"variable_identifier": "map"},
    }
    return [
        bytes([number]) + getattr(bridge_pb2, request)(session_id="s", **fields[name]).SerializeToString()
        for number, (name, request) in enumerate(_METHODS.items())
    ]


# ---- all of them ----------------------------------------------------------------------------------------------------


def _seeds(*messages: Any) -> list[bytes]:
    return [message.SerializeToString() for message in messages]


_OWN: Final[Errors] = (ValueNotDecodable,)
_PARSED: Final[Errors] = (DecodeError,)  # raised before a decoder is asked; a call with such bytes is no call
_SPEC: Final[Errors] = (InvalidSpec, InvalidInput)

TARGETS: Final = (
    Target("json", _json, _OWN, [encode_json(value) for value in _VALUES]),
    Target("any", _any, _OWN + _PARSED, _seeds(*_anys())),
    Target(
        "array",
        _array,
        _OWN,
        [
            b'{"binary_format": "raw", "dtype": "float32", "shape": [2, 1]}\n' + struct.pack("<2f", 0.5, 1.5),
            b'{"binary_format": "raw", "dtype": ">i8", "shape": "[1]"}\n' + struct.pack(">q", 7),
            b'{"binary_format": "numpy"}\n' + _NPY + struct.pack("<2f", 0.5, 1.5),
        ],
    ),
    Target(
        "constraints",
        _constraints,
        _OWN,
        [
            b'{"min": 0, "max": 2.5, "choices": ["a", 1], "enum": [true], "unknown": {}}',
            b'{"pattern": "^a(b|c)+[d-f]{2,3}$", "min_length": 1, "max_length": 5}',
            b'{"dimensions": 3, "shape": [1, 2], "allowed_modules": ["dspy.Predict"]}',
        ],
    ),
    Target(
        "variable",
        _variable,
        (VariableInvalid, *_PARSED),
        _seeds(
            *(
                encode_variable(Variable(kind, kind, value, 3, "id", {"min": 0}, {"source": "python"}))
                for kind, value in _OF_TYPE.items()
            ),
            bridge_pb2.Variable(
                name="w",
                type="tensor",
                value=any_pb2.Any(
                    type_url=_SNAKEPIT + "tensor.binary",
                    value=b'{"shape": [1], "dtype": "float32", "binary_format": "raw"}',
                ),
                binary_value=struct.pack("<f", 0.5),
            ),
        ),
    ),
    Target(
        "request",
        _request,
        _SPEC + _PARSED,
        _seeds(
            encode_request(TrialRequest(_PROGRAM, {"question": "q", "n": [1]}, session_id="s"), timeout=1.5),
            encode_request(TrialRequest(Program("dspy.Predict", signature=Signature(text="q -> a")), {"q": "x"})),
        ),
    ),
    Target(
        "program as JSON",
        _program_json,
        _SPEC + _OWN,
        [
            encode_json(program_to_json(_PROGRAM)),
            b'{"python_class": "P", "signature": {"inputs": {"q": "str"}, "outputs": ["a"]}}',
            b'{"python_class": "P", "config_space": {"t": "v", "u": {"variable": "w", "default": 1}}}',
            b'{"python_class": "P", "signature": "q -> a", "lm": "m", "state": {}, "name": null}',
        ],
    ),
    Target("execute_program", _trial_tool, _SPEC + _OWN, _trial_tool_calls()),
    Target("outcome", _outcome, _OWN + _PARSED, [*_seeds(encode_outcome(_SUCCESS, max_bytes=_MAX_REPLY)), _failure()]),
    Target(
        "event",
        _event,
        _OWN + _PARSED,
        _seeds(
            encode_event(LmStarted(1, "p", "m"), 2.5),
            program_pb2.ProgramEvent(tool_started={"call": 1, "tool": "t", "arguments": {"a": encode_any([1])}}),
            program_pb2.ProgramEvent(tool_finished={"call": 1, "result": encode_any("x")}),
            program_pb2.ProgramEvent(stage={"stage": 3}),
            program_pb2.ProgramEvent(output={"text": "x"}),
        ),
    ),
    Target(
        "tool descriptions",
        _tools,
        _PARSED,
        _seeds(
            bridge_pb2.GetExposedElixirToolsResponse(
                tools=[
                    {
                        "name": "search",
                        "parameters": [
                            {"name": "n", "type": "integer", "default_value": encode_any(3), "validation_json": "{}"}
                        ],
                    }
                ]
            )
        ),
    ),
    Target(
        "tool call",
        _tool_call,
        _OWN + _PARSED,
        _seeds(
            bridge_pb2.ExecuteElixirToolRequest(
                session_id="s", tool_name="t", parameters={"a": encode_any("x"), "b": encode_any({"c": [1]})}
            )
        ),
    ),
    Target("store call", _store_call, (RpcError, *_PARSED), _store_calls()),
)


# ---- hostile --------------------------------------------------------------------------------------------------------

_MIB: Final = 1 << 20


def _nested_value(levels: int) -> bytes:
    raw = b""
    for _ in range(levels):
        for tag in (b"\x0a", b"\x32"):  # ListValue.values, Value.list_value
            message = struct_pb2.Value(string_value="x" * len(raw)).SerializeToString()
            raw = tag + message[1 : len(message) - len(raw)] + raw if raw else tag + b"\x00"
    return raw


def hostile() -> Iterator[tuple[str, Target, bytes]]:
    """Inputs that a decoder of another make would choke on: name, decoder, input."""
    texts = {
        "1 MiB of [": b"[" * _MIB,
        "1 MiB of [ and ]": b"[" * (_MIB // 2) + b"]" * (_MIB // 2),
        "1 MiB of objects": b'{"a":' * (_MIB // 5) + b"1" + b"}" * (_MIB // 5),
        "many empty lists": b"[" + b"[]," * (_MIB // 3) + b"[]]",
        "many empty objects": b"[" + b"{}," * (_MIB // 3) + b"{}]",
        "many keys": b"{" + b",".join(b'"%d":1' % number for number in range(_MIB // 10)) + b"}",
        "the same key": b"{" + b",".join([b'"a":1'] * (_MIB // 6)) + b"}",
        "a long integer": b"9" * _MIB,
        "integers up to the limit": b"[" + b",".join([b"9" * 9_999] * 10) + b"]",
        "many long integers": b"[" + b",".join([b"9" * 4_299] * (_MIB // 4_300)) + b"]",
        "a long exponent": b"1e" + b"9" * _MIB,
        "a long fraction": b"0." + b"3" * _MIB,
        "many escapes": b'"' + b"\\ud83d\\ude00" * (_MIB // 12) + b'"',
        "lone surrogates": b'"' + b"\\ud800" * (_MIB // 6) + b'"',
        "a long string without an end": b'"' + b"\\" * _MIB,
        "much base64": b'{"__bytes__":"' + b"A" * _MIB + b'"}',
        "many bytes": b"[" + b'{"__bytes__":"AA=="},' * (_MIB // 21) + b"1]",
        "spaces": b" " * _MIB,
        "no UTF-8": b"\xff" * _MIB,
    }
    by_name = {target.name: target for target in TARGETS}
    for name, text in texts.items():
        yield name, by_name["json"], text
        yield name, by_name["constraints"], text
        yield name, by_name["program as JSON"], text
        yield name, by_name["constraints"], b'{"pattern": ' + json.dumps(text[:900].decode("latin-1")).encode() + b"}"
        for kind in ("snakepit.string", "snakepit.tensor", "snakepit.integer", "google.protobuf.StringValue"):
            url = f"type.googleapis.com/{kind}"
            yield f"{name} as {kind}", by_name["any"], any_pb2.Any(type_url=url, value=text).SerializeToString()
    for levels in (10, 40, 60, 10_000):
        raw = any_pb2.Any(type_url=_GOOGLE + "Value", value=_nested_value(levels)).SerializeToString()
        yield f"{levels} levels of Value", by_name["any"], raw
    for shape in (
        "[1000000000,0]",
        "[0,1000000000]",
        "[1,1,1,1,1,1,1,1]",
        "[" + "1," * 10_000 + "1]",
        "[99999999999999]",
    ):
        description = b'{"binary_format": "raw", "dtype": "float32", "shape": %s}\n' % shape.encode()
        yield f"the shape {shape[:20]}", by_name["array"], description + b"\0\0\0\0"
    for pattern in ("^(a+)+$", "(a|a)*b", "(.*)*x", "a{500}{500}", r"\w{900}", "(" * 400, "[" * 400):
        text = b'{"pattern": %s}' % json.dumps(pattern).encode()
        yield f"the pattern {pattern[:20]}", by_name["constraints"], text
