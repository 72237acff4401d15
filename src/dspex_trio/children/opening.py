"""A child that is ready for requests."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Final

import trio

from dspex_trio.children.exchange import ChildLost, Exchange
from dspex_trio.children.forking import Starter
from dspex_trio.children.process import Child
from dspex_trio.children.starting import Spawned

# A child that was forked has nothing to import: one that is not ready after so many seconds never will be.
_READY_SECONDS: Final = 60.0


async def open_child(
    starter: Starter,
    nursery: trio.Nursery,
    opening: bytes,
    *,
    max_bytes: int,
    on_log: Callable[[bytes], None],
    on_note: Callable[[bytes], None] = lambda _data: None,
) -> tuple[Child, bytes]:
    """Start a child and wait until it is ready; when cancelled, it is killed.

    Args:
        starter: Starts the process.
        nursery: The child lives in it: it is killed when that is cancelled.
        opening: What the child's function is opened with.
        max_bytes: The longest frame that it may send.
        on_log: Called with what it wants to have logged.
        on_note: Called with what it says that belongs to no exchange.

    Returns:
        The child, and what it answered.

    Raises:
        ChildLost: It ended before it was ready, or never becomes so.
        ChildFailed: Its function raised; the text is the traceback.
    """
    started, ours = await starter.start()
    child = Child(started, ours, max_bytes=max_bytes, on_log=on_log, on_note=on_note)
    nursery.start_soon(child.live)
    try:
        exchange = Exchange()
        if child.begin(opening, exchange):
            with trio.move_on_after(math.inf if isinstance(started, Spawned) else _READY_SECONDS):
                await exchange.done.wait()
            exchange.end(ChildLost(f"it was not ready within {_READY_SECONDS:.0f} s"))
        else:
            exchange.end(ChildLost(child.lost_because))
        answer = exchange.answer()
    except BaseException:
        child.kill()
        raise
    child.opened = True
    return child, answer
