"""A fixed number of slots, first come, first served; a slot is free when its threads have really ended."""

from __future__ import annotations

from typing import Final

import trio

from dspex_trio.tasks.waiting import WaitQueue


class Slots:
    """Hands out slots in the order in which they were asked for. Belongs to one Trio run.

    Args:
        capacity: How many there are.
    """

    def __init__(self, capacity: int) -> None:
        self.capacity: Final = capacity
        self.free = capacity
        self._waiting = WaitQueue[Slot]()

    def acquire_nowait(self) -> Slot:
        """Take a free slot; raises trio.WouldBlock when there is none or others wait."""
        if self.free == 0 or self._waiting:
            raise trio.WouldBlock
        self.free -= 1
        return Slot(self)

    async def acquire(self) -> Slot:
        """Wait for a slot; when cancelled none was taken."""
        return await self._waiting.acquire(self.acquire_nowait)

    def _freed(self) -> None:
        if self._waiting:
            self._waiting.give(Slot(self))
        else:
            self.free += 1


class Slot:
    """The right to run threads: held by who acquired it, and by each thread that runs in it."""

    __slots__ = ("_holds", "_slots")

    def __init__(self, slots: Slots) -> None:
        self._slots = slots
        self._holds = 1

    def hold(self) -> None:
        """One more holder; a thread that begins."""
        assert self._holds > 0, "a slot was used after it was freed"  # noqa: S101 - our own bug, never the user's
        self._holds += 1

    def release(self) -> None:
        """One holder less; the last one frees the slot. Call it in the Trio thread."""
        assert self._holds > 0, "a slot was freed twice"  # noqa: S101 - as above
        self._holds -= 1
        if self._holds == 0:
            self._slots._freed()  # noqa: SLF001 - the other half of this class
