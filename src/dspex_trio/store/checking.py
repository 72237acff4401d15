"""What a store takes: names, and the next version of a variable. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Final

from dspex_trio.model import Variable
from dspex_trio.model.values import plain
from dspex_trio.model.variable_types import TYPES, check_constraints, check_value
from dspex_trio.store.records import Record, Refused
from dspex_trio.wire import encode_json

MAX_VERSION: Final = 2**31 - 1  # int32 on the wire


def check_name(what: str, name: str, longest: int) -> None:
    """Refuse an empty name and one of more than `longest` characters.

    Raises:
        Refused: The text names what it is the name of.
    """
    if not name or len(name) > longest:
        raise Refused(f"the {what} {name[:40]!r} has {len(name)} characters; it takes 1 to {longest}")


def check_declaration(name: str, kind: str, constraints: Mapping[str, Any]) -> None:
    """Refuse a type that is none, and constraints that no value could be checked against.

    Raises:
        Refused: The text names the variable.
    """
    if kind not in TYPES:
        raise Refused(f"variable {name!r}: {kind!r} is no type; the types are {', '.join(TYPES)}")
    try:
        check_constraints(kind, constraints)
    except ValueError as error:
        raise Refused(f"variable {name!r}: {error}") from None


def next_version(
    variable: Variable, value: Any, *, position: int, at: float, metadata: Mapping[str, str] | None, longest: int
) -> Record:
    """The variable with its next value.

    Args:
        variable: The variable as it is.
        value: Any value; it is made plain, and shares nothing with what was given.
        position: Its place among the variables of its session.
        at: The time of the change, in seconds since the epoch.
        metadata: What is added to the variable's own.
        longest: The most characters that a metadata key may have.

    Raises:
        Refused: The value fits neither type nor constraints, or has no plain form.
    """
    warnings: list[str] = []
    value = plain(value, warnings=warnings, path="value")
    if warnings:
        raise Refused(f"variable {variable.name!r}: {warnings[0]}")
    try:
        value = check_value(variable.type, value, variable.constraints)
    except ValueError as error:
        raise Refused(f"variable {variable.name!r}: {error}") from None
    for key in metadata or ():
        check_name("metadata key", key, longest)
    variable = replace(
        variable,
        value=value,
        version=min(variable.version + 1, MAX_VERSION),
        metadata={**variable.metadata, **(metadata or {})},
    )
    return Record(variable, at, size_of(variable), position)


def size_of(variable: Variable) -> int:
    """How much of its session's bytes a variable takes."""
    return len(encode_json([variable.value, variable.name, dict(variable.constraints), dict(variable.metadata)]))
