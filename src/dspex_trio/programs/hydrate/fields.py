"""What one field of a signature, or one parameter of `forward`, takes, and values converted to that."""

from __future__ import annotations

import datetime as dt
import enum
import json
import re
import types
from collections.abc import Mapping
from decimal import Decimal
from functools import lru_cache
from typing import Annotated, Any, Final, Literal, Union, cast, get_args, get_origin

import dspy
import pydantic
from pydantic_core import PydanticUndefined

from dspex_trio.model import MISSING
from dspex_trio.model.values import TYPE_TAG
from dspex_trio.model.variable_types import show
from dspex_trio.programs.dspy.private import CUSTOM_TYPE_END, CUSTOM_TYPE_START, IS_TYPE_UNDEFINED
from dspex_trio.programs.registry import is_dspys


class Misfit(ValueError):
    """A value does not fit a field; the text says what the field takes and what came."""


class FieldType:
    """What a field takes.

    Args:
        kind: Its annotation; MISSING for anything.
        default: What it is without a value; MISSING when it needs one.
    """

    __slots__ = ("_adapter", "_kind", "default")

    def __init__(self, kind: Any = MISSING, default: Any = MISSING) -> None:
        self._kind = kind
        self.default = default
        self._adapter: pydantic.TypeAdapter[Any] | None = None

    def with_default(self, default: Any) -> FieldType:
        """The same type with another default."""
        return FieldType(self._kind, default)

    @property
    def typed(self) -> bool:
        """Whether it takes only values of a type."""
        return self._kind is not MISSING

    def __str__(self) -> str:
        kind = self._kind
        return kind.__name__ if isinstance(kind, type) and not get_args(kind) else str(kind).replace("typing.", "")

    def convert(self, value: Any) -> Any:
        """`value` as the field takes it; raises Misfit."""
        kind = self._kind
        if kind is MISSING or kind is Any:
            return value
        is_bool = isinstance(value, bool)
        if isinstance(kind, type) and isinstance(value, kind) and not (is_bool and kind is not bool):
            return value
        if is_bool and not _takes_truth(kind):
            raise Misfit(f"takes {self}, but a bool came: {show(value)}")
        try:
            made = self._checked(value)
        except pydantic.ValidationError as error:
            problems = "; ".join(_problem(problem) for problem in error.errors(include_url=False)[:3])
            raise Misfit(f"takes {self}, but a {type(value).__name__} came: {show(value)} ({problems})") from None
        except (ValueError, TypeError, RecursionError, pydantic.PydanticUserError) as error:
            # DSPy's types check in their own constructors; a type that pydantic knows nothing of takes instances only.
            raise Misfit(f"takes {self}, but a {type(value).__name__} came: {show(value)} ({error})") from None

        if not _is_exact(value, made):
            raise Misfit(f"takes {self}, but a {type(value).__name__} came: {show(value)} (no float is exactly that)")
        return made

    def _checked(self, value: Any) -> Any:
        if self._adapter is None:
            kind = _with_short_forms(self._kind)
            try:
                config = pydantic.ConfigDict(arbitrary_types_allowed=True)
                self._adapter = pydantic.TypeAdapter(kind, config=config)
            except pydantic.PydanticUserError:
                self._adapter = pydantic.TypeAdapter(kind)  # a model brings its own configuration
        return self._adapter.validate_python(value)


@lru_cache(maxsize=1024)
def _types_of(signature: Any) -> Mapping[str, FieldType]:
    return {name: _of_field(info) for name, info in signature.fields.items()}


def field_types(signature: type[dspy.Signature]) -> Mapping[str, FieldType]:
    """Field → what it takes, for inputs and outputs."""
    return _types_of(cast("Any", signature))


def _of_field(info: Any) -> FieldType:
    default = MISSING if info.default is PydanticUndefined else info.default
    if default is MISSING and type(None) in get_args(info.annotation):
        default = None
    if (info.json_schema_extra or {}).get(IS_TYPE_UNDEFINED, False):
        return FieldType(default=default)
    kind = info.annotation
    for constraint in info.metadata:
        kind = Annotated[kind, constraint]
    return FieldType(kind, default)


# ---- what JSON has short forms for -----------------------------------------------------------------------------------

_IMAGES: Final = {"iVBORw0KGgo": "png", "/9j/": "jpeg", "R0lGOD": "gif", "UklGR": "webp"}
"""How the Base64 of an image begins → its kind."""


