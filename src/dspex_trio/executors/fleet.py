"""Level `executor`: a few executor processes that run several trials each, watched and replaced."""

from __future__ import annotations

import logging
import math
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from typing import Final

import trio

from dspex_trio.children import Child, ChildFailed, ChildLost, Exchange
from dspex_trio.children.forking import Starter
from dspex_trio.children.opening import open_child
from dspex_trio.executors.memory import memory_of
from dspex_trio.executors.places import SILENT, Executor, ExecutorSlot
from dspex_trio.tasks.background import open_background
from dspex_trio.tasks.waiting import WaitQueue

logger: Final = logging.getLogger(__name__)

# Between attempts to start an executor that does not come up, in seconds.
_FIRST_RETRY: Final = 0.1
_LAST_RETRY: Final = 10.0
# One that ended sooner and has answered nothing is not replaced at once, in seconds.
_YOUNG: Final = 1.0
# How often executors with trials are asked for a sign of life, and those without, in seconds.
_BEAT: Final = 0.1
_IDLE_BEAT: Final = 1.0
# A trial that is so long past its deadline and not ended costs its executor, though that gives signs of life.
_UNENDED: Final = 10.0
# How often memory is measured, in seconds.
_MEASURE: Final = 1.0
# How long executors have to end when all is closed, in seconds; then they are killed.
_FAREWELL: Final = 0.4


@dataclass(frozen=True, slots=True)
class FleetSettings:
    """How executors are run.

    Attributes:
        executors: How many.
        slots: How many trials run at once, in all of them.
        grace: How long one may be silent while a trial is past its deadline before it is killed, in seconds.
        max_stuck: So many threads that cannot be ended cost an executor.
        max_memory: So much memory of its own costs an executor, in bytes; None for no limit.
        max_answers: An executor is replaced after so many trials; 0 for never.
        max_bytes: The longest frame from an executor.
    """

    executors: int
    slots: int
    grace: float = 2.0
    max_stuck: int = 8
    max_memory: int | None = None
    max_answers: int = 0
    max_bytes: int = 64 << 20


