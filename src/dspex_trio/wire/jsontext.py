"""JSON text ↔ plain values: integers exact at any size, NaN and infinities as strings, bytes as base64."""

from __future__ import annotations

import base64
import binascii
import json
import math
from json.encoder import encode_basestring
from typing import Any, Final

import orjson

from dspex_trio.model.errors import ValueNotDecodable
from dspex_trio.model.values import MARKER, MAX_DEPTH, plain

BYTES_KEY: Final = "__bytes__"
"""The one key of the object that stands for bytes; its value is base64."""

MAX_DIGITS: Final = 100_000
"""Digits that the long integers of one JSON text may have in total; beyond, writing them would take seconds."""

# Below Python's own limit (int_max_str_digits), which is not ours to change: the process is the embedder's too.
_CHUNK: Final = 512
_LONG: Final = 4_300  # digits; what Python's own limit is by default, and what costs nothing worth counting
_TEN_TO_CHUNK: Final = 10**_CHUNK

_NAN, _INFINITY, _MINUS_INFINITY = "NaN", "Infinity", "-Infinity"
_SPECIAL: Final = {_NAN: math.nan, _INFINITY: math.inf, _MINUS_INFINITY: -math.inf}

# For what others would be guessed at.
_STRICT: Final = orjson.OPT_PASSTHROUGH_SUBCLASS | orjson.OPT_PASSTHROUGH_DATETIME | orjson.OPT_PASSTHROUGH_DATACLASS
_encode_fast: Final = json.JSONEncoder(ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode
_MARKED_INTEGER: Final = _encode_fast({MARKER: True, "__type__": "int"})


def encode_json(value: Any) -> bytes:
    """`value` as JSON text in UTF-8; what has no JSON form is made plain first, so this never fails.

    Integers beyond MAX_DIGITS, which no reader of ours would take, become markers. Lone surrogates, which UTF-8 cannot
    carry, become U+FFFD.
    """
    try:
        text = _encode_fast(value)
    except (ValueError, TypeError, RecursionError):  # NaN, an endless integer, bytes, an object, a cycle
        text = "".join(_Pieces().of(plain(value)))
    return utf8(text)


def encode_jsonable(value: Any) -> bytes:
    """What `jsonable` has made of a value, as JSON text in UTF-8: as `encode_json`, in a tenth of its time.

    Raises:
        TypeError: It holds what only `encode_json` can write: a lone surrogate, or an integer of more than 64 bits.
    """
    return orjson.dumps(value, option=_STRICT)


def utf8(text: str) -> bytes:
    """`text` in UTF-8, with U+FFFD for what UTF-8 cannot carry."""
    try:
        return text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace").encode()


def text_of(text: str) -> str:
    """Text that protobuf takes: lone surrogates (undecodable file names, cut replies) become U+FFFD."""
    return text if text.isascii() else utf8(text).decode()


def jsonable(value: Any) -> Any:
    """`value` with nothing in it that JSON cannot say: bytes and special floats as they are written on the wire."""
    match value:
        case float() if not math.isfinite(value):
            return _special(value)
        case bytes():
            return {BYTES_KEY: base64.b64encode(value).decode("ascii")}
        case list():
            return [jsonable(item) for item in value]
        case dict():
            return {key: jsonable(item) for key, item in value.items()}
        case None | bool() | int() | float() | str():
            return value
        case _:
            return jsonable(plain(value))


def decode_json(raw: bytes) -> Any:
    """The value of JSON text in UTF-8.

    Raises:
        ValueNotDecodable: It is no JSON (RFC 8259: a bare NaN is none), nests deeper than 100 levels, or holds integers
            of more than a hundred thousand digits.
    """
    try:
        text = raw.decode()
    except UnicodeDecodeError as error:
        raise ValueNotDecodable(f"the text is no UTF-8: {error.reason} at byte {error.start}") from None
    try:
        value = _loads(text)
    except RecursionError:
        raise ValueNotDecodable(f"the JSON text nests deeper than {MAX_DEPTH} levels") from None
    except json.JSONDecodeError as error:
        raise ValueNotDecodable(f"the text is no JSON: {error.msg} at character {error.pos}") from None
    if text.count("[") + text.count("{") > MAX_DEPTH:
        _check_depth(value)
    return value


def read_json(text: str | bytes) -> Any:
    """The value of JSON text as Python's `json` reads it, with integers of any size: of what our own files hold.

    Raises:
        ValueError: It is no JSON, or holds integers of more than a hundred thousand digits.
        RecursionError: It nests too deep.
    """
    try:
        return json.loads(text)
    except (json.JSONDecodeError, UnicodeDecodeError):
        raise
    except ValueError:  # an integer longer than Python converts by itself
        return json.loads(text, parse_int=_LongIntegers())


def json_text(value: Any, *, indent: int | None = None) -> str:
    """`value` as JSON text for people, with integers of any size; a text that holds a long one is not indented."""
    try:
        return json.dumps(value, ensure_ascii=False, indent=indent)
    except (ValueError, TypeError, RecursionError):  # an integer longer than Python writes by itself; bytes
        return encode_json(value).decode()


def special_float(value: Any) -> Any:
    """NaN or an infinity for its name; any other value as it is."""
    return _SPECIAL.get(value, value) if type(value) is str else value


def _loads(text: str) -> Any:
    decode = _decode_with_bytes if BYTES_KEY in text else _decode_fast
    try:
        return decode(text)
    except (json.JSONDecodeError, ValueNotDecodable):
        raise
    except ValueError:  # an integer longer than Python converts by itself
        return json.loads(text, object_hook=_bytes_or_object, parse_constant=_no_constant, parse_int=_LongIntegers())


def _no_constant(name: str) -> Any:
    raise ValueNotDecodable(f"the text is no JSON: {name} is no JSON value (write it as a string)")


def _bytes_or_object(found: dict[str, Any]) -> Any:
    encoded = found.get(BYTES_KEY)
    if len(found) != 1 or not isinstance(encoded, str):
        return found
    try:
        return base64.b64decode(encoded, validate=True)
    except (binascii.Error, ValueError):
        return found  # somebody's own object


_decode_fast: Final = json.JSONDecoder(parse_constant=_no_constant).decode
_decode_with_bytes: Final = json.JSONDecoder(parse_constant=_no_constant, object_hook=_bytes_or_object).decode


def _check_depth(value: Any) -> None:
    level = [value]
    for _ in range(MAX_DEPTH + 1):
        containers = [item for item in level if isinstance(item, (list, dict))]
        if not containers:
            return
        level = [inner for item in containers for inner in (item.values() if isinstance(item, dict) else item)]
    raise ValueNotDecodable(f"the JSON text nests deeper than {MAX_DEPTH} levels")


class _LongIntegers:
    """Converts integers of any length, within a budget for one text."""

    def __init__(self) -> None:
        self._left = MAX_DIGITS

    def __call__(self, digits: str) -> int:
        if len(digits) <= _CHUNK:
            return int(digits)
        negative = digits[0] == "-"
        if (length := len(digits) - negative) > _LONG:
            self._left -= length
        if self._left < 0:
            raise ValueNotDecodable(f"the JSON text holds integers of more than {MAX_DIGITS} digits")
        return -_to_int(digits[1:]) if negative else _to_int(digits)


def _to_int(digits: str) -> int:
    """Divide and conquer: subquadratic where `int(text)` is quadratic."""
    if len(digits) <= _CHUNK:
        return int(digits)
    low = _CHUNK
    while low * 2 < len(digits):
        low *= 2
    return _to_int(digits[:-low]) * _power_of_ten(low) + _to_int(digits[-low:])


def _to_digits(value: int) -> str:
    if value < _TEN_TO_CHUNK:
        return str(value)
    low = _CHUNK
    while _power_of_ten(low * 2) <= value:
        low *= 2
    high, rest = divmod(value, _power_of_ten(low))
    return _to_digits(high) + _to_digits(rest).zfill(low)


_POWERS: Final = {_CHUNK: _TEN_TO_CHUNK}
_MAX_POWERS: Final = 9  # up to a hundred thousand digits


def _power_of_ten(exponent: int) -> int:
    if (power := _POWERS.get(exponent)) is None:
        half = _power_of_ten(exponent // 2)
        power = half * half
        if len(_POWERS) < _MAX_POWERS:
            _POWERS[exponent] = power
    return power


def _special(value: float) -> str:
    return _NAN if math.isnan(value) else _INFINITY if value > 0 else _MINUS_INFINITY


class _Pieces:
    """The JSON text of plain values that the standard encoder does not take, within a budget for long integers."""

    def __init__(self) -> None:
        self._left = MAX_DIGITS

    def of(self, value: Any) -> list[str]:
        match value:
            case int() if type(value) is int:
                return self._integer(value)
            case float() if not math.isfinite(value):
                return [f'"{_special(value)}"']
            case bytes():
                return [f'{{"{BYTES_KEY}":"{base64.b64encode(value).decode("ascii")}"}}']
            case list():
                inner = [piece for item in value for piece in (",", *self.of(item))]
                return ["[", *inner[1:], "]"]
            case dict():
                inner = [piece for k, v in value.items() for piece in (",", encode_basestring(k), ":", *self.of(v))]
                return ["{", *inner[1:], "}"]
            case _:
                return [_encode_fast(value)]

    def _integer(self, value: int) -> list[str]:
        """The digits, counted as `_LongIntegers` counts them: what is written here can be read there."""
        if value.bit_length() > round((max(self._left, _LONG) + 1) * math.log2(10)):
            return [_MARKED_INTEGER]  # before the work of writing it
        digits = _to_digits(abs(value))
        if len(digits) > _LONG:
            if len(digits) > self._left:
                return [_MARKED_INTEGER]
            self._left -= len(digits)
        return ["-", digits] if value < 0 else [digits]
