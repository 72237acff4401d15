"""Session variables: as the store had them, and as a trial's parameters got them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True)
class Variable:
    """A session variable as the store had it at one moment.

    Attributes:
        name: The variable's name, unique in its session.
        type: One of float, integer, string, boolean, choice, module, embedding, tensor, map, list; empty for untyped.
        value: The decoded value.
        version: Counts the writes, from 1; 0 if the store does not give it.
        id: The store's identifier.
        constraints: The declared constraints, such as `{"min": 0}`.
        metadata: What the store keeps beside the value.
    """

    name: str
    type: str
    value: Any
    version: int = 0
    id: str = ""
    constraints: Mapping[str, Any] = field(default_factory=dict)
    metadata: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class BoundVariable:
    """The value that a parameter really had in one trial, or that its program wrote to a session variable.

    Attributes:
        parameter: The parameter's path; empty for a variable that the program wrote.
        variable: The variable's name or id, as bound or written.
        value: The value that was applied or written.
        version: The variable's version; 0 when the value is a default, or was sent and not acknowledged.
        from_default: Whether the binding's default was used.
    """

    parameter: str
    variable: str
    value: Any
    version: int = 0
    from_default: bool = False