class Fleet:
    """Executors, and their slots in the order in which they were asked for; made by `open_fleet`.

    Attributes:
        capacity: How many trials run at once when all executors are there.
        opened: What the first executor reported about itself, once it is ready.
        replaced: How many executors were retired or lost.

    Args:
        settings: How executors are run.
        start: Starts one with so many slots; returns it with what it reports about itself.
        nursery: For what goes on beside.
        memory: How much memory a process has of its own, given its number and from how much on that matters.
    """

    def __init__(
        self,
        settings: FleetSettings,
        start: Callable[[int], Awaitable[tuple[Child, bytes]]],
        nursery: trio.Nursery,
        memory: Callable[[int, int], Awaitable[int]],
    ) -> None:
        self.capacity = settings.slots
        self.opened = b""
        self.replaced = 0
        self._settings = settings
        self._start = start
        self._nursery = nursery
        self._memory = memory
        self._executors: list[Executor] = []
        self._waiting = WaitQueue[ExecutorSlot]()
        self._first = trio.Event()
        self._was_there = self._ending = False
        self._failure: Exception | None = None
        count = min(settings.executors, settings.slots)
        share, rest = divmod(settings.slots, count)
        for number in range(count):
            nursery.start_soon(self._keep, share + (number < rest))

    async def ready(self) -> bytes:
        """Wait until an executor is ready; returns what it reported about itself.

        Raises:
            ChildLost, ChildFailed: The first one could not be started; says why.
        """
        await self._first.wait()
        if self._failure is not None:
            raise self._failure
        return self.opened

    # ---- slots: the `Slots` of admission

    @property
    def free(self) -> int:
        """How many slots are free, in executors that are ready."""
        return sum(each.limit - each.used for each in self._executors if each.accepts)

    def acquire_nowait(self) -> ExecutorSlot:
        """Take a slot of the executor with the fewest trials; raises trio.WouldBlock when there is none."""
        if self._waiting or (found := self._least_loaded()) is None:
            raise trio.WouldBlock
        return self._slot(found)

    async def acquire(self) -> ExecutorSlot:
        """Wait for a slot; when cancelled none was taken."""
        return await self._waiting.acquire(self.acquire_nowait)

    def beside(self) -> ExecutorSlot:
        """A place for what a trial waits for: it counts against no limit, since the trial has a slot.

        Raises:
            ChildLost: There is no executor just now.
        """
        there = [each for each in self._executors if not each.child.ending]
        if not there:
            raise ChildLost("no executor is there just now")
        found = min(there, key=lambda each: (each.held, each.silent, each.used + each.guests))
        return ExecutorSlot(found, self._freed, counts=False)

    def _slot(self, executor: Executor) -> ExecutorSlot:
        executor.used += 1
        return ExecutorSlot(executor, self._freed)

    def _least_loaded(self) -> Executor | None:
        accepting = [each for each in self._executors if each.accepts]
        return min(accepting, key=lambda each: (each.silent, each.used), default=None)

    def _freed(self, executor: Executor) -> None:
        executor.used -= 1
        self._hand_out()

    def _hand_out(self) -> None:
        while self._waiting and (found := self._least_loaded()) is not None:
            self._waiting.give(self._slot(found))

    # ---- requests

    async def run(
        self,
        slot: ExecutorSlot,
        request: bytes,
        *,
        patience: Callable[[], float],
        on_answer: Callable[[bytes], None],
        on_report: Callable[[bytes], None] = lambda _data: None,
        on_call: Callable[[bytes], Awaitable[bytes]] | None = None,
        on_late_end: Callable[[bytes], None] = lambda _data: None,
    ) -> None:
        """Have the slot's executor answer. When cancelled, so is the request, and it is waited for as `patience` says.

        The slot is held until nothing of the request runs in the executor any more.

        Args:
            slot: Where it runs.
            request: What the executor gets.
            patience: How many seconds a cancelled request waits for its answer.
            on_answer: Called with the answer, also with one that comes in time after a cancellation.
            on_report: Called with what the executor reports before its answer, and not after the end of this call; what
                it raises is the executor's fault.
            on_call: Replies to the executor's calls; must not raise.
            on_late_end: Called when something of the request that was not waited for has ended.

        Raises:
            ChildLost: The executor ended before it answered.
            ChildFailed: The executor's side of this has a fault.
        """
        executor, child = slot.executor, slot.executor.child

        def freed(data: bytes) -> None:
            executor.stuck.discard(exchange)
            executor.overdue.pop(exchange, None)
            slot.release()
            if data:
                on_late_end(data)

        exchange = Exchange(on_report, freed)
        number = child.begin(request, exchange)
        if not number:
            raise ChildLost(child.lost_because)
        slot.hold()
        try:
            async with exchange.replying(on_call, lambda call, data: child.reply(number, call, data), child.kill):
                await exchange.done.wait()
        except BaseException:  # Cancelled, or Trio's KeyboardInterrupt
            if not exchange.done.is_set():
                child.stop(number)
                executor.overdue[exchange] = trio.current_time()
                child.ping()
            with trio.move_on_after(patience(), shield=True):
                await exchange.done.wait()
            if exchange.done.is_set():
                with suppress(Exception):  # there is no answer, or none that can be understood
                    on_answer(exchange.take_answer())
            raise
        finally:
            exchange.on_report = _ignore
            if exchange.done.is_set():
                self._answered(executor, exchange)
            else:
                self._nursery.start_soon(self._answered_late, executor, exchange)
        on_answer(exchange.take_answer())

    async def _answered_late(self, executor: Executor, exchange: Exchange) -> None:
        await exchange.done.wait()
        self._answered(executor, exchange)

    def _answered(self, executor: Executor, exchange: Exchange) -> None:
        executor.answers += 1
        if exchange.held or exchange.freed:
            executor.overdue.pop(exchange, None)
        else:  # that nothing of it goes on is said with the answer, and it is not all here yet
            executor.overdue.setdefault(exchange, trio.current_time())
        if exchange.held and not exchange.freed:
            executor.stuck.add(exchange)
        self._check(executor)

    # ---- the lifecycle of an executor

    async def _keep(self, limit: int) -> None:
        """Have an executor, and another one when it is retired or gone."""
        pause = _FIRST_RETRY
        while True:
            try:
                child, opened = await self._start(limit)
            except (ChildLost, ChildFailed, TypeError, ValueError) as error:
                if self._was_there:
                    logger.error("no executor can be started: %s", error)  # noqa: TRY400 - the text says it all
                else:
                    self._failure = error
                    self._first.set()
                await trio.sleep(pause)
                pause = min(pause * 2, _LAST_RETRY)
                continue
            began = trio.current_time()
            executor = Executor(child, limit)
            self._executors.append(executor)
            self._failure = None
            self.opened = self.opened or opened
            self._was_there, self._failure = True, None
            self._first.set()
            self._hand_out()
            self._nursery.start_soon(self._watch, executor)
            await executor.retired.wait()
            self.replaced += 1
            if executor.answers or trio.current_time() - began > _YOUNG:
                pause = _FIRST_RETRY
            else:
                await trio.sleep(pause)
                pause = min(pause * 2, _YOUNG)

    def _check(self, executor: Executor) -> None:
        limit = self._settings.max_answers
        if len(executor.stuck) >= self._settings.max_stuck:
            self._retire(executor, f"{len(executor.stuck)} of its threads ignore that their trials are over")
        elif limit and executor.answers >= limit:
            self._retire(executor, "")

    def _retire(self, executor: Executor, reason: str) -> None:
        """Give it no more trials and have another one in its place; it ends with its last trial."""
        if executor.retired.is_set():
            return
        executor.retired.set()
        self._executors.remove(executor)
        if reason:
            logger.warning("executor %d is replaced: %s", executor.child.started.pid, reason)

    async def _watch(self, executor: Executor) -> None:
        """Until it is gone: look after its signs of life and its memory, and end it when it is of no more use."""
        child = executor.child
        asked = measured = -math.inf
        while not child.gone.is_set():
            with trio.move_on_after(_BEAT):
                await child.gone.wait()
                break
            now = trio.current_time()
            if executor.busy or now >= asked + _IDLE_BEAT:
                asked = now
                child.ping()
            self._look(executor)
            if self._settings.max_memory is not None and now >= measured + _MEASURE:
                measured = now
                await self._measure(executor, self._settings.max_memory)
            if executor.retired.is_set() and not executor.busy:
                child.kill("it was replaced")
        if not executor.retired.is_set() and not self._ending:
            logger.warning("executor %d is lost: %s", child.started.pid, child.lost_because)
            self._retire(executor, "")

    def _look(self, executor: Executor) -> None:
        child, now = executor.child, trio.current_time()
        longest = now - min(executor.overdue.values(), default=now)
        silent = min(child.silent_for, longest) if executor.overdue else 0.0
        if silent > self._settings.grace:
            child.kill(
                f"it was held: it gave no sign of life for {child.silent_for:.1f} s while a trial was past its deadline"
            )
        elif longest > max(_UNENDED, self._settings.grace):
            child.kill(f"it did not end a trial that was {longest:.1f} s past its deadline")
        elif executor.held and silent <= SILENT:
            executor.held = False
            self._hand_out()
        elif silent > SILENT and not executor.held:
            executor.held = True
            logger.warning("executor %d is held: it gives no sign of life", child.started.pid)

    async def _measure(self, executor: Executor, limit: int) -> None:
        if (used := await self._memory(executor.child.started.pid, limit)) > limit:
            self._retire(executor, f"it uses {used >> 20} MiB (--max-executor-memory-mb {limit >> 20})")

    async def _end(self) -> None:
        """Have them put away what they have, such as records, and end."""
        self._ending = True
        for each in self._executors:
            each.child.end()
        for each in self._executors:
            await each.child.gone.wait()

    def send_signal(self, number: int) -> None:
        """Send a signal to all executors that take trials."""
        for each in self._executors:
            each.child.started.send_signal(number)

    def pids(self) -> list[int]:
        """The processes that take trials."""
        return [each.child.started.pid for each in self._executors]


def _ignore(_data: bytes) -> None:
    pass


@asynccontextmanager
async def open_fleet(
    starter: Starter,
    opening: Callable[[int], bytes],
    settings: FleetSettings,
    *,
    on_log: Callable[[bytes], None],
    on_note: Callable[[bytes], None] = lambda _data: None,
) -> AsyncIterator[Fleet]:
    """Executors, replaced when they are lost or used up; on leaving they are killed.

    Args:
        starter: Starts processes.
        opening: What an executor with so many slots is opened with.
        settings: How many, and when they are replaced.
        on_log: Called with what executors log.
        on_note: Called with their records.
    """
    async with open_background() as nursery:

        async def start(slots: int) -> tuple[Child, bytes]:
            return await open_child(
                starter, nursery, opening(slots), max_bytes=settings.max_bytes, on_log=on_log, on_note=on_note
            )

        fleet = Fleet(settings, start, nursery, memory_of)
        try:
            yield fleet
        finally:
            with trio.move_on_after(_FAREWELL, shield=True):
                await fleet._end()  # noqa: SLF001 - the other half of that class
