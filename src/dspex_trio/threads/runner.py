"""Run a function in a worker thread; on cancellation climb the ladder that stops it, and answer regardless."""

from __future__ import annotations

import contextvars
import inspect
import logging
import sys
import traceback
from _thread import allocate_lock, get_ident
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from functools import partial
from typing import Any, Final, TypeVar, cast

import outcome
import trio
from sniffio import current_async_library_cvar

from dspex_trio.threads.background import open_background
from dspex_trio.threads.clock import ClockedThread, ThreadClock
from dspex_trio.threads.hop import loop_of_job
from dspex_trio.threads.job import Job, JobCancelled, enter_job, own_job
from dspex_trio.threads.raising import (
    POSSIBLE,
    carries_programs,
    frames_kept,
    keep_whole,
    raise_in,
    take_back,
    threads_of,
)
from dspex_trio.threads.seam import hooks
from dspex_trio.threads.slots import Slot

T = TypeVar("T")

logger: Final = logging.getLogger(__name__)

# The wake is repeated ever less often until the thread is out, in seconds.
_FIRST_PAUSE: Final = 0.0005
_LONGEST_PAUSE: Final = 0.02
# Code that neither asked nor waited for so long never will, and is interrupted, in seconds.
_RAISE_AFTER: Final = 0.05
# A thread that was told to end is unwinding, and gets so long for it; more and more between two interrupts.
_UNWINDING: Final = 0.5
_LONGEST_BETWEEN_RAISES: Final = 2.0
# What lends connections or threads to jobs, whoever uses it.
_POOLS: Final = ("httpcore", "httpx", "requests", "urllib3", "concurrent.futures.thread")
# A thread that ignores its cancel for so long is told to the log, in seconds.
_LOG_AFTER: Final = 2.0
# Where threads are closed while some of them ignore their cancel, these have so long: afterwards nothing can end them.
_LAST_MOMENT: Final = 0.5
# So many exceptions that lead to one another are looked at, for what their frames hold.
_MOST_LINKS: Final = 1000
_RESUMABLE: Final = inspect.CO_GENERATOR | inspect.CO_COROUTINE | inspect.CO_ASYNC_GENERATOR


class _Unclocked(ClockedThread):
    """A thread in real time."""

    def entered(self) -> None:
        """Nothing."""

    def left(self) -> None:
        """Nothing."""

    def ended(self) -> None:
        """Nothing."""


_UNCLOCKED: Final = _Unclocked()


@dataclass(frozen=True, slots=True)
class StuckThread:
    """A thread whose job was cancelled and that still runs.

    Attributes:
        name: The job's name.
        seconds: Since the cancel.
        stack: Where it is, formatted.
    """

    name: str
    seconds: float
    stack: str


@asynccontextmanager
async def open_threads(
    *,
    patience: Callable[[], float] = lambda: 0.0,
    may_raise: bool = True,
    on_late_end: Callable[[Job], None] = lambda _job: None,
) -> AsyncIterator[Threads]:
    """Worker threads, with the seam installed while they are open.

    On leaving, threads that ignore their cancel have a last half second. Those that are stuck all the same are left to
    themselves; they do not keep the process alive.

    Args:
        patience: How many seconds a cancelled call waits for its thread before the cancel goes on without it.
        may_raise: Whether the last rung, an asynchronous exception, may be used.
        on_late_end: Told of each job whose threads ended after its cancelled call had gone on without them.
    """
    keep_whole(*_POOLS)
    with hooks():
        async with open_background() as nursery:
            yield Threads(nursery, patience, may_raise=may_raise and POSSIBLE, on_late_end=on_late_end)


