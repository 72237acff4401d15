"""A nursery for what goes on beside a context's body, and ends with it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

import trio


@asynccontextmanager
async def open_background() -> AsyncIterator[trio.Nursery]:
    """As `trio.open_nursery`, but the tasks are cancelled when the body ends, whose errors come out unwrapped.

    A task that fails cancels the body, and its error goes before that Cancelled.
    """
    async with AsyncExitStack() as stack:
        opening = trio.open_nursery()
        nursery = await opening.__aenter__()
        stack.push_async_callback(opening.__aexit__, None, None, None)
        stack.callback(nursery.cancel_scope.cancel)
        yield nursery
