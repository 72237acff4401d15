"""The session store's core: sessions and typed variables, in memory. Synchronous and pure.

One thread uses a store: the loop's. Nothing here awaits, so every operation is atomic.
"""

from __future__ import annotations

import itertools
import secrets
import time
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from typing import Any

from dspex_trio.model import Variable
from dspex_trio.sessions.pattern import matcher
from dspex_trio.store.checking import check_declaration, check_name, next_version
from dspex_trio.store.lifetimes import LiveSessions
from dspex_trio.store.records import (
    Change,
    Conflict,
    Exists,
    Full,
    Note,
    NotStored,
    Record,
    Refused,
    Session,
    SessionKept,
    StoreError,
    StoreLimits,
    VariableDropped,
    VariableKept,
    Watcher,
)


class MemoryStore:
    """Sessions and their variables.

    Args:
        limits: What peers can make it hold.
        clock: Tells the age of a session, in seconds.
        now: Tells when something happened, in seconds since the epoch.
        note: Called at once with every change that `restore` needs to bring the store back. Must not block
            or raise.
    """

    def __init__(
        self,
        limits: StoreLimits | None = None,
        *,
        clock: Callable[[], float] = time.monotonic,
        now: Callable[[], float] = time.time,
        note: Callable[[Note], None] = lambda _note: None,
    ) -> None:
        self.limits = limits or StoreLimits()
        self._now = now
        self._note = note
        self._sessions = LiveSessions(self.limits, clock, now, note)
        self._positions = itertools.count(1)
        self._id_prefix = secrets.token_hex(4)  # ids of an earlier process must not name other variables

    def restore(self, notes: Iterable[SessionKept | VariableKept]) -> None:
        """Take over what an earlier store noted: sessions before their variables, those in their order.

        Nothing is noted again, and no limit asked for: what was taken once is kept.
        """
        latest = 0
        for entry in notes:
            match entry:
                case SessionKept():
                    self._sessions.restore(entry)
                case VariableKept(session_id, record):
                    session = self._sessions.restored(session_id)
                    session.by_name[record.variable.name] = record
                    session.names[record.variable.id] = record.variable.name
                    self._sessions.grow(session, record.size)
                    latest = max(latest, record.position)
        self._positions = itertools.count(latest + 1)

    # ---- sessions

    def initialize(
        self, session_id: str, metadata: Mapping[str, str] | None = None, *, idle_seconds: float = 0.0
    ) -> Session:
        """Create a session; one that exists keeps its variables and takes over what is given.

        Args:
            session_id: Its id.
            metadata: What to keep with it, beside what there is.
            idle_seconds: Drop it when nobody touched it for so long, which cannot be more than the limits say; 0 leaves
                it as it is.

        Raises:
            Refused: The id or a metadata key is empty or too long.
            Full: There are as many sessions as there may be, or there is no room for the metadata.
        """
        return self._sessions.make(session_id, metadata or {}, idle_seconds)

    def session(self, session_id: str) -> Session:
        """The session of that id; it counts as used.

        Raises:
            NotStored: There is none.
        """
        return self._sessions.use(session_id)

    def cleanup(self, session_id: str) -> int:
        """Drop a session, if it exists; returns how many variables it had, and the session counts as one more."""
        return self._sessions.drop(session_id)

    def __len__(self) -> int:
        return len(self._sessions)

    # ---- variables

    def register(
        self,
        session_id: str,
        name: str,
        kind: str,
        value: Any,
        *,
        constraints: Mapping[str, Any] | None = None,
        metadata: Mapping[str, str] | None = None,
    ) -> Record:
        """Add a variable.

        Raises:
            NotStored: There is no such session.
            Refused: The name, the type, a constraint or the value is wrong.
            Exists: There is a variable of that name.
            Full: A limit of the store is reached.
        """
        session = self.session(session_id)
        check_name("variable name", name, self.limits.max_name_chars)
        constraints = dict(constraints or {})
        check_declaration(name, kind, constraints)
        if session.find(name) is not None:
            raise Exists(f"Variable already exists: {name}")
        if len(session.by_name) >= self.limits.max_variables:
            raise Full(f"session {session_id!r} holds {self.limits.max_variables} variables, the limit")
        position = next(self._positions)
        variable = Variable(
            name=name, type=kind, value=None, id=f"var_{name}_{self._id_prefix}{position}", constraints=constraints
        )
        record = next_version(
            variable,
            value,
            position=position,
            at=self._now(),
            metadata=metadata,
            longest=self.limits.max_name_chars,
        )
        self._sessions.check_room(session, record.size)
        session.names[variable.id] = name
        return self._put(session, "registered", record)

    def get(self, session_id: str, identifier: str) -> Record:
        """The variable of that name or id.

        Raises:
            NotStored: There is no such session or variable.
        """
        record = self.session(session_id).find(identifier)
        if record is None:
            raise NotStored(f"Variable not found: {identifier}")
        return record

    def get_many(self, session_id: str, identifiers: Iterable[str]) -> dict[str, Record | None]:
        """Identifier → variable as of one moment; None for those that are not there.

        Raises:
            NotStored: There is no such session.
        """
        session = self.session(session_id)
        return {identifier: session.find(identifier) for identifier in identifiers}

    def set(
        self,
        session_id: str,
        identifier: str,
        value: Any,
        *,
        expected_version: int = 0,
        metadata: Mapping[str, str] | None = None,
    ) -> Record:
        """Give a variable its next value; metadata is added to what there is.

        Raises:
            NotStored: There is no such session or variable.
            Conflict: `expected_version` is not 0 and not the variable's version.
            Refused: The value does not fit the type or the constraints.
            Full: A limit of the store is reached.
        """
        session = self.session(session_id)
        before = self.get(session_id, identifier)
        version = before.variable.version
        if expected_version not in (0, version):
            raise Conflict(f"variable {before.variable.name!r} has version {version}, not {expected_version}")
        record = self._next(before, value, metadata)
        self._sessions.check_room(session, record.size - before.size)
        return self._put(session, "updated", record)

    def set_many(
        self,
        session_id: str,
        updates: Mapping[str, Any],
        *,
        atomic: bool,
        metadata: Mapping[str, str] | None = None,
    ) -> tuple[dict[str, Record], dict[str, str]]:
        """Set several variables; returns those that were set, and for the others what was wrong.

        An atomic call sets all or none.

        Raises:
            NotStored: There is no such session.
        """
        session = self.session(session_id)
        made: dict[str, Record] = {}
        errors: dict[str, str] = {}
        seen: set[str] = set()
        growth = 0
        for identifier, value in updates.items():
            try:
                before = self.get(session_id, identifier)
                if before.variable.id in seen:
                    raise Refused(f"variable {before.variable.name!r} is named twice")
                seen.add(before.variable.id)
                record = self._next(before, value, metadata)
                self._sessions.check_room(session, growth + record.size - before.size)
                growth += record.size - before.size
                made[identifier] = record
            except StoreError as error:
                errors[identifier] = str(error)
        if atomic and errors:
            return {}, errors
        for record in made.values():
            self._put(session, "updated", record)
        return made, errors

    def list(self, session_id: str, pattern: str = "") -> list[Record]:
        """The variables in the order in which they were registered; `*` in a pattern stands for anything.

        Raises:
            NotStored: There is no such session.
            Refused: The pattern is too long.
        """
        session = self.session(session_id)
        if len(pattern) > self.limits.max_name_chars:
            raise Refused(f"the pattern has {len(pattern)} characters; it takes {self.limits.max_name_chars}")
        matches = matcher(pattern)
        return [record for name, record in session.by_name.items() if matches(name)]

    def delete(self, session_id: str, identifier: str) -> None:
        """Remove a variable.

        Raises:
            NotStored: There is no such session or variable.
        """
        record = self.get(session_id, identifier)
        session = self.session(session_id)
        del session.by_name[record.variable.name], session.names[record.variable.id]
        self._sessions.grow(session, -record.size)
        self._note(VariableDropped(session_id, record.variable.name))
        self._tell(session, Change("deleted", record))

    def watch(self, session_id: str, watcher: Watcher) -> Callable[[], None]:
        """Call `watcher` for every change; returns the function that stops that.

        Raises:
            NotStored: There is no such session.
            Full: The session has as many watchers as it may have.
        """
        session = self.session(session_id)
        if len(session.watchers) >= self.limits.max_watchers:
            raise Full(f"session {session_id!r} has {self.limits.max_watchers} watchers, the limit")
        session.watchers.add(watcher)
        return partial(self._sessions.stop_watching, session, watcher)

    # ---- inside

    def _next(self, before: Record, value: Any, metadata: Mapping[str, str] | None) -> Record:
        return next_version(
            before.variable,
            value,
            position=before.position,
            at=self._now(),
            metadata=metadata,
            longest=self.limits.max_name_chars,
        )

    def _put(self, session: Session, kind: str, record: Record) -> Record:
        before = session.by_name.get(record.variable.name)
        self._sessions.grow(session, record.size - (0 if before is None else before.size))
        session.by_name[record.variable.name] = record
        self._note(VariableKept(session.session_id, record))
        self._tell(session, Change(kind, record))
        return record

    def _tell(self, session: Session, change: Change) -> None:
        for watcher in tuple(session.watchers):
            watcher(change)
