import contextlib
import json
import math
from json.encoder import encode_basestring

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dspex_trio.model.errors import ValueNotDecodable
from dspex_trio.model.values import MAX_DEPTH
from dspex_trio.wire.jsontext import (
    MAX_DIGITS,
    decode_json,
    encode_json,
    encode_jsonable,
    json_text,
    jsonable,
    read_json,
)

from .strategies import plain_values, same


@given(plain_values)
def test_every_plain_value_comes_back_as_it_was(value):
    assert same(decode_json(encode_json(value)), value)


@given(st.binary(max_size=200))
def test_any_bytes_decode_or_raise_the_one_error(raw):
    with contextlib.suppress(ValueNotDecodable):
        decode_json(raw)


@pytest.mark.parametrize("exponent", [17, 511, 512, 513, 1024, 4299, 4300, 4301, 5000, 20_000])
@pytest.mark.parametrize("sign", [1, -1])
def test_integers_are_exact_at_any_size(exponent, sign):
    """Python itself refuses to convert more than 4,300 digits, and floats would round from 16 on."""
    for value in (sign * 10**exponent, sign * (10**exponent - 1), sign * (10**exponent + 7)):
        raw = encode_json({"n": [value]})
        assert decode_json(raw) == {"n": [value]}


def test_long_integers_are_written_digit_by_digit_like_python_writes_short_ones():
    value = int("123456789" * 400)
    assert encode_json(value) == b"123456789" * 400


def test_absurdly_long_integers_are_refused_instead_of_stalling_the_loop():
    with pytest.raises(ValueNotDecodable, match="integers of more than 100000 digits"):
        decode_json(b"[" + b",".join([b"9" * (MAX_DIGITS // 2)] * 3) + b"]")


def test_absurdly_long_integers_are_marked_instead_of_stalling_the_loop():
    """Writing a million digits takes ten seconds."""
    value = [1 << 10**7, 10**5000, -(10**90_000), 7**90_000]
    assert decode_json(encode_json(value)) == [MARKED, 10**5000, -(10**90_000), MARKED]


def test_only_integers_that_python_itself_would_refuse_count_as_long():
    value = [10**4000] * 100 + [10**6000]
    assert decode_json(encode_json(value)) == value


MARKED = {"__ffi_unserializable__": True, "__type__": "int"}


def test_special_floats_are_strings_at_any_depth():
    raw = encode_json({"a": [math.nan, math.inf, {"b": -math.inf}], "c": 1.5})
    assert json.loads(raw) == {"a": ["NaN", "Infinity", {"b": "-Infinity"}], "c": 1.5}


def test_bytes_are_base64_under_one_key():
    assert json.loads(encode_json({"x": b"\x00\xff"})) == {"x": {"__bytes__": "AP8="}}


@pytest.mark.parametrize(
    "raw", [b'{"__bytes__": "not base64!"}', b'{"__bytes__": 3}', b'{"__bytes__": "AP8=", "a": 1}']
)
def test_an_object_that_only_resembles_bytes_stays_what_it_is(raw):
    assert decode_json(raw) == json.loads(raw)


@pytest.mark.parametrize("raw", [b"NaN", b"[Infinity]", b"-Infinity"])
def test_bare_special_floats_are_no_json(raw):
    with pytest.raises(ValueNotDecodable, match="is no JSON value"):
        decode_json(raw)


def test_nesting_is_limited_whether_or_not_the_parser_survives_it():
    deep = b"[" * MAX_DEPTH + b"]" * MAX_DEPTH
    assert decode_json(deep) is not None
    for levels in (MAX_DEPTH + 1, 100_000):
        with pytest.raises(ValueNotDecodable, match="nests deeper"):
            decode_json(b"[" * levels + b"]" * levels)


def test_many_shallow_containers_are_not_deep():
    assert len(decode_json(b"[" + b",".join([b"[]"] * 500) + b"]")) == 500


def test_text_that_utf8_cannot_carry_is_replaced_and_does_not_fail():
    assert encode_json("a\ud800b") == '"a\ufffdb"'.encode()
    assert decode_json(encode_json({"\udfff": "\ud83d\ude00"})) == {"\ufffd": "\U0001f600"}


def test_what_has_no_json_form_is_made_plain():
    assert json.loads(encode_json({"o": object(), "s": {2, 1}})) == {
        "o": {"__ffi_unserializable__": True, "__type__": "object"},
        "s": [1, 2],
    }


@given(plain_values)
def test_jsonable_says_with_json_types_what_the_text_says(value):
    assert decode_json(encode_json(jsonable(value))) == decode_json(encode_json(value))
    json.dumps(jsonable(value), allow_nan=False)


@given(plain_values)
def test_what_jsonable_makes_is_written_faster_and_means_the_same(value):
    with contextlib.suppress(TypeError):
        assert decode_json(encode_jsonable(jsonable(value))) == decode_json(encode_json(value))


@pytest.mark.parametrize(
    "value",
    ["\ud800", {"\udfff": 1}, [2**64], {1: 2}, b"x", [object()]],
    ids=["surrogate", "key", "long", "number", "bytes", "object"],
)
def test_what_only_the_slower_way_can_write_is_refused(value):
    with pytest.raises(TypeError):
        encode_jsonable(value)


def test_nothing_is_escaped_that_need_not_be():
    """Who looks for something in JSON text relies on it."""
    text = "".join(map(chr, range(0x300))) + "\u2028\U0001f600"
    assert encode_jsonable(text) == encode_json(text) == f'"{encode_basestring(text)[1:-1]}"'.encode()


@pytest.mark.parametrize(
    "value",
    [
        [-(10**4299)] * 100,  # 4,300 digits and a sign, each of which Python itself writes
        [10**100_000 - 1],
        [-(10**99_999)],
        [10**4300] * 30,
        10**100_000,
    ],
    ids=["a sign is no digit", "the most", "the most, negative", "more than all", "one digit more"],
)
def test_what_is_written_of_long_integers_is_read_again_up_to_the_last_digit(value):
    """A file of results with one line that cannot be read is of no use at all."""
    raw = encode_json(value)
    for read in (decode_json, read_json):
        found = read(raw)
        assert encode_json(found) == raw
        if b"__type__" not in raw:
            assert found == value


def test_long_integers_beside_what_only_our_own_files_hold_are_read():
    assert read_json('{"a": NaN, "b": {"__bytes__": "YQ=="}, "c": 1' + "0" * 5000 + "}")["c"] == 10**5000
    assert read_json(b'{"a": 1}') == {"a": 1}
    with pytest.raises(ValueError, match="Expecting"):
        read_json("{")


def test_text_for_people_holds_integers_of_any_size():
    assert json_text({"a": "ü"}, indent=1) == '{\n "a": "ü"\n}'
    assert json.loads(json_text({"n": 10**5000}), parse_int=len) == {"n": 5001}
