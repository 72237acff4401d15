import contextlib
import datetime as dt
import json
import math

import pytest
from google.protobuf import duration_pb2, struct_pb2, timestamp_pb2, wrappers_pb2
from hypothesis import given
from hypothesis import strategies as st

from dspex_trio.model.errors import ValueNotDecodable
from dspex_trio.model.variable_types import TYPES
from dspex_trio.wire import decode_any, encode_any, encode_typed
from dspex_trio.wire.anys import _DECODERS
from dspex_trio.wire.generated.any_pb2 import Any

from .strategies import any_floats, plain_values, same

GOOGLE = "type.googleapis.com/google.protobuf."
STRING = GOOGLE + "StringValue"


def any_of(url, raw):
    return Any(type_url=url, value=raw)


def packed(message):
    return Any(type_url=f"type.googleapis.com/{message.DESCRIPTOR.full_name}", value=message.SerializeToString())


STRUCT = struct_pb2.Struct()
STRUCT.update({"a": [1, "x", None, True, {"b": 2.5}]})

RECORDED = [
    # What stores and pools of both generations really send.
    (any_of(STRING, b'"hello"'), "hello"),
    (any_of(STRING, b"42"), 42),
    (any_of(STRING, b'{"a":[1,2.5,null]}'), {"a": [1, 2.5, None]}),
    (any_of(STRING, b"null"), None),
    (any_of(STRING, b""), ""),
    (any_of(STRING, b"\x0a\x05hello"), "hello"),
    (any_of(STRING, b"\x0a\x00"), ""),
    (any_of(STRING, b"\x0a\x07\x22hello\x22"), '"hello"'),
    (any_of(STRING, b"\n{}"), {}),
    (any_of(STRING, b"\n\n\t[1]"), [1]),
    (any_of(GOOGLE + "BoolValue", b"\x08\x01"), True),
    (any_of(GOOGLE + "BoolValue", b""), False),
    (packed(wrappers_pb2.Int32Value(value=-5)), -5),
    (packed(wrappers_pb2.Int64Value(value=2**62)), 2**62),
    (packed(wrappers_pb2.UInt32Value(value=2**32 - 1)), 2**32 - 1),
    (packed(wrappers_pb2.UInt64Value(value=2**64 - 1)), 2**64 - 1),
    (packed(wrappers_pb2.DoubleValue(value=0.1)), 0.1),
    (packed(wrappers_pb2.FloatValue(value=0.5)), 0.5),
    (packed(wrappers_pb2.BytesValue(value=b"\x00\xff")), b"\x00\xff"),
    (packed(STRUCT), {"a": [1.0, "x", None, True, {"b": 2.5}]}),
    (packed(STRUCT["a"]), [1.0, "x", None, True, {"b": 2.5}]),
    (packed(struct_pb2.Value(string_value="x")), "x"),
    (packed(struct_pb2.Value()), None),
    (packed(duration_pb2.Duration(seconds=-1, nanos=-500_000_000)), dt.timedelta(seconds=-1.5)),
    (packed(timestamp_pb2.Timestamp(seconds=86_400)), dt.datetime(1970, 1, 2, tzinfo=dt.UTC)),
    # A microsecond that has not passed does not count, as in protobuf's own conversions.
    (packed(timestamp_pb2.Timestamp(nanos=999_999_999)), dt.datetime(1970, 1, 1, 0, 0, 0, 999_999, tzinfo=dt.UTC)),
    (packed(duration_pb2.Duration(nanos=-1_999)), dt.timedelta(microseconds=-1)),
    (any_of(GOOGLE + "Empty", b""), None),
    (Any(), None),
    (any_of("type.googleapis.com/snakepit.float", b"0.7"), 0.7),
    (any_of("type.googleapis.com/snakepit.float", b"1"), 1.0),
    (any_of("type.googleapis.com/snakepit.float", b"9007199254740992"), 2.0**53),
    (any_of("type.googleapis.com/snakepit.float", b'"NaN"'), math.nan),
    (any_of("type.googleapis.com/snakepit.float", b'"-Infinity"'), -math.inf),
    (any_of("type.googleapis.com/snakepit.integer", b"12345678901234567890123"), 12345678901234567890123),
    (any_of("type.googleapis.com/snakepit.integer", b"3.0"), 3),
    (any_of("type.googleapis.com/snakepit.string", b'"NaN"'), "NaN"),
    (any_of("type.googleapis.com/snakepit.string", b'"42"'), "42"),
    (any_of("type.googleapis.com/snakepit.string", b'"{\\"a\\": 1}"'), {"a": 1}),
    (any_of("type.googleapis.com/snakepit.string", b'"[\\"a\\"]"'), ["a"]),
    (any_of("type.googleapis.com/snakepit.string", b'"{a: 1}"'), "{a: 1}"),
    (any_of("type.googleapis.com/snakepit.string", b'{"a": 1}'), {"a": 1}),
    (any_of("type.googleapis.com/snakepit.choice", b'"{\\"a\\": 1}"'), '{"a": 1}'),
    (any_of("type.googleapis.com/snakepit.boolean", b"true"), True),
    (any_of("type.googleapis.com/snakepit.choice", b'"fast"'), "fast"),
    (any_of("type.googleapis.com/snakepit.module", b'"dspy.Predict"'), "dspy.Predict"),
    (any_of("type.googleapis.com/snakepit.embedding", b'[0.1, 2, "NaN"]'), [0.1, 2, math.nan]),
    (
        any_of("type.googleapis.com/snakepit.tensor", b'{"shape": [1, 2], "data": [["Infinity", 1]]}'),
        {"shape": [1, 2], "data": [[math.inf, 1]]},
    ),
    (any_of("type.googleapis.com/snakepit.map", b'{"a": "NaN"}'), {"a": "NaN"}),
    (any_of("type.googleapis.com/snakepit.list", b'[1, "2"]'), [1, "2"]),
    (any_of("type.googleapis.com/snakepit.integer", b"null"), None),
    (any_of("dspex.variables/float", b'"Infinity"'), math.inf),
    (any_of("dspex.variables/string", b'"\\u00e9"'), "é"),
    (any_of("dspex.variables/map", b"{}"), {}),
    (any_of("snakepit.bridge/json", b'"[1]"'), "[1]"),
    (any_of("type.googleapis.com/snakepit.bridge/json", b"[1]"), [1]),
    (any_of("snakepit.list", b"[]"), []),
    (any_of("https://elsewhere.example/types/snakepit.integer", b"1"), 1),
]


