"""One function in one thread: how it starts and ends, and the steps of the ladder that stop it."""

from __future__ import annotations

import contextvars
import inspect
import sys
import threading
import traceback
from _thread import allocate_lock, get_ident
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Final

import outcome
import trio

from dspex_trio.threads.ladder.clock import ClockedThread
from dspex_trio.threads.ladder.interrupt import allow_interrupts_in, frames_kept, raise_in, take_back, threads_of
from dspex_trio.threads.ladder.job import Job, enter_job, own_job
from dspex_trio.threads.patches.excepthooks import JobCancelled

# The wake is repeated ever less often until the thread is out, in seconds.
_FIRST_PAUSE: Final = 0.0005
_LONGEST_PAUSE: Final = 0.02
# Code that neither asked nor waited for so long never will, and is interrupted, in seconds.
_RAISE_AFTER: Final = 0.05
# After JobCancelled was raised a thread unwinds, and has so long for it, in seconds; longer after each interrupt.
_UNWINDING: Final = 0.5
_LONGEST_BETWEEN_RAISES: Final = 2.0
# How many exceptions of a chain (cause, context) have their frames cleared.
_MOST_LINKS: Final = 1000
_RESUMABLE: Final = inspect.CO_GENERATOR | inspect.CO_COROUTINE | inspect.CO_ASYNC_GENERATOR


class _Unclocked(ClockedThread):
    """A thread in real time: no clock keeps its time."""

    def entered(self) -> None: ...
    def left(self) -> None: ...
    def ended(self) -> None: ...


@dataclass(frozen=True, slots=True)
class _EndedBy:
    """What the thread of a cancelled job returns: the step of the ladder that ended it."""

    rung: str


_UNCLOCKED: Final = _Unclocked()


class Run:
    """One function in one thread."""

    __slots__ = (
        "_between_raises",
        "_computed",
        "_mine",
        "_next_raise",
        "_pause",
        "_raised",
        "done",
        "ident",
        "job",
        "raised_in_library_threads",
        "result",
        "thread",
    )

    def __init__(self, job: Job) -> None:
        self.job = job
        self.done = trio.Event()
        self.result: outcome.Outcome[Any] | None = None
        self.thread: ClockedThread = _UNCLOCKED
        self.ident: int | None = None
        self.raised_in_library_threads = False  # in threads that a library started for the job
        self._mine = allocate_lock()  # held while it is decided whether the thread is this run's
        self._raised = False  # in its own thread; guarded by _mine
        self._computed = False  # at the last sample
        self._pause = _FIRST_PAUSE
        self._next_raise = _RAISE_AFTER
        self._between_raises = _RAISE_AFTER

    # ---- in the thread -----------------------------------------------------------------------------------------------

    def work(self, context: contextvars.Context, function: Callable[..., Any], args: tuple[Any, ...]) -> Any:
        """What `body` returns; for a cancelled job only which step of the ladder ended it.

        The exception is gone then. It would be held by a frame in its own traceback, of whoever started the thread,
        until the garbage collector finds it, and hooks stay for as long as it lives.
        """
        try:
            return self.body(context, function, args)
        except JobCancelled as stop:
            if not self.job.cancelled:
                raise
            return _EndedBy(stop.rung)

    def body(self, context: contextvars.Context, function: Callable[..., Any], args: tuple[Any, ...]) -> Any:
        """The thread's work. Whatever was raised into it is gone before it delivers what became of it."""
        self.thread.entered()
        ident = get_ident()
        try:
            self.ident = ident
            own_job(self.job)
            self.job.check()
            return context.run(_in_job, self.job, function, args)
        finally:
            while True:
                try:
                    with self._mine:
                        self.ident = None
                    if self._raised:
                        take_back(ident)
                    own_job(None)
                    break
                except JobCancelled:  # it was on its way already; no other one can be
                    continue

    # ---- in the Trio thread ------------------------------------------------------------------------------------------

    def finished(self, result: outcome.Outcome[Any]) -> None:
        """The thread has ended."""
        match result:
            case outcome.Value(_EndedBy() as ended):
                self.job.ended(ended.rung)
            case outcome.Error(JobCancelled() as stop):  # it was cancelled at the very last moment
                self.job.ended(stop.rung)
            case _:
                self.job.ended()
        self.result = None if self.job.cancelled else result
        self.done.set()

    def over(self) -> bool:
        """Whether no thread works for the job any more."""
        return self.done.is_set() and not threads_of(self.job)

    def still_computes(self) -> bool:
        """Whether it waits for nothing now, and did not when this was last asked either."""
        before, self._computed = self._computed, not self.job.waits
        return before and self._computed

    def next_pause(self) -> float:
        """Seconds until the ladder is to be climbed again."""
        pause, self._pause = self._pause, min(self._pause * 2, _LONGEST_PAUSE)
        return pause

    def wake(self) -> None:
        """End what the job's threads are blocked on."""
        self.job.wake()

    def interrupt(self) -> None:
        """Raise into the job's threads, if the first two steps of the ladder have failed and it is safe."""
        if self.job.ignoring_for() < self._next_raise:
            return
        raised_in: list[int] = []
        if self._mine.acquire(blocking=False):
            try:
                if self.ident is not None and self._has_had_time(self.ident) and raise_in(self.ident):
                    raised_in.append(self.ident)
                    self._raised = True
            finally:
                self._mine.release()
        for ident in threads_of(self.job):
            if self._has_had_time(ident) and raise_in(ident, if_for=self.job):
                raised_in.append(ident)
                self.raised_in_library_threads = True
        if not raised_in:
            return
        self._between_raises = min(self._between_raises * 2, _LONGEST_BETWEEN_RAISES)
        self._next_raise = self.job.ignoring_for() + self._between_raises
        if self.job.clock is not None:
            for ident in raised_in:
                self.job.clock.interrupted(ident)

    def _has_had_time(self, ident: int) -> bool:
        """Whether the thread got no JobCancelled yet, or got one so long ago that it no longer unwinds."""
        unwinding = self.job.unwinding_for(ident)
        return unwinding is None or unwinding >= _UNWINDING

    def stacks(self) -> Iterator[str]:
        """Where the job's threads are, formatted."""
        idents = {self.ident, *threads_of(self.job)} - {None}
        with frames_kept():
            frames = sys._current_frames()  # noqa: SLF001 - the documented way to see another thread's stack
            found = [traceback.format_stack(frames[ident]) for ident in idents if ident in frames]
        yield from map("".join, found)


