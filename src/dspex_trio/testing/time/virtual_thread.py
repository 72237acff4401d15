"""One thread whose time a virtual clock keeps: what it does, and how it gets its turn."""

from __future__ import annotations

import time
from _thread import LockType, allocate_lock, get_ident
from enum import Enum, auto
from pathlib import Path
from threading import get_native_id
from time import monotonic  # the real one
from typing import TYPE_CHECKING, Final

from dspex_trio.threads import ClockedThread, Job

if TYPE_CHECKING:
    from dspex_trio.testing.time.clocked import VirtualThreads
    from dspex_trio.testing.time.waiters import VirtualWaiter

HELD_UP: Final = 0.05
"""How often to look whether a thread is held up, in real seconds; one that used no CPU in twice that is."""
# How long a thread may take to come back that should, in real seconds; after that it is away.
_COMING_BACK: Final = 1.0
# The same on a machine that has no time for it.
_LONGEST_COMING_BACK: Final = 10.0


class State(Enum):
    """What a thread does."""

    STARTING = auto()  # it will run
    READY = auto()  # it waits for its turn
    RUNNING = auto()
    WAITING = auto()  # for a waiter
    OUTSIDE = auto()  # in an operation of the system's: time stands still, others have their turns
    AWAY = auto()  # in a wait that the clock cannot see: time may pass, others have their turns
    RETURNING = auto()  # it has been told to go on, wherever it was
    LEFT = auto()  # it has ended, and who waits for that has not been told yet


class VirtualThread(ClockedThread):
    """One thread. Where there are turns, it runs only in its own, from one wait to the next."""

    def __init__(self, threads: VirtualThreads, number: int, name: str) -> None:
        self.job: Job | None = None
        self.state = State.STARTING
        self.waiter: VirtualWaiter | None = None
        self._threads = threads
        self._label = f"thread {number}"
        self.name = name
        self._ident = self._native = 0
        self._has_turn = False
        self._turn = held_lock()
        self._back = held_lock()
        self._since = 0.0  # real time of its last change of state
        self._cpu: tuple[float, float] | None = None  # CPU time used, and when it was first seen so
        self.joining: list[VirtualWaiter] = []

    def __str__(self) -> str:
        return self._label

    # ---- in the thread -----------------------------------------------------------------------------------------------

    def entered(self) -> None:
        self._ident, self._native = get_ident(), get_native_id()
        with self._threads.lock:
            self._threads.by_ident[self._ident] = self
        self.pause()

    def left(self) -> None:
        with self._threads.lock:
            self._threads.by_ident.pop(self._ident, None)
            for waiter in self.joining:
                waiter.release_if_held()
            self.go(State.LEFT)

    def ended(self) -> None:
        with self._threads.lock:
            self._threads.all.pop(self, None)

    def pause(self) -> None:
        """Let others have their turns, and go on in one's own; at once where there are none."""
        with self._threads.lock:
            self.go(State.READY)
        self.run_on()

    def run_on(self) -> None:
        """Wait for the turn, where there are turns."""
        if self._threads.turns is not None:
            self._turn.acquire()
        self.state = State.RUNNING

    def go(self, state: State) -> None:
        """Be in `state`, which ends the turn; under the lock."""
        unexpected = self.state is not State.STARTING
        self._set(state)
        if self._has_turn:
            self._has_turn = False
            self._threads.turn_is_over.release()
        elif self._threads.turns is not None or state is not State.READY:
            if state in {State.READY, State.LEFT} and self._back.locked():
                self._back.release()
            if unexpected:
                self._threads.look()

    def _set(self, state: State) -> None:
        self.state = state
        self._threads.changes += 1
        self._since = monotonic()
        if state not in {State.READY, State.LEFT}:
            self._back.acquire(blocking=False)

    # ---- under the lock, in any thread -------------------------------------------------------------------------------

    def goes_on(self, state: State) -> None:
        """What it waited for has happened; READY, or RETURNING from where it looks by itself."""
        self.waiter = None
        self._set(state)
        if self._threads.turns is None and self._turn.locked():
            self._turn.release()  # the run with turns is over

    # ---- in the loop -------------------------------------------------------------------------------------------------

    def runs(self) -> bool:
        """Whether it runs, or is about to; under the lock."""
        if self.state is State.WAITING:
            return self.waiter is not None and self.waiter.has_happened()
        if self.state is State.RETURNING and (self._is_missing_since(self._since) or self.is_held_up()):
            self._set(State.AWAY)
        return self.state is not State.AWAY

    def has_its_turn(self) -> None:
        """Let it run until it gives way, or is blocked by something that the clock cannot see."""
        if self.state is State.STARTING:
            self.comes_back()
        with self._threads.lock:
            self._has_turn = True
            self._set(State.RUNNING)
        self.look_again()
        self._turn.release()
        while not self._threads.turn_is_over.acquire(timeout=HELD_UP):
            with self._threads.lock:
                if self._has_turn and self.is_held_up():
                    self._has_turn = False
                    self._set(State.AWAY)
                    return

    def comes_back(self) -> None:
        """Wait until it is ready, in real time."""
        began = monotonic()
        while not self._back.acquire(timeout=_COMING_BACK) and not self._is_missing_since(began):
            pass

    def _is_missing_since(self, began: float) -> bool:
        seconds = monotonic() - began
        return seconds > _LONGEST_COMING_BACK or (seconds > _COMING_BACK and not _is_kept_waiting(self._native))

    def is_held_up(self) -> bool:
        """Whether it uses no CPU, which is known when this has been asked for a while."""
        if self.state not in {State.RUNNING, State.RETURNING} or (used := _cpu_time(self._ident)) is None:
            return False
        now = monotonic()
        if self._cpu is None or self._cpu[0] != used:
            self._cpu = used, now
        if now - self._cpu[1] < 2 * HELD_UP:
            return False
        if _is_kept_waiting(self._native):
            self._cpu = used, now
            return False
        return True

    def look_again(self) -> None:
        """Forget that it was held up."""
        self._cpu = None


def held_lock() -> LockType:
    """A lock that the next one who wants it has to wait for."""
    lock = allocate_lock()
    lock.acquire()
    return lock


def _cpu_time(ident: int) -> float | None:
    """Of a thread that has not ended; None where the platform does not tell."""
    try:
        return time.clock_gettime(time.pthread_getcpuclockid(ident))
    except (AttributeError, OSError):
        return None


def _is_kept_waiting(native: int) -> bool:
    """Whether a thread would go on if the machine had time for it: it is runnable, or waits for a disk (Linux)."""
    try:
        status = Path(f"/proc/self/task/{native}/stat").read_text(encoding="utf-8")
    except OSError:
        return False
    return status.rpartition(")")[2].split()[0] in {"R", "D"}
