"""Level `executor`: a few executor processes that run several trials each, watched and replaced."""

from __future__ import annotations

import logging
import math
import os
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import outcome as outcomes
import trio

from dspex_trio.background import open_background
from dspex_trio.children import Child, ChildFailed, ChildLost, Exchange
from dspex_trio.children.forking import Starter
from dspex_trio.children.opening import open_child

logger: Final = logging.getLogger(__name__)

# Between attempts to start an executor that does not come up, in seconds.
_FIRST_RETRY: Final = 0.1
_LAST_RETRY: Final = 10.0
# How often executors with trials are asked for a sign of life, in seconds.
_BEAT: Final = 0.1
# One that owes it for so long gets new trials only if all others do too, in seconds.
_SILENT: Final = 0.25
# A trial that is so long past its deadline and not ended costs its executor, though that gives signs of life.
_UNENDED: Final = 10.0
# How often memory is measured, in seconds.
_MEASURE: Final = 1.0
# How long executors have to end when all is closed, in seconds; then they are killed.
_FAREWELL: Final = 0.4
_PAGE: Final = os.sysconf("SC_PAGE_SIZE") if hasattr(os, "sysconf") else 4096


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


@dataclass(eq=False, slots=True)
class Executor:
    """One executor process and its share of the slots.

    Attributes:
        child: The process.
        limit: How many trials it runs at once.
        used: How many it runs, abandoned ones included.
        stuck: How many of them are abandoned.
        answers: How many it has answered.
        held: Whether it does not answer while one of its trials is past its deadline.
        retired: Set when it gets no more trials and is replaced.
        overdue: Trials that are past their deadlines and not answered: exchange → since when.
    """

    child: Child
    limit: int
    used: int = 0
    stuck: int = 0
    answers: int = 0
    held: bool = False
    retired: trio.Event = field(default_factory=trio.Event)
    overdue: dict[Exchange, float] = field(default_factory=dict)

    @property
    def accepts(self) -> bool:
        """Whether it may get one more trial."""
        return self.used < self.limit and not self.held and not self.retired.is_set()


class ExecutorSlot:
    """The right to run one trial in an executor; free again when its last holder has released it."""

    __slots__ = ("_counts", "_fleet", "_holders", "executor")

    def __init__(self, fleet: Fleet, executor: Executor, *, counts: bool = True) -> None:
        self.executor = executor
        self._fleet = fleet
        self._holders = 1
        self._counts = counts

    def hold(self) -> None:
        """One more holder."""
        self._holders += 1

    def release(self) -> None:
        """One holder less."""
        self._holders -= 1
        if self._holders == 0 and self._counts:
            self._fleet._freed(self.executor)  # noqa: SLF001 - the other half of this class