class _NotWaitedFor(threading.Event):
    """Whoever starts a thread waits here until it runs; where others compute that takes them up to 150 ms."""

    def wait(self, timeout: float | None = None) -> bool:  # noqa: ARG002 - as Event's
        return True


class RunThread(threading.Thread):
    """The thread of one run; starting it does not wait until it runs.

    Args:
        name: What to call it; empty for a name of Python's.
        body: What it does.
        deliver: Called in it with a list of what became of that, to be taken out.
    """

    def __init__(
        self, name: str, body: Callable[[], Any], deliver: Callable[[list[outcome.Outcome[Any]]], object]
    ) -> None:
        super().__init__(name=name or None, daemon=True)
        self._started = _NotWaitedFor()
        self._body = body
        self._deliver = deliver

    def run(self) -> None:
        """All that the thread does."""
        result = [outcome.capture(self._body)]
        del self._body  # and with it the context, whose values are the program's
        self._deliver(result)


def _in_job(job: Job, function: Callable[..., Any], args: tuple[Any, ...]) -> Any:
    enter_job(job)
    try:
        return function(*args)
    except BaseException as error:
        if job.cancelled:
            _let_go(error)
        raise


def _let_go(error: BaseException) -> None:
    """Drop what the frames of a stack hold: connections close now, not when it is collected."""
    following: BaseException | None = error
    for _ in range(_MOST_LINKS):  # a program's exceptions may be a ring, or so many that they would take seconds
        if following is None:
            return
        for frame, _line in traceback.walk_tb(following.__traceback__):
            # The frames of the error itself have ended. Others may be those of a library that caught an exception,
            # reported it, and goes on; before CPython 3.13 clearing them would end them.
            if following is error or not frame.f_code.co_flags & _RESUMABLE:
                with suppress(RuntimeError):  # it is running
                    frame.clear()
        cause = following.__cause__
        following = cause if cause is not None else following.__context__


for _run_program in (RunThread.run, Run.work, Run.body, _in_job, _let_go):  # finalisers of a program's may run in them
    allow_interrupts_in(_run_program)
