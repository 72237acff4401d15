"""The reply margin: what is taken off the caller's time, so that the failure arrives before its own timer fires."""

from __future__ import annotations

from typing import Final

import trio

from dspex_trio.errors import FailureKind
from dspex_trio.model import TrialFailure, TrialOutcome, TrialRequest
from dspex_trio.threads import ThreadClock
from dspex_trio.trials.lateness import time_is_real

_FIRST: Final = 0.020
_HIGHEST: Final = 0.050
# An answer leaves in time when the margin is so many times what it took the last ones to leave.
_SAFETY: Final = 3.0
_DECAY: Final = 0.98
# The part of the margin for which an answer waits for its trial's thread; the rest is for the way to the caller.
_PATIENCE: Final = 0.5


class ReplyMargin:
    """Adapts to how late answers really leave on this machine.

    Nothing where a test's clock jumps while threads run; one that keeps their time too is treated as the real one.

    Args:
        floor: The least margin, in seconds; above 50 ms it is the only one.
    """

    def __init__(self, floor: float) -> None:
        self._floor = floor
        self._highest = max(floor, _HIGHEST)
        self._now = max(floor, min(_FIRST, self._highest))
        self._loop_late = 0.0

    def __call__(self) -> float:
        """The margin now, in seconds."""
        if not time_is_real() and not isinstance(trio.lowlevel.current_clock(), ThreadClock):
            return 0.0
        return min(max(self._now, self._loop_late), self._highest)

    def patience(self) -> float:
        """How long an answer may wait for its trial's thread, in seconds."""
        return self() * _PATIENCE

    def observe(self, request: TrialRequest, outcome: TrialOutcome) -> None:
        """Learn from an answer that is about to leave."""
        if not isinstance(outcome, TrialFailure) or outcome.kind is not FailureKind.DEADLINE_EXCEEDED:
            return
        late = trio.current_time() - request.deadline
        if outcome.details.get("stuck") == "true" or outcome.details.get("rung") == "kill":
            late -= self.patience()  # it waited on purpose
        if request.deadline > request.arrived:  # a deadline that was past on arrival teaches nothing
            self._now = min(max(self._floor, self._now * _DECAY, late * _SAFETY), self._highest)

    def loop_was_late(self, seconds: float) -> None:
        """Learn from the loop's own lateness: an answer that is to leave now will leave as late."""
        self._loop_late = max(seconds, self._loop_late * _DECAY)
