"""Process isolation, the rung that always works: warm children that answer requests and are killed on cancellation.

Own code instead of a library, because of what may travel: trio-parallel and anyio.to_process unpickle what a child
sends, and a child runs programs. Here it is bytes for bytes, through one module-level function of the child.
"""

from __future__ import annotations

import math
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from typing import Final

import trio

from dspex_trio.threads.background import open_background
from dspex_trio.threads.child_process import ChildFailed, ChildLost, ChildProcess, Exchange, not_understood

# Between attempts to start a child that does not come up, in seconds.
_FIRST_RETRY: Final = 0.1
_LAST_RETRY: Final = 10.0
# Of the time that a cancelled call has: for the child, to end its work itself and answer; the rest is for killing it.
_FOR_THE_CHILD: Final = 0.7
# How long a call whose caller sets no limit waits for a child that was killed to be gone, in seconds.
_BURIAL: Final = 1.0


@asynccontextmanager
async def open_processes(
    function: str,
    *,
    count: int,
    warm: int,
    warm_up: Callable[[], bytes] = bytes,
    environment: Mapping[str, str] | None = None,
    max_bytes: int = 64 << 20,
    max_answers: int = 0,
    on_log: Callable[[bytes], None] = lambda _data: None,
) -> AsyncIterator[Processes]:
    """Warm child processes, replaced when they end. On leaving they are killed.

    Args:
        function: `module:name` of a module-level function of the child, which is opened with `warm_up` and a
            `threads.child.Parent`, and gives what answers requests.
        count: The most children; as many requests are answered at once.
        warm: How many are started now, one after the other; more are when a request finds none free.
        warm_up: Gives what a child is opened with, when it is started; a ValueError or TypeError is why none can be.
        environment: Of the children; this process's own by default.
        max_bytes: The longest frame that a child may send; one that sends a longer one is killed.
        max_answers: A child is replaced after so many; 0 for never.
        on_log: Told what children want to have logged.
    """
    async with open_background() as nursery:

        def make() -> ChildProcess:
            return ChildProcess(function, environment, max_bytes, on_log)

        processes = Processes(make, nursery, count, warm_up, max_answers)
        try:
            nursery.start_soon(processes._start, warm)  # noqa: SLF001 - the other half of this class
            yield processes
        finally:
            processes._put.close()  # noqa: SLF001 - as above


class Processes:
    """Warm children; made by `open_processes`."""

    def __init__(
        self,
        make: Callable[[], ChildProcess],
        nursery: trio.Nursery,
        count: int,
        warm_up: Callable[[], bytes],
        max_answers: int,
    ) -> None:
        self._make = make
        self._nursery = nursery
        self._left = count
        self._warm_up = warm_up
        self._max_answers = max_answers
        self._put, self._take = trio.open_memory_channel[ChildProcess | ChildLost](math.inf)  # one per child at most

    async def ready(self) -> None:
        """Wait until a child is ready.

        Raises:
            ChildLost: None can be started; says why.
        """
        self._put.send_nowait(await self._free_child())

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

        When cancelled, the child is told. One that then answers in time, and `may_stay`, is used again; any other is
        killed with the processes that it started. The cancel goes on when that is done, or when the patience is over.

        Args:
            request: What the child's function gets.
            patience: How many seconds a cancelled call may wait for its child, to answer or to be gone.
            may_stay: Told the answer, a late one too; whether the child that gave it may be used again. What it or
                `on_report` raises is taken for the child's fault.
            on_kill: Told how many seconds after the cancel, or the answer, the child was killed and gone.
            on_report: Told what the child reports on the way.
            on_call: Replies to the child's calls, in the scope of this one; must not raise.

        Raises:
            ChildLost: The child ended before it answered, or none can be started.
            ChildFailed: The child's function raised.
        """
        while True:
            child = await self._free_child()
            exchange = Exchange(on_report)
            if child.begin(request, exchange):
                break
        try:
            async with exchange.calls(child, on_call):
                await exchange.done.wait()
        except BaseException:  # Cancelled, or Trio's KeyboardInterrupt
            with trio.CancelScope(shield=True):
                await self._stop(child, exchange, patience, may_stay, on_kill)
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

    async def _stop(
        self,
        child: ChildProcess,
        exchange: Exchange,
        patience: float,
        may_stay: Callable[[bytes], bool],
        on_kill: Callable[[float], None],
    ) -> None:
        began = trio.current_time()
        child.stop()
        with trio.move_on_at(began + patience * _FOR_THE_CHILD):
            await exchange.done.wait()
        with suppress(Exception):  # there is no answer, or none that can be understood
            if exchange.done.is_set() and may_stay(exchange.answer()):
                self._free(child)
                return
        await self._kill(child, began, patience, on_kill)

    async def _kill(self, child: ChildProcess, began: float, patience: float, on_kill: Callable[[float], None]) -> None:
        child.kill()
        with trio.CancelScope(deadline=began + (patience or _BURIAL), shield=True):
            await child.gone.wait()
        on_kill(trio.current_time() - began)

    def _free(self, child: ChildProcess) -> None:
        child.answers += 1
        if child.answers == self._max_answers:
            child.kill()
            return
        self._offer(child)

    def _offer(self, child: ChildProcess | ChildLost) -> None:
        with suppress(trio.ClosedResourceError):  # all of them are being closed
            self._put.send_nowait(child)

    async def _free_child(self) -> ChildProcess:
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

    async def _start(self, count: int) -> None:
        for _ in range(count):  # side by side, none of them would be ready soon
            await self._grow().wait()

    def _grow(self) -> trio.Event:
        """Have one more child if there may be; gives what is set once it is ready or has failed to start."""
        ready = trio.Event()
        if self._left > 0:
            self._left -= 1
            self._nursery.start_soon(self._keep, ready)
        else:
            ready.set()
        return ready

    async def _keep(self, ready: trio.Event) -> None:
        """Have a child, and another one when it is gone."""
        pause = _FIRST_RETRY
        while True:
            child = self._make()
            await self._live(child, ready)
            if child.opened:
                pause = _FIRST_RETRY
            else:
                await trio.sleep(pause)
                pause = min(pause * 2, _LAST_RETRY)

    async def _live(self, child: ChildProcess, ready: trio.Event) -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(child.live)
            opened = Exchange(lambda _report: None)
            try:
                child.begin(self._warm_up(), opened)
                await opened.done.wait()
                opened.answer()
            except (ChildLost, ChildFailed, TypeError, ValueError) as error:
                child.kill()
                for _ in range(self._take.statistics().tasks_waiting_receive):
                    self._offer(ChildLost(f"no child process can be started: {error}"))
            else:
                child.opened = True
                self._offer(child)
            ready.set()
