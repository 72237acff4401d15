"""The threads whose time a virtual clock keeps: which of them run, what the others wait for, and whose turn it is."""

from __future__ import annotations

import math
import sys
import threading
import time
from _thread import LockType, allocate_lock, get_ident
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from enum import Enum, auto
from pathlib import Path
from threading import RLock
from time import monotonic  # the real one
from typing import Final

from dspex_trio import threads
from dspex_trio.testing.looking import stack
from dspex_trio.testing.turns import Turns
from dspex_trio.threads import ClockedThread, Job

HELD_UP: Final = 0.05
"""How often to look whether a thread is held up, in real seconds; one that used no CPU in twice that is."""
# Code in which threads wait, and of which nobody wants to read who looks for why they do.
_WAITS: Final = (str(Path(__file__).parent), str(Path(threads.__file__).parent), threading.__file__)
# Real seconds between two looks of a thread at what the operating system tells it of.
_STEP: Final = 0.002
# How long a thread may take to come back that should, in real seconds; after that it is away.
_COMING_BACK: Final = 1.0


class State(Enum):
    """What a thread does."""

    STARTING = auto()  # it will run
    READY = auto()  # it waits for its turn
    RUNNING = auto()
    WAITING = auto()  # for a waiter
    OUTSIDE = auto()  # in an operation of the system's: time stands still, others have their turns
    AWAY = auto()  # somewhere out of sight: time may pass, others have their turns
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
        self._ident = 0
        self._has_turn = False
        self._turn = _held_lock()
        self._back = _held_lock()
        self._since = 0.0  # real time of its last change of state
        self._cpu: tuple[float, float] | None = None  # CPU time used, and when it was first seen so
        self._joining: list[VirtualWaiter] = []

    def __str__(self) -> str:
        return self._label

    # ---- in the thread -----------------------------------------------------------------------------------------------

    def entered(self) -> None:
        self._ident = get_ident()
        with self._threads.lock:
            self._threads.by_ident[self._ident] = self
        self.pause()

    def left(self) -> None:
        with self._threads.lock:
            self._threads.by_ident.pop(self._ident, None)
            for waiter in self._joining:
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

    def joined(self) -> VirtualWaiter | None:
        """What is released when it has left; None if it has."""
        with self._threads.lock:
            if self.state is State.LEFT or self not in self._threads.all:
                return None
            waiter = VirtualWaiter(self._threads)
            self._joining.append(waiter)
            return waiter

    # ---- in the loop -------------------------------------------------------------------------------------------------

    def runs(self) -> bool:
        """Whether it runs, or is about to; under the lock."""
        if self.state is State.WAITING:
            return self.waiter is not None and self.waiter.has_happened()
        if self.state is State.RETURNING and (monotonic() - self._since > _COMING_BACK or self.is_held_up()):
            self._set(State.AWAY)
        return self.state is not State.AWAY

    def has_its_turn(self) -> None:
        """Let it run until it gives way, or is held up by something out of sight."""
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
        self._back.acquire(timeout=_COMING_BACK)

    def is_held_up(self) -> bool:
        """Whether it uses no CPU, which is known when this has been asked for a while."""
        if self.state not in {State.RUNNING, State.RETURNING} or (used := _cpu_time(self._ident)) is None:
            return False
        now = monotonic()
        if self._cpu is None or self._cpu[0] != used:
            self._cpu = used, now
        return now - self._cpu[1] >= 2 * HELD_UP

    def look_again(self) -> None:
        """Forget that it was held up."""
        self._cpu = None


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
        self._gate = _held_lock()
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


