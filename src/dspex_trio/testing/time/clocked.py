"""The threads whose time a virtual clock keeps: which of them run, what the others wait for, and whose turn it is."""

from __future__ import annotations

import math
import sys
import threading
from _thread import get_ident
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import RLock
from typing import Final

from dspex_trio import threads
from dspex_trio.testing.time.looking import stack
from dspex_trio.testing.time.turns import SeededTurns
from dspex_trio.testing.time.virtual_thread import State, VirtualThread, held_lock
from dspex_trio.testing.time.waiters import VirtualWaiter

# Code in which threads wait, and of which nobody wants to read who looks for why they do.
_WAITS: Final = (str(Path(__file__).parent), str(Path(threads.__file__).parent), threading.__file__)


class VirtualThreads:
    """All threads whose time one clock keeps.

    Args:
        now: The time.
        look: Has the loop look again whether time may pass.
        turns: Whose turn it is; None when they all run at the same time.
    """

    def __init__(self, now: Callable[[], float], look: Callable[[], None], turns: SeededTurns | None) -> None:
        self.now = now
        self.look = look
        self.turns = turns
        self.are_over = False
        self.loop = get_ident()
        self.changes = 0  # of what one of them does
        # One that the same thread may take twice: collecting garbage can run anybody's finaliser at any point.
        self.lock = RLock()
        self.turn_is_over = held_lock()
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

    def joined(self, thread: VirtualThread) -> VirtualWaiter | None:
        """What is released when that one has left; None if it has."""
        with self.lock:
            if thread.state is State.LEFT or thread not in self.all:
                return None
            waiter = VirtualWaiter(self)
            thread.joining.append(waiter)
            return waiter

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
        """Whether one of them runs, or is about to, and is not blocked by something that the clock cannot see."""
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
