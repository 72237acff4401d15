"""Tools that a session offers: what a program, and its language model, know of one."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from dspex_trio.model.specification import MISSING


@dataclass(frozen=True, slots=True)
class ToolParameter:
    """One argument of a tool.

    Attributes:
        name: The argument's name.
        type: Its type, by the names of variables or of JSON Schema; empty for anything.
        description: What it is for.
        required: Whether a call without it is wrong.
        default: What it is in a call without it; MISSING for nothing.
        constraints: What its value must meet, such as `{"min": 0}`.
    """

    name: str
    type: str = ""
    description: str = ""
    required: bool = False
    default: Any = MISSING
    constraints: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class ToolSpec:
    """A tool as its owner describes it.

    Attributes:
        name: What it is called by.
        description: What it does.
        parameters: Its arguments; without any, it takes whatever it is given.
        streams: Whether it may give several values, one after the other.
    """

    name: str
    description: str = ""
    parameters: tuple[ToolParameter, ...] = ()
    streams: bool = False
