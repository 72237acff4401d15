"""Admission control: which trials run now, which wait, which are refused."""

from __future__ import annotations

import math
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from typing import Final, Protocol

import trio

from dspex_trio.model.errors import Overloaded, ShuttingDown

# How much of the expected duration a new observation moves: about the last ten trials count.
_SMOOTHING: Final = 0.2


class Slot(Protocol):
    """The right to run one trial's threads; free again when it is released and the threads have ended."""

    def release(self) -> None:
        """Give up the holder's claim; a thread that still runs keeps the slot until it ends."""
        ...


class Slots(Protocol):
    """A fixed number of slots, handed out first come, first served."""

    @property
    def capacity(self) -> int:
        """How many there are."""
        ...

    @property
    def free(self) -> int:
        """How many of them are free."""
        ...

    def acquire_nowait(self) -> Slot:
        """Take a slot that is free; raises trio.WouldBlock when there is none or others wait."""
        ...

    async def acquire(self) -> Slot:
        """Wait for a slot; when cancelled none was taken."""
        ...


class Admission:
    """Hands slots to trials in the order in which they came, and refuses early instead of late.

    Args:
        slots: The slots.
        max_queue: How many trials may wait; one more is OVERLOADED at once.
        refuse: Asked before anything else; a text is the reason why no trial can be taken now.
        max_wait: The most that a trial may wait, in seconds, however far its deadline is.
    """

    def __init__(
        self,
        slots: Slots,
        max_queue: int,
        refuse: Callable[[], str | None] = lambda: None,
        *,
        max_wait: float = math.inf,
    ) -> None:
        self._slots = slots
        self._max_queue = max_queue
        self._refuse = refuse
        self._max_wait = max_wait
        self._waiting: set[trio.CancelScope] = set()
        self._closed = False
        self._typical_seconds = 0.0

    @property
    def queued(self) -> int:
        """How many trials wait now."""
        return len(self._waiting)

    @property
    def slots(self) -> int:
        """How many slots are taken now."""
        return self._slots.capacity - self._slots.free

    def close(self) -> None:
        """Turn away everybody who comes from now on or is still waiting, as SHUTTING_DOWN."""
        self._closed = True
        for scope in self._waiting:
            scope.cancel()

    @asynccontextmanager
    async def admit(self) -> AsyncIterator[Slot]:
        """Hold a slot; waiting for one counts against the enclosing deadline.

        Raises:
            Overloaded: The queue is full, or the wait took too long or cannot be expected to end before the deadline.
            ShuttingDown: The worker takes no more trials.
        """
        slot = await self._take()
        began = trio.current_time()
        try:
            yield slot
        finally:
            slot.release()
            self._typical_seconds += _SMOOTHING * (trio.current_time() - began - self._typical_seconds)

    async def _take(self) -> Slot:
        await trio.lowlevel.checkpoint_if_cancelled()  # a deadline that is past takes no slot
        if (reason := self._refuse()) is not None:
            raise Overloaded(reason)
        if self._closed:
            raise ShuttingDown("the worker is shutting down and takes no more trials")
        with suppress(trio.WouldBlock):
            return self._slots.acquire_nowait()
        self._check_queue()
        with trio.CancelScope(deadline=trio.current_time() + self._max_wait) as scope:
            self._waiting.add(scope)
            try:
                return await self._slots.acquire()
            finally:
                self._waiting.discard(scope)
        if self._closed:
            raise ShuttingDown("the worker began to shut down while the trial waited for a slot")
        raise Overloaded(
            f"no slot was free within {self._max_wait:g} s (--queue-timeout)", retry_after=self._expected() or None
        )

    def _expected(self) -> float:
        """How long one more trial is expected to wait, in seconds."""
        return (len(self._waiting) + 1) * self._typical_seconds / self._slots.capacity

    def _check_queue(self) -> None:
        expected = self._expected()
        if len(self._waiting) >= self._max_queue:
            raise Overloaded(
                f"all {self._slots.capacity} slots are taken and {len(self._waiting)} trials wait already "
                f"(--max-trials, --max-queue)",
                retry_after=expected or None,
            )
        left = min(trio.current_effective_deadline() - trio.current_time(), self._max_wait)
        if expected > left:
            raise Overloaded(
                f"all {self._slots.capacity} slots are taken; the wait is expected to last {expected:.1f} s "
                f"and the trial can wait {max(left, 0):.1f} s",
                retry_after=expected,
            )
