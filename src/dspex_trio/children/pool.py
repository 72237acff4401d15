"""Warm children that answer one request at a time, and are killed where a cancelled request does not end."""

from __future__ import annotations

import math
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from typing import Final

import trio

from dspex_trio.children.exchange import ChildFailed, ChildLost, Exchange
from dspex_trio.children.forking import Starter
from dspex_trio.children.opening import open_child
from dspex_trio.children.process import Child, not_understood
from dspex_trio.tasks.background import open_background

# Between attempts to start a child that does not come up, in seconds.
_FIRST_RETRY: Final = 0.1
_LAST_RETRY: Final = 10.0
# Of the time that a cancelled call has: for the child, to end its work itself and answer; the rest is for killing it.
_FOR_THE_CHILD: Final = 0.7
# How long a call whose caller sets no limit waits until a child that was killed is gone, in seconds.
_BURIAL: Final = 1.0


@asynccontextmanager
async def open_children(
    starter: Starter,
    opening: Callable[[], bytes],
    *,
    count: int,
    warm: int,
    max_bytes: int = 64 << 20,
    max_answers: int = 0,
    on_log: Callable[[bytes], None] = lambda _data: None,
    on_note: Callable[[bytes], None] = lambda _data: None,
) -> AsyncIterator[Children]:
    """Warm child processes, replaced when they end. On leaving they are killed.

    Args:
        starter: Starts them.
        opening: Gives what a child is opened with, when it is started; a ValueError or TypeError is why none can be.
        count: The most children; as many requests are answered at once.
        warm: How many are started now; more are when a request finds none free.
        max_bytes: The longest frame that a child may send; one that sends a longer one is killed.
        max_answers: A child is replaced after so many; 0 for never.
        on_log: Called with what children want to have logged.
        on_note: Called with what children say that belongs to no request.
    """
    async with open_background() as nursery:
        put, take = trio.open_memory_channel[Child | ChildLost](math.inf)  # one for each child at the most

        async def start() -> Child:
            child, _ = await open_child(
                starter, nursery, opening(), max_bytes=max_bytes, on_log=on_log, on_note=on_note
            )
            return child

        try:
            yield Children(start, nursery, put, take, count=count, warm=warm, max_answers=max_answers)
        finally:
            put.close()


class Children:
    """Warm children; made by `open_children`."""

    def __init__(
        self,
        start: Callable[[], Awaitable[Child]],
        nursery: trio.Nursery,
        put: trio.MemorySendChannel[Child | ChildLost],
        take: trio.MemoryReceiveChannel[Child | ChildLost],
        *,
        count: int,
        warm: int,
        max_answers: int,
    ) -> None:
        self._start = start
        self._nursery = nursery
        self._put, self._take = put, take
        self._left = count
        self._max_answers = max_answers
        self._answers: dict[Child, int] = {}
        for _ in range(warm):
            self._grow()

    async def ready(self) -> None:
        """Wait until a child is ready.

        Raises:
            ChildLost: None can be started; says why.
        """
        self._offer(await self._free_child())

    async def run(
        self,
        request: bytes,
        *,
        patience: float = 0.0,
        may_stay: Callable[[bytes], bool] = lambda _answer: True,
        on_kill: Callable[[float], None] = lambda _seconds: None,
        on_report: Callable[[bytes], None] = lambda _data: None,
        on_call: Callable[[bytes], Awaitable[bytes]] | None = None,
    ) -> bytes:
        """The answer of a child to `request`; waits for one that is free.

        When cancelled, so is the child's request. A child that then answers in time, and `may_stay`, is used again; any
        other is killed with the processes that it started. The cancel goes on when that is done, or when the patience
        is over.

        Args:
            request: What the child's function gets.
            patience: How many seconds a cancelled call may wait for its child, to answer or to be gone.
            may_stay: Gets the answer, a late one too; whether the child that gave it may be used again. What it or
                `on_report` raises is taken for the child's fault.
            on_kill: Called with how many seconds after the cancel, or the answer, the child was killed and gone.
            on_report: Called with what the child reports before its answer.
            on_call: Replies to the child's calls, in the scope of this one; must not raise.

        Raises:
            ChildLost: The child ended before it answered, or none can be started.
            ChildFailed: The child's function raised.
        """
        exchange = Exchange(on_report)
        while True:
            child = await self._free_child()
            if number := child.begin(request, exchange):
                break
        try:
            async with exchange.replying(on_call, lambda call, data: child.reply(number, call, data), child.kill):
                await exchange.done.wait()
        except BaseException:  # Cancelled, or Trio's KeyboardInterrupt
            with trio.CancelScope(shield=True):
                child.stop(number)
                await self._until_stopped(child, exchange, patience, may_stay, on_kill)
            raise
        try:
            answer = exchange.answer()
        except ChildFailed:
            self._free(child)
            raise
        try:
            stays = may_stay(answer)
        except Exception as error:
            child.kill()
            raise ChildLost(not_understood(error)) from error
        if stays:
            self._free(child)
        else:
            await self._kill(child, trio.current_time(), patience, on_kill)
        return answer

    async def _until_stopped(
        self,
        child: Child,
        exchange: Exchange,
        patience: float,
        may_stay: Callable[[bytes], bool],
        on_kill: Callable[[float], None],
    ) -> None:
        began = trio.current_time()
        with trio.move_on_at(began + patience * _FOR_THE_CHILD):
            await exchange.done.wait()
        with suppress(Exception):  # there is no answer, or none that can be understood
            if exchange.done.is_set() and may_stay(exchange.answer()):
                self._free(child)
                return
        await self._kill(child, began, patience, on_kill)

    async def _kill(self, child: Child, began: float, patience: float, on_kill: Callable[[float], None]) -> None:
        child.kill()
        with trio.CancelScope(deadline=began + (patience or _BURIAL), shield=True):
            await child.gone.wait()
        on_kill(trio.current_time() - began)

    def _free(self, child: Child) -> None:
        self._answers[child] = self._answers.get(child, 0) + 1
        if self._answers[child] == self._max_answers:
            child.kill()
            return
        self._offer(child)

    def _offer(self, child: Child | ChildLost) -> None:
        with suppress(trio.ClosedResourceError):  # all of them are being closed
            self._put.send_nowait(child)

    async def _free_child(self) -> Child:
        while True:
            if self._take.statistics().current_buffer_used == 0:
                self._grow()
            try:
                child = await self._take.receive()
            except trio.EndOfChannel:
                raise ChildLost("the child processes have been closed") from None
            if isinstance(child, ChildLost):
                raise child
            if not child.gone.is_set():
                return child

    def _grow(self) -> None:
        """Have one more child if there may be."""
        if self._left > 0:
            self._left -= 1
            self._nursery.start_soon(self._keep)

    async def _keep(self) -> None:
        """Have a child, and another one when it is gone."""
        pause = _FIRST_RETRY
        while True:
            try:
                child = await self._start()
            except (ChildLost, ChildFailed, TypeError, ValueError) as error:
                for _ in range(self._take.statistics().tasks_waiting_receive):
                    self._offer(ChildLost(f"no child process can be started: {error}"))
                await trio.sleep(pause)
                pause = min(pause * 2, _LAST_RETRY)
                continue
            pause = _FIRST_RETRY
            self._offer(child)
            await child.gone.wait()
            self._answers.pop(child, None)
