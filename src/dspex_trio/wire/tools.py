"""Elixir tools: their descriptions, the arguments of a call and its result, as snakepit writes and reads them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from dspex_trio.model import MISSING, ToolParameter, ToolSpec
from dspex_trio.model.errors import ValueNotDecodable
from dspex_trio.wire.anys import decode_any
from dspex_trio.wire.generated import any_pb2, bridge_pb2
from dspex_trio.wire.jsontext import encode_json
from dspex_trio.wire.stored import decode_constraints

_STRING_URL: Final = "type.googleapis.com/google.protobuf.StringValue"


def decode_tool_spec(message: bridge_pb2.ToolSpec) -> ToolSpec:
    """A tool's description. Never fails: a default or a constraint that cannot be read is left out.

    The tool itself has the last word on its arguments; what is known here only tells a wrong call earlier.
    """
    parameters = tuple(map(_parameter, message.parameters))
    return ToolSpec(message.name, message.description, parameters, streams=message.supports_streaming)


def _parameter(message: bridge_pb2.ParameterSpec) -> ToolParameter:
    default: Any = MISSING
    # A required parameter has none, and proto3's empty Any does not tell None from nothing.
    if not message.required and message.HasField("default_value") and message.default_value.type_url:
        try:
            default = decode_any(message.default_value, unwrap=False)
        except ValueNotDecodable:
            default = MISSING
    try:
        constraints = decode_constraints(message.validation_json)
    except ValueNotDecodable:
        constraints = {}
    return ToolParameter(message.name, message.type, message.description, message.required, default, constraints)


def encode_tool_arguments(arguments: Mapping[str, Any]) -> dict[str, any_pb2.Any]:
    """Plain arguments of a call as snakepit reads them: bare JSON under StringValue; it refuses a packed one."""
    return {name: _bare_json(value) for name, value in arguments.items()}


def decode_tool_result(result: any_pb2.Any, binary: bytes) -> Any:
    """What a tool answers: bytes, a value, or the text that Elixir inspects a term to where it has no JSON form.

    Raises:
        ValueNotDecodable: It is none of these.
    """
    if binary:
        return binary
    try:
        return decode_any(result, unwrap=False)
    except ValueNotDecodable:
        if result.type_url.rpartition("/")[2] != "google.protobuf.StringValue":
            raise
        return result.value.decode("utf-8", "replace")


# ---- the owner's side -----------------------------------------------------------------------------------------------


def encode_tool_spec(spec: ToolSpec) -> bridge_pb2.ToolSpec:
    """A tool's description as snakepit writes it."""
    message = bridge_pb2.ToolSpec(
        name=spec.name,
        description=spec.description,
        metadata={"exposed_to_python": "true"},
        supports_streaming=spec.streams,
    )
    for each in spec.parameters:
        parameter = message.parameters.add(
            name=each.name,
            type=each.type,
            description=each.description,
            required=each.required,
            validation_json=encode_json(dict(each.constraints)).decode(),
        )
        if each.default is not MISSING:
            parameter.default_value.CopyFrom(_bare_json(each.default))
    return message


def decode_tool_arguments(parameters: Mapping[str, any_pb2.Any]) -> dict[str, Any]:
    """The arguments of a call.

    Raises:
        ValueNotDecodable: One of them cannot be decoded; the text names it.
    """
    arguments = {}
    for name, value in parameters.items():
        try:
            arguments[name] = decode_any(value)
        except ValueNotDecodable as error:
            raise ValueNotDecodable(f"Invalid parameter {name}: {error}") from None
    return arguments


def encode_tool_result(value: Any) -> tuple[any_pb2.Any, bytes]:
    """A plain result as snakepit writes it: bare JSON, or bytes beside an empty object."""
    return (_bare_json({}), value) if isinstance(value, bytes) else (_bare_json(value), b"")


def _bare_json(value: Any) -> any_pb2.Any:
    return any_pb2.Any(type_url=_STRING_URL, value=encode_json(value))
