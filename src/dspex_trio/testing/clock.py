"""A virtual clock that knows of worker threads: time passes only when every task and every thread waits."""

from __future__ import annotations

import math
import queue
import threading
import time
from _thread import allocate_lock, get_ident
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from types import ModuleType
from typing import Final

import trio

from dspex_trio.threads import ThreadClock, current_job

# Real seconds for which nothing may happen before time jumps, so that what the kernel still carries can arrive. It is
# longer than the cushion of `wait_all_tasks_blocked`, whose callers go first.
_CUSHION: Final = 0.001

_monotonic: Final = time.monotonic
# Where waits with a timeout look what time it is.
_MONOTONIC: Final[list[tuple[ModuleType, str]]] = [(time, "monotonic"), (queue, "time"), (threading, "_time")]


class VirtualClock(trio.abc.Clock, trio.abc.Instrument, ThreadClock):
    """Give it to `trio.run` as clock and as instrument; pytest-trio does so with a fixture that returns one.

    Trio's own autojump clock jumps while a thread is busy. This one holds time still while a thread of
    `dspex_trio.threads` runs, and jumps to the next deadline, of a task or of a thread's wait, when all of them wait.
    Waits of a job's threads take virtual time: `time.sleep`, `threading.Event.wait` and whatever else rests on a
    Condition, `run_in_loop`. A thread inside a blocking socket call, a process's wait or C code counts as running; mark
    such a wait with `blocked` if it lasts until something else happens. Threads that a program started itself are not
    counted, but their waits take virtual time too. In a job's threads `time.monotonic` is virtual as well, because
    waits with a timeout look at it; `time.time` is not.
    """

    def __init__(self) -> None:
        self._now = 0.0
        self._origin = _monotonic()
        self._token: trio.lowlevel.TrioToken | None = None
        self._quiet = False
        self._lock = threading.RLock()
        self._running = 0
        self._blocked = 0
        self._idents: set[int] = set()
        self._waiting: set[_Waiter] = set()

    # ---- trio.abc.Clock ----------------------------------------------------------------------------------------------

    def start_clock(self) -> None:
        """Nothing is to be started."""

    def current_time(self) -> float:
        """Virtual seconds; 0 at the start."""
        return self._now

    def deadline_to_sleep_time(self, deadline: float) -> float:
        """Asked by Trio whenever no task can run: the place to jump from."""
        if self._token is None:
            self._token = trio.lowlevel.current_trio_token()
        with self._lock:
            due = min((deadline, *(waiter.due for waiter in self._waiting)))
            if due <= self._now:
                return 0
            if self._busy() or due == math.inf:
                return math.inf  # whatever ends this wakes the loop
            if not self._quiet:
                return _CUSHION
            self._quiet = False
            self._now = due
            for waiter in [waiter for waiter in self._waiting if waiter.due <= due]:
                waiter.expire()
        return 0

    # ---- trio.abc.Instrument -----------------------------------------------------------------------------------------

    def before_run(self) -> None:
        """Put virtual time under the waits of jobs."""
        for owner, name in _MONOTONIC:
            setattr(owner, name, self._monotonic)

    def after_run(self) -> None:
        """Take it back."""
        for owner, name in _MONOTONIC:
            if getattr(owner, name) == self._monotonic:
                setattr(owner, name, _monotonic)

    def after_io_wait(self, _timeout: float) -> None:
        """The loop has waited; unless a task runs now, nothing has happened meanwhile."""
        self._quiet = True

    def before_task_step(self, _task: trio.lowlevel.Task) -> None:
        """Something has happened."""
        self._quiet = False

    # ---- ThreadClock -------------------------------------------------------------------------------------------------

    def began(self) -> None:
        with self._lock:
            self._running += 1

    def entered(self) -> None:
        with self._lock:
            self._idents.add(get_ident())

    def left(self) -> None:
        with self._lock:
            self._idents.discard(get_ident())

    def ended(self) -> None:
        with self._lock:
            self._running -= 1

    def waiter(self) -> _Waiter:
        return _Waiter(self)

    # ---- in threads --------------------------------------------------------------------------------------------------

    @contextmanager
    def blocked(self) -> Iterator[None]:
        """Declare that the calling thread waits for something that the clock cannot see, so that time may pass."""
        with self._lock:
            self._blocked += 1
        self._look()
        try:
            yield
        finally:
            with self._lock:
                self._blocked -= 1

    def _monotonic(self) -> float:
        job = current_job()
        return _monotonic() if job is None or job.clock is None else self._origin + self._now

    def _busy(self) -> int:
        return self._running - self._blocked - sum(waiter.counts for waiter in self._waiting)

    def _look(self) -> None:
        """Have the loop look again whether time may jump."""
        if self._token is not None:
            with suppress(trio.RunFinishedError):
                self._token.run_sync_soon(_nothing, idempotent=True)


class _Waiter:
    """One wait of one thread. The thread counts as running again at the moment it is released, not when it wakes."""

    def __init__(self, clock: VirtualClock) -> None:
        self._clock = clock
        self._gate = allocate_lock()
        self._gate.acquire()
        self._released = False
        self._expired = False
        self.counts = get_ident() in clock._idents  # noqa: SLF001 - the other half of this class
        self.due = math.inf

    def acquire(self, blocking: bool = True, timeout: float = -1, /) -> bool:  # noqa: FBT001, FBT002 - a lock's own
        """Wait until it is released, or for so many virtual seconds; whether it was."""
        clock = self._clock
        with clock._lock:  # noqa: SLF001 - as above
            if self._released or not blocking:
                return self._released
            if timeout >= 0:
                self.due = clock.current_time() + timeout
            clock._waiting.add(self)  # noqa: SLF001 - as above
        clock._look()  # noqa: SLF001 - as above
        self._gate.acquire()
        return not self._expired

    def release(self) -> None:
        """End the wait."""
        with self._clock._lock:  # noqa: SLF001 - as above
            if self._released:
                raise RuntimeError("released already")
            self._released = True
            self._clock._waiting.discard(self)  # noqa: SLF001 - as above
        self._gate.release()

    def expire(self) -> None:
        """Its time is up."""
        self._expired = True
        self.release()


def _nothing() -> None:
    pass
