"""Locks whose waits a virtual clock sees: who waits for one is waiting, and taking one is where others may go first."""

from __future__ import annotations

import threading
from _thread import allocate_lock
from collections import deque
from typing import Any, Final, NoReturn

from dspex_trio.testing.time.clocked import VirtualThreads
from dspex_trio.testing.time.waiters import VirtualWaiter
from dspex_trio.threads import JobCancelled, waits_are_left_alone

# Python's own RLock in Python, on which Condition can stand; it is private, and has been there since 3.2.
_RLock: Final[Any] = threading._PyRLock  # type: ignore[attr-defined]  # noqa: SLF001


class VirtualLock:
    """`threading.Lock`. Between threads of the clock it goes to those who wait in the order in which they came."""

    def __init__(self, threads: VirtualThreads) -> None:
        self._threads = threads
        self._lock = allocate_lock()
        self._waiting: deque[VirtualWaiter] = deque()

    def acquire(self, blocking: bool = True, timeout: float = -1) -> bool:  # noqa: FBT001, FBT002 - a lock's own
        """As of a real one; `timeout` in virtual seconds."""
        threads = self._threads
        if not blocking or waits_are_left_alone() or threads.are_locked_here():
            return self._lock.acquire(blocking, timeout)
        if (me := threads.here()) is None:
            threads.run_while(self.locked)
            return self._lock.acquire(blocking, timeout)
        me.pause()
        end = None if timeout < 0 else threads.now() + timeout
        while not self._lock.acquire(blocking=False):
            waiter = VirtualWaiter(threads)
            self._waiting.append(waiter)
            if self._lock.acquire(blocking=False):  # it was released before it could be seen who waits
                self._forget(waiter)
                break
            if not waiter.acquire(True, -1 if end is None else max(end - threads.now(), 0)):
                self._forget(waiter)
                if end is None:
                    raise JobCancelled  # the run was given up
                return False
        return True

    __enter__ = acquire

    def _forget(self, waiter: VirtualWaiter) -> None:
        if waiter in self._waiting:
            self._waiting.remove(waiter)
        else:
            self._tell_next()  # it was told, and does not need it

    def release(self) -> None:
        """As of a real one."""
        self._lock.release()
        self._tell_next()

    def _tell_next(self) -> None:
        while self._waiting and not self._waiting.popleft().release_if_held():
            pass

    def __exit__(self, *_: object) -> None:
        self.release()

    def locked(self) -> bool:
        """As of a real one."""
        return self._lock.locked()

    def _at_fork_reinit(self) -> None:
        self._lock = allocate_lock()
        self._waiting.clear()

    def __reduce__(self) -> NoReturn:
        raise TypeError("cannot pickle '_thread.lock' object")  # nor copied: as a real one


class VirtualRLock(_RLock):  # type: ignore[misc]
    """`threading.RLock`."""

    def __init__(self, threads: VirtualThreads) -> None:
        super().__init__()
        self._block = VirtualLock(threads)

    def __reduce__(self) -> NoReturn:
        raise TypeError("cannot pickle '_thread.RLock' object")
