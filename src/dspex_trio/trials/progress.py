"""How far a trial has come, and where its time went."""

from __future__ import annotations

import math

import trio

from dspex_trio.model import StageStarted, Timings, Watch
from dspex_trio.model.errors import Stage


class Progress:
    """The stage a trial is in and the time each stage has taken, on Trio's clock.

    Args:
        arrived: When the trial's time began; -inf for now.
        watch: Called with every stage, from ADMISSION on.
    """

    __slots__ = ("_began", "_entered", "_seconds", "_watch", "stage")

    def __init__(self, arrived: float = -math.inf, watch: Watch | None = None) -> None:
        now = trio.current_time()
        self._began = self._entered = now if arrived == -math.inf else arrived
        self._seconds = dict.fromkeys(Stage, 0.0)
        self._watch = watch
        self._begin(Stage.ADMISSION)

    def enter(self, stage: Stage) -> None:
        """Begin `stage`; the time since the last call belongs to the stage before."""
        now = trio.current_time()
        self._seconds[self.stage] += now - self._entered
        self._entered = now
        self._begin(stage)

    def _begin(self, stage: Stage) -> None:
        self.stage = stage
        if self._watch is not None:
            self._watch(StageStarted(stage))

    def timings(self) -> Timings:
        """Milliseconds in each stage until now."""
        now = trio.current_time()
        seconds = dict(self._seconds)
        seconds[self.stage] += now - self._entered
        return Timings(
            queued_ms=seconds[Stage.ADMISSION] * 1e3,
            hydrate_ms=(seconds[Stage.SESSION] + seconds[Stage.HYDRATE]) * 1e3,
            sync_ms=seconds[Stage.SYNC] * 1e3,
            execute_ms=seconds[Stage.EXECUTE] * 1e3,
            serialize_ms=seconds[Stage.SERIALIZE] * 1e3,
            total_ms=(now - self._began) * 1e3,
        )
