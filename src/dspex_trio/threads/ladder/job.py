"""A job: one cancellable unit of work in threads, how its code learns that it is over, and how its waits are ended.

Two steps of the ladder live here. *check*: the code asks, and JobCancelled is raised. *wake*: whatever it is blocked on
is ended from outside, and JobCancelled is raised as it leaves. What makes that sound: entering, leaving and waking take
one lock, so that a socket is only ever shut down inside an operation of this job, never under its next owner.
"""

from __future__ import annotations

import ctypes
import logging
import math
import os
import socket
import sys
import threading
from _thread import allocate_lock, get_ident
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from contextvars import ContextVar
from time import monotonic  # the real one, also where a test makes time virtual; see `Job._now`
from typing import Final, NoReturn

from dspex_trio.threads.ladder.clock import ThreadClock, Waiter
from dspex_trio.threads.patches.excepthooks import JobCancelled

logger: Final = logging.getLogger(__name__)

# Called with the GIL held, unlike `socket.shutdown`.
_shutdown: Final = ctypes.PyDLL("ws2_32" if sys.platform == "win32" else None).shutdown
_current: Final[ContextVar[Job | None]] = ContextVar("dspex_trio.threads.ladder.job", default=None)
_lookups: list[Callable[[], object]] = []
# Stands for this process; in one that is forked from it, another one does.
_process = object()


class _Own(threading.local):
    """The job for which the calling thread was started, in whichever context its code runs."""

    job: Job | None = None


_own: Final = _Own()


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
        "_endings",
        "_ends_at",
        "_lock",
        "_parked",
        "_process",
        "_raised_at",
        "_rung",
        "_sockets",
        "cancelled",
        "clock",
        "host",
        "name",
    )

    def __init__(self, name: str = "") -> None:
        self.name = name
        self.cancelled = False
        self.host = get_ident()
        self.clock: ThreadClock | None = None
        self._process = _process
        self._rung: str | None = None
        self._cancelled_at: float | None = None
        self._raised_at: dict[int, float] = {}
        self._ended_at: float | None = None
        self._ends_at = math.inf
        # One that the same thread may take twice: collecting garbage can run anybody's finaliser at any point.
        self._lock = threading.RLock()
        self._sockets: list[socket.socket] = []
        self._parked: list[Waiter] = []
        self._callbacks: dict[object, Callable[[], object]] = {}
        self._endings: dict[object, Callable[[], object]] = {}

    def __deepcopy__(self, memo: object) -> Job:
        return self

    def is_of(self, ident: int) -> bool:
        """Whether that thread, of this process, may be one of the job's. In a process that was forked none is."""
        return self.host != ident and self._process is _process

    # ---- in the job's threads ----------------------------------------------------------------------------------------

    def check(self) -> None:
        """Return at once, or raise JobCancelled when the job is to end. From any thread of the job."""
        if self.cancelled:
            self._stop("check")

    def time_left(self) -> float:
        """Seconds until the deadline of the function that runs; infinite where there is none. From any thread."""
        return self._ends_at - self._now()

    def on_cancel(self, callback: Callable[[], object]) -> Callable[[], None]:
        """Have `callback` called, in the Trio thread, when the job is cancelled; here and at once if it already is.

        It must not block; what it raises is logged. Returns a way to take it back.
        """
        key = object()
        with self._lock:
            if not self.cancelled:
                self._callbacks[key] = callback
                return lambda: self._forget(key)
        callback()
        return lambda: None

    def leaves(self, end: Callable[[], object]) -> Callable[[], None]:
        """Have `end` called, in the Trio thread, when the job was cancelled and its threads have had time to clean up.

        As `on_cancel` otherwise; for what would outlive the threads, as child processes do.
        """
        key = object()
        with self._lock:
            self._endings[key] = end
        return lambda: self._forget(key)

    def enter(self, sock: socket.socket) -> None:
        """A blocking operation on `sock` begins; refused when the job is to end."""
        with self._lock:
            if not self.cancelled:
                self._sockets.append(sock)
                return
        self._stop("check")

    def leave(self, sock: socket.socket) -> None:
        """A blocking operation on `sock` has ended; of a cancelled job the socket, perhaps half-read, is shut down."""
        with self._lock:
            self._sockets.remove(sock)
        if self.cancelled:
            shut_down(sock)
            self._stop("wake")

    def waiter(self) -> Waiter:
        """What a wait of the calling thread is going to block on."""
        if self.clock is not None:
            return self.clock.waiter()
        waiter = allocate_lock()
        waiter.acquire()
        return waiter

    def park(self, waiter: Waiter, timeout: float | None = None) -> None:
        """Wait until `waiter` is released by whoever it is for, or by `wake`, or for `timeout` seconds."""
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
        self._raised_at[get_ident()] = self._now()
        stop = sys.exception()
        if not isinstance(stop, JobCancelled):
            stop = JobCancelled()
            stop.rung = rung
        try:
            raise stop
        finally:
            del stop  # this frame is in its traceback: a cycle that only the garbage collector would free

    def _now(self) -> float:
        return monotonic() if self.clock is None else self.clock.current_time()

    def _forget(self, key: object) -> None:
        with self._lock:
            self._callbacks.pop(key, None)
            self._endings.pop(key, None)

    @property
    def waits(self) -> bool:
        """Whether one of its threads is blocked on something just now."""
        return bool(self._sockets or self._parked)

    # ---- in the Trio thread ------------------------------------------------------------------------------------------

    def ends_in(self, seconds: float) -> None:
        """A function of the job begins, which has so many seconds."""
        self._ends_at = self._now() + seconds

    def cancel(self) -> None:
        """Tell the job's code to end: sets the flag, then calls back."""
        with self._lock:
            if self.cancelled:
                return
            self.cancelled = True
            self._cancelled_at = self._now()
            callbacks, self._callbacks = list(self._callbacks.values()), {}
        self._call(callbacks)

    def end_what_is_left(self) -> None:
        """End what the cancelled job's code has started outside of its threads."""
        with self._lock:
            endings, self._endings = list(self._endings.values()), {}
        self._call(endings)

    def _call(self, callbacks: list[Callable[[], object]]) -> None:
        for callback in callbacks:
            try:
                callback()
            except Exception:
                logger.exception("a callback of the cancelled job %r failed", self.name)

    def wake(self) -> None:
        """End what the job's threads are blocked on. Never blocks; to be repeated until they are out.

        Once is not enough: a socket that is shut down before it connects connects all the same.
        """
        if not self._lock.acquire(blocking=False):
            return
        try:
            for sock in self._sockets:
                shut_down(sock)
            for waiter in self._parked:
                with suppress(RuntimeError):  # it has been released, and its thread is on its way
                    waiter.release()
        finally:
            self._lock.release()

    def ended(self, rung: str = "returned") -> None:
        """A function of the job has ended, by this step of the ladder."""
        if self._cancelled_at is not None:
            self._ended_at = self._now()
            self._rung = rung

    def goes_on(self) -> None:
        """The cancelled call returns although threads of the job, its own or some library's, still run."""
        self._ended_at = None

    def ended_late(self, rung: str | None = None) -> None:
        """All of them have ended; the last ones by `rung`, if that is another one than ended its own thread."""
        self._ended_at = self._now()
        self._rung = rung or self._rung

    def seconds_since_cancel(self) -> float:
        """From the cancel to the thread's end, or until now; 0 when the job is not cancelled."""
        if self._cancelled_at is None:
            return 0.0
        return (self._ended_at if self._ended_at is not None else self._now()) - self._cancelled_at

    def ignoring_for(self) -> float:
        """Seconds since the cancel, whatever has ended meanwhile."""
        return 0.0 if self._cancelled_at is None else self._now() - self._cancelled_at

    def unwinding_for(self, ident: int) -> float | None:
        """Seconds since a check or a wake last raised JobCancelled in that thread; None if none has."""
        raised_at = self._raised_at.get(ident)
        return None if raised_at is None else self._now() - raised_at

    def details(self) -> dict[str, str]:
        """How the job was stopped, as far as known; empty when it is not cancelled.

        `rung` is what ended its thread: `check`, `wake`, `raise`, `kill`, or `returned` when it ended by itself;
        `abandon` while it still runs. `rung_ms` are the milliseconds that took, or that it has been ignoring the
        cancel; `stuck` is `true` while it still runs.
        """
        if self._cancelled_at is None:
            return {}
        stuck = self._ended_at is None
        rung = "abandon" if stuck else self._rung or "returned"
        return {"rung": rung, "rung_ms": f"{self.seconds_since_cancel() * 1e3:.1f}", "stuck": str(stuck).lower()}


