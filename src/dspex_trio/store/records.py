"""What the session store keeps and what it refuses: records, sessions, changes, notes, limits and errors."""

from __future__ import annotations

from collections.abc import Callable, Mapping
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
        max_bytes: The same over all sessions.
        max_watchers: Watches of one session at once.
        max_name_chars: The longest session id, variable name or metadata key.
        idle_seconds: A session that nobody touched for so long is dropped, unless it asked for less.
    """

    max_sessions: int = 10_000
    max_variables: int = 10_000
    max_session_bytes: int = 64 * 1024 * 1024
    max_bytes: int = 512 * 1024 * 1024
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
        position: Its place in the order of registrations.
    """

    variable: Variable
    updated_at: float
    size: int
    position: int


@dataclass(frozen=True, slots=True)
class Change:
    """What happened to a variable: `registered`, `updated` or `deleted`."""

    kind: str
    record: Record


@dataclass(frozen=True, slots=True)
class SessionKept:
    """A session was made, its metadata or its idle time changed, or it was used after a while.

    Times are in seconds since the epoch.
    """

    session_id: str
    metadata: Mapping[str, str]
    created_at: float
    touched_at: float
    idle_seconds: float


@dataclass(frozen=True, slots=True)
class SessionDropped:
    """A session is gone, and its variables with it."""

    session_id: str


@dataclass(frozen=True, slots=True)
class VariableKept:
    """A variable has a new version."""

    session_id: str
    record: Record


@dataclass(frozen=True, slots=True)
class VariableDropped:
    """A variable is gone."""

    session_id: str
    name: str


Note: TypeAlias = SessionKept | SessionDropped | VariableKept | VariableDropped
"""What happened to a store, in the words in which it can be written down and brought back."""

Watcher: TypeAlias = Callable[[Change | None], object]
"""Told of every change of a session as it happens; None says that the session is gone. Must not block or raise."""


@dataclass(slots=True, eq=False)
class Session:
    """A session and what it holds.

    Attributes:
        session_id: Its id.
        metadata: What its creators said of it.
        created_at: In seconds since the epoch.
        touched: When it was last used, on the store's clock.
        noted: The time of use that was last noted.
        idle_seconds: It is dropped when nobody touched it for so long.
        size: What its metadata and variables take, in bytes.
        by_name: Name → variable, in the order of registration.
        names: Id → name.
        watchers: Who is told of its changes.
    """

    session_id: str
    metadata: dict[str, str]
    created_at: float
    touched: float
    noted: float
    idle_seconds: float
    size: int = 0
    by_name: dict[str, Record] = field(default_factory=dict)
    names: dict[str, str] = field(default_factory=dict)
    watchers: set[Watcher] = field(default_factory=set)

    def find(self, identifier: str) -> Record | None:
        """The variable of that name or id."""
        record = self.by_name.get(identifier)
        return record if record is not None else self.by_name.get(self.names.get(identifier, ""))
