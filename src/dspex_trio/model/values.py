"""Python values made plain: from whatever a program gives to what JSON (and bytes) can say.

Pure, and imports neither DSPy nor protobuf: foreign types are known by their shape. No `__repr__`, `__str__` or
property of a program's own classes is called unless the operator switched reprs on.
"""

from __future__ import annotations

import collections
import dataclasses
import datetime as dt
import decimal
import enum
import fractions
import ipaddress
import json
import math
import pathlib
import re
import uuid
from collections.abc import Callable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from typing import Any, Final, TypeAlias

import pydantic
import pydantic_core

from dspex_trio.observing.redaction import Redactor

Plain: TypeAlias = bool | int | float | str | bytes | list["Plain"] | dict[str, "Plain"] | None

MARKER: Final = "__ffi_unserializable__"
TYPE_TAG: Final = "$type"
"""The key that tells which DSPy type an object was, as in `{"$type": "dspy.Image", "url": …}`."""

MAX_DEPTH: Final = 100
MAX_NODES: Final = 1_000_000
MAX_WARNINGS: Final = 50
MAX_REPR_CHARS: Final = 500

_REDACT_SHAPES: Final = Redactor()
_SCALARS: Final = frozenset({type(None), bool, int, float, str, bytes})
_TEXTUAL: Final = (
    uuid.UUID,
    decimal.Decimal,
    fractions.Fraction,
    pathlib.PurePath,
    ipaddress.IPv4Address,
    ipaddress.IPv6Address,
    ipaddress.IPv4Network,
    ipaddress.IPv6Network,
    ipaddress.IPv4Interface,
    ipaddress.IPv6Interface,
    pydantic_core.Url,
    pydantic_core.MultiHostUrl,
)
_SEQUENCES: Final = (list, tuple, collections.deque, range, collections.UserList)


def plain(
    value: Any,
    *,
    warnings: list[str] | None = None,
    path: str = "",
    allow_repr: bool = False,
    redact: Callable[[str], str] = _REDACT_SHAPES,
) -> Plain:
    """Express `value` as None, bool, int, float, str, bytes, lists, and dicts with text keys.

    The result shares nothing mutable with `value`, so later changes of it do not show. Floats may still be NaN or
    infinite and integers of any size: what they look like on the wire is the wire's business. What has no plain form
    becomes `{"__ffi_unserializable__": true, "__type__": "pkg.Type"}` with a warning. Never raises (an interrupt of the
    trial, which is no Exception, passes).

    Args:
        value: Anything.
        warnings: Receives a line for each thing that could not be expressed as it was.
        path: What to call the value in warnings.
        allow_repr: Put the `repr` of what has no plain form into its marker, redacted and cut.
        redact: Takes secrets out of a repr.
    """
    if type(value) in _SCALARS:
        return value  # type: ignore[no-any-return]
    walk = _Walk([] if warnings is None else warnings, redact if allow_repr else None)
    return walk.convert(value, path, 0)


def type_name(cls: type) -> str:
    """The qualified name of a class; builtins without their module."""
    return cls.__qualname__ if cls.__module__ == "builtins" else f"{cls.__module__}.{cls.__qualname__}"


