"""A child that is ready for requests."""

from __future__ import annotations

from collections.abc import Callable

import trio

from dspex_trio.children.exchange import ChildLost, Exchange
from dspex_trio.children.forking import Starter
from dspex_trio.children.process import Child


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
        ChildLost: It ended before it was ready.
        ChildFailed: Its function raised; the text is the traceback.
    """
    started, ours = await starter.start()
    child = Child(started, ours, max_bytes=max_bytes, on_log=on_log, on_note=on_note)
    nursery.start_soon(child.live)
    try:
        exchange = Exchange()
        if child.begin(opening, exchange):
            await exchange.done.wait()
        else:
            exchange.end(ChildLost(child.lost_because))
        answer = exchange.answer()
    except BaseException:
        child.kill()
        raise
    child.opened = True
    return child, answer