def shut_down(sock: socket.socket) -> None:
    """Shut a socket down in both directions, unless it is closed.

    A close frees the descriptor's number for another socket, so none may happen between looking the
    number up and using it. Both happen in one call into C that keeps the GIL, and a close begins by forgetting the
    number while it holds the GIL.
    """
    deque(map(_shutdown, map(socket.socket.fileno, (sock,)), (socket.SHUT_RDWR,)), maxlen=0)


def current_job() -> Job | None:
    """The job whose code the calling thread runs; None outside of jobs."""
    if (job := _current.get()) is None:
        for lookup in _lookups:
            if isinstance(found := lookup(), Job):
                job = found
                break
        else:
            if (job := _own.job) is None:
                return None
    return job if job.is_of(get_ident()) else None


def enter_job(job: Job) -> None:
    """Make `job` the current one in the calling context, which belongs to the job alone."""
    _current.set(job)


def own_job(job: Job | None) -> None:
    """Make `job` the current one in the calling thread where no context variable names another one."""
    _own.job = job


def add_lookup(lookup: Callable[[], object], *, last: bool = False) -> Callable[[], None]:
    """Ask `lookup` for the current job where no context variable names it, as in threads that a library starts.

    It is asked before those that are there, or with `last` after them. Returns a way to take it back.
    """
    _lookups.insert(len(_lookups) if last else 0, lookup)
    return lambda: _lookups.remove(lookup)


def _forked() -> None:
    """A process that a job's code forks is none of the job's: it would never be cancelled, and its lock may be held."""
    global _process  # noqa: PLW0603 - it is the process's
    _process = object()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forked)
