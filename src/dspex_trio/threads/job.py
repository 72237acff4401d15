"""A job: one cancellable unit of work in threads, how its code learns that it is over, and how its waits are ended.

Two rungs of the ladder live here. *check*: the code asks, and JobCancelled is raised. *wake*: whatever it is blocked on
is ended from outside, and JobCancelled is raised as it leaves. What makes that sound: entering, leaving and waking take
one lock, so that a socket is only ever shut down inside an operation of this job, never under its next owner.
"""

from __future__ import annotations

import _socket
import socket
import threading
import time
from _thread import LockType, allocate_lock, get_ident
from collections.abc import Callable
from contextlib import suppress
from contextvars import ContextVar
from typing import Final, NoReturn

# The C method, whatever anybody made of the Python class.
_shutdown: Final = _socket.socket.shutdown

# Closing a descriptor and shutting one down exclude each other: the number may belong to somebody else right after.
descriptors: Final = allocate_lock()

_current: Final[ContextVar[Job | None]] = ContextVar("dspex_trio.threads.job", default=None)
_lookups: list[Callable[[], object]] = []


class JobCancelled(BaseException):
    """Ends a job's code; no `except Exception` of a program's keeps it. Never leaves `Threads.run`."""


class Job:
    """One unit of work; may run several functions one after another, and its code may use threads of its own.

    Make it in the Trio thread: that thread is never taken for one of the job's, even when it runs code of the job's
    context.

    Args:
        name: For lists of stuck threads.
    """

    __slots__ = (
        "_callbacks",
        "_cancelled_at",
        "_ended_at",
        "_lock",
        "_parked",
        "_rung",
        "_sockets",
        "cancelled",
        "host",
        "name",
    )

    def __init__(self, name: str = "") -> None:
        self.name = name
        self.cancelled = False
        self.host = get_ident()
        self._rung: str | None = None
        self._cancelled_at: float | None = None
        self._ended_at: float | None = None
        self._lock = allocate_lock()
        self._sockets: list[socket.socket] = []
        self._parked: list[LockType] = []
        self._callbacks: dict[object, Callable[[], object]] = {}

    def __deepcopy__(self, memo: object) -> Job:
        return self

    # ---- in the job's threads ----------------------------------------------------------------------------------------

    def check(self) -> None:
        """Return at once, or raise JobCancelled when the job is to end. From any thread of the job."""
        if self.cancelled:
            self._stop("check")

    def on_cancel(self, callback: Callable[[], object]) -> Callable[[], None]:
        """Have `callback` called, in the Trio thread, when the job is cancelled; at once if it already is.

        It must not block. Returns a way to take it back.
        """
        key = object()
        with self._lock:
            if not self.cancelled:
                self._callbacks[key] = callback
                return lambda: self._forget(key)
        callback()
        return lambda: None

    def enter(self, sock: socket.socket) -> None:
        """A blocking operation on `sock` begins; refused when the job is to end."""
        with self._lock:
            if not self.cancelled:
                self._sockets.append(sock)
                return
        self._stop("check")

    def leave(self, sock: socket.socket) -> None:
        """It has ended; when the job is to end, so does the socket, which may be half-read."""
        with self._lock:
            self._sockets.remove(sock)
        if self.cancelled:
            _shut(sock)
            self._stop("wake")

    def park(self, waiter: LockType, timeout: float | None) -> None:
        """Wait until `waiter`, a lock that is held, is released by whoever it is for, by `wake`, or for `timeout`."""
        with self._lock:
            if self.cancelled:
                return
            self._parked.append(waiter)
        try:
            waiter.acquire(True, -1 if timeout is None else min(timeout, threading.TIMEOUT_MAX))
        finally:
            with self._lock:
                self._parked.remove(waiter)

    def woken(self) -> None:
        """After a wait: raise JobCancelled when the job is to end."""
        if self.cancelled:
            self._stop("wake")

    def _stop(self, rung: str) -> NoReturn:
        if self._rung is None:
            self._rung = rung
        raise JobCancelled

    def _forget(self, key: object) -> None:
        with self._lock:
            self._callbacks.pop(key, None)

    # ---- in the Trio thread ------------------------------------------------------------------------------------------

    def cancel(self) -> None:
        """Tell the job's code to end: sets the flag, then calls back."""
        with self._lock:
            self.cancelled = True
            self._cancelled_at = time.monotonic()
            callbacks, self._callbacks = list(self._callbacks.values()), {}
        for callback in callbacks:
            callback()

    def wake(self) -> None:
        """End what the job's threads are blocked on. Never blocks; to be repeated until they are out.

        Once is not enough: a socket that is shut down before it connects connects all the same.
        """
        if not self._lock.acquire(blocking=False):
            return
        try:
            if self._sockets and descriptors.acquire(blocking=False):
                try:
                    for sock in self._sockets:
                        _shut(sock)
                finally:
                    descriptors.release()
            for waiter in self._parked:
                if waiter.locked():
                    waiter.release()
        finally:
            self._lock.release()

    def ended(self, *, by_itself: bool) -> None:
        """The thread that ran the job's function has ended."""
        if self._cancelled_at is not None:
            self._ended_at = time.monotonic()
            if by_itself:
                self._rung = "returned"
            elif self._rung is None:
                self._rung = "raise"

    def seconds_since_cancel(self) -> float:
        """From the cancel to the thread's end, or until now; 0 when the job is not cancelled."""
        if self._cancelled_at is None:
            return 0.0
        return (self._ended_at if self._ended_at is not None else time.monotonic()) - self._cancelled_at

    def ignoring_for(self) -> float:
        """Seconds since the cancel, whatever has ended meanwhile."""
        return 0.0 if self._cancelled_at is None else time.monotonic() - self._cancelled_at

    def details(self) -> dict[str, str]:
        """How the job was stopped, as far as known; empty when it is not cancelled.

        `rung` is what ended its thread: `check`, `wake`, `raise`, or `returned` when it ended by itself; `abandon`
        while it still runs. `rung_ms` are the milliseconds that took, or that it has been ignoring the cancel; `stuck`
        is `true` while it still runs.
        """
        if self._cancelled_at is None:
            return {}
        stuck = self._ended_at is None
        rung = "abandon" if stuck else self._rung or "returned"
        return {"rung": rung, "rung_ms": f"{self.seconds_since_cancel() * 1e3:.1f}", "stuck": str(stuck).lower()}


def _shut(sock: socket.socket) -> None:
    with suppress(OSError, ValueError):  # not connected, or closed meanwhile
        _shutdown(sock, socket.SHUT_RDWR)


def current_job() -> Job | None:
    """The job whose code the calling thread runs; None outside of jobs."""
    job = _current.get()
    if job is None:
        for lookup in _lookups:
            if isinstance(found := lookup(), Job):
                job = found
                break
        else:
            return None
    return None if job.host == get_ident() else job


def enter_job(job: Job) -> None:
    """Make `job` the current one in the calling context, which belongs to the job alone."""
    _current.set(job)


def add_lookup(lookup: Callable[[], object]) -> Callable[[], None]:
    """Ask `lookup` for the current job where no context variable tells it, as in threads that a library starts.

    Returns a way to take it back.
    """
    _lookups.append(lookup)
    return lambda: _lookups.remove(lookup)