class Fleet:
    """Executors, and their slots in the order in which they were asked for; made by `open_fleet`.

    Attributes:
        capacity: How many trials run at once when all executors are there.
        opened: What the first executor told about itself, once it is ready.
    """

    def __init__(
        self, settings: FleetSettings, start: Callable[[int], Awaitable[tuple[Child, bytes]]], nursery: trio.Nursery
    ) -> None:
        self.capacity = settings.slots
        self.opened = b""
        self.replaced = 0
        self._settings = settings
        self._start = start
        self._nursery = nursery
        self._executors: list[Executor] = []
        self._retiring: set[Executor] = set()
        self._waiting: deque[trio.lowlevel.Task] = deque()
        self._first = trio.Event()
        self._was_there = self._ending = False
        self._failure: Exception | None = None
        count = min(settings.executors, settings.slots)
        share, rest = divmod(settings.slots, count)
        for number in range(count):
            nursery.start_soon(self._keep, share + (number < rest))

    async def ready(self) -> bytes:
        """Wait until an executor is ready; returns what it told about itself.

        Raises:
            ChildLost, ChildFailed: The first one could not be started; says why.
        """
        await self._first.wait()
        if self._failure is not None:
            raise self._failure
        return self.opened

    # ---- slots, as admission wants them

    @property
    def free(self) -> int:
        """How many slots nobody has, in executors that are there."""
        return sum(max(each.limit - each.used, 0) for each in self._executors if each.accepts)

    def acquire_nowait(self) -> ExecutorSlot:
        """Take a slot of the executor with the fewest trials; raises trio.WouldBlock when there is none."""
        if self._waiting or (found := self._least_loaded()) is None:
            raise trio.WouldBlock
        return self._slot(found)

    async def acquire(self) -> ExecutorSlot:
        """Wait for a slot; when cancelled none was taken."""
        await trio.lowlevel.checkpoint_if_cancelled()
        try:
            slot = self.acquire_nowait()
        except trio.WouldBlock:
            task = trio.lowlevel.current_task()
            self._waiting.append(task)

            def abort(_: object) -> trio.lowlevel.Abort:
                self._waiting.remove(task)
                return trio.lowlevel.Abort.SUCCEEDED

            passed: ExecutorSlot = await trio.lowlevel.wait_task_rescheduled(abort)
            return passed
        await trio.lowlevel.cancel_shielded_checkpoint()
        return slot

    def beside(self) -> ExecutorSlot:
        """A place for what a trial waits for: it counts against no limit, since the trial has a slot.

        Raises:
            ChildLost: There is no executor just now.
        """
        if not self._executors:
            raise ChildLost("no executor is there just now")
        return ExecutorSlot(self, min(self._executors, key=lambda each: each.used), counts=False)

    def _slot(self, executor: Executor) -> ExecutorSlot:
        executor.used += 1
        return ExecutorSlot(self, executor)

    def _least_loaded(self) -> Executor | None:
        accepting = [each for each in self._executors if each.accepts]
        return min(accepting, key=lambda each: (each.child.silent_for > _SILENT, each.used), default=None)

    def _freed(self, executor: Executor) -> None:
        executor.used -= 1
        self._hand_out()

    def _hand_out(self) -> None:
        while self._waiting and (found := self._least_loaded()) is not None:
            trio.lowlevel.reschedule(self._waiting.popleft(), outcomes.Value(self._slot(found)))

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
        """Have the slot's executor answer. When cancelled, it is told, and waited for as `patience` says.

        The slot is held until nothing of the request runs in the executor any more.

        Args:
            slot: Where it runs.
            request: What the executor gets.
            patience: How many seconds a cancelled request waits for its answer.
            on_answer: Called with the answer, also with one that comes in time after a cancellation.
            on_report: Called with what the executor reports before its answer; what it raises is the executor's fault.
            on_call: Replies to the executor's calls; must not raise.
            on_late_end: Called when something of the request that went on after the answer has ended.

        Raises:
            ChildLost: The executor ended before it answered.
            ChildFailed: The executor's side of this has a fault.
        """
        executor, child = slot.executor, slot.executor.child

        def freed(data: bytes) -> None:
            if counted_as_stuck:
                executor.stuck -= 1
            executor.overdue.pop(exchange, None)
            slot.release()
            if counted_as_stuck and data:
                on_late_end(data)

        counted_as_stuck = False
        exchange = Exchange(on_report, freed)
        number = child.begin(request, exchange)
        if not number:
            raise ChildLost(child.lost_because)
        slot.hold()
        try:
            async with exchange.replying(on_call, lambda call, data: child.reply(number, call, data), child.kill):
                await exchange.done.wait()
        except BaseException:  # Cancelled, or Trio's KeyboardInterrupt
            child.stop(number)
            executor.overdue[exchange] = trio.current_time()
            child.ping()
            with trio.move_on_after(patience(), shield=True):
                await exchange.done.wait()
            if exchange.done.is_set():
                with suppress(Exception):  # there is no answer, or none that can be understood
                    on_answer(exchange.answer())
            raise
        finally:
            if exchange.done.is_set():
                executor.overdue.pop(exchange, None)
                executor.answers += 1
                if not exchange.freed:
                    counted_as_stuck = True
                    executor.stuck += 1
                self._check(executor)
            else:
                self._nursery.start_soon(self._answered_late, executor, exchange)
        on_answer(exchange.answer())

    async def _answered_late(self, executor: Executor, exchange: Exchange) -> None:
        await exchange.done.wait()
        executor.overdue.pop(exchange, None)

    # ---- the life of an executor

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
            pause = _FIRST_RETRY
            executor = Executor(child, limit)
            self._executors.append(executor)
            self.opened = self.opened or opened
            self._was_there, self._failure = True, None
            self._first.set()
            self._hand_out()
            self._nursery.start_soon(self._watch, executor)
            await executor.retired.wait()
            self.replaced += 1

    def _check(self, executor: Executor) -> None:
        limit = self._settings.max_answers
        if executor.stuck >= self._settings.max_stuck:
            self._retire(executor, f"{executor.stuck} of its threads ignore that their trials are over")
        elif limit and executor.answers >= limit:
            self._retire(executor, "")

    def _retire(self, executor: Executor, reason: str) -> None:
        """Give it no more trials and have another one in its place; it ends with its last trial."""
        if executor.retired.is_set():
            return
        executor.retired.set()
        self._executors.remove(executor)
        self._retiring.add(executor)
        if reason:
            logger.warning("executor %d is replaced: %s", executor.child.started.pid, reason)

    async def _watch(self, executor: Executor) -> None:
        """Until it is gone: look after its signs of life and its memory, and end it when it is of no more use."""
        child = executor.child
        measured = -math.inf
        while not child.gone.is_set():
            with trio.move_on_after(_BEAT):
                await child.gone.wait()
                break
            now = trio.current_time()
            if executor.used:
                child.ping()
            self._look(executor)
            if self._settings.max_memory is not None and now >= measured + _MEASURE:
                measured = now
                await self._measure(executor)
            if executor.retired.is_set() and executor.used <= executor.stuck:
                child.kill("it was replaced")
        if not executor.retired.is_set() and not self._ending:
            logger.warning("executor %d is lost: %s", child.started.pid, child.lost_because)
            self._retire(executor, "")
        self._retiring.discard(executor)

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
        elif executor.held and not silent:
            executor.held = False
            self._hand_out()
        elif silent > _SILENT and not executor.held:
            executor.held = True
            logger.warning("executor %d is held: it gives no sign of life", child.started.pid)

    async def _measure(self, executor: Executor) -> None:
        limit = self._settings.max_memory
        assert limit is not None, "it is measured where there is a limit"  # noqa: S101 - our own bug
        if resident_bytes(executor.child.started.pid) <= limit:
            return  # what it shares with others is in that figure, and reading more exactly takes a while
        used = await trio.to_thread.run_sync(own_bytes, executor.child.started.pid, abandon_on_cancel=True)
        if used > limit:
            self._retire(executor, f"it uses {used >> 20} MiB (--max-executor-memory-mb {limit >> 20})")

    async def _end(self) -> None:
        """Have them put away what they have, such as records, and end."""
        self._ending = True
        for each in self._executors:
            each.child.end()
        for each in self._executors:
            await each.child.gone.wait()

    def pids(self) -> list[int]:
        """The processes that take trials."""
        return [each.child.started.pid for each in self._executors]


def resident_bytes(pid: int) -> int:
    """The memory of a process that is in RAM, shared memory included; 0 if that is not known."""
    try:
        return int(Path(f"/proc/{pid}/statm").read_text(encoding="ascii").split()[1]) * _PAGE
    except (OSError, IndexError, ValueError):
        return 0


def own_bytes(pid: int) -> int:
    """The memory that would be free without the process: what it shares with nobody; 0 if that is not known."""
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text(encoding="ascii").splitlines()
    except OSError:
        return 0
    private = ("Private_Clean:", "Private_Dirty:", "Swap:")
    return sum(int(line.split()[1]) << 10 for line in lines if line.startswith(private))


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

        fleet = Fleet(settings, start, nursery)
        try:
            yield fleet
        finally:
            with trio.move_on_after(_FAREWELL, shield=True):
                await fleet._end()  # noqa: SLF001 - the other half of that class