_SAVED: Final = re.compile(rf"{CUSTOM_TYPE_START}(.*){CUSTOM_TYPE_END}", re.DOTALL)
"""One of DSPy's types as `dump_state` writes it in a demo: a content block, between markers."""


def is_saved(value: Any) -> bool:
    """Whether it is text that `dump_state` wrote for one of DSPy's types, or a list or an object with such text."""
    if isinstance(value, str):
        return _SAVED.fullmatch(value) is not None
    inner = value.values() if isinstance(value, Mapping) else value if isinstance(value, list) else ()
    return any(map(is_saved, inner))


def _unsaved(value: str) -> Any:
    """What such a type is made of, from the text that `dump_state` wrote for it; any other text as it is."""
    if (saved := _SAVED.fullmatch(value)) is None:
        return value
    try:
        block = json.loads(saved[1])
    except (ValueError, RecursionError):
        return value
    match block:
        case [{"type": "image_url", "image_url": {"url": str(url)}}]:
            return {"url": url}
        case [{"type": "input_audio", "input_audio": {"data": str(data), "format": str(kind)}}]:
            return {"data": data, "audio_format": kind}
        case [{"type": "file", "file": dict(parts)}]:
            return parts
    return value


def _untagged(value: Any) -> Any:
    """What a prediction said of one of DSPy's types, `{"$type": "dspy.Image", …}`, given back as an input."""
    if isinstance(value, str):
        return _unsaved(value)
    if isinstance(value, Mapping) and TYPE_TAG in value:
        return {name: item for name, item in value.items() if name != TYPE_TAG}
    return value


def _image(value: Any) -> Any:
    """An image as its URL, as a data URL, or as bare Base64; never as a file of the worker."""
    if not isinstance(value, str) or is_saved(value):
        return _untagged(value)
    kind = next((kind for start, kind in _IMAGES.items() if value.startswith(start)), None)
    return {"url": value if kind is None else f"data:image/{kind};base64,{value}"}


def _history(value: Any) -> Any:
    """A history as its list of messages."""
    return {"messages": value} if isinstance(value, list) else _untagged(value)


_SHORT_FORMS: Final[Mapping[Any, Any]] = {
    dspy.Image: Annotated[dspy.Image, pydantic.BeforeValidator(_image)],
    dspy.History: Annotated[dspy.History, pydantic.BeforeValidator(_history)],
}


def _with_short_forms(kind: Any) -> Any:
    """The annotation with short forms wherever in it such a type stands."""
    if isinstance(kind, type) and kind in _SHORT_FORMS:
        return _SHORT_FORMS[kind]
    if isinstance(kind, type) and issubclass(kind, pydantic.BaseModel) and is_dspys(kind):
        return Annotated[kind, pydantic.BeforeValidator(_untagged)]
    origin, inner = get_origin(kind), get_args(kind)
    if origin is None or origin is Literal:
        return kind
    made = tuple(_with_short_forms(each) if isinstance(each, type) or get_args(each) else each for each in inner)
    if made == inner:
        return kind
    return Union[made] if origin in {Union, types.UnionType} else origin[made]  # noqa: UP007 - of a tuple


def _takes_truth(kind: Any) -> bool:
    """Whether true and false are among the values: for pydantic they are numbers, too."""
    origin, inner = get_origin(kind), get_args(kind)
    if origin is Annotated:
        return _takes_truth(inner[0])
    if origin in {Union, types.UnionType}:
        return any(map(_takes_truth, inner))
    if origin is Literal:
        return any(isinstance(value, bool) for value in inner)
    if isinstance(kind, type) and issubclass(kind, enum.Enum):
        return any(isinstance(member.value, bool) for member in kind)
    numbers = (
        int,
        float,
        str,
        Decimal,
        dt.date,
        dt.time,
        dt.timedelta,
        type(None),
    )  # times are numbers of seconds, too
    return not (isinstance(kind, type) and issubclass(kind, numbers) and kind is not bool)


def _is_exact(value: Any, made: Any) -> bool:
    """Whether a number that became a float is the same number."""
    return not (type(value) is int and type(made) is float) or made == value


def _problem(problem: Any) -> str:
    where = ".".join(str(part) for part in problem["loc"])
    return f"{where}: {problem['msg']}" if where else str(problem["msg"])
