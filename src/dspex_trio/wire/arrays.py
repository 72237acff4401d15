"""Tensors and embeddings as raw bytes: numpy's file format, or a buffer with dtype and shape. Nothing is unpickled."""

from __future__ import annotations

import array
import math
import re
import struct
import sys
from collections.abc import Mapping
from typing import Any, Final

from dspex_trio.model.errors import ValueNotDecodable
from dspex_trio.model.variable_types import is_shape, show
from dspex_trio.wire.jsontext import decode_json

FORMATS: Final = ("numpy", "raw")

MAX_LISTS: Final = 1_000_000
"""Lists that one array may turn into: a shape like [10**9, 0] has no bytes, and would have a billion of them."""

_MAGIC: Final = b"\x93NUMPY"
_MAX_HEADER: Final = 10_000
# The header is a Python dict literal with these three keys; it is matched, not evaluated.
_HEADER: Final = (
    re.compile(r"'descr': *'([<>=|]?[a-z]+[0-9]+)'"),
    re.compile(r"'fortran_order': *(True|False)"),
    re.compile(r"'shape': *\(((?:[0-9]{1,19}(?:, *|(?=\))))*)\)"),
)

# Element kinds as numpy writes them after the byte order: kind and size → array type code.
_CODES: Final = {
    "f4": "f",
    "f8": "d",
    "i1": "b",
    "i2": "h",
    "i4": "i",
    "i8": "q",
    "u1": "B",
    "u2": "H",
    "u4": "I",
    "u8": "Q",
}
_NAMES: Final = {
    "float16": "f2",
    "float32": "f4",
    "float64": "f8",
    "float": "f8",
    "double": "f8",
    "bool": "b1",
    **{
        f"{sign}int{bits}": f"{letter}{bits // 8}"
        for sign, letter in (("", "i"), ("u", "u"))
        for bits in (8, 16, 32, 64)
    },
}


def decode_array(raw: bytes, description: Mapping[str, Any]) -> Any:
    """The numbers in `raw`, as nested lists.

    Args:
        raw: The bytes.
        description: `binary_format` (`numpy` or `raw`), and for a bare buffer `dtype` and `shape`.

    Raises:
        ValueNotDecodable: The format is another one, or the bytes do not fit dtype and shape.
    """
    form = description.get("binary_format")
    if form not in FORMATS:
        raise ValueNotDecodable(
            f"the binary_format {show(form)} is not decoded; the formats are {' and '.join(FORMATS)}"
        )
    if form == "numpy" and raw.startswith(_MAGIC):
        return _decode_file(raw)
    return _nested(_elements(raw, description.get("dtype")), _shape_of(description.get("shape")))


def _decode_file(raw: bytes) -> Any:
    """Numpy's `.npy` (its versions 1 to 3): magic, version, header length, header, elements."""
    wide = len(raw) > len(_MAGIC) and raw[len(_MAGIC)] > 1
    start = len(_MAGIC) + 2 + (4 if wide else 2)
    length = int.from_bytes(raw[len(_MAGIC) + 2 : start], "little")
    if length > _MAX_HEADER or start + length > len(raw):
        raise ValueNotDecodable("the numpy file's header is cut off or too long")
    header = raw[start : start + length].decode("latin-1")
    found = [pattern.search(header) for pattern in _HEADER]
    if None in found:
        raise ValueNotDecodable("the numpy file's header does not tell dtype, order and shape of plain numbers")
    dtype, fortran, sizes = (match[1] for match in found if match is not None)
    shape = [int(size) for size in sizes.replace(" ", "").split(",") if size]
    if fortran == "True" and len(shape) > 1:
        raise ValueNotDecodable("the numpy file is in Fortran order; send it in C order")
    return _nested(_elements(raw[start + length :], dtype), _shape_of(shape))


def _elements(raw: bytes, dtype: Any) -> list[Any]:
    order, kind = _kind_of(dtype)
    size = int(kind[1:])
    if len(raw) % size:
        raise ValueNotDecodable(f"{len(raw)} bytes are no whole number of elements of dtype {show(dtype)}")
    if kind == "b1":
        return [byte != 0 for byte in raw]
    if kind == "f2":
        return list(struct.unpack(f"{order}{len(raw) // 2}e", raw))
    elements = array.array(_CODES[kind])
    elements.frombytes(raw)
    if size > 1 and order != ("<" if sys.byteorder == "little" else ">"):
        elements.byteswap()
    return elements.tolist()


def _kind_of(dtype: Any) -> tuple[str, str]:
    """Byte order and kind of a dtype, given by name (`float32`) or as numpy writes it (`<f4`)."""
    if isinstance(dtype, str):
        order, kind = (dtype[0], dtype[1:]) if dtype[:1] in ("<", ">", "=", "|") else ("<", dtype)
        kind = _NAMES.get(kind, kind)
        if kind in _CODES or kind in ("f2", "b1"):
            native = "<" if sys.byteorder == "little" else ">"
            return (native if order == "=" else "<" if order == "|" else order, kind)
    raise ValueNotDecodable(f"the dtype {show(dtype)} is not decoded; it takes one of {', '.join(sorted(_NAMES))}")


def _shape_of(shape: Any) -> list[int]:
    if isinstance(shape, str):  # a variable's metadata holds text only
        shape = decode_json(shape.encode("utf-8", "replace"))
    if not is_shape(shape):
        raise ValueNotDecodable(f"the shape {show(shape)} is no list of sizes")
    return list(shape)


def _nested(flat: list[Any], shape: list[int]) -> Any:
    if math.prod(shape) != len(flat):
        raise ValueNotDecodable(f"{len(flat)} elements do not fill the shape {show(shape)}")
    if sum(math.prod(shape[:depth]) for depth in range(len(shape))) > MAX_LISTS:
        raise ValueNotDecodable(f"the shape {show(shape)} would make more than {MAX_LISTS} lists")
    return _rows(flat, shape) if shape else flat[0]


def _rows(flat: list[Any], shape: list[int]) -> list[Any]:
    if len(shape) == 1:
        return flat
    step = math.prod(shape[1:])
    return [_rows(flat[row * step : (row + 1) * step], shape[1:]) for row in range(shape[0])]
