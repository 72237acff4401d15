"""Inputs made wrong: each mutation is a pure function of a random number generator and of valid inputs."""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Sequence
from typing import Final

Mutation = Callable[[random.Random, bytes, Sequence[bytes]], bytes]

MAX_BYTES: Final = 1 << 20
_MOST_MUTATIONS: Final = 4
_SMALL: Final = 64

# What stands in JSON between strings, and what is put in its place.
_TOKEN: Final = re.compile(rb'"(?:[^"\\]|\\.)*"|-?[0-9][0-9.eE+-]*|true|false|null|[\[\]{},:]')
_TOKENS: Final = (
    b"null",
    b"true",
    b"0",
    b"-0",
    b"-0.0",
    b"1e999",
    b"-1e-999",
    b"1E5",
    b"NaN",
    b"Infinity",
    b'"NaN"',
    b'"-Infinity"',
    b"2147483648",
    b"-9223372036854775809",
    b"18446744073709551616",
    b"1" + b"0" * 5000,
    b"[]",
    b"{}",
    b"[[1],[2,3]]",
    b'""',
    b'"\\ud800"',
    b'"\\u0000"',
    b'"[1]"',
    b'"{\\"a\\":1}"',
    b'{"__bytes__":"AP8="}',
    b'{"__bytes__":3}',
    b'{"__ffi_unserializable__":true,"__type__":"x"}',
    b'{"$type":"dspy.Image","url":"x"}',
    b'{"shape":[2,2],"data":[1,2,3,4]}',
    b'{"shape":[1000000000,0],"data":[]}',
    b'{"binary_format":"pickle"}',
    b'{"binary_format":"raw","dtype":"float32","shape":[1]}',
    b'{"tool":"x"}',
    b'{"elixir_tool":"x"}',
    b"[",
    b"{",
    b"]",
    b"}",
    b",",
    b":",
    b'"',
)
_NAMES: Final = (
    b"type.googleapis.com/google.protobuf.StringValue",
    b"type.googleapis.com/google.protobuf.Value",
    b"type.googleapis.com/google.protobuf.Struct",
    b"type.googleapis.com/google.protobuf.BytesValue",
    b"type.googleapis.com/google.protobuf.Timestamp",
    b"type.googleapis.com/google.protobuf.Duration",
    b"type.googleapis.com/snakepit.float",
    b"type.googleapis.com/snakepit.integer",
    b"type.googleapis.com/snakepit.string",
    b"type.googleapis.com/snakepit.tensor",
    b"type.googleapis.com/snakepit.tensor.binary",
    b"type.googleapis.com/snakepit.map",
    b"dspex.variables/embedding",
    b"snakepit.bridge/json",
    b"/",
    b"",
)
_URL: Final = re.compile(rb"[a-z.]*(?:snakepit|google|dspex)\.[A-Za-z./]+")


def mutated(rng: random.Random, raw: bytes, seeds: Sequence[bytes]) -> bytes:
    """A valid input, changed a few times; one in sixteen is left as it is."""
    if rng.random() < 1 / 16:
        return raw
    for _ in range(rng.randint(1, _MOST_MUTATIONS)):
        raw = rng.choice(_MUTATIONS)(rng, raw, seeds)[:MAX_BYTES]
    return raw


def _flip(rng: random.Random, raw: bytes, _seeds: Sequence[bytes]) -> bytes:
    changed = bytearray(raw or b"\0")
    for _ in range(rng.randint(1, 8)):
        changed[rng.randrange(len(changed))] ^= 1 << rng.randrange(8)
    return bytes(changed)


def _truncate(rng: random.Random, raw: bytes, _seeds: Sequence[bytes]) -> bytes:
    return raw[: rng.randrange(len(raw) + 1)]


def _remove(rng: random.Random, raw: bytes, _seeds: Sequence[bytes]) -> bytes:
    at = rng.randrange(len(raw) + 1)
    return raw[:at] + raw[at + rng.randint(1, _SMALL) :]


def _insert(rng: random.Random, raw: bytes, _seeds: Sequence[bytes]) -> bytes:
    at = rng.randrange(len(raw) + 1)
    return raw[:at] + rng.randbytes(rng.randint(1, 8)) + raw[at:]


