"""A trial's inputs: checked against what the program takes, before it starts."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from functools import lru_cache
from typing import Any, Protocol, get_args, get_type_hints

import dspy
import pydantic
from dspy.utils.constants import IS_TYPE_UNDEFINED
from pydantic_core import PydanticUndefined

from dspex_trio.errors import InvalidInput
from dspex_trio.model import MISSING
from dspex_trio.variables import show


class Inputs(Protocol):
    """Checks inputs."""

    def check(self, inputs: Mapping[str, Any]) -> dict[str, Any]:
        """What to call the program with; raises InvalidInput naming the field, what it takes and what came."""
        ...


def inputs_of(module: dspy.Module, signature: type[dspy.Signature] | None) -> Inputs:
    """How to check the inputs of `module`.

    By the specification's signature where there is one, else by the module's own, else by the parameters of `forward`.
    """
    own = signature if signature is not None else getattr(module, "signature", None)
    if isinstance(own, type) and issubclass(own, dspy.Signature):
        return _of_signature(own)
    return _of_forward(type(module))


class _Fields:
    """Named fields, each with a type (or none), and perhaps a default."""

    def __init__(self, fields: Mapping[str, tuple[Any, Any]], *, others: bool = False) -> None:
        self._fields = fields
        self._others = others

    def check(self, inputs: Mapping[str, Any]) -> dict[str, Any]:
        for name in inputs:
            if name not in self._fields and not self._others:
                raise InvalidInput(f"input {name!r} is unexpected; the program takes {self._told()}")
        checked = {name: value for name, value in inputs.items() if name not in self._fields}
        for name, (kind, default) in self._fields.items():
            if name in inputs:
                checked[name] = inputs[name] if kind is MISSING else _convert(name, kind, inputs[name])
            elif default is MISSING:
                raise InvalidInput(f"input {name!r} is missing; the program takes {self._told()}")
            elif default is None and type(None) in get_args(kind):
                checked[name] = None
        return checked

    def _told(self) -> str:
        return ", ".join(
            name if kind is MISSING else f"{name}: {_type_text(kind)}" for name, (kind, _) in self._fields.items()
        )


@lru_cache(maxsize=1024)
def _of_signature(signature: Any) -> Inputs:
    fields = {}
    for name, info in signature.input_fields.items():
        undefined = (info.json_schema_extra or {}).get(IS_TYPE_UNDEFINED, False)
        default = info.default if info.default is not PydanticUndefined else MISSING
        if default is MISSING and type(None) in get_args(info.annotation):
            default = None
        fields[name] = (MISSING if undefined else info.annotation, default)
    return _Fields(fields)


@lru_cache(maxsize=1024)
def _of_forward(cls: Any) -> Inputs:
    parameters = list(inspect.signature(cls.forward).parameters.values())[1:]
    try:
        hints = get_type_hints(cls.forward)
    except Exception:  # noqa: BLE001 - annotations may name what exists for type checkers alone
        hints = {}
    fields = {
        p.name: (hints.get(p.name, MISSING), MISSING if p.default is p.empty else p.default)
        for p in parameters
        if p.kind in {p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY}
    }
    return _Fields(fields, others=any(p.kind is p.VAR_KEYWORD for p in parameters))


@lru_cache(maxsize=4096)
def _adapter(kind: Any) -> pydantic.TypeAdapter[Any] | None:
    try:
        return pydantic.TypeAdapter(kind, config=pydantic.ConfigDict(arbitrary_types_allowed=True))
    except (pydantic.PydanticUserError, TypeError):
        try:
            return pydantic.TypeAdapter(kind)  # a model brings its own configuration
        except (pydantic.PydanticUserError, TypeError):
            return None


def _convert(name: str, kind: Any, value: Any) -> Any:
    if isinstance(kind, type) and isinstance(value, kind) and not (kind is int and isinstance(value, bool)):
        return value
    adapter = _adapter(kind)
    if adapter is None or (kind in {int, float} and isinstance(value, bool)):
        raise InvalidInput(f"input {name!r} takes {_type_text(kind)}, but a {type(value).__name__} came: {show(value)}")
    try:
        return adapter.validate_python(_as_dspy_takes_it(kind, value))
    except pydantic.ValidationError as error:
        problems = "; ".join(_problem(problem) for problem in error.errors(include_url=False)[:3])
        raise InvalidInput(
            f"input {name!r} takes {_type_text(kind)}, but a {type(value).__name__} came: {show(value)} ({problems})"
        ) from None
    except (ValueError, TypeError) as error:  # DSPy's types check in their own constructors
        raise InvalidInput(f"input {name!r} takes {_type_text(kind)}, but {show(value)} came: {error}") from None


def _as_dspy_takes_it(kind: Any, value: Any) -> Any:
    """Short forms: an image or audio as its URL (data URLs too), a history as its list of messages."""
    if kind is dspy.Image and isinstance(value, str):
        return {"url": value}
    if kind is dspy.History and isinstance(value, list):
        return {"messages": value}
    return value


def _problem(problem: Any) -> str:
    where = ".".join(str(part) for part in problem["loc"])
    return f"{where}: {problem['msg']}" if where else str(problem["msg"])


def _type_text(kind: Any) -> str:
    return kind.__name__ if isinstance(kind, type) and not get_args(kind) else str(kind).replace("typing.", "")
