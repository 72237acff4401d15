"""`google.protobuf.Any` ↔ plain values, in every form that peers really send."""

from __future__ import annotations

import datetime as dt
import math
from collections.abc import Callable, Mapping
from typing import Any, Final

from google.protobuf import struct_pb2, wrappers_pb2
from google.protobuf.message import DecodeError

from dspex_trio.model.errors import ValueNotDecodable
from dspex_trio.model.variable_types import show
from dspex_trio.wire.generated import any_pb2, duration_pb2, timestamp_pb2
from dspex_trio.wire.jsontext import decode_json, encode_json, special_float

TYPE_URL: Final = "type.googleapis.com/snakepit."
JSON_URL: Final = "type.googleapis.com/snakepit.bridge/json"

_URLS: Final[Mapping[type, str]] = {
    bool: TYPE_URL + "boolean",
    int: TYPE_URL + "integer",
    float: TYPE_URL + "float",
    str: TYPE_URL + "string",
    list: TYPE_URL + "list",
    dict: TYPE_URL + "map",
    bytes: TYPE_URL + "map",  # an object with the one key __bytes__
}


# ---- encoding -------------------------------------------------------------------------------------------------------


def encode_any(value: Any) -> any_pb2.Any:
    """`value` as an Any of type `snakepit.<type>` with JSON bytes; None is an empty one. Never fails."""
    target = any_pb2.Any()
    write_any(target, value)
    return target


def write_any(target: any_pb2.Any, value: Any) -> None:
    """Set an Any in place, which saves building another one."""
    if value is None:
        return
    target.type_url = JSON_URL if type(value) is str and _reads_as_json(value) else _URLS.get(type(value), JSON_URL)
    target.value = encode_json(value)


def encode_typed(kind: str, value: Any) -> any_pb2.Any:
    """`value` under the type that a variable declares; without one, as `encode_any` does."""
    if not kind or value is None:
        return encode_any(value)
    return any_pb2.Any(type_url=TYPE_URL + kind, value=encode_json(value))


def _reads_as_json(text: str) -> bool:
    """Whether the reader of a `snakepit.string` would take the text for a map or list encoded twice."""
    return _unwrapped(text) is not text


# ---- decoding -------------------------------------------------------------------------------------------------------


def decode_any(message: any_pb2.Any, *, unwrap: bool = True) -> Any:
    """The value of an Any.

    Args:
        message: The Any.
        unwrap: Whether a `snakepit.string` that holds the JSON text of a map or list is that map or list, as an old
            peer means it.

    Raises:
        ValueNotDecodable: The type is unknown, or the bytes are not what it says.
    """
    url = message.type_url
    decode = _DECODERS.get(url) or _decoder(url)
    if decode is None:
        if url or message.value:
            raise ValueNotDecodable(_unknown(url))
        return None
    value = decode(message.value)
    if unwrap and type(value) is str and url.endswith(_STRING_ENDINGS):
        return _unwrapped(value)
    return value


def string_form(raw: bytes) -> Any:
    """The value of a StringValue, which peers send in two forms: packed, and as bare JSON text.

    It is packed exactly when it is empty, or is field 1 whose length covers all the rest and whose content is UTF-8.
    Parsing alone would be no test: JSON text can parse as unknown fields.
    """
    if not raw:
        return ""
    if raw[0] == _FIELD_1 and (start := _content_start(raw)) is not None:
        try:
            return raw[start:].decode()
        except UnicodeDecodeError:
            pass
    return decode_json(raw)


_FIELD_1: Final = 0x0A
_MAX_VARINT: Final = 10


def _content_start(raw: bytes) -> int | None:
    """Where a length-delimited field's content begins, when its length covers all the rest."""
    length = shift = 0
    for position in range(1, min(len(raw), 1 + _MAX_VARINT)):
        length |= (raw[position] & 0x7F) << shift
        if raw[position] < 0x80:  # noqa: PLR2004 - the varint's continuation bit
            return position + 1 if position + 1 + length == len(raw) else None
        shift += 7
    return None


_MAY_BEGIN_JSON: Final = frozenset("{[ \t\r\n")


def _unwrapped(text: str) -> Any:
    if text[:1] not in _MAY_BEGIN_JSON or text.lstrip(" \t\r\n")[:1] not in ("{", "["):
        return text
    try:
        return decode_json(text.encode())
    except (ValueNotDecodable, UnicodeEncodeError):
        return text


def _float(raw: bytes) -> Any:
    found = decode_json(raw)
    value = special_float(found)
    if value is None or (type(value) is float and (value is not found or math.isfinite(value))):
        return value
    if type(value) is float:
        raise ValueNotDecodable("a float was announced, and the number is too large for a double")
    if type(value) is not int:
        raise ValueNotDecodable(f"a float was announced, and the value is a JSON {_json_type(value)}")
    try:
        exact = float(value)
    except OverflowError:
        exact = math.inf
    if exact != value:
        raise ValueNotDecodable(f"a float was announced, and a double does not hold {show(value)} exactly")
    return exact


def _integer(raw: bytes) -> Any:
    value = decode_json(raw)
    if type(value) is int or value is None:
        return value
    if type(value) is float and value.is_integer():
        return int(value)
    raise ValueNotDecodable(f"an integer was announced, and the value is a JSON {_json_type(value)}")


def _of(announced: str, *kinds: type) -> Callable[[bytes], Any]:
    def decode(raw: bytes) -> Any:
        value = decode_json(raw)
        if value is None or type(value) in kinds:
            return value
        raise ValueNotDecodable(f"a {announced} was announced, and the value is a JSON {_json_type(value)}")

    return decode


def _numbers(raw: bytes) -> Any:
    """Embeddings and tensors: JSON with the special floats written as strings."""
    return special_floats(decode_json(raw))