class VirtualThreads:
    """All threads whose time one clock keeps.

    Args:
        now: The time.
        look: Has the loop look again whether time may pass.
        turns: Whose turn it is; None when they all run at the same time.
    """

    def __init__(self, now: Callable[[], float], look: Callable[[], None], turns: Turns | None) -> None:
        self.now = now
        self.look = look
        self.turns = turns
        self.are_over = False
        self.loop = get_ident()
        self.changes = 0  # of what one of them does
        # One that the same thread may take twice: collecting garbage can run anybody's finaliser at any point.
        self.lock = RLock()
        self.turn_is_over = _held_lock()
        self.all: dict[VirtualThread, None] = {}
        self.by_ident: dict[int, VirtualThread] = {}
        self.waiting: dict[VirtualWaiter, None] = {}
        self._started = 0

    def thread(self, name: str) -> VirtualThread:
        """One more; about to be started."""
        with self.lock:
            self._started += 1
            thread = VirtualThread(self, self._started, name)
            self.all[thread] = None
        return thread

    def here(self) -> VirtualThread | None:
        """The calling one."""
        return self.by_ident.get(get_ident())

    @contextmanager
    def gone(self, state: State) -> Iterator[None]:
        """The calling thread does something that takes its own time; OUTSIDE or AWAY."""
        if (me := self.here()) is None:
            yield
            return
        with self.lock:
            me.go(state)
        try:
            yield
        finally:
            me.pause()

    def are_locked_here(self) -> bool:
        """Whether the calling thread is in the middle of this class's own work, as a finaliser may find itself."""
        return self.lock._is_owned()  # type: ignore[attr-defined, no-any-return]  # noqa: SLF001 - as Condition asks it

    def interrupted(self, ident: int) -> None:
        """That thread will come back from wherever it is."""
        with self.lock:
            thread = self.by_ident.get(ident)
            if thread is not None and thread.state is State.AWAY:
                thread.goes_on(State.RETURNING)

    # ---- in the loop -------------------------------------------------------------------------------------------------

    def next_due(self) -> float:
        """When the first of them waits no longer."""
        with self.lock:
            return min((waiter.due for waiter in self.waiting), default=math.inf)

    def expire(self, due: float) -> None:
        """End the waits that were to last until then."""
        with self.lock:
            for waiter in [waiter for waiter in self.waiting if waiter.due <= due]:
                waiter.expire()

    def any_runs(self) -> bool:
        """Whether one of them runs, or is about to, and is not held up by something out of sight."""
        with self.lock:
            idle = [thread.is_held_up() for thread in self.all if thread.runs()]  # each is to be looked at
        return not all(idle)

    def might_do_something(self) -> bool:
        """Whether one of them may, if only the rest of the world does."""
        with self.lock:
            return any(thread.state is State.AWAY or thread.runs() for thread in self.all)

    def whereabouts(self) -> Iterator[tuple[str, str]]:
        """Each one, and the stack that it is at."""
        frames = sys._current_frames()  # noqa: SLF001 - its documented name
        for ident, thread in self.by_ident.items():
            frame = frames.get(ident)
            while frame is not None and frame.f_code.co_filename.startswith(_WAITS):
                frame = frame.f_back
            if frame is not None:
                yield f"{thread} {thread.name!r}", stack(frame)

    def time_passes(self, due: float) -> None:
        """It has jumped: what was held up may not be so any more, and some have waited long enough."""
        with self.lock:
            for thread in self.all:
                thread.look_again()
        self.expire(due)

    def one_runs(self) -> bool:
        """Let one of those that want to run have its turn; whether there was one."""
        if self.turns is None:
            return False
        self._settle()
        with self.lock:
            wanting = [thread for thread in self.all if thread.state in {State.STARTING, State.READY}]
        if not wanting:
            return False
        self.turns.choose(wanting).has_its_turn()
        return True

    def run_while(self, condition: Callable[[], bool]) -> None:
        """Where the loop's own code needs what threads hold that run in turns: let them, as far as that helps."""
        while get_ident() == self.loop and condition() and self.one_runs():
            pass

    def _settle(self) -> None:
        """Wait for those that are on their way back, so that who wants a turn does not depend on the machine."""
        with self.lock:
            coming = [
                thread for thread in self.all if thread.state in {State.WAITING, State.RETURNING} and thread.runs()
            ]
        for thread in coming:
            thread.comes_back()

    def give_up(self) -> None:
        """End those that nobody else will: their waits raise JobCancelled."""
        with self.lock:
            for thread in list(self.all):
                if thread.job is None:
                    continue
                thread.job.cancel()
                if thread.waiter is not None:
                    thread.waiter.expire()

    def over(self) -> None:
        """The run has ended: nobody waits for a turn or for virtual time any more."""
        with self.lock:
            self.turns, self.are_over = None, True
            for waiter in list(self.waiting):
                if waiter.due < math.inf:
                    waiter.expire()
            for thread in self.all:
                if thread.state in {State.STARTING, State.READY}:
                    thread.goes_on(State.READY)


def _held_lock() -> LockType:
    lock = allocate_lock()
    lock.acquire()
    return lock


def _cpu_time(ident: int) -> float | None:
    """Of a thread that has not ended; None where the platform does not tell."""
    try:
        return time.clock_gettime(time.pthread_getcpuclockid(ident))
    except (AttributeError, OSError):
        return None
