"""The sessions of a store: made, used, and dropped when nobody uses them; and how much they all hold."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final

from dspex_trio.store.checking import check_name
from dspex_trio.store.records import (
    Full,
    Note,
    NotStored,
    Session,
    SessionDropped,
    SessionKept,
    StoreLimits,
    Watcher,
)
from dspex_trio.wire import encode_json

# Sessions that nobody asks for any more are looked for so often, in seconds.
_SWEEP: Final = 60.0
# A use is noted when so much of the idle time has gone by since the last one that was.
_NOTED_USE: Final = 1 / 16


class LiveSessions:
    """The sessions of a store.

    Args:
        limits: What peers can make it hold.
        clock: Tells the age of a session, in seconds.
        now: Tells when something happened, in seconds since the epoch.
        note: Called with each change that must be written to disk.
    """

    def __init__(
        self,
        limits: StoreLimits,
        clock: Callable[[], float],
        now: Callable[[], float],
        note: Callable[[Note], None],
    ) -> None:
        self.size = 0
        self._limits = limits
        self._clock = clock
        self._now = now
        self._note = note
        self._sessions: dict[str, Session] = {}
        self._sweep_at = clock() + _SWEEP

    def __len__(self) -> int:
        return len(self._sessions)

    def restore(self, kept: SessionKept) -> None:
        """Take over a session that was noted; the time since its last use counts."""
        touched = self._clock() - max(self._now() - kept.touched_at, 0.0)
        session = Session(kept.session_id, dict(kept.metadata), kept.created_at, touched, touched, kept.idle_seconds)
        self._sessions[kept.session_id] = session
        self.grow(session, _size(session.metadata))

    def restored(self, session_id: str) -> Session:
        """A session that was taken over before, as it is; KeyError when there is none."""
        return self._sessions[session_id]

    def make(self, session_id: str, metadata: Mapping[str, str], idle_seconds: float) -> Session:
        """Create a session; one that exists takes over what is given."""
        for what, name in (("session id", session_id), *(("metadata key", key) for key in metadata)):
            check_name(what, name, self._limits.max_name_chars)
        session = self._find(session_id)
        if session is None:
            self._sweep(now=len(self._sessions) >= self._limits.max_sessions)
            if len(self._sessions) >= self._limits.max_sessions:
                raise Full(f"the store holds {self._limits.max_sessions} sessions, its limit")
            used = self._clock()
            session = Session(session_id, {}, self._now(), used, used, self._limits.idle_seconds)
        merged = {**session.metadata, **metadata}
        growth = _size(merged) - _size(session.metadata)
        self.check_room(session, growth)
        self._sessions[session_id] = session
        self.grow(session, growth)
        session.metadata = merged
        if idle_seconds > 0:
            session.idle_seconds = min(idle_seconds, self._limits.idle_seconds)
        self._touch(session, noted=True)
        return session

    def use(self, session_id: str) -> Session:
        """The session of that id; raises NotStored when there is none."""
        self._sweep()
        session = self._find(session_id)
        if session is None:
            raise NotStored(f"Session not found: {session_id}")
        self._touch(session)
        return session

    def drop(self, session_id: str) -> int:
        """Drop a session, if it exists; returns how many things are gone."""
        session = self._find(session_id)
        return 0 if session is None else self._drop(session)

    def stop_watching(self, session: Session, watcher: Watcher) -> None:
        """A watcher goes; who watched has used the session."""
        session.watchers.discard(watcher)
        session.touched = self._clock()

    def check_room(self, session: Session, growth: int) -> None:
        """Raise Full when there is no room for `growth` more bytes; what makes room is never refused."""
        if growth <= 0:
            return
        size, limits = session.size + growth, self._limits
        if size > limits.max_session_bytes:
            raise Full(
                f"session {session.session_id!r} would hold {size} bytes; the limit is {limits.max_session_bytes}"
            )
        if self.size + growth > limits.max_bytes:
            raise Full(f"the store would hold {self.size + growth} bytes; the limit is {limits.max_bytes}")

    def grow(self, session: Session, growth: int) -> None:
        """Count bytes that a session holds more, or fewer."""
        session.size += growth
        self.size += growth

    def _touch(self, session: Session, *, noted: bool = False) -> None:
        session.touched = self._clock()
        if noted or session.touched - session.noted >= session.idle_seconds * _NOTED_USE:
            session.noted = session.touched
            self._note(
                SessionKept(session.session_id, session.metadata, session.created_at, self._now(), session.idle_seconds)
            )

    def _find(self, session_id: str) -> Session | None:
        session = self._sessions.get(session_id)
        if session is not None and self._is_idle(session):
            self._drop(session)
            return None
        return session

    def _is_idle(self, session: Session) -> bool:
        """Whether its time is over; somebody who watches is somebody who uses it."""
        return not session.watchers and session.touched + session.idle_seconds < self._clock()

    def _sweep(self, *, now: bool = False) -> None:
        if now or self._clock() >= self._sweep_at:
            self._sweep_at = self._clock() + _SWEEP
            for session in [each for each in self._sessions.values() if self._is_idle(each)]:
                self._drop(session)

    def _drop(self, session: Session) -> int:
        del self._sessions[session.session_id]
        self.size -= session.size
        self._note(SessionDropped(session.session_id))
        for watcher in tuple(session.watchers):
            watcher(None)
        session.watchers.clear()
        return 1 + len(session.by_name)


def _size(metadata: Mapping[str, str]) -> int:
    return len(encode_json(dict(metadata))) if metadata else 0
