"""What a thread of a virtual clock waits for."""

from __future__ import annotations

import math
from _thread import allocate_lock
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from dspex_trio.testing.time.virtual_thread import State, held_lock

if TYPE_CHECKING:
    from dspex_trio.testing.time.clocked import VirtualThreads

# Real seconds between two looks of a thread at what the operating system tells it of.
_STEP: Final = 0.002


class VirtualWaiter:
    """One wait of one thread. The thread counts as running again at the moment it is released, not when it wakes."""

    def __init__(
        self,
        threads: VirtualThreads,
        happened: Callable[[], bool] | None = None,
        look: Callable[[], bool] | None = None,
    ) -> None:
        self._threads = threads
        self._thread = threads.here()
        self._gate = held_lock()
        self._happened = happened
        self._look = look
        self._looking = allocate_lock()
        self._released = False
        self.expired = False
        self.due = math.inf

    def acquire(self, blocking: bool = True, timeout: float = -1, /) -> bool:  # noqa: FBT001, FBT002 - a lock's own
        """Wait until it is released, or for so many virtual seconds; whether it was."""
        threads, me = self._threads, self._thread
        if me is not None and blocking:
            me.pause()  # what it is about to wait for may happen now
        with threads.lock:
            if self._released or not blocking:
                return self._released
            if timeout >= 0 and not threads.are_over:
                self.due = threads.now() + timeout
            threads.waiting[self] = None
            if me is not None:
                me.waiter = self
                me.go(State.WAITING)
            else:
                threads.look()
        if self._look is not None:
            self._watch(self._look)
        elif threads.are_over:
            return self._gate.acquire(timeout=timeout)
        elif me is not None and threads.turns is not None:
            me.run_on()
        else:
            self._gate.acquire()
        return not self.expired

    def _watch(self, look: Callable[[], bool]) -> None:
        """Look again and again, in real time, for what only the system knows."""
        try:
            while not self._released:
                with self._looking:
                    if look():
                        break
                self._gate.acquire(timeout=_STEP)
        finally:
            with self._threads.lock:
                self._end(State.RETURNING)
            if self._thread is not None:
                self._thread.pause()

    def release(self) -> None:
        """End the wait."""
        with self._threads.lock:
            if self._released:
                raise RuntimeError("released already")
            self._end(State.READY if self._look is None else State.RETURNING)
        self._gate.release()

    def _end(self, state: State) -> None:
        self._released = True
        if self in self._threads.waiting:
            del self._threads.waiting[self]
            if self._thread is not None:
                self._thread.goes_on(state)

    def release_if_held(self) -> bool:
        """End the wait, unless it has ended; whether it had not."""
        with self._threads.lock:
            if self._released:
                return False
            self.release()
        return True

    def expire(self) -> None:
        """Its time is up."""
        self.expired = True
        self.release()

    def has_happened(self) -> bool:
        """Whether the system has told of it already, and the thread is about to know."""
        if self._happened is None:
            return False
        try:
            with self._looking:
                return self._happened()
        except (OSError, ValueError):  # what is watched has been closed: the thread will hear of it itself
            return True
