"""How long the loop waits for the interpreter: for threads that compute, and for garbage collections."""

from __future__ import annotations

import gc
import sys
import threading
import time
from collections.abc import Callable, Mapping
from typing import Final, Self

# A full collection that takes longer than this, in seconds, has scanned what was imported.
_LONG: Final = 0.02
# So often what survived one is spared from the next ones: cycles that were alive just then are never collected.
_MOST_TIMES: Final = 16

# What a thread may keep the interpreter for, in seconds, while none computes for long: to hand it over more often costs
# eight trials at once half as much again, and makes the loop later, not earlier.
_CALM_INTERVAL: Final = 0.001
# Calm after so many samples in a row without a computing thread; ten samples a second.
_CALM_SAMPLES: Final = 10

_lock: Final = threading.Lock()
_open: dict[Turns, float] = {}
_before: float = 0.0
_set: float = 0.0


class Turns:
    """How soon a thread that computes has to hand over the interpreter: what one runtime wishes, while it is entered.

    Python's own 5 ms are for each thread in the queue: with eight that compute, the loop waits for 40 ms each time that
    it has something to do. The shortest wish holds, and what was set before is set again when the last one is gone.

    Args:
        short: What is wished while threads compute, in seconds, and until the first sample.
    """

    def __init__(self, short: float) -> None:
        self._short = short
        self._calm = 0

    def __enter__(self) -> Self:
        global _before  # noqa: PLW0603 - the interval is the process's, and so is the memory of what it was
        with _lock:
            if not _open:
                _before = sys.getswitchinterval()
        self._wish(self._short)
        return self

    def __exit__(self, *_: object) -> None:
        self._wish(None)

    def sampled(self, *, computing: bool) -> None:
        """Take one sample of whether threads compute; called ten times a second while trials run."""
        self._calm = 0 if computing else self._calm + 1
        if self in _open:
            self._wish(self._short if self._calm < _CALM_SAMPLES else max(self._short, _CALM_INTERVAL))

    def _wish(self, seconds: float | None) -> None:
        with _lock:
            if _open.get(self) == seconds and sys.getswitchinterval() == _set:  # else a program has changed it
                return
            if seconds is None:
                del _open[self]
            else:
                _open[self] = seconds
            _apply()


def _apply() -> None:
    global _set  # noqa: PLW0603 - as above
    sys.setswitchinterval(min(*_open.values(), _before) if _open else _before)
    _set = sys.getswitchinterval()


def interval_of_others() -> float | None:
    """The switch interval, in seconds, if it is another one than is wished here; else None."""
    with _lock:
        now = sys.getswitchinterval()
        return None if _open and now == _set else now


def set_interval(seconds: float | None) -> None:
    """Set what `interval_of_others` gave."""
    with _lock:
        if seconds is None:
            _apply()
        else:
            sys.setswitchinterval(seconds)


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
