"""Run a function in a worker thread; on cancellation climb the ladder that stops it, and answer regardless."""

from __future__ import annotations

import contextvars
import decimal
import logging
import math
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from functools import partial
from typing import Any, Final, TypeVar, cast

import outcome
import trio
from sniffio import current_async_library_cvar

from dspex_trio.tasks.background import open_background
from dspex_trio.threads.ladder.clock import ThreadClock
from dspex_trio.threads.ladder.fairness import Turns
from dspex_trio.threads.ladder.interrupt import (
    POSSIBLE,
    never_interrupt,
)
from dspex_trio.threads.ladder.into_loop import loop_of_job
from dspex_trio.threads.ladder.job import Job
from dspex_trio.threads.ladder.run import Run, RunThread
from dspex_trio.threads.ladder.slots import Slot
from dspex_trio.threads.patches.install import hooks

T = TypeVar("T")

logger: Final = logging.getLogger(__name__)

# Pools of connections and of threads that jobs share.
_POOLS: Final = ("httpcore", "httpx", "requests", "urllib3", "concurrent.futures.thread")
# What a job's threads have started has so long to be ended by them, in seconds.
_LEFT_AFTER: Final = 0.05
# A thread that ignores its cancel for so long is logged, in seconds.
_LOG_AFTER: Final = 2.0
# Where threads are closed while some of them ignore their cancel, these have so long: afterwards nothing can end them.
_LAST_MOMENT: Final = 0.5
# If the loop is later than this, in seconds, some thread computes, be it a job's or not.
_LATE: Final = 0.02


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
    patience: Callable[[Job], float] = lambda _job: 0.0,
    may_raise: bool = True,
    switch_interval: float = math.inf,
    on_late_end: Callable[[Job], None] = lambda _job: None,
) -> AsyncIterator[Threads]:
    """Worker threads, with the patches of the standard library installed while they are open.

    On leaving, threads that ignore their cancel have a last half second. Those that are stuck all the same are left to
    themselves; they do not keep the process alive.

    Args:
        patience: How many seconds a cancelled call waits for its thread before the cancel goes on without it.
        may_raise: Whether the ladder's last step, an asynchronous exception, may be used.
        switch_interval: How soon a thread that computes has to hand over the interpreter, in seconds; infinite
            leaves the process's own setting.
        on_late_end: Called with each job whose threads ended after its cancelled call had gone on without them.
    """
    with never_interrupt(*_POOLS), hooks(), Turns(switch_interval) as turns:
        async with open_background() as nursery:
            yield Threads(nursery, patience, turns, may_raise=may_raise and POSSIBLE, on_late_end=on_late_end)


def _own_decimal_context() -> None:
    """A context variable holds it, and a copy of the context the same object."""
    decimal.setcontext(decimal.getcontext().copy())