@pytest.mark.parametrize(("message", "value"), RECORDED, ids=lambda part: str(part)[:60])
def test_every_form_that_peers_send_is_read(message, value):
    assert same(decode_any(message), value)


@pytest.mark.parametrize(
    ("message", "text"),
    [
        (any_of("type.googleapis.com/foo.Bar", b""), "'type.googleapis.com/foo.Bar' is unknown"),
        (any_of("type.googleapis.com/evilsnakepit.float", b"1"), "is unknown"),
        (any_of("type.googleapis.com/snakepit.pickle", b"1"), "is unknown"),
        (any_of("", b"1"), "no type_url"),
        (any_of(STRING, b"hello"), "no JSON"),
        (any_of(STRING, b"\x0a\x05hell"), "no JSON"),
        (any_of(STRING, b"\x0a\x02\xff\xfe"), "no UTF-8"),
        (any_of(STRING, b"\x0a" + b"\xff" * 20), "no UTF-8"),
        (any_of(STRING, b"NaN"), "NaN is no JSON value"),
        (any_of(GOOGLE + "Int64Value", b"\xff"), "no packed google.protobuf.Int64Value"),
        (any_of(GOOGLE + "Timestamp", b"\x08\xff\xff\xff\xff\xff\xff\xff\xff\x7f"), "out of range"),
        (any_of("type.googleapis.com/snakepit.integer", b"1.5"), "an integer was announced"),
        (any_of("type.googleapis.com/snakepit.integer", b"true"), "JSON boolean"),
        (any_of("type.googleapis.com/snakepit.float", b'"0.7"'), "JSON string"),
        (any_of("type.googleapis.com/snakepit.float", b"1" + b"0" * 400), "does not hold an integer of 1329 bits"),
        (any_of("type.googleapis.com/snakepit.float", b"9007199254740993"), "does not hold 9007199254740993 exactly"),
        (any_of("type.googleapis.com/snakepit.float", b"1e400"), "too large for a double"),
        (any_of("type.googleapis.com/snakepit.boolean", b"1"), "JSON integer"),
        (any_of("type.googleapis.com/snakepit.string", b"5"), "JSON integer"),
        (any_of("type.googleapis.com/snakepit.map", b"[]"), "JSON array"),
        (any_of("type.googleapis.com/snakepit.float", b""), "no JSON"),
    ],
    ids=lambda part: str(part)[:60],
)
def test_what_means_nothing_is_refused_and_the_text_says_why(message, text):
    with pytest.raises(ValueNotDecodable, match=text):
        decode_any(message)


@given(st.text(max_size=40))
def test_a_packed_string_is_never_taken_for_json_nor_json_for_a_packed_string(text):
    """Snakepit sends JSON where the type says a packed message; both must survive whatever the string is."""
    text = text.encode("utf-8", "replace").decode()
    assert decode_any(packed(wrappers_pb2.StringValue(value=text))) == text
    assert decode_any(any_of(STRING, json.dumps(text).encode())) == text
    assert decode_any(any_of(STRING, json.dumps(text, ensure_ascii=False).encode())) == text


@given(plain_values)
def test_what_we_send_is_read_back_as_it_was(value):
    assert same(decode_any(encode_any(value)), value)


@pytest.mark.parametrize("text", ['{"a": 1}', "[1]", ' [{"x": null}]', "{}", '{"a"', "[", "[1] and more"])
def test_text_that_looks_like_json_stays_text(text):
    """A prompt's context is often JSON; an old peer's doubled JSON must not make objects of it."""
    assert decode_any(encode_any(text)) == text


@given(any_floats)
def test_floats_keep_every_bit_including_the_special_ones(value):
    assert same(decode_any(encode_any(value)), value)


@pytest.mark.parametrize(
    ("value", "kind"),
    [(True, "boolean"), (1, "integer"), (1.0, "float"), ("a", "string"), ([], "list"), ({}, "map"), (b"", "map")],
)
def test_values_are_sent_under_the_type_that_elixir_peers_know(value, kind):
    """A bool is an int to Python; it must not be sent as one."""
    assert encode_any(value).type_url == f"type.googleapis.com/snakepit.{kind}"
    json.loads(encode_any(value).value)


def test_nothing_is_an_empty_any():
    assert encode_any(None) == Any()
    assert encode_typed("float", None) == Any()


@pytest.mark.parametrize("kind", TYPES)
def test_a_declared_type_is_the_type_that_travels(kind):
    assert encode_typed(kind, "x").type_url == f"type.googleapis.com/snakepit.{kind}"


@given(st.sampled_from(sorted(_DECODERS)) | st.text(max_size=30), st.binary(max_size=80))
def test_no_bytes_under_any_type_raise_anything_else(url, raw):
    with contextlib.suppress(ValueNotDecodable):
        decode_any(any_of(url.encode("utf-8", "replace").decode(), raw))
