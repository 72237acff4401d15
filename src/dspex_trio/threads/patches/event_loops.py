"""Patched event loops: those that a program runs in its thread are ended from inside, by cancelling their tasks."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from functools import partial, wraps
from typing import Any, Final
from weakref import WeakSet

import trio

from dspex_trio.threads.ladder.interrupt import allow_interrupts_in
from dspex_trio.threads.patches.gate import exempt, gated_job

# Loops that have run in a job.
_begun: Final = WeakSet[asyncio.BaseEventLoop]()


def running_a_loop(original: Callable[..., Any]) -> Callable[..., Any]:
    """`run_forever` of asyncio: its tasks are cancelled, from inside, before the loop is torn out of its selector."""

    @wraps(original)
    def run_forever(self: asyncio.BaseEventLoop) -> None:
        job = gated_job()
        if job is None:
            original(self)
            return
        winding_up = job.cancelled and self in _begun  # one that runs once more to clean up after its cancel may do so
        if job.cancelled and not winding_up:
            _cancel_tasks(self)
        _begun.add(self)
        forget = None if winding_up else job.on_cancel(partial(_have_tasks_cancelled, self))
        exempt.loops += 1
        try:
            original(self)
        finally:
            exempt.loops -= 1
            if forget is not None:
                forget()
        if not winding_up:
            job.woken()

    allow_interrupts_in(run_forever)
    return run_forever


def _have_tasks_cancelled(loop: asyncio.BaseEventLoop) -> None:
    with suppress(RuntimeError):  # it has closed meanwhile
        loop.call_soon_threadsafe(_cancel_tasks, loop)


def _cancel_tasks(loop: asyncio.BaseEventLoop) -> None:
    for task in asyncio.all_tasks(loop):
        task.cancel()


def running_trio(original: Callable[..., Any]) -> Callable[..., Any]:
    """`trio.run`, and with it `anyio.run`: its main task is cancelled."""

    @wraps(original)
    def run(async_fn: Callable[..., Awaitable[Any]], *args: Any, **options: Any) -> Any:
        job = gated_job()
        if job is None:
            return original(async_fn, *args, **options)

        @wraps(async_fn)
        async def main(*args: Any) -> Any:
            with trio.CancelScope() as scope:
                forget = job.on_cancel(partial(_cancel_scope, trio.lowlevel.current_trio_token(), scope))
                if job.cancelled:
                    scope.cancel()
                try:
                    return await async_fn(*args)
                finally:
                    forget()

        allow_interrupts_in(main)
        result = original(main, *args, **options)
        job.woken()
        return result

    allow_interrupts_in(run)
    return run


def calling_trio(original: Callable[..., Any]) -> Callable[..., Any]:
    """`trio.from_thread.run`: what the thread waits for in somebody's Trio loop is cancelled there."""

    @wraps(original)
    def run(afn: Callable[..., Awaitable[Any]], *args: Any, **options: Any) -> Any:
        job = gated_job()
        if job is None:
            return original(afn, *args, **options)
        job.check()

        @wraps(afn)
        async def call(*args: Any) -> Any:
            with trio.CancelScope() as scope:
                forget = job.on_cancel(partial(_cancel_scope, trio.lowlevel.current_trio_token(), scope))
                try:
                    return await afn(*args)
                finally:
                    forget()

        result = original(call, *args, **options)
        job.woken()
        return result

    return run


def _cancel_scope(token: trio.lowlevel.TrioToken, scope: trio.CancelScope) -> None:
    with suppress(trio.RunFinishedError):
        token.run_sync_soon(scope.cancel)
