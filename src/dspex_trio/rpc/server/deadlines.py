"""The ends of calls in time: when handlers are cancelled, and what happens even if they do not notice."""

from __future__ import annotations

import heapq
import itertools
import math
from collections.abc import Callable
from typing import Final

import trio

_MIN_STALE: Final = 64
_MARGIN_SHARE: Final = 0.1
_LEAST_MARGIN: Final = 0.001  # unless that is more than half of the call's time


def margin_of(timeout: float, most: float) -> float:
    """How long before the caller's deadline a handler is cancelled, in seconds: a tenth of its time, within bounds."""
    return min(most, max(timeout * _MARGIN_SHARE, min(timeout / 2, _LEAST_MARGIN)))


class Deadline:
    """One entry; `cancel` it when the call is over."""

    __slots__ = ("_watch", "act")

    def __init__(self, watch: DeadlineWatch, act: Callable[[], None]) -> None:
        self._watch = watch
        self.act: Callable[[], None] | None = act

    def cancel(self) -> None:
        """Do not act any more."""
        if self.act is not None:
            self.act = None
            self._watch.discard()


class DeadlineWatch:
    """One task for all calls of a server; costs a call two heap operations and no task of its own."""

    def __init__(self) -> None:
        self._heap: list[tuple[float, int, Deadline]] = []
        self._order = itertools.count()
        self._stale = 0
        self._nap = trio.CancelScope()

    def add(self, when: float, act: Callable[[], None]) -> Deadline:
        """Call `act` at a time on Trio's clock."""
        entry = Deadline(self, act)
        heapq.heappush(self._heap, (when, next(self._order), entry))
        if when < self._nap.deadline:  # noqa: PLR1730 - to set it costs something, even to what it is
            self._nap.deadline = when
        return entry

    def discard(self) -> None:
        """An entry was cancelled; the heap is swept when half of it is stale, so that far deadlines do not pile up."""
        self._stale += 1
        if self._stale > _MIN_STALE and self._stale * 2 > len(self._heap):
            self._heap = [item for item in self._heap if item[2].act is not None]
            heapq.heapify(self._heap)
            self._stale = 0

    async def run(self) -> None:
        """Watch until cancelled."""
        while True:
            with trio.CancelScope(deadline=self._heap[0][0] if self._heap else math.inf) as self._nap:
                await trio.sleep_forever()
            now = trio.current_time()
            while self._heap and self._heap[0][0] <= now:
                entry = heapq.heappop(self._heap)[2]
                if entry.act is None:
                    self._stale = max(self._stale - 1, 0)
                else:
                    act, entry.act = entry.act, None
                    act()
