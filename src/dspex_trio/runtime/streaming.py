"""A watched trial as a stream: its events while it runs, for a reader that may be slow, and then its outcome."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Final, Generic, TypeVar

import trio

from dspex_trio.model import (
    EventsDropped,
    LmFinished,
    LmStarted,
    OutputChunk,
    StageStarted,
    ToolFinished,
    ToolStarted,
    TrialEvent,
    Watch,
)
from dspex_trio.model.events import characters
from dspex_trio.tasks.background import open_background

ResultT = TypeVar("ResultT")

MAX_EVENTS: Final = 1_000
"""The most events of one kind that wait for the reader; when there are more, the oldest of that kind go."""
MAX_CHARS: Final = 4 * 1024 * 1024
"""The most characters that the waiting events of one kind may hold: prompts, replies, arguments, output."""

# Which events make room for each other: text that comes by the token must not drive out what is rare.
_KINDS: Final[Mapping[type[TrialEvent], int]] = {
    StageStarted: 0,
    LmStarted: 1,
    LmFinished: 1,
    ToolStarted: 2,
    ToolFinished: 2,
    OutputChunk: 3,
}


class _Kind:
    __slots__ = ("chars", "waiting")

    def __init__(self) -> None:
        self.waiting: deque[tuple[int, int]] = deque()  # number, characters
        self.chars = 0


@dataclass(frozen=True, slots=True)
class Ended(Generic[ResultT]):
    """The last of a stream: what became of the trial."""

    result: ResultT


async def streamed(
    run: Callable[[Watch], Awaitable[ResultT]], *, arrived: float
) -> AsyncGenerator[tuple[float, TrialEvent | Ended[ResultT]]]:
    """Run a trial and yield its events, each with its milliseconds after arrival; last of all, its end.

    Whoever does not read it to its end closes it (`contextlib.aclosing`): the trial is then cancelled and waited for.

    Args:
        run: Runs the trial, telling the watch that it is given.
        arrived: When the trial's time began, on Trio's clock.
    """
    events = EventQueue(arrived)
    ended: list[Ended[ResultT]] = []

    async def run_to_its_end() -> None:
        ended.append(Ended(await run(events.tell)))
        events.end()

    async with open_background() as nursery:
        nursery.start_soon(run_to_its_end)
        while waiting := await events.read():
            for event in waiting:
                yield event  # noqa: ASYNC119 - the servers close what they do not read to its end
    yield (trio.current_time() - arrived) * 1e3, ended.pop()  # held by its reader alone, who may be slow to pass it on


class EventQueue:
    """The events of one trial: put in by any thread, read by one task in order.

    Telling never blocks. Where the reader is slower than the trial, the oldest events of the same kind are dropped, and
    an `EventsDropped` with their number stands before what is left.

    Args:
        arrived: When the trial's time began, on Trio's clock.
    """

    def __init__(self, arrived: float) -> None:
        self._arrived = arrived
        self._clock = trio.lowlevel.current_clock()
        self._token = trio.lowlevel.current_trio_token()
        self._lock = threading.Lock()
        self._waiting: dict[int, tuple[float, TrialEvent]] = {}
        self._kinds = [_Kind() for _ in range(max(_KINDS.values()) + 1)]
        self._number = self._dropped = 0
        self._ended = False
        self._news = trio.Event()

    def tell(self, event: TrialEvent) -> None:
        """Keep the event for the reader; a `model.Watch`."""
        size = characters(event)
        with self._lock:
            at_ms = (self._clock.current_time() - self._arrived) * 1e3
            idle = not self._waiting
            kind = self._kinds[_KINDS[type(event)]]
            self._waiting[self._number] = (at_ms, event)
            kind.waiting.append((self._number, size))
            kind.chars += size
            self._number += 1
            while len(kind.waiting) > MAX_EVENTS or (kind.chars > MAX_CHARS and len(kind.waiting) > 1):
                number, chars = kind.waiting.popleft()
                kind.chars -= chars
                del self._waiting[number]
                self._dropped += 1
            news = self._news
        if idle:
            with suppress(trio.RunFinishedError):  # an abandoned thread may outlive the run
                self._token.run_sync_soon(news.set, idempotent=True)

    def end(self) -> None:
        """There will be no more that matters; called on the loop."""
        self._ended = True
        self._news.set()

    async def read(self) -> list[tuple[float, TrialEvent]]:
        """Wait for events; returns those that wait, each with its milliseconds after arrival; none at the end."""
        while not self._waiting and not self._ended:
            await self._news.wait()
        with self._lock:
            found, self._waiting = list(self._waiting.values()), {}
            dropped, self._dropped = self._dropped, 0
            self._news = trio.Event()
            for kind in self._kinds:
                kind.waiting.clear()
                kind.chars = 0
        if dropped:
            found.insert(0, (found[0][0], EventsDropped(dropped)))
        return found