class Threads:
    """Worker threads of one Trio run, each in a slot that is free only when the thread has really ended."""

    def __init__(
        self,
        nursery: trio.Nursery,
        patience: Callable[[], float],
        *,
        may_raise: bool,
        on_late_end: Callable[[Job], None],
    ) -> None:
        self._nursery = nursery
        self._patience = patience
        self._may_raise = may_raise
        self._on_late_end = on_late_end
        clock = trio.lowlevel.current_clock()
        self._clock = clock if isinstance(clock, ThreadClock) else None
        self._running: set[_Run] = set()
        self._abandoned: set[_Run] = set()

    async def run(self, function: Callable[..., T], *args: Any, job: Job, slot: Slot) -> T:
        """Run `function(*args)` in a thread, in a copy of the caller's context.

        When cancelled, the job is told and its waits are ended; the thread is waited for as long as `patience` says,
        and then the cancel goes on. A thread that still runs keeps its slot, is listed by `stuck`, and the ladder goes
        on; so it does for threads that a library started for the job.

        Raises:
            RuntimeError: The job was cancelled before, or no thread can be started.
        """
        await trio.lowlevel.checkpoint_if_cancelled()
        if job.cancelled:
            raise RuntimeError(f"the job {job.name!r} is over")
        run = _Run(job)
        self._start(run, function, args, slot)
        try:
            await run.done.wait()
        except BaseException:  # Cancelled, or Trio's KeyboardInterrupt
            job.cancel()
            if run.done.is_set():  # it ended in the same turn of the loop, and could not be told any more
                job.ended(None)
            with trio.CancelScope(deadline=trio.current_time() + self._patience(), shield=True):
                await self._climb(run)
            if not run.over():
                job.goes_on()
                slot.hold()
                self._abandoned.add(run)
                self._nursery.start_soon(self._climb_on, run, slot)
            raise
        if run.result is None:
            raise RuntimeError(f"the job {job.name!r} was cancelled by somebody else than its caller")
        return cast("T", run.result.unwrap())

    def _start(self, run: _Run, function: Callable[..., Any], args: tuple[Any, ...], slot: Slot) -> None:
        token = trio.lowlevel.current_trio_token()
        run.job.clock = self._clock
        context = contextvars.copy_context()
        context.run(current_async_library_cvar.set, None)
        context.run(loop_of_job.set, (token, self._nursery))

        if self._clock is not None:
            run.thread = self._clock.thread(run.job.name)

        def deliver(result: outcome.Outcome[Any]) -> None:
            def finish() -> None:
                run.thread.ended()
                self._running.discard(run)
                slot.release()
                run.finished(result)

            with suppress(trio.RunFinishedError):  # the loop is gone, and with it everybody who could want to know
                token.run_sync_soon(finish)
            run.thread.left()

        body = partial(run.body, context, function, args)
        try:
            trio.lowlevel.start_thread_soon(body, deliver, name=run.job.name or None)
        except BaseException:
            run.thread.ended()
            raise
        slot.hold()
        self._running.add(run)

    async def _climb(self, run: _Run) -> None:
        """Until the job's threads have ended: the run's own, and those that a library started for the job."""
        while not run.over():
            run.wake()
            if self._may_raise:
                run.interrupt()
            with trio.move_on_after(run.next_pause()):
                if run.done.is_set():
                    await trio.sleep_forever()  # a library's threads tell nobody when they end
                await run.done.wait()

    async def _climb_on(self, run: _Run, slot: Slot) -> None:
        """Go on with threads that were abandoned; when that ends with the runtime, for a last moment."""
        try:
            await self._climb_and_tell(run)
        finally:
            with trio.CancelScope(deadline=trio.current_time() + _LAST_MOMENT, shield=True):
                await self._climb(run)
            if run.over():
                self._abandoned.discard(run)
                slot.release()
                run.job.ended_late("raise" if run.raised_elsewhere else None)
                self._on_late_end(run.job)

    async def _climb_and_tell(self, run: _Run) -> None:
        with trio.move_on_after(max(_LOG_AFTER - run.job.ignoring_for(), 0)):
            await self._climb(run)
        if not run.over():
            for stack in run.stacks():
                logger.warning("the job %r ignores that it is over; its thread is at\n%s", run.job.name, stack)
            await self._climb(run)
            logger.info("the job %r has ended, %.1f s after it was told to", run.job.name, run.job.ignoring_for())

    def stuck(self) -> list[StuckThread]:
        """The threads that were told to end and have not."""
        return [
            StuckThread(run.job.name, run.job.ignoring_for(), stack)
            for run in self._ignoring()
            for stack in run.stacks()
        ]

    def _ignoring(self) -> set[_Run]:
        return self._abandoned | {run for run in self._running if run.job.cancelled}


