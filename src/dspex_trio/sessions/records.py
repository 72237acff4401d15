"""What the session store keeps and what it refuses: records, sessions, changes, limits and errors."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TypeAlias

from dspex_trio.model import Variable


@dataclass(frozen=True, slots=True)
class StoreLimits:
    """What the peers of a store can make it hold.

    Attributes:
        max_sessions: Sessions at once.
        max_variables: Variables of one session.
        max_session_bytes: The sum of a session's values, constraints and metadata, as JSON text.
        max_watchers: Watches of one session at once.
        max_name_chars: The longest session id, variable name or metadata key.
        idle_seconds: A session that nobody touched for so long is dropped.
    """

    max_sessions: int = 10_000
    max_variables: int = 10_000
    max_session_bytes: int = 64 * 1024 * 1024
    max_watchers: int = 1_000
    max_name_chars: int = 512
    idle_seconds: float = 86_400.0


class StoreError(Exception):
    """Root of what the store refuses."""


class NotStored(StoreError):
    """The session or the variable is not there."""


class Refused(StoreError):
    """The request cannot be carried out as it is: a value, a type, a constraint or a name is wrong."""


class Exists(StoreError):
    """There is a variable of that name already."""


class Conflict(StoreError):
    """The variable has another version than the writer expected."""


class Full(StoreError):
    """A limit of the store is reached."""


@dataclass(frozen=True, slots=True, eq=False, weakref_slot=True)
class Record:
    """One version of a variable, compared by identity.

    Attributes:
        variable: The variable.
        updated_at: When it was written, in seconds since the epoch.
        size: How much of the session's bytes it takes.
    """

    variable: Variable
    updated_at: float
    size: int


@dataclass(frozen=True, slots=True)
class Change:
    """What happened to a variable: `registered`, `updated` or `deleted`."""

    kind: str
    record: Record


Watcher: TypeAlias = Callable[[Change | None], object]
"""Told of every change of a session as it happens; None says that the session is gone. Must not block or raise."""


@dataclass(slots=True, eq=False)
class Session:
    """A session and what it holds."""

    session_id: str
    metadata: dict[str, str]
    created_at: float
    touched: float
    size: int = 0
    by_name: dict[str, Record] = field(default_factory=dict)
    names: dict[str, str] = field(default_factory=dict)  # id → name
    watchers: set[Watcher] = field(default_factory=set)

    def find(self, identifier: str) -> Record | None:
        """The variable of that name or id."""
        record = self.by_name.get(identifier)
        return record if record is not None else self.by_name.get(self.names.get(identifier, ""))
