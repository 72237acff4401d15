import contextlib
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dspex_trio.model.errors import ValueNotDecodable
from dspex_trio.wire.arrays import decode_array
from dspex_trio.wire.jsontext import encode_json

SIX = struct.pack("<6f", 1, 2, 3, 4, 5, 6)


def npy(raw, descr="<f4", shape=(2, 3), *, fortran=False, version=1):
    """A file as numpy's own writer makes it."""
    header = f"{{'descr': '{descr}', 'fortran_order': {fortran}, 'shape': {shape!r}, }}".encode().ljust(117) + b"\n"
    length = len(header).to_bytes(2 if version == 1 else 4, "little")
    return b"\x93NUMPY" + bytes([version, 0]) + length + header + raw


@pytest.mark.parametrize("form", ["numpy", "raw"])
@pytest.mark.parametrize("shape", [[2, 3], "[2, 3]"])
def test_a_bare_buffer_is_read_by_dtype_and_shape(form, shape):
    found = decode_array(SIX, {"binary_format": form, "dtype": "float32", "shape": shape})
    assert found == [[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]]


@pytest.mark.parametrize("version", [1, 2, 3])
def test_numpys_own_file_is_read(version):
    assert decode_array(npy(SIX, version=version), {"binary_format": "numpy"}) == [[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]]


@pytest.mark.parametrize(
    ("dtype", "code", "values"),
    [
        ("float64", "<2d", [0.1, -2.0]),
        ("float16", "<2e", [0.5, -2.0]),
        (">f4", ">2f", [0.5, 7.0]),
        (">f2", ">2e", [0.5, 7.0]),
        ("int64", "<2q", [-(2**63), 2**63 - 1]),
        (">i2", ">2h", [-2, 300]),
        ("uint64", "<2Q", [0, 2**64 - 1]),
        ("|u1", "2B", [0, 255]),
        ("bool", "2B", [False, True]),
        ("int8", "2b", [-1, 1]),
    ],
)
def test_every_plain_dtype_is_read_in_its_byte_order(dtype, code, values):
    raw = struct.pack(code, *values)
    assert decode_array(raw, {"binary_format": "raw", "dtype": dtype, "shape": [2]}) == values


@pytest.mark.parametrize(
    ("shape", "value"),
    [([], 7), ([1], [7]), ([1, 1, 1], [[[7]]])],
)
def test_any_number_of_dimensions_is_nested_lists(shape, value):
    assert decode_array(b"\x07", {"binary_format": "raw", "dtype": "uint8", "shape": shape}) == value


@pytest.mark.parametrize(("shape", "value"), [([0], []), ([2, 0], [[], []]), ([0, 5], []), ([2, 0, 3], [[], []])])
def test_empty_dimensions_are_empty_lists(shape, value):
    assert decode_array(b"", {"binary_format": "raw", "dtype": "uint8", "shape": shape}) == value


@pytest.mark.parametrize(
    ("raw", "description", "text"),
    [
        (b"", {"binary_format": "pickle"}, "'pickle' is not decoded; the formats are numpy and raw"),
        (b"", {"binary_format": "erlang_binary"}, "is not decoded"),
        (b"", {}, "None is not decoded"),
        (SIX, {"binary_format": "raw", "dtype": "object", "shape": [6]}, "dtype 'object'"),
        (SIX, {"binary_format": "raw", "dtype": "float32", "shape": [7]}, "6 elements do not fill"),
        (SIX[:-1], {"binary_format": "raw", "dtype": "float32", "shape": [6]}, "no whole number of elements"),
        (SIX, {"binary_format": "raw", "dtype": "float32"}, "no list of sizes"),
        (SIX, {"binary_format": "raw", "dtype": "float32", "shape": [10**9000, -1]}, "no list of sizes"),
        (SIX, {"binary_format": "raw", "dtype": [10**9000], "shape": [6]}, "the dtype a list is not decoded"),
        (SIX, {"binary_format": 10**9000}, "an integer of 29898 bits is not decoded"),
        (SIX, {"binary_format": "raw", "dtype": "float32", "shape": [-6]}, "no list of sizes"),
        (SIX, {"binary_format": "raw", "dtype": "float32", "shape": [True] * 3}, "no list of sizes"),
        (b"", {"binary_format": "raw", "dtype": "float32", "shape": [10**9, 0]}, "more than 1000000 lists"),
        (npy(b"", descr="|O", shape=(0,)), {"binary_format": "numpy"}, "does not tell dtype"),
        (npy(SIX, fortran=True), {"binary_format": "numpy"}, "Fortran"),
        (npy(SIX)[:40], {"binary_format": "numpy"}, "cut off"),
        (b"\x93NUMPY", {"binary_format": "numpy"}, "cut off"),
        (npy(SIX, shape="__import__('os')"), {"binary_format": "numpy"}, "does not tell dtype"),
    ],
)
def test_what_is_no_array_of_numbers_is_refused(raw, description, text):
    with pytest.raises(ValueNotDecodable, match=text.replace("|", r"\|").replace("(", r"\(")):
        decode_array(raw, description)


@given(
    st.binary(max_size=300),
    st.sampled_from(["float32", "<f8", "bool", "|O", "nonsense"]),
    st.lists(st.integers(0, 9), max_size=4),
)
def test_no_bytes_raise_anything_else(raw, dtype, shape):
    for payload in (raw, npy(raw), b"\x93NUMPY" + raw):
        with contextlib.suppress(ValueNotDecodable):
            decode_array(payload, {"binary_format": "numpy", "dtype": dtype, "shape": encode_json(shape).decode()})