class _Run:
    """One function in one thread."""

    __slots__ = (
        "_between_raises",
        "_mine",
        "_next_raise",
        "_pause",
        "_raised",
        "done",
        "ident",
        "job",
        "raised_elsewhere",
        "result",
        "thread",
    )

    def __init__(self, job: Job) -> None:
        self.job = job
        self.done = trio.Event()
        self.result: outcome.Outcome[Any] | None = None
        self.thread: ClockedThread = _UNCLOCKED
        self.ident: int | None = None
        self.raised_elsewhere = False  # in threads that a library started for the job
        self._mine = allocate_lock()  # held while it is decided whether the thread is this run's
        self._raised = False  # in its own thread; guarded by _mine
        self._pause = _FIRST_PAUSE
        self._next_raise = _RAISE_AFTER
        self._between_raises = _RAISE_AFTER

    # ---- in the thread -----------------------------------------------------------------------------------------------

    def body(self, context: contextvars.Context, function: Callable[..., Any], args: tuple[Any, ...]) -> Any:
        """The thread's work. Whatever was raised into it is gone before the thread takes its next job."""
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
        self.job.ended(result.error if isinstance(result, outcome.Error) else None)
        self.result = None if self.job.cancelled else result
        self.done.set()

    def over(self) -> bool:
        """Whether no thread works for the job any more."""
        return self.done.is_set() and not threads_of(self.job)

    def next_pause(self) -> float:
        """Seconds until the ladder is to be climbed again."""
        pause, self._pause = self._pause, min(self._pause * 2, _LONGEST_PAUSE)
        return pause

    def wake(self) -> None:
        """End what the job's threads are blocked on."""
        self.job.wake()

    def interrupt(self) -> None:
        """Raise into the job's threads, where the first two rungs have failed and it is safe."""
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
                self.raised_elsewhere = True
        if not raised_in:
            return
        self._between_raises = min(self._between_raises * 2, _LONGEST_BETWEEN_RAISES)
        self._next_raise = self.job.ignoring_for() + self._between_raises
        if self.job.clock is not None:
            for ident in raised_in:
                self.job.clock.interrupted(ident)

    def _has_had_time(self, ident: int) -> bool:
        """Whether that thread has not been told to end, or has been unwinding for so long that it is not."""
        told = self.job.told_to(ident)
        return told is None or told >= _UNWINDING

    def stacks(self) -> Iterator[str]:
        """Where the job's threads are, formatted."""
        idents = {self.ident, *threads_of(self.job)} - {None}
        with frames_kept():
            frames = sys._current_frames()  # noqa: SLF001 - the documented way to see another thread's stack
            found = [traceback.format_stack(frames[ident]) for ident in idents if ident in frames]
        yield from map("".join, found)


def _in_job(job: Job, function: Callable[..., Any], args: tuple[Any, ...]) -> Any:
    enter_job(job)
    try:
        return function(*args)
    except BaseException as error:
        if job.cancelled:
            _let_go(error)
        raise


def _let_go(error: BaseException) -> None:
    """Drop what the frames of a stack hold: nobody looks at it, and connections close now, not when it is collected."""
    following: BaseException | None = error
    for _ in range(_MOST_LINKS):  # a program's exceptions may be a ring, or so many that they would take seconds
        if following is None:
            return
        for frame, _line in traceback.walk_tb(following.__traceback__):
            # Those through which the error itself came have ended. Others may be a library's, which caught an
            # exception there, told it to the program, and goes on; to clear them would end them (before CPython 3.13).
            if following is error or not frame.f_code.co_flags & _RESUMABLE:
                with suppress(RuntimeError):  # it is running
                    frame.clear()
        cause = following.__cause__
        following = cause if cause is not None else following.__context__


for _carrier in (_Run.body, _in_job, _let_go):  # what frames hold may be finalised by code of the program's
    carries_programs(_carrier)
