"""How late the loop is for its timers: what every deadline, heartbeat and reply of the process has to reckon with.

Threads that compute hold the interpreter, and the loop has to wait for its turn; a callback that takes long has the
same effect. Measured while trials run, by a timer of its own; with none running there is none.
"""

from __future__ import annotations

import logging
import math
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import trio

logger: Final = logging.getLogger(__name__)

# The time between two samples, in seconds, and how many samples are kept: less than two minutes of them.
_PERIOD: Final = 0.1
_REMEMBERED: Final = 1024
# More than this, in seconds, is logged, at most once in so many seconds: trials lose time to the reply margin by it.
_TOO_LATE: Final = 0.05
_BETWEEN_WARNINGS: Final = 60.0


def time_is_real() -> bool:
    """Whether Trio's clock is the real one; it has no public name, and every other one is a test's."""
    return type(trio.lowlevel.current_clock()).__name__ == "SystemClock"


@dataclass(frozen=True, slots=True)
class LoopLateness:
    """How late the loop was for its timers, over the last samples.

    Attributes:
        samples: How many samples; at most the last 1,024, one each 100 ms while trials run.
        p50_ms: Half of them were later.
        p99_ms: One in a hundred was later.
        max_ms: The worst of them.
    """

    samples: int = 0
    p50_ms: float = 0.0
    p99_ms: float = 0.0
    max_ms: float = 0.0


class LatenessWatch:
    """Measures how late the loop is while trials run, which that may harm.

    Args:
        on_sample: Called with each sample: seconds late.
    """

    def __init__(self, on_sample: Callable[[float], None] = lambda _seconds: None) -> None:
        self._on_sample = on_sample
        self._samples: deque[tuple[float, float]] = deque(maxlen=_REMEMBERED)
        self._users = 0
        self._used = trio.Event()
        self._due = math.inf
        self._warned = -math.inf

    def begin(self) -> None:
        """A trial begins."""
        self._users += 1
        self._used.set()

    def end(self) -> None:
        """It has ended."""
        self._users -= 1

    async def run(self) -> None:
        """Sample for ever; pauses while no trial runs, and does nothing under a test's clock."""
        if not time_is_real():
            await trio.sleep_forever()  # each sample would have to be waited for before virtual time can jump
        while True:
            await self._used.wait()
            while self._users:
                self._due = trio.current_time() + _PERIOD
                await trio.sleep_until(self._due)
                self._sample(max(trio.current_time() - self._due, 0.0))
            self._used = trio.Event()
            self._due = math.inf

    def _sample(self, late: float) -> None:
        now = trio.current_time()
        self._samples.append((now, late))
        self._on_sample(late)
        if late > _TOO_LATE and now >= self._warned + _BETWEEN_WARNINGS:
            self._warned = now
            found = self.summary()
            logger.warning(
                "the loop was %.0f ms late (p99 %.0f ms, at most %.0f ms over the last %d samples): threads that "
                "compute keep the interpreter; failures leave that much later, and the reply margin grows with it",
                late * 1e3,
                found.p99_ms,
                found.max_ms,
                found.samples,
            )

    def worst_since(self, time: float) -> float:
        """The most that the loop was late since then, in seconds, as far as remembered; also if it is late just now."""
        worst = max(trio.current_time() - self._due, 0.0)
        for at, late in reversed(self._samples):
            if at < time:
                break
            worst = max(worst, late)
        return worst

    def summary(self) -> LoopLateness:
        """The last samples in three figures."""
        if not self._samples:
            return LoopLateness()
        found = sorted(late * 1e3 for _, late in self._samples)
        last = len(found) - 1
        return LoopLateness(len(found), found[last // 2], found[math.ceil(last * 0.99)], found[last])