class _Walk:
    """One conversion: its warnings, how much it may still produce, and what it is inside of."""

    def __init__(self, warnings: list[str], redact: Callable[[str], str] | None) -> None:
        self._warnings = warnings
        self._redact = redact
        self._warned = 0
        self._nodes = 0
        self._inside: set[int] = set()

    def convert(self, value: Any, path: str, depth: int) -> Plain:
        """`value` made plain; the one place where foreign code may fail."""
        if type(value) in _SCALARS:
            return value  # type: ignore[no-any-return]
        if id(value) in self._inside:
            return self._marker(value, path, "refers to itself")
        if depth >= MAX_DEPTH:
            return self._marker(value, path, f"lies more than {MAX_DEPTH} levels deep")
        self._inside.add(id(value))
        try:
            return self._read(value, path, depth)
        except _TooLarge:
            return self._marker(value, path, f"has more than {MAX_NODES} parts")
        except Exception as error:  # noqa: BLE001 - any method of a foreign class may raise anything
            return self._marker(value, path, f"raised {type_name(type(error))} while it was read")
        finally:
            self._inside.discard(id(value))

    def _read(self, value: Any, path: str, depth: int) -> Plain:
        kind = type(value)
        if kind is dict:
            return self.mapping(value, path, depth)
        if kind is list or kind is tuple:
            return self.sequence(value, path, depth)
        for kinds, convert in _KINDS:
            if isinstance(value, kinds):
                return convert(self, value, path, depth)
        if dataclasses.is_dataclass(value) and not isinstance(value, type):
            return self._dataclass(value, path, depth)
        return self._foreign(value, path, depth)

    def mapping(self, value: Mapping[Any, Any], path: str, depth: int) -> Plain:
        return self._items(list(value.items()), path, depth)  # a snapshot: other threads may still write

    def sequence(self, value: Sequence[Any], path: str, depth: int) -> Plain:
        self._count(len(value))
        return self._list(list(value), path, depth)

    def members(self, value: AbstractSet[Any], path: str, depth: int) -> Plain:
        self._count(len(value))
        return sorted(self._list(list(value), path, depth), key=_order)

    def enumerated(self, value: enum.Enum, path: str, depth: int) -> Plain:
        return self.convert(value.value, path, depth + 1)

    def _dataclass(self, value: Any, path: str, depth: int) -> Plain:
        shown = [field.name for field in dataclasses.fields(value)]
        return self._items([(name, getattr(value, name)) for name in shown if hasattr(value, name)], path, depth)

    def _items(self, items: list[tuple[Any, Any]], path: str, depth: int) -> dict[str, Plain]:
        self._count(len(items))
        out: dict[str, Plain] = {}
        for raw, item in items:
            key = raw if type(raw) is str else self._key(raw, path)
            if key in out:
                self._warn(path, f"two keys are written {key!r} alike; the later one stays")
            out[key] = (
                item if type(item) in _SCALARS else self.convert(item, f"{path}.{key}" if path else key, depth + 1)
            )
        return out

    def _list(self, items: list[Any], path: str, depth: int) -> list[Plain]:
        return [
            item if type(item) in _SCALARS else self.convert(item, f"{path}[{index}]", depth + 1)
            for index, item in enumerate(items)
        ]

    def _count(self, more: int) -> None:
        self._nodes += more
        if self._nodes > MAX_NODES:
            raise _TooLarge

    def _key(self, key: Any, path: str) -> str:
        """A mapping's key as text: scalars as JSON writes them, anything else as the JSON of its plain form."""
        if isinstance(key, enum.Enum):
            return self._key(key.value, path)
        match self.convert(key, f"{path} key", MAX_DEPTH // 2):
            case str() as text:
                return text
            case bytes() as raw:
                return raw.decode("utf-8", "backslashreplace")
            case other:
                return json.dumps(other, ensure_ascii=False, sort_keys=True, default=bytes.hex)

    def model(self, value: pydantic.BaseModel, path: str, depth: int) -> Plain:
        cls = type(value)
        state = dict(value.__dict__)  # not getattr, nor model_dump: DSPy's types dump themselves as opaque text
        if issubclass(cls, pydantic.RootModel):
            return self.convert(state["root"], path, depth + 1)
        items = [(name, state[name]) for name in cls.model_fields if name in state]
        items += list((value.__pydantic_extra__ or {}).items())
        if not _is_dspy(cls):
            return self._items(items, path, depth)
        tag = "dspy." + cls.__qualname__.partition("_")[0]  # `dspy.Code["java"]` is the class Code_java
        # A tool's function and its argument types are code; its name, description and schema say what it is.
        items = [(name, item) for name, item in items if not callable(item) and name not in _CODE_FIELDS]
        if isinstance(language := getattr(cls, "language", None), str):  # dspy.Code keeps it on the class
            items.append(("language", language))
        return {TYPE_TAG: tag, **self._items(items, path, depth)}

    def _foreign(self, value: Any, path: str, depth: int) -> Plain:
        """What other libraries give, known by the package of the class and the shape of the instance."""
        cls = type(value)
        store = getattr(value, "__dict__", {}).get("_store")
        if isinstance(store, dict) and callable(getattr(cls, "toDict", None)):  # dspy.Example and dspy.Prediction
            return self._items([(k, v) for k, v in store.items() if not str(k).startswith("dspy_")], path, depth)
        for base in cls.__mro__:
            package = base.__module__.partition(".")[0]
            if (convert := _FOREIGN.get((package, base.__name__))) is not None:
                self._count(_length(value))
                return self.convert(convert(value), path, depth + 1)
        return self._marker(value, path, "cannot be expressed as JSON")

    def _marker(self, value: Any, path: str, why: str) -> dict[str, Plain]:
        name = type_name(type(value))
        self._warn(path, f"{name} {why}")
        marker: dict[str, Plain] = {MARKER: True, "__type__": name}
        if self._redact is not None:
            try:
                text = repr(value)
            except Exception as error:  # noqa: BLE001 - a program's class may have any __repr__
                text = f"<its __repr__ raised {type_name(type(error))}>"
            text = self._redact(text)
            marker["__repr__"] = text if len(text) <= MAX_REPR_CHARS else text[:MAX_REPR_CHARS] + "…"
        return marker

    def _warn(self, path: str, text: str) -> None:
        self._warned += 1
        if self._warned <= MAX_WARNINGS:
            self._warnings.append(f"{path or 'value'}: {text}")
        elif self._warned == MAX_WARNINGS + 1:
            self._warnings.append(f"{path or 'value'}: further warnings are left out")


class _TooLarge(Exception):
    """The value has more parts than a message could carry."""


_CODE_FIELDS: Final = frozenset({"func", "arg_types"})


def _is_dspy(cls: type) -> bool:
    """Whether the class is DSPy's own, or one that DSPy derives from it (`dspy.Code["java"]`)."""
    return cls.__module__ == "dspy" or cls.__module__.startswith("dspy.")


def _exact(value: Any) -> Plain:
    """A value of a subclass as its builtin type, without asking the subclass."""
    if isinstance(value, str):
        return str.__str__(value)
    if isinstance(value, int):
        return int.__int__(value)
    if isinstance(value, float):
        return float.__float__(value)
    return memoryview(value).tobytes()


def _moment(value: dt.date | dt.time) -> str | None:
    text = value.isoformat()
    return None if text == "NaT" else text  # pandas' missing time is a datetime


def _duration(value: dt.timedelta) -> str:
    exact = dt.timedelta(value.days, value.seconds, value.microseconds)  # pandas has its own subclass
    return str(pydantic_core.to_jsonable_python(exact))


def _order(item: Plain) -> tuple[int, float | int, str]:
    """A total order over plain values, so that a set is always written the same way."""
    match item:
        case None:
            return (0, 0, "")
        case int() | float():
            return (1, -math.inf, "nan") if item != item else (1, item, type(item).__name__)  # noqa: PLR0124
        case str():
            return (2, 0, item)
        case bytes():
            return (3, 0, item.hex())
        case _:
            return (4, 0, json.dumps(item, sort_keys=True, default=bytes.hex))


def _length(value: Any) -> int:
    """How many items an array or a frame holds, before it is turned into Python objects."""
    size = getattr(value, "size", 0)
    return size if isinstance(size, int) else 0


def _item(value: Any) -> Any:
    """A numpy scalar as the builtin it wraps; one that wraps nothing else (a longdouble) as a float."""
    match _numpy_kind(value):
        case "M":  # as a builtin, a time in nanoseconds would be a bare integer
            text = str(value)
            return None if text == "NaT" else text
        case "m":
            return value.astype("m8[us]").item()
    item = value.item()
    return float(item) if type(item) is type(value) else item


def _rows(value: Any) -> Any:
    """A numpy array as lists; one of times by its scalars, which know what they are."""
    if _numpy_kind(value) not in ("M", "m"):
        return value.tolist()
    return list(value) if value.ndim else value[()]


def _numpy_kind(value: Any) -> str:
    return getattr(getattr(value, "dtype", None), "kind", "")


_FOREIGN: Final[Mapping[tuple[str, str], Callable[[Any], Any]]] = {
    ("numpy", "generic"): _item,
    ("numpy", "ndarray"): _rows,
    ("pandas", "DataFrame"): lambda value: value.to_dict(orient="records"),
    ("pandas", "Series"): lambda value: value.tolist(),
    ("pandas", "Index"): lambda value: value.tolist(),
    ("pandas", "ExtensionArray"): lambda value: value.tolist(),
    ("pandas", "NAType"): lambda _value: None,
    ("polars", "DataFrame"): lambda value: value.to_dicts(),
    ("polars", "Series"): lambda value: value.to_list(),
    ("torch", "Tensor"): lambda value: value.detach().cpu().tolist(),
}
"""Package and class name (of any base) → how its values become Python objects."""

_KINDS: Final[tuple[tuple[Any, Callable[[_Walk, Any, str, int], Plain]], ...]] = (
    (enum.Enum, _Walk.enumerated),
    ((str, int, float, bytes, bytearray, memoryview), lambda _walk, value, _path, _depth: _exact(value)),
    (pydantic.BaseModel, _Walk.model),
    (Mapping, _Walk.mapping),
    ((set, frozenset, AbstractSet), _Walk.members),
    (_SEQUENCES, _Walk.sequence),
    ((dt.date, dt.time), lambda _walk, value, _path, _depth: _moment(value)),
    (dt.timedelta, lambda _walk, value, _path, _depth: _duration(value)),
    (_TEXTUAL, lambda _walk, value, _path, _depth: str(value)),
    (re.Pattern, lambda _walk, value, _path, _depth: value.pattern),
)
"""Kinds of values, in the order in which they are asked for: an enum may be a str as well."""