def _repeat(rng: random.Random, raw: bytes, _seeds: Sequence[bytes]) -> bytes:
    """A part again and again: long lists, deep nests."""
    at = rng.randrange(len(raw) + 1)
    return raw[:at] + raw[at : at + rng.randint(1, _SMALL)] * rng.choice((2, 10, 150, 2000)) + raw[at:]


def _splice(rng: random.Random, raw: bytes, seeds: Sequence[bytes]) -> bytes:
    other = rng.choice(seeds)
    return raw[: rng.randrange(len(raw) + 1)] + other[rng.randrange(len(other) + 1) :]


def _token(rng: random.Random, raw: bytes, _seeds: Sequence[bytes]) -> bytes:
    """Another JSON token in the place of one."""
    found = list(_TOKEN.finditer(raw))
    if not found:
        return raw + rng.choice(_TOKENS)
    at = rng.choice(found)
    return raw[: at.start()] + rng.choice(_TOKENS) + raw[at.end() :]


def _nest(rng: random.Random, raw: bytes, _seeds: Sequence[bytes]) -> bytes:
    """A JSON token inside of many lists or objects."""
    found = list(_TOKEN.finditer(raw))
    if not found:
        return raw
    at, depth = rng.choice(found), rng.choice((1, 2, 3, 50, 98, 99, 100, 101, 1000, rng.choice((1000, 100_000))))
    opened, closed = rng.choice(((b"[", b"]"), (b'{"a":', b"}")))
    return raw[: at.start()] + opened * depth + at.group() + closed * depth + raw[at.end() :]


def _name(rng: random.Random, raw: bytes, _seeds: Sequence[bytes]) -> bytes:
    """Another type in the place of one. In a message the length before it is then wrong, unless it is set right."""
    found = list(_URL.finditer(raw))
    if not found:
        return raw
    at, name = rng.choice(found), rng.choice(_NAMES)
    before = raw[: at.start()]
    if before and before[-1] == at.end() - at.start():
        before = before[:-1] + bytes([len(name)])
    return before + name + raw[at.end() :]


def _field(rng: random.Random, raw: bytes, _seeds: Sequence[bytes]) -> bytes:
    """One of a message's top fields removed, repeated, or under another number or kind."""
    fields = _fields(raw)
    if not fields:
        return raw
    at = rng.randrange(len(fields))
    match rng.randrange(4):
        case 0:
            del fields[at]
        case 1:
            fields[at:at] = [fields[at]] * rng.choice((1, 3, 1100))
        case 2:
            fields[at] = bytes([fields[at][0] ^ (1 << rng.randrange(7))]) + fields[at][1:]
        case _:
            fields.insert(rng.randrange(len(fields)), fields.pop(at))
    return b"".join(fields)


def _inner(rng: random.Random, raw: bytes, seeds: Sequence[bytes]) -> bytes:
    """A mutation inside of one of a message's fields, with the lengths around it set right."""
    fields = _fields(raw)
    long = [at for at, field in enumerate(fields) if field[0] & 7 == _LEN]
    if not long:
        return raw
    at = rng.choice(long)
    _, start = _varint(fields[at], 1)
    content = rng.choice(_MUTATIONS)(rng, fields[at][start:], seeds)
    fields[at] = fields[at][:1] + _encoded(len(content)) + content
    return b"".join(fields)


_LEN: Final = 2
_FIXED: Final = {1: 8, 5: 4}


def _fields(raw: bytes) -> list[bytes]:
    """The top fields of a message with one-byte tags; none if it is no such message."""
    fields, at = [], 0
    while at < len(raw):
        kind, start = raw[at] & 7, at
        length, after = _varint(raw, at + 1)
        at = after + length if kind == _LEN else after if kind == 0 else at + 1 + _FIXED.get(kind, len(raw))
        if at > len(raw):
            return []
        fields.append(raw[start:at])
    return fields


def _varint(raw: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while at < len(raw):
        value |= (raw[at] & 0x7F) << shift
        shift += 7
        at += 1
        if raw[at - 1] < 0x80:  # noqa: PLR2004 - the continuation bit
            break
    return value, at


def _encoded(value: int) -> bytes:
    out = bytearray()
    while value >= 0x80:  # noqa: PLR2004 - as above
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*out, value])


_MUTATIONS: Final[tuple[Mutation, ...]] = (
    _flip,
    _truncate,
    _remove,
    _insert,
    _repeat,
    _splice,
    _token,
    _token,
    _token,
    _nest,
    _name,
    _field,
    _field,
    _inner,
    _inner,
    _inner,
)