def special_floats(value: Any) -> Any:
    """A number, an embedding or a tensor with NaN and infinities for their names."""
    if type(value) is list:
        return [special_floats(item) for item in value]
    if type(value) is dict and "data" in value:
        return {**value, "data": special_floats(value["data"])}
    return special_float(value)


def _json_type(value: Any) -> str:
    names = {bool: "boolean", int: "integer", float: "number", str: "string", list: "array", dict: "object"}
    return names.get(type(value), type(value).__name__)


def _parsed(message_type: Any, read: Callable[[Any], Any]) -> Callable[[bytes], Any]:
    def decode(raw: bytes) -> Any:
        try:
            return read(message_type.FromString(raw))
        except DecodeError:
            raise ValueNotDecodable(f"the bytes are no packed {message_type.DESCRIPTOR.full_name}") from None
        except (ValueError, OverflowError) as error:
            raise ValueNotDecodable(f"the {message_type.DESCRIPTOR.full_name} is out of range: {error}") from None

    return decode


def _parsed_or_json(message_type: Any, read: Callable[[Any], Any]) -> Callable[[bytes], Any]:
    """For messages that are JSON themselves: snakepit's Python side writes bare JSON under their names.

    Parsing alone is no test: JSON text can parse as unknown fields. What is packed comes out again as it went in.
    """
    parse = _parsed(message_type, read)
    name = message_type.DESCRIPTOR.full_name

    def decode(raw: bytes) -> Any:
        if raw[:1] not in _BEGIN_JSON or _is_packed(message_type, raw):
            return parse(raw)
        try:
            return decode_json(raw)
        except ValueNotDecodable as error:
            try:
                return parse(raw)  # packed by somebody who knows more fields, or orders them in another way
            except ValueNotDecodable:
                raise ValueNotDecodable(f"the bytes are no packed {name}, and {error}") from None

    return decode


_BEGIN_JSON: Final = frozenset({bytes([byte]) for byte in b'{["-0123456789tfn'})


def _is_packed(message_type: Any, raw: bytes) -> bool:
    try:
        message = message_type.FromString(raw)
    except DecodeError:
        return False
    message.DiscardUnknownFields()
    packed: bytes = message.SerializeToString()
    return packed == raw


def _wrapped(message: Any) -> Any:
    return message.value


def _struct_value(value: Any) -> Any:
    match value.WhichOneof("kind"):
        case "struct_value":
            return _struct(value.struct_value)
        case "list_value":
            return _struct_list(value.list_value)
        case None | "null_value":
            return None
        case kind:
            return getattr(value, kind)


def _struct(message: Any) -> Any:
    return {key: _struct_value(value) for key, value in message.fields.items()}


def _struct_list(message: Any) -> Any:
    return [_struct_value(value) for value in message.values]


_EPOCH: Final = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)


def _duration(message: Any) -> dt.timedelta:
    return dt.timedelta(seconds=message.seconds, microseconds=int(message.nanos / 1000))


def _timestamp(message: Any) -> dt.datetime:
    return _EPOCH + _duration(message)


_STRING_ENDINGS: Final = ("snakepit.string", "dspex.variables/string")

_TYPED: Final[Mapping[str, Callable[[bytes], Any]]] = {
    "float": _float,
    "integer": _integer,
    "string": _of("string", str, list, dict),  # an old peer's maps and lists
    "boolean": _of("boolean", bool),
    "choice": _of("choice", str, int, float, bool),
    "module": _of("module", str),
    "embedding": _numbers,
    "tensor": _numbers,
    "map": _of("map", dict, bytes),
    "list": _of("list", list),
}
_FORMS: Final[Mapping[str, Callable[[bytes], Any]]] = {
    **{f"snakepit.{kind}": decode for kind, decode in _TYPED.items()},
    **{f"dspex.variables/{kind}": decode for kind, decode in _TYPED.items()},
    "snakepit.bridge/json": decode_json,
    "google.protobuf.StringValue": string_form,
    **{
        f"google.protobuf.{name}": _parsed(getattr(wrappers_pb2, name), _wrapped)
        for name in (
            "BoolValue",
            "Int32Value",
            "Int64Value",
            "UInt32Value",
            "UInt64Value",
            "FloatValue",
            "DoubleValue",
            "BytesValue",
        )
    },
    "google.protobuf.Struct": _parsed_or_json(struct_pb2.Struct, _struct),
    "google.protobuf.Value": _parsed_or_json(struct_pb2.Value, _struct_value),
    "google.protobuf.ListValue": _parsed_or_json(struct_pb2.ListValue, _struct_list),
    "google.protobuf.Duration": _parsed(duration_pb2.Duration, _duration),
    "google.protobuf.Timestamp": _parsed(timestamp_pb2.Timestamp, _timestamp),
    "google.protobuf.Empty": lambda _raw: None,
}
# The address in front of a type's name is free; the usual one is looked up at once.
_DECODERS: Final = {f"type.googleapis.com/{name}": decode for name, decode in _FORMS.items()} | dict(_FORMS)


def _decoder(url: str) -> Callable[[bytes], Any] | None:
    """The decoder for a URL that ends in a known name, after a slash."""
    parts = url.split("/")
    for count in (1, 2):
        if (decode := _FORMS.get("/".join(parts[-count:]))) is not None:
            return decode
    return None


def _unknown(url: str) -> str:
    if not url:
        return "there are bytes, but no type_url that says what they are"
    return (
        f"the type {url[:200]!r} is unknown; known are snakepit.<type>, dspex.variables/<type>, snakepit.bridge/json, "
        f"and google.protobuf's wrappers, Struct, Value, ListValue, Duration, Timestamp and Empty"
    )