class Threads:
    """Worker threads of one Trio run, each in a slot that is free only when the thread has really ended."""

    def __init__(
        self,
        nursery: trio.Nursery,
        patience: Callable[[Job], float],
        turns: Turns,
        *,
        may_raise: bool,
        on_late_end: Callable[[Job], None],
    ) -> None:
        self._nursery = nursery
        self._patience = patience
        self._turns = turns
        self._may_raise = may_raise
        self._on_late_end = on_late_end
        clock = trio.lowlevel.current_clock()
        self._clock = clock if isinstance(clock, ThreadClock) else None
        self._running: set[Run] = set()
        self._abandoned: set[Run] = set()

    async def run(self, function: Callable[..., T], *args: Any, job: Job, slot: Slot) -> T:
        """Run `function(*args)` in a thread, in a copy of the caller's context.

        When cancelled, so is the job, and its waits are ended; the thread is waited for as long as `patience` says, and
        then the cancel goes on. A thread that still runs keeps its slot, is listed by `stuck`, and the ladder goes
        on; so it does for threads that a library started for the job.

        Raises:
            RuntimeError: The job was cancelled before, or no thread can be started.
        """
        await trio.lowlevel.checkpoint_if_cancelled()
        if job.cancelled:
            raise RuntimeError(f"the job {job.name!r} is over")
        run = Run(job)
        self._start(run, function, args, slot)
        try:
            await run.done.wait()
        except BaseException:  # Cancelled, or Trio's KeyboardInterrupt
            job.cancel()
            if run.done.is_set():  # it ended in the same turn of the loop, before it could be cancelled
                job.ended()
            with trio.CancelScope(deadline=trio.current_time() + self._patience(job), shield=True):
                await self._climb(run)
            if not run.over():
                job.goes_on()
                slot.hold()
                self._abandoned.add(run)
                self._nursery.start_soon(self._climb_on, run, slot)
            raise
        result, run.result = run.result, None
        if result is None:
            raise RuntimeError(f"the job {job.name!r} was cancelled, but not by its caller")
        return cast("T", result.unwrap())

    def _start(self, run: Run, function: Callable[..., Any], args: tuple[Any, ...], slot: Slot) -> None:
        token = trio.lowlevel.current_trio_token()
        run.job.clock = self._clock
        run.job.ends_in(trio.current_effective_deadline() - trio.current_time())
        context = contextvars.copy_context()
        context.run(current_async_library_cvar.set, None)
        context.run(loop_of_job.set, (token, self._nursery))
        context.run(_own_decimal_context)

        if self._clock is not None:
            run.thread = self._clock.thread(run.job.name)

        def deliver(result: list[outcome.Outcome[Any]]) -> None:
            def finish() -> None:
                run.thread.ended()
                self._running.discard(run)
                slot.release()
                run.finished(result.pop())  # or the thread, when it gets to run, would be the last to let go of it

            with suppress(trio.RunFinishedError):  # the loop is gone, and with it everybody who could want to know
                token.run_sync_soon(finish)
            run.thread.left()

        body = partial(run.work, context, function, args)
        try:
            # A new one each time: nothing that a program leaves in its thread is there for the next.
            RunThread(run.job.name, body, deliver).start()
        except BaseException:
            run.thread.ended()
            raise
        slot.hold()
        self._running.add(run)

    async def _climb(self, run: Run) -> None:
        """Until the job's threads have ended: the run's own, and those that a library started for the job."""
        while not run.over():
            run.wake()
            if run.job.ignoring_for() > _LEFT_AFTER:
                run.job.end_what_is_left()
            if self._may_raise:
                run.interrupt()
            with trio.move_on_after(run.next_pause()):
                if run.done.is_set():
                    await trio.sleep_forever()  # a library's threads do not report their end
                await run.done.wait()
        run.job.end_what_is_left()

    async def _climb_on(self, run: Run, slot: Slot) -> None:
        """Go on with threads that were abandoned; when that ends with the runtime, for a last moment."""
        try:
            await self._climb_and_tell(run)
        finally:
            with trio.CancelScope(deadline=trio.current_time() + _LAST_MOMENT, shield=True):
                await self._climb(run)
            if run.over():
                self._abandoned.discard(run)
                slot.release()
                run.job.ended_late("raise" if run.raised_in_library_threads else None)
                self._on_late_end(run.job)

    async def _climb_and_tell(self, run: Run) -> None:
        with trio.move_on_after(max(_LOG_AFTER - run.job.ignoring_for(), 0)):
            await self._climb(run)
        if not run.over():
            for stack in run.stacks():
                logger.warning("the job %r ignores that it is over; its thread is at\n%s", run.job.name, stack)
            await self._climb(run)
            logger.info("the job %r has ended, %.1f s after it was cancelled", run.job.name, run.job.ignoring_for())

    def loop_was_late(self, seconds: float) -> None:
        """Report how late the loop was for a timer, in seconds; to be called ten times a second while there is work.

        While threads compute, the interpreter is switched between threads sooner, at some cost in throughput.
        """
        computing = [run.still_computes() for run in self._running | self._abandoned]
        self._turns.sampled(computing=any(computing) or seconds > _LATE)

    def stuck(self) -> list[StuckThread]:
        """The threads of cancelled jobs that still run."""
        return [
            StuckThread(run.job.name, run.job.ignoring_for(), stack)
            for run in self._ignoring()
            for stack in run.stacks()
        ]

    def _ignoring(self) -> set[Run]:
        return self._abandoned | {run for run in self._running if run.job.cancelled}
