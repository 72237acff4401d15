"""The seam's waits that are no socket's: locks, sleeps, selectors."""

from __future__ import annotations

import logging
import math
import select
import signal
import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from functools import partial, wraps
from time import monotonic  # the real one, also where a test makes time virtual
from typing import Any, Final

from dspex_trio.threads.ladder.interrupt import lends
from dspex_trio.threads.ladder.job import Job
from dspex_trio.threads.patches.gate import exempt, gated_job, left_alone

# How often a wait that cannot be woken looks whether its job is to end, in seconds.
STEP: Final = 0.02
# How long after its end a job's event loops may wind up their tasks, and its code ask without waiting, in seconds.
_GRACE: Final = 0.25


def conditions(original: Callable[..., Any]) -> Callable[..., Any]:
    """`Condition.wait`, and with it Event, Queue, Semaphore, Barrier and Future.

    As the original does it, with a lock of its own for each waiter. Whoever was notified returns normally even when the
    job is to end, so that no notification is lost; it stops at its next call.
    """

    @wraps(original)
    def wait(self: Any, timeout: float | None = None) -> Any:
        job = gated_job()
        if job is None or only_asks(job, timeout):
            return original(self, timeout)
        if not self._is_owned():
            raise RuntimeError("cannot wait on un-acquired lock")
        waiter = job.waiter()
        self._waiters.append(waiter)
        state = self._release_save()
        notified = True
        try:
            job.park(waiter, timeout)
        finally:
            self._acquire_restore(state)
            with suppress(ValueError):
                self._waiters.remove(waiter)
                notified = False
        if not notified:
            job.woken()
        return notified

    return wait


def sleeping(original: Callable[..., Any]) -> Callable[..., Any]:
    """`time.sleep`."""

    @wraps(original)
    def sleep(seconds: float, /) -> None:
        job = gated_job()
        if job is not None:
            job.check()
        if job is None or not 0 < seconds < threading.TIMEOUT_MAX:
            original(seconds)
            return
        job.park(job.waiter(), seconds)
        job.woken()

    return sleep


def starting(original: Callable[..., None]) -> Callable[..., None]:
    """`Thread.start`, which waits until the thread runs: whoever was made to stop there would lose one that does."""

    @wraps(original)
    def start(self: threading.Thread) -> None:
        with left_alone():
            original(self)

    return start


def joining(original: Callable[..., Any]) -> Callable[..., Any]:
    """`Thread.join`."""

    @wraps(original)
    def join(self: threading.Thread, timeout: float | None = None) -> None:
        job = gated_job()
        if job is None or only_asks(job, timeout):
            original(self, timeout)
        else:
            _stepwise(job, job.woken, partial(original, self), timeout, lambda _: not self.is_alive())

    return join


def selecting(original: Callable[..., Any]) -> Callable[..., Any]:
    """`select` of a selector. Under an event loop, whose tasks have been cancelled, only when it takes too long."""

    @wraps(original)
    def select(self: Any, timeout: float | None = None) -> Any:
        return _selected(partial(original, self), timeout)

    return select


def select_call(original: Callable[..., Any]) -> Callable[..., Any]:
    """`select.select`."""

    @wraps(original)
    def select(rlist: Any, wlist: Any, xlist: Any, timeout: float | None = None, /) -> Any:
        return _selected(partial(original, rlist, wlist, xlist), timeout)

    return select


def polling(original: Callable[[], Any]) -> Callable[[], Any]:
    """`select.poll`: the object that it makes inside a job."""

    @wraps(original)
    def poll() -> Any:
        return original() if gated_job() is None else _Poll(original())

    return poll


