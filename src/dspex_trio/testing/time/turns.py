"""Who goes next, by a seed: every decision of a schedule comes from here and is written down."""

from __future__ import annotations

from collections.abc import Sequence
from random import Random
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from dspex_trio.testing.time.virtual_thread import VirtualThread


class SeededTurns:
    """The decisions of one schedule.

    Attributes:
        log: What happened, in its order: steps of tasks, turns of threads, jumps of time.
    """

    def __init__(self, seed: int) -> None:
        self.log: list[str] = []
        self._random = Random(seed)  # noqa: S311 - no secret

    def choose(self, threads: Sequence[VirtualThread]) -> VirtualThread:
        """Which of these, in the order in which they were started, runs next."""
        chosen = self._random.choice(threads)
        self.log.append(str(chosen))
        return chosen

    def threads_first(self) -> bool:
        """Whether a thread that could run does so before the loop goes on."""
        return self._random.random() < 0.5  # noqa: PLR2004 - as likely as not
