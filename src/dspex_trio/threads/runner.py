"""Run a function in a worker thread; on cancellation climb the ladder that stops it, and answer regardless."""

from __future__ import annotations

import contextvars
import sys
import traceback
from _thread import allocate_lock, get_ident
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from functools import partial
from typing import Any, Final, TypeVar

import outcome
import trio

from dspex_trio.threads.job import Job, JobCancelled, enter_job
from dspex_trio.threads.raising import carries_programs, may_raise_in, raise_in, take_back, threads_of
from dspex_trio.threads.seam import hooks
from dspex_trio.threads.slots import Slot

T = TypeVar("T")

# The wake is repeated ever less often until the thread is out, in seconds.
_FIRST_PAUSE: Final = 0.0005
_LONGEST_PAUSE: Final = 0.02
# The first two rungs have failed when the thread is still there after so many seconds.
_RAISE_AFTER: Final = 0.05


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
    *, patience: Callable[[], float] = lambda: 0.0, may_raise: bool = True
) -> AsyncIterator[Threads]:
    """Worker threads, with the seam installed while they are open.

    On leaving, threads that are still stuck are left to themselves; they do not keep the process alive.

    Args:
        patience: How many seconds a cancelled call waits for its thread before the cancel goes on without it.
        may_raise: Whether the last rung, an asynchronous exception, may be used.
    """
    leaving: BaseException | None = None
    with hooks():
        async with trio.open_nursery() as nursery:
            try:
                yield Threads(nursery, patience, may_raise=may_raise)
            except BaseException as error:  # noqa: BLE001 - raised again below, where the nursery does not wrap it
                leaving = error
            nursery.cancel_scope.cancel()
    if leaving is not None:
        raise leaving


class Threads:
    """Worker threads of one Trio run, each in a slot that is free only when the thread has really ended."""

    def __init__(self, nursery: trio.Nursery, patience: Callable[[], float], *, may_raise: bool) -> None:
        self._nursery = nursery
        self._patience = patience
        self._may_raise = may_raise
        self._running: set[_Run] = set()

    async def run(self, function: Callable[..., T], *args: Any, job: Job, slot: Slot) -> T:
        """Run `function(*args)` in a thread, in a copy of the caller's context.

        When cancelled, the job is told and its waits are ended; the thread is waited for as long as `patience` says,
        and then the cancel goes on. A thread that still runs keeps its slot, is listed by `stuck`, and the ladder goes
        on.
        """
        run = _Run(job)
        slot.hold()
        self._running.add(run)
        token = trio.lowlevel.current_trio_token()
        context = contextvars.copy_context()

        def deliver(result: outcome.Outcome[T]) -> None:
            def finish() -> None:
                self._running.discard(run)
                slot.release()
                run.finished(result)

            with suppress(trio.RunFinishedError):  # the loop is gone, and with it everybody who could want to know
                token.run_sync_soon(finish)

        trio.lowlevel.start_thread_soon(partial(run.body, context, function, args), deliver, name=job.name or None)
        try:
            await run.done.wait()
        except trio.Cancelled:
            job.cancel()
            with trio.CancelScope(deadline=trio.current_time() + self._patience(), shield=True):
                await self._climb(run)
            if not run.done.is_set() or threads_of(job):
                slot.hold()
                self._nursery.start_soon(self._finish, run, slot)
            raise
        assert run.result is not None  # noqa: S101 - set before the event
        result: T = run.result.unwrap()
        return result

    async def _climb(self, run: _Run) -> None:
        pause = _FIRST_PAUSE
        while not run.done.is_set():
            run.job.wake()
            if self._may_raise and run.job.ignoring_for() >= _RAISE_AFTER:
                run.interrupt()
            with trio.move_on_after(pause):
                await run.done.wait()
            pause = min(pause * 2, _LONGEST_PAUSE)

    async def _finish(self, run: _Run, slot: Slot) -> None:
        """Go on with a thread that was abandoned, then with those that a library started for the job."""
        await self._climb(run)
        while threads_of(run.job):
            run.job.wake()
            if self._may_raise and run.job.ignoring_for() >= _RAISE_AFTER:
                run.interrupt()
            await trio.sleep(_LONGEST_PAUSE)
        slot.release()

    def stuck_longer_than(self, seconds: float) -> int:
        """How many threads have been ignoring for so long that they were told to end."""
        return sum(run.job.ignoring_for() > seconds for run in self._running)

    def stuck(self) -> list[StuckThread]:
        """The threads that were told to end and have not."""
        frames = sys._current_frames()  # noqa: SLF001 - the documented way to see another thread's stack
        found = []
        for run in self._running:
            if run.job.cancelled:
                frame = frames.get(run.ident) if run.ident is not None else None
                stack = "".join(traceback.format_stack(frame)) if frame is not None else ""
                found.append(StuckThread(run.job.name, run.job.seconds_since_cancel(), stack))
        return found


class _Run:
    """One function in one thread."""

    __slots__ = ("_mine", "done", "ident", "job", "result")

    def __init__(self, job: Job) -> None:
        self.job = job
        self.done = trio.Event()
        self.result: outcome.Outcome[Any] | None = None
        self.ident: int | None = None
        self._mine = allocate_lock()  # held while it is decided whether the thread is this run's

    def finished(self, result: outcome.Outcome[Any]) -> None:
        """The thread has ended; in the Trio thread."""
        self.job.ended(by_itself=not (isinstance(result, outcome.Error) and isinstance(result.error, JobCancelled)))
        self.result = result
        self.done.set()

    def body(self, context: contextvars.Context, function: Callable[..., Any], args: tuple[Any, ...]) -> Any:
        """The thread's work. Whatever was raised into it is gone before the thread takes its next job."""
        ident = get_ident()
        try:
            self.ident = ident
            self.job.check()
            return context.run(_in_job, self.job, function, args)
        finally:
            while True:
                try:
                    with self._mine:
                        self.ident = None
                    take_back(ident)
                    break
                except JobCancelled:  # it arrived just here; no other one can
                    continue

    def interrupt(self) -> None:
        """Raise into the thread, and into the job's other threads, where that is safe."""
        if not self._mine.acquire(blocking=False):
            return
        try:
            if self.ident is not None and may_raise_in(self.ident):
                raise_in(self.ident)
        finally:
            self._mine.release()
        for ident in threads_of(self.job):
            if may_raise_in(ident):
                raise_in(ident)


def _in_job(job: Job, function: Callable[..., Any], args: tuple[Any, ...]) -> Any:
    enter_job(job)
    return function(*args)


for _carrier in (_Run.body, _in_job):
    carries_programs(_carrier)
