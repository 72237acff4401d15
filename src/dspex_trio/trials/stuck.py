"""The limit on threads that ignore that their trials are over: past it the process must be replaced."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import trio

# A thread that still runs so long after its cancellation counts as stuck, in seconds.
STUCK_AFTER: Final = 2.0


class StuckLimit:
    """Counts the jobs whose threads are stuck; once there are too many, the process should take no more.

    Threads that come back before that count no longer. Once it is reached it stays so: what is to be replaced is.

    Args:
        limit: So many are too many.
        nursery: For what goes on while they are counted.
        on_count: Called with how many are stuck, whenever that changes.
    """

    def __init__(
        self, limit: int, nursery: trio.Nursery, on_count: Callable[[int], None] = lambda _count: None
    ) -> None:
        self._limit = limit
        self._nursery = nursery
        self._on_count = on_count
        self._abandoned: dict[object, trio.Event] = {}
        self._stuck = 0
        self._reached: Final = trio.Event()

    @property
    def count(self) -> int:
        """How many are stuck now."""
        return self._stuck

    @property
    def reason(self) -> str | None:
        """Why no trial can be taken any more; None while they can."""
        if not self._reached.is_set():
            return None
        return (
            f"the threads of {self._limit} trials ignore that these are over and cannot be ended (--max-stuck-threads);"
            f" this worker must be replaced"
        )

    def abandoned(self, job: object) -> None:
        """A job's threads are not waited for any longer."""
        ended = self._abandoned[job] = trio.Event()
        self._nursery.start_soon(self._watch, job, ended)

    def ended(self, job: object) -> None:
        """They have ended after all."""
        if (ended := self._abandoned.get(job)) is not None:
            ended.set()

    async def reached(self) -> None:
        """Wait until there are too many."""
        await self._reached.wait()

    async def _watch(self, job: object, ended: trio.Event) -> None:
        with trio.move_on_after(STUCK_AFTER):
            await ended.wait()
        if not ended.is_set():
            self._stuck += 1
            self._on_count(self._stuck)
            if self._stuck >= self._limit:
                self._reached.set()
            await ended.wait()
            self._stuck -= 1
            self._on_count(self._stuck)
        del self._abandoned[job]
