"""Session variables as tests write them: name → value."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Final

from dspex_trio.model import Variable

_KINDS: Final[tuple[tuple[type, str], ...]] = (
    (bool, "boolean"),  # before int, which it is too
    (int, "integer"),
    (float, "float"),
    (str, "string"),
    (list, "list"),
    (Mapping, "map"),
)


def variables_of(values: Mapping[str, Any | Variable]) -> list[Variable]:
    """Variables of name → value, or of those that say themselves what they are.

    Raises:
        TypeError: A value's type is none that variables have.
    """
    return [_variable(name, value) for name, value in values.items()]


def _variable(name: str, value: Any) -> Variable:
    if isinstance(value, Variable):
        return replace(value, name=name)
    for kind, declared in _KINDS:
        if isinstance(value, kind):
            return Variable(name, declared, value)
    raise TypeError(
        f"the type of variable {name!r} cannot be told from a {type(value).__name__}: give a "
        f"dspex.Variable({name!r}, type, value)"
    )
