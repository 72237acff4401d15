"""How long the loop waits for the interpreter: for threads that compute, and for garbage collections."""

from __future__ import annotations

import gc
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Final

# A full collection that takes longer than this, in seconds, has looked at what was imported.
_LONG: Final = 0.02
# So often what survived one is spared from the next ones: cycles that were alive just then are never collected.
_MOST_TIMES: Final = 16

_lock: Final = threading.Lock()
_open: list[float] = []
_before: float = 0.0


@contextmanager
def switch_interval(seconds: float) -> Iterator[None]:
    """Have a thread that wants the GIL ask for it after `seconds`; the shortest wish of those open holds.

    Python's own 5 ms are for each thread in the queue: with eight that compute, the loop waits for 40 ms each time that
    it has something to do. Taken back when the last wish is closed.
    """
    global _before  # noqa: PLW0603 - the interval is the process's, and so is the memory of what it was
    with _lock:
        if not _open:
            _before = sys.getswitchinterval()
        _open.append(seconds)
        sys.setswitchinterval(min(*_open, _before))
    try:
        yield
    finally:
        with _lock:
            _open.remove(seconds)
            sys.setswitchinterval(min(*_open, _before) if _open else _before)


def keep_collections_short() -> None:
    """Spare what the process holds now from full garbage collections, and what makes one of them long from the next.

    A full collection stops every thread while it looks at everything: with DSPy imported that takes 50 to 70 ms, with
    litellm 200, about once in a thousand trials, and no deadline is kept meanwhile. What was imported stays in use, so
    there is nothing to find in it. This holds for the process until it ends, so it is for processes of our own.
    """
    gc.freeze()
    gc.callbacks.append(LongCollections(gc.freeze))


class LongCollections:
    """One of `gc.callbacks`: notices full collections that took long.

    Args:
        freeze: Called after each, up to sixteen times; spares what is held then from the next ones.
        clock: In seconds.
    """

    def __init__(self, freeze: Callable[[], None], clock: Callable[[], float] = time.perf_counter) -> None:
        self._freeze = freeze
        self._clock = clock
        self._began = 0.0
        self._left = _MOST_TIMES

    def __call__(self, phase: str, info: Mapping[str, int]) -> None:
        """A collection of a generation starts or stops; the last of the three is everything."""
        if info["generation"] < 2 or not self._left:  # noqa: PLR2004 - as said
            return
        now = self._clock()
        if phase == "start":
            self._began = now
        elif now - self._began > _LONG:
            self._left -= 1
            self._freeze()
