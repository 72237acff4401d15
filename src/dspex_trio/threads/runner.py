"""Run a function in a worker thread; on cancellation stop it, wait for it a little, and answer regardless."""

from __future__ import annotations

import contextvars
import sys
import threading
import time
import traceback
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar

import outcome
import trio

from dspex_trio.threads.job import Job
from dspex_trio.threads.slots import Slot

T = TypeVar("T")


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


class Threads:
    """Worker threads of one Trio run, each in a slot that is free only when the thread has really ended.

    Args:
        patience: How many seconds a cancelled call waits for its thread before the cancel goes on without it.
    """

    def __init__(self, patience: Callable[[], float] = lambda: 0.0) -> None:
        self._patience = patience
        self._running: set[_Run] = set()

    async def run(self, function: Callable[..., T], *args: Any, job: Job, slot: Slot) -> T:
        """Run `function(*args)` in a thread, in a copy of the caller's context.

        When cancelled, the job is told, the thread is waited for as long as `patience` says, and then the cancel goes on;
        a thread that still runs keeps its slot and is listed by `stuck`.
        """
        run = _Run(job, slot)
        slot.hold()
        self._running.add(run)
        token = trio.lowlevel.current_trio_token()
        context = contextvars.copy_context()

        def deliver(result: outcome.Outcome[T]) -> None:
            def finish() -> None:
                self._running.discard(run)
                slot.release()
                run.result = result
                run.done.set()

            try:
                token.run_sync_soon(finish)
            except trio.RunFinishedError:  # the loop is gone, and with it everybody who could want to know
                pass

        trio.lowlevel.start_thread_soon(partial(run.body, context, function, args), deliver, name=job.name or None)
        try:
            await run.done.wait()
        except trio.Cancelled:
            run.cancelled_at = time.monotonic()
            job.cancel()
            with trio.CancelScope(deadline=trio.current_time() + self._patience(), shield=True):
                await run.done.wait()
            raise
        assert run.result is not None  # noqa: S101 - set before the event
        return run.result.unwrap()

    def stuck(self) -> list[StuckThread]:
        """The threads that were told to end and have not."""
        frames = sys._current_frames()  # noqa: SLF001 - the documented way to see another thread's stack
        return [
            StuckThread(run.job.name, time.monotonic() - run.cancelled_at, _stack(frames, run.ident))
            for run in self._running
            if run.cancelled_at is not None
        ]


class _Run:
    """One function in one thread."""

    def __init__(self, job: Job, slot: Slot) -> None:
        self.job = job
        self.slot = slot
        self.done = trio.Event()
        self.result: outcome.Outcome[Any] | None = None
        self.cancelled_at: float | None = None
        self.ident: int | None = None

    def body(self, context: contextvars.Context, function: Callable[..., Any], args: tuple[Any, ...]) -> Any:
        self.ident = threading.get_ident()
        self.job.check()
        return context.run(function, *args)


def _stack(frames: Mapping[int, Any], ident: int | None) -> str:
    frame = frames.get(ident) if ident is not None else None
    return "".join(traceback.format_stack(frame)) if frame is not None else ""
