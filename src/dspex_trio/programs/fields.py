"""What one field of a signature, or one parameter of `forward`, takes, and values converted to that."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from typing import Annotated, Any, cast, get_args

import dspy
import pydantic
from pydantic_core import PydanticUndefined

from dspex_trio.model import MISSING
from dspex_trio.programs.private import IS_TYPE_UNDEFINED
from dspex_trio.variables import show


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
        if is_bool and kind in {int, float, str}:
            raise Misfit(f"takes {self}, but a bool came: {show(value)}")
        try:
            return self._checked(_short_form(kind, value))
        except pydantic.ValidationError as error:
            problems = "; ".join(_problem(problem) for problem in error.errors(include_url=False)[:3])
            raise Misfit(f"takes {self}, but a {type(value).__name__} came: {show(value)} ({problems})") from None
        except (ValueError, TypeError, RecursionError, pydantic.PydanticUserError) as error:
            # DSPy's types check in their own constructors; a type that pydantic knows nothing of takes instances only.
            raise Misfit(f"takes {self}, but a {type(value).__name__} came: {show(value)} ({error})") from None

    def _checked(self, value: Any) -> Any:
        if self._adapter is None:
            try:
                config = pydantic.ConfigDict(arbitrary_types_allowed=True)
                self._adapter = pydantic.TypeAdapter(self._kind, config=config)
            except pydantic.PydanticUserError:
                self._adapter = pydantic.TypeAdapter(self._kind)  # a model brings its own configuration
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


def _short_form(kind: Any, value: Any) -> Any:
    """Short forms: an image as its URL (data URLs too), a history as its list of messages."""
    if kind is dspy.Image and isinstance(value, str):
        return {"url": value}
    if kind is dspy.History and isinstance(value, list):
        return {"messages": value}
    return value


def _problem(problem: Any) -> str:
    where = ".".join(str(part) for part in problem["loc"])
    return f"{where}: {problem['msg']}" if where else str(problem["msg"])
