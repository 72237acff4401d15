"""Which values a session variable may have: its declared type and its constraints. Pure.

The types and the names of the constraints are those of snakepit's stores. A constraint that is not known here is the
store's own affair.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any, Final

from pydantic_core import SchemaError, SchemaValidator, core_schema

from dspex_trio.model import Variable
from dspex_trio.model.errors import VariableInvalid

TYPES: Final = (
    "float",
    "integer",
    "string",
    "boolean",
    "choice",
    "module",
    "embedding",
    "tensor",
    "map",
    "list",
)

MAX_DIMENSIONS: Final = 32
"""Of a tensor; as numpy had for long."""
_MAX_SIZE: Final = 2**63 - 1  # of one dimension; sizes are multiplied
MAX_PATTERN_CHARS: Final = 1_000
MAX_MATCHED_CHARS: Final = 100_000
_MAX_SHOWN: Final = 80
_MAX_SHOWN_BITS: Final = 256


def check_variable(variable: Variable) -> Variable:
    """The variable with its value coerced to its declared type.

    Raises:
        VariableInvalid: The value does not fit the type or the constraints; the text names all of them.
    """
    try:
        value = fitting_value(variable)
    except ValueError as error:
        raise VariableInvalid(f"variable {variable.name!r}: {error}") from None
    return variable if value is variable.value else replace(variable, value=value)


def fitting_value(variable: Variable) -> Any:
    """The value of a variable that a store has, coerced to its declared type.

    A pattern that cannot be matched here (a store in Elixir knows more of them) is left to the store, which checked it
    when the value was written.

    Raises:
        ValueError: The value does not fit the type or the constraints; the text names them.
    """
    constraints = variable.constraints
    if isinstance(pattern := constraints.get("pattern"), str) and not _is_pattern(pattern):
        constraints = {name: asked for name, asked in constraints.items() if name != "pattern"}
    return check_value(variable.type, variable.value, constraints)


def check_value(kind: str, value: Any, constraints: Mapping[str, Any]) -> Any:
    """`value` as a variable of type `kind` holds it: an exact integer is accepted for a float, and the other way round.

    Args:
        kind: One of TYPES; empty for a variable that declares none.
        value: A plain value, as the wire decodes it.
        constraints: Constraint → what it asks for; unknown ones are left to the store.

    Raises:
        ValueError: The value does not fit; the text names value, type and constraint.
    """
    if kind:
        try:
            coerce = _COERCIONS[kind]
        except KeyError:
            raise ValueError(f"{kind!r} is no type of a variable; the types are {', '.join(TYPES)}") from None
        coerced = coerce(value)
        if coerced is _REFUSED:
            raise ValueError(f"{show(value)} is no {kind}: {_WANTED[kind]}")
        value = coerced
    for name, asked, constraint in _known(constraints):
        _check_constraint(kind, name, asked, constraint)
        if problem := constraint.problem(value, asked):
            raise ValueError(f"{show(value)} does not meet the constraint {name} of this {kind or 'value'}: {problem}")
    return value


def check_constraints(kind: str, constraints: Mapping[str, Any]) -> None:
    """Refuse constraints that no value could be checked against.

    Raises:
        ValueError: The text names the constraint and what it takes.
    """
    for name, asked, constraint in _known(constraints):
        _check_constraint(kind, name, asked, constraint)


def _known(constraints: Mapping[str, Any]) -> list[tuple[str, Any, _Constraint]]:
    return [
        (name, asked, _CONSTRAINTS[name])
        for name, asked in constraints.items()
        if name in _CONSTRAINTS and asked is not None
    ]


def _check_constraint(kind: str, name: str, asked: Any, constraint: _Constraint) -> None:
    if not constraint.takes(asked):
        raise ValueError(
            f"the constraint {name} of this {kind or 'value'} is {show(asked)}; it takes {constraint.wanted}"
        )


def show(value: Any) -> str:
    """A plain value in an error message: short, and safe for integers that Python refuses to write out."""
    if isinstance(value, int) and value.bit_length() > _MAX_SHOWN_BITS:
        return f"an integer of {value.bit_length()} bits"
    if isinstance(value, (list, tuple, dict)) and len(value) > _MAX_SHOWN // 4:
        return f"a {type(value).__name__} of {len(value)}"
    try:
        text = repr(value)
    except ValueError:  # a huge integer inside
        return f"a {type(value).__name__}"
    return text if len(text) <= _MAX_SHOWN else text[: _MAX_SHOWN - 1] + "…"


# ---- types ----------------------------------------------------------------------------------------------------------

_REFUSED: Final = object()


def _float(value: Any) -> Any:
    if type(value) is float:
        return value
    if isinstance(value, int) and not isinstance(value, bool):
        try:
            exact = float(value)
        except OverflowError:
            return _REFUSED
        return exact if exact == value else _REFUSED
    return _REFUSED


def _integer(value: Any) -> Any:
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    return int(value) if isinstance(value, float) and value.is_integer() else _REFUSED


def _of(*kinds: type) -> Callable[[Any], Any]:
    return lambda value: value if isinstance(value, kinds) else _REFUSED


def _embedding(value: Any) -> Any:
    if not isinstance(value, list):
        return _REFUSED
    floats = [_float(item) for item in value]
    return _REFUSED if any(item is _REFUSED for item in floats) else floats


def _tensor(value: Any) -> Any:
    """Nested lists of numbers of equal lengths, or `{"shape": …, "data": …}` as snakepit's stores keep it."""
    if isinstance(value, dict):
        shape, data = value.get("shape"), value.get("data")
        if not isinstance(shape, list) or not is_shape(shape) or not isinstance(data, list):
            return _REFUSED
        return value if _count(data) == math.prod(shape) else _REFUSED
    return value if isinstance(value, list) and _shape(value) is not None else _REFUSED


