"""The session store's core: sessions and typed variables, in memory. Synchronous and pure.

One thread uses a store: the loop's. Nothing here awaits, so every operation is atomic.
"""

from __future__ import annotations

import fnmatch
import itertools
import secrets
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from typing import Any, Final

from dspex_trio.model import Variable
from dspex_trio.sessions.records import (
    Change,
    Conflict,
    Exists,
    Full,
    NotStored,
    Record,
    Refused,
    Session,
    StoreError,
    StoreLimits,
    Watcher,
)
from dspex_trio.values import plain
from dspex_trio.variables import TYPES, check_constraints, check_value
from dspex_trio.wire import encode_json

MAX_VERSION: Final = 2**31 - 1  # int32 on the wire


class MemoryStore:
    """Sessions and their variables.

    Args:
        limits: What peers can make it hold.
        clock: Tells the age of a session, in seconds.
        now: Tells when something happened, in seconds since the epoch.
    """

    def __init__(
        self,
        limits: StoreLimits | None = None,
        *,
        clock: Callable[[], float] = time.monotonic,
        now: Callable[[], float] = time.time,
    ) -> None:
        self.limits = limits or StoreLimits()
        self._clock = clock
        self._now = now
        self._sessions: dict[str, Session] = {}  # in the order in which they were touched
        self._ids = itertools.count(1)
        self._id_prefix = secrets.token_hex(4)  # ids of an earlier process must not name other variables

    # ---- sessions

    def initialize(self, session_id: str, metadata: Mapping[str, str] | None = None) -> Session:
        """Create a session; one that exists keeps its variables and takes over the metadata given.

        Raises:
            Refused: The id is empty or too long.
            Full: There are as many sessions as there may be.
        """
        self._check_name("session id", session_id)
        self._drop_idle()
        metadata = dict(metadata or {})
        if (session := self._sessions.get(session_id)) is not None:
            session.metadata |= metadata
            return self._touch(session)
        if len(self._sessions) >= self.limits.max_sessions:
            raise Full(f"the store holds {self.limits.max_sessions} sessions, its limit")
        now = self._clock()
        session = self._sessions[session_id] = Session(session_id, metadata, self._now(), now)
        return session

    def session(self, session_id: str) -> Session:
        """The session of that id; it counts as used.

        Raises:
            NotStored: There is none.
        """
        self._drop_idle()
        try:
            return self._touch(self._sessions[session_id])
        except KeyError:
            raise NotStored(f"Session not found: {session_id}") from None

    def cleanup(self, session_id: str) -> int:
        """Drop a session, if it exists; returns how many variables it had, and the session counts as one more."""
        session = self._sessions.pop(session_id, None)
        return 0 if session is None else self._close(session)

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
        self._check_name("variable name", name)
        if kind not in TYPES:
            raise Refused(f"variable {name!r}: {kind!r} is no type; the types are {', '.join(TYPES)}")
        if session.find(name) is not None:
            raise Exists(f"Variable already exists: {name}")
        if len(session.by_name) >= self.limits.max_variables:
            raise Full(f"session {session_id!r} holds {self.limits.max_variables} variables, the limit")
        variable = Variable(
            name=name,
            type=kind,
            value=None,
            id=f"var_{name}_{self._id_prefix}{next(self._ids)}",
            constraints=dict(constraints or {}),
            metadata=dict(metadata or {}),
        )
        try:
            check_constraints(kind, variable.constraints)
        except ValueError as error:
            raise Refused(f"variable {name!r}: {error}") from None
        record = self._record(session, variable, value, None)
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
        return self._put(session, "updated", self._next(session, before, value, metadata))

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
                made[identifier] = self._next(session, before, value, metadata, growth)
                growth += made[identifier].size - before.size
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
        """
        records = self.session(session_id).by_name.values()
        return [record for record in records if not pattern or fnmatch.fnmatchcase(record.variable.name, pattern)]

    def delete(self, session_id: str, identifier: str) -> None:
        """Remove a variable.

        Raises:
            NotStored: There is no such session or variable.
        """
        record = self.get(session_id, identifier)
        session = self._sessions[session_id]
        del session.by_name[record.variable.name], session.names[record.variable.id]
        session.size -= record.size
        self._tell(session, Change("deleted", record))

    def watch(self, session_id: str, watcher: Watcher) -> Callable[[], None]:
        """Have `watcher` told of every change; returns what takes it back.

        Raises:
            NotStored: There is no such session.
            Full: The session has as many watchers as it may have.
        """
        session = self.session(session_id)
        if len(session.watchers) >= self.limits.max_watchers:
            raise Full(f"session {session_id!r} has {self.limits.max_watchers} watchers, the limit")
        session.watchers.add(watcher)
        return lambda: session.watchers.discard(watcher)

    # ---- inside

    def _next(
        self, session: Session, before: Record, value: Any, metadata: Mapping[str, str] | None, growth: int = 0
    ) -> Record:
        variable = before.variable
        if metadata:
            variable = replace(variable, metadata={**variable.metadata, **metadata})
        return self._record(session, variable, value, before, growth)

    def _record(
        self, session: Session, variable: Variable, value: Any, before: Record | None, growth: int = 0
    ) -> Record:
        """The next version of a variable, checked but not yet put."""
        warnings: list[str] = []
        value = plain(value, warnings=warnings, path="value")
        if warnings:
            raise Refused(f"variable {variable.name!r}: {warnings[0]}")
        try:
            value = check_value(variable.type, value, variable.constraints)
        except ValueError as error:
            raise Refused(f"variable {variable.name!r}: {error}") from None
        for key in variable.metadata:
            self._check_name("metadata key", key)
        size = len(encode_json([value, variable.name, dict(variable.constraints), dict(variable.metadata)]))
        grown = session.size + growth + size - (0 if before is None else before.size)
        if grown > self.limits.max_session_bytes:
            raise Full(
                f"session {session.session_id!r} would hold {grown} bytes; the limit is {self.limits.max_session_bytes}"
            )
        version = min(variable.version + 1, MAX_VERSION)
        return Record(replace(variable, value=value, version=version), self._now(), size)

    def _put(self, session: Session, kind: str, record: Record) -> Record:
        before = session.by_name.get(record.variable.name)
        session.size += record.size - (0 if before is None else before.size)
        session.by_name[record.variable.name] = record
        self._tell(session, Change(kind, record))
        return record

    def _tell(self, session: Session, change: Change | None) -> None:
        for watcher in tuple(session.watchers):
            watcher(change)

    def _touch(self, session: Session) -> Session:
        session.touched = self._clock()
        self._sessions[session.session_id] = self._sessions.pop(session.session_id)  # last in order
        return session

    def _drop_idle(self) -> None:
        oldest = self._clock() - self.limits.idle_seconds
        while self._sessions and (session := next(iter(self._sessions.values()))).touched < oldest:
            # Somebody who watches is somebody who uses it.
            if session.watchers:
                self._touch(session)
            else:
                del self._sessions[session.session_id]

    def _close(self, session: Session) -> int:
        self._tell(session, None)
        session.watchers.clear()
        return 1 + len(session.by_name)

    def _check_name(self, what: str, name: str) -> None:
        if not name or len(name) > self.limits.max_name_chars:
            raise Refused(
                f"the {what} {name[:40]!r} has {len(name)} characters; it takes 1 to {self.limits.max_name_chars}"
            )
