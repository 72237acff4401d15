"""From a job's thread to the Trio loop and back: for tools and callbacks whose other end is asynchronous."""

from __future__ import annotations

import contextvars
from collections.abc import Awaitable, Callable
from contextlib import suppress
from contextvars import ContextVar
from typing import Any, Final, TypeVar

import trio

from dspex_trio.threads.patches.gate import gated_job

T = TypeVar("T")

loop_of_job: Final[ContextVar[tuple[trio.lowlevel.TrioToken, trio.Nursery]]] = ContextVar("dspex_trio.threads.loop")


def run_in_loop(function: Callable[..., Awaitable[T]], *args: Any) -> T:
    """Run `await function(*args)` in the job's Trio loop, in a copy of the calling thread's context, and wait for it.

    When the job is cancelled, so is the function, and JobCancelled is raised here without waiting for it to clean up.

    Raises:
        RuntimeError: The calling thread is none of a job's.
    """
    job = gated_job()
    if job is None or (loop := loop_of_job.get(None)) is None:
        raise RuntimeError("run_in_loop is for the threads of a job")
    job.check()
    token, nursery = loop
    waiter = job.waiter()
    values: list[T] = []
    errors: list[BaseException] = []

    def wake_thread() -> None:
        with suppress(RuntimeError):  # the job's end woke it first
            waiter.release()

    async def call() -> None:
        try:
            with trio.CancelScope() as scope:
                forget = job.on_cancel(scope.cancel)
                try:
                    values.append(await function(*args))
                except BaseException as error:  # noqa: ASYNC103 - raised again in the thread, if it is not the loop's
                    if _is_the_loops(error):
                        raise
                    errors.append(error)  # raised again in the thread: a SystemExit is the function's, too
                finally:
                    forget()
        finally:
            wake_thread()

    context = contextvars.copy_context()

    def begin() -> None:
        try:
            context.run(nursery.start_soon, call)
        except RuntimeError:  # the nursery is closed; raised in the loop, this would crash it
            wake_thread()

    token.run_sync_soon(begin)
    job.park(waiter)
    job.woken()
    if errors:
        raise errors[0]
    if not values:
        raise RuntimeError("the Trio loop is closing")
    return values[0]


def _is_the_loops(error: BaseException) -> bool:
    """Whether Trio needs it: a Cancelled, also in a group, or the Ctrl-C that it delivers."""
    in_group = isinstance(error, BaseExceptionGroup) and not isinstance(error, Exception)
    return in_group or isinstance(error, (trio.Cancelled, KeyboardInterrupt))
