"""Session variables as a store's messages carry them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from dspex_trio.model import Variable
from dspex_trio.model.errors import ValueNotDecodable, VariableInvalid
from dspex_trio.wire.anys import decode_any, encode_typed, special_floats
from dspex_trio.wire.arrays import decode_array
from dspex_trio.wire.generated import any_pb2, bridge_pb2
from dspex_trio.wire.jsontext import decode_json, encode_json

# What a variable of these types holds is text, even if it looks like JSON; for any other, an old peer's doubled JSON is
# unwrapped.
_TEXT_TYPES: Final = frozenset({"string", "choice", "module"})
# JSON has no NaN and no infinities; whoever writes it under a type that does not say so means them by their names.
_NUMBER_TYPES: Final = frozenset({"float", "embedding", "tensor"})


def decode_variable(message: bridge_pb2.Variable) -> Variable:
    """A variable as the store had it.

    Raises:
        VariableInvalid: Its value or its constraints cannot be decoded; the text names the variable.
    """
    try:
        value = decode_stored(message.value, message.binary_value, message.type, message.metadata)
        constraints = decode_constraints(message.constraints_json)
    except ValueNotDecodable as error:
        raise VariableInvalid(f"variable {message.name!r} of type {message.type or 'unknown'}: {error}") from None
    return Variable(
        name=message.name,
        type=message.type,
        value=value,
        version=message.version,
        id=message.id,
        constraints=constraints,
        metadata=dict(message.metadata),
    )


def decode_stored(value: any_pb2.Any, binary: bytes, kind: str, metadata: Mapping[str, str]) -> Any:
    """The value of a variable of type `kind`: JSON in the Any, or for tensors and embeddings bytes beside it.

    Raises:
        ValueNotDecodable: It cannot be decoded.
    """
    described = value.type_url.endswith(".binary")
    if not binary:
        if described:
            raise ValueNotDecodable(f"{value.type_url[:200]!r} announces a binary_value, and there is none")
        found = decode_any(value, unwrap=kind not in _TEXT_TYPES)
        return special_floats(found) if kind in _NUMBER_TYPES else found
    description: dict[str, Any] = dict(metadata)
    if described and isinstance(beside := decode_json(value.value), dict):
        description |= beside
    if "binary_format" not in description:
        raise ValueNotDecodable("there is a binary_value, and no binary_format says what it is")
    return decode_array(binary, description)


def decode_constraints(text: str) -> dict[str, Any]:
    """Constraints from their JSON text; empty text means none.

    Raises:
        ValueNotDecodable: The text is no JSON object.
    """
    if not text:
        return {}
    try:
        found = decode_json(text.encode())
    except ValueNotDecodable as error:
        raise ValueNotDecodable(f"constraints_json: {error}") from None
    if found is None:
        return {}
    if not isinstance(found, dict):
        raise ValueNotDecodable("constraints_json is no JSON object")
    return found


def encode_variable(variable: Variable) -> bridge_pb2.Variable:
    """A variable as a store sends it; its time of change and its source are the store's to set."""
    return bridge_pb2.Variable(
        id=variable.id,
        name=variable.name,
        type=variable.type,
        value=encode_typed(variable.type, variable.value),
        constraints_json=encode_json(dict(variable.constraints)).decode() if variable.constraints else "",
        metadata=variable.metadata,
        version=variable.version,
    )