class _Poll:
    """A poll object whose wait can be ended."""

    def __init__(self, real: select.poll) -> None:
        self._real = real
        self.register = real.register
        self.modify = real.modify
        self.unregister = real.unregister

    def poll(self, timeout: float | None = None, /) -> list[tuple[int, int]]:
        """As the real one: `timeout` in milliseconds, None or less than 0 for none."""
        seconds = None if timeout is None or timeout < 0 else timeout / 1e3
        found: list[tuple[int, int]] = _selected(self._in_milliseconds, seconds)
        return found

    def _in_milliseconds(self, seconds: float | None) -> list[tuple[int, int]]:
        return self._real.poll(None if seconds is None else math.ceil(seconds * 1e3))


def _selected(wait: Callable[[float | None], Any], timeout: float | None) -> Any:
    job = gated_job()
    if job is None or (not exempt.loops and only_asks(job, timeout)):
        return wait(timeout)
    look = partial(_end_when_overdue, job) if exempt.loops else job.woken
    return _stepwise(job, look, wait, timeout, lambda found: any(found) if isinstance(found, tuple) else bool(found))


def only_asks(job: Job, timeout: float | None) -> bool:
    """Whether a wait is none, and to be left alone; raises JobCancelled where a job that is over asks for too long.

    It is never raised in what lends connections, which asks whether one is still good while it lends it.
    """
    if timeout is None or timeout > 0:
        return False
    if job.ignoring_for() > _GRACE and not lends(sys._getframe(1)):  # noqa: SLF001 - the calling thread's own stack
        job.check()
    return True


def _end_when_overdue(job: Job) -> None:
    if job.ignoring_for() > _GRACE:
        job.woken()


def _stepwise(
    job: Job, look: Callable[[], None], wait: Callable[[float], Any], timeout: float | None, done: Callable[[Any], bool]
) -> Any:
    """Wait for what happens in this process; in virtual time, which may jump meanwhile, where there is any."""
    if (clock := job.clock) is None or exempt.processes:
        return in_steps(look, wait, timeout, done)
    result: Any = None

    def step() -> bool:
        nonlocal result
        look()
        result = wait(0)
        return done(result)

    end = math.inf if timeout is None else clock.current_time() + timeout
    while not step() and (left := end - clock.current_time()) > 0:
        watcher = clock.watcher(lambda: done(wait(0)), step)
        if job.cancelled:  # an event loop that winds up
            watcher.acquire(True, min(left, _GRACE))
        else:
            job.park(watcher, None if left == math.inf else left)
    return result


def in_steps(
    look: Callable[[], None], wait: Callable[[float], Any], timeout: float | None, done: Callable[[Any], bool]
) -> Any:
    """Wait in short steps, looking in between whether the job is to end."""
    end = math.inf if timeout is None else monotonic() + timeout
    while True:
        look()
        result = wait(max(min(STEP, end - monotonic()), 0))
        if done(result) or monotonic() >= end:
            return result


def awaiting_signals(original: Callable[..., Any]) -> Callable[..., Any]:
    """`signal.sigwait` and `sigwaitinfo`, which wait in C."""

    @wraps(original)
    def wait(sigset: Any) -> Any:
        job = gated_job()
        if job is None:
            return original(sigset)
        wanted = set(sigset)
        info = in_steps(job.woken, partial(signal.sigtimedwait, wanted), None, lambda found: found is not None)
        return info if original.__name__ == "sigwaitinfo" else signal.Signals(info.si_signo)

    return wait


def logging_(original: Callable[..., Any]) -> Callable[..., Any]:
    """A log handler's socket is the process's: it is not broken because a trial ends while it logs.

    And what a handler raises where no program has logged does not end the loop or a thread of ours, but is told as
    logging tells of its handlers' errors.
    """

    @wraps(original)
    def handle(self: logging.Handler, record: logging.LogRecord) -> Any:
        exempt.waits += 1
        try:
            return original(self, record)
        except BaseException as error:  # noqa: ASYNC103 - logging awaits nothing
            if gated_job() is not None or isinstance(error, KeyboardInterrupt):
                raise
            self.handleError(record)
            return False  # noqa: ASYNC104 - as above
        finally:
            exempt.waits -= 1

    return handle