_COERCIONS: Final[Mapping[str, Callable[[Any], Any]]] = {
    "float": _float,
    "integer": _integer,
    "string": _of(str),
    "boolean": _of(bool),
    "choice": _of(str, int, float),
    "module": lambda value: value if isinstance(value, str) and value else _REFUSED,
    "embedding": _embedding,
    "tensor": _tensor,
    "map": _of(dict),
    "list": _of(list),
}
_WANTED: Final = {
    "float": "it takes a number that a double holds exactly",
    "integer": "it takes a whole number",
    "string": "it takes text",
    "boolean": "it takes true or false",
    "choice": "it takes text, a number or a boolean",
    "module": "it takes a class name",
    "embedding": "it takes a list of numbers",
    "tensor": 'it takes nested lists of numbers, or {"shape": [...], "data": [...]}',
    "map": "it takes an object",
    "list": "it takes a list",
}


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def is_shape(value: Any) -> bool:
    """Whether a value is a list of sizes, one for each dimension."""
    if not isinstance(value, list) or len(value) > MAX_DIMENSIONS:
        return False
    return all(type(size) is int and 0 <= size <= _MAX_SIZE for size in value)


def _shape(value: Any) -> list[int] | None:
    """The lengths of nested lists; None when they are ragged or hold something else than numbers."""
    if _is_number(value):
        return []
    if not isinstance(value, list):
        return None
    if not value:
        return [0]
    first = _shape(value[0])
    if first is None or any(_shape(item) != first for item in value[1:]):
        return None
    return [len(value), *first]


def _count(data: list[Any]) -> int:
    """How many numbers nested lists hold; -1 when they hold something else."""
    total = 0
    for item in data:
        inner = _count(item) if isinstance(item, list) else 1 if _is_number(item) else -1
        if inner < 0:
            return -1
        total += inner
    return total


# ---- constraints ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Constraint:
    """What a constraint may ask for, and what is wrong with a value that it refuses ("" for nothing)."""

    takes: Callable[[Any], bool]
    wanted: str
    problem: Callable[[Any, Any], str]


def _too_small(value: Any, least: Any) -> str:
    return "" if not _is_number(value) or value >= least else f"the least is {show(least)}"


def _too_large(value: Any, most: Any) -> str:
    return "" if not _is_number(value) or value <= most else f"the most is {show(most)}"


def _not_among(value: Any, choices: Any) -> str:
    # An empty list allows everything, as in snakepit; true is not 1.
    fits = any(value == choice and isinstance(value, bool) is isinstance(choice, bool) for choice in choices)
    return "" if fits or not choices else f"the choices are {', '.join(map(show, choices[:20]))}"


def _too_short(value: Any, least: Any) -> str:
    fits = not isinstance(value, (str, list, dict)) or len(value) >= least
    return "" if fits else f"its length is {len(value)}, the least is {least}"


def _too_long(value: Any, most: Any) -> str:
    fits = not isinstance(value, (str, list, dict)) or len(value) <= most
    return "" if fits else f"its length is {len(value)}, the most is {most}"


def _no_match(value: Any, pattern: Any) -> str:
    if not isinstance(value, str):
        return ""
    if len(value) > MAX_MATCHED_CHARS:
        return f"only text of at most {MAX_MATCHED_CHARS} characters is matched"
    matcher = _matcher(pattern)
    return "" if matcher is None or matcher.isinstance_python(value) else f"it must match {pattern}"


def _wrong_size(value: Any, dimensions: Any) -> str:
    fits = not isinstance(value, list) or len(value) == dimensions
    return "" if fits else f"it has {len(value)} dimensions, not {dimensions}"


def _wrong_shape(value: Any, asked: Any) -> str:
    shape = value.get("shape") if isinstance(value, dict) else _shape(value)
    return "" if shape is None or shape == asked else f"its shape is {show(shape)}, not {show(asked)}"


def _is_length(value: Any) -> bool:
    return type(value) is int and value >= 0


def _is_list(value: Any) -> bool:
    return isinstance(value, list)


def _is_pattern(value: Any) -> bool:
    return isinstance(value, str) and len(value) <= MAX_PATTERN_CHARS and _matcher(value) is not None


@lru_cache(maxsize=32)
def _matcher(pattern: str) -> SchemaValidator | None:
    """What finds a pattern anywhere in a text; None for a pattern that it does not take.

    pydantic's engine takes time in proportion to the text: Python's own can be made to run for years by the peer that
    chooses the pattern, and would hold everything up meanwhile. It has no look-around and no back-references.
    """
    try:
        return SchemaValidator(core_schema.str_schema(pattern=pattern))
    except (SchemaError, UnicodeError):
        return None


_CONSTRAINTS: Final[Mapping[str, _Constraint]] = {
    "min": _Constraint(_is_number, "a number", _too_small),
    "max": _Constraint(_is_number, "a number", _too_large),
    "choices": _Constraint(_is_list, "a list", _not_among),
    "enum": _Constraint(_is_list, "a list", _not_among),
    "allowed_modules": _Constraint(_is_list, "a list of class names", _not_among),
    "min_length": _Constraint(_is_length, "a length", _too_short),
    "max_length": _Constraint(_is_length, "a length", _too_long),
    "pattern": _Constraint(
        _is_pattern,
        f"a regular expression of at most {MAX_PATTERN_CHARS} characters, without look-around and back-references",
        _no_match,
    ),
    "dimensions": _Constraint(_is_length, "a number of dimensions", _wrong_size),
    "shape": _Constraint(is_shape, "a list of sizes", _wrong_shape),
}
