"""The reply margin: what is taken off the caller's time, so that the failure arrives before its own timer fires."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

import trio

from dspex_trio.model import TrialFailure, TrialOutcome, TrialRequest
from dspex_trio.model.errors import FailureKind
from dspex_trio.threads import ThreadClock
from dspex_trio.trials.lateness import time_is_real

# What was learnt is half as much after so many seconds, and never more than this, in seconds.
_HALF_LIFE: Final = 20.0
_MOST_LEARNT: Final = 5.0
# What the settings ask for takes at most this part of a trial's time, and what was learnt at most that one.
_MOST_OF_TIME: Final = 0.5
_MOST_LEARNT_OF_TIME: Final = 0.25
# An answer leaves in time when the margin is so many times what it took the last ones to leave.
_SAFETY: Final = 3.0
# A late loop makes an answer late three times: the deadline is noticed, the threads are out or were waited for long
# enough, the answer is written.
_TURNS: Final = 3.0
# An answer that came too late for its caller would have needed more than its margin; how much more is not known.
_RAISE: Final = 2.0
# A caller that gives up so long after its deadline, in seconds, does not do so because of the deadline.
_UNRELATED: Final = 1.0
# The part of the margin for which an answer waits for its trial's thread; the rest is for the way to the caller.
_PATIENCE: Final = 0.5


@dataclass(frozen=True, slots=True)
class MarginRules:
    """What the operator chose.

    Attributes:
        least: The least margin, in seconds.
        share: The part of a trial's time that is the margin where that is more.
        share_most: The most that this part comes to, in seconds.
    """

    least: float = 0.01
    share: float = 0.02
    share_most: float = 0.5

    def margin(self, time: float, learnt: float = 0.0, slack: float = 0.0) -> float:
        """The margin of a trial that has so much time, in seconds.

        Args:
            time: From the request's arrival to the caller's deadline.
            learnt: How early answers have had to leave lately.
            slack: By what part of its time the caller's own timer may fire earlier than is known here.
        """
        time = max(time, 0.0)
        chosen = max(self.least, min(time * (self.share + slack), self.share_most))
        return max(min(chosen, time * _MOST_OF_TIME), min(learnt, time * _MOST_LEARNT_OF_TIME))


@dataclass(frozen=True, slots=True)
class TrialDeadline:
    """When a trial ends at the latest.

    Attributes:
        at: On Trio's clock; the margin is taken off.
        margin: The margin, in seconds.
    """

    at: float
    margin: float

    @property
    def callers(self) -> float:
        """When its caller stops waiting."""
        return self.at + self.margin


class ReplyMargin:
    """Computes deadlines of trials; learns how early answers have to leave from those that were late.

    What was learnt fades: half of it is gone after 20 seconds. There is no margin where a test's clock jumps while
    threads run; a clock that keeps their time too is treated as the real one.

    Args:
        rules: What the operator chose.
        most_time: The most that any trial may take, in seconds.
    """

    def __init__(self, rules: MarginRules, most_time: float = math.inf) -> None:
        self._rules = rules
        self._most_time = most_time
        self._learnt = 0.0
        self._learnt_at = -math.inf

    def deadline(self, arrived: float, limit: float, slack: float = 0.0) -> TrialDeadline:
        """When a trial ends at the latest that arrived then and whose caller stops waiting at `limit`.

        With `slack`, its timer may fire earlier by that part of the time.
        """
        limit = min(limit, arrived + self._most_time)
        margin = self._rules.margin(limit - arrived, self.learnt(), slack) if _applies() else 0.0
        return TrialDeadline(limit - margin, margin)

    def learnt(self) -> float:
        """How early answers have had to leave lately, in seconds."""
        if not self._learnt:
            return 0.0
        return self._learnt * math.exp2((self._learnt_at - trio.current_time()) / _HALF_LIFE)

    def patience(self, margin: float | None = None) -> float:
        """How long an answer may wait for the threads of its trial, in seconds; None for work that is no trial."""
        if margin is None:
            margin = max(self._rules.least, self.learnt()) if _applies() else 0.0
        return margin * _PATIENCE

    def observe(self, request: TrialRequest, outcome: TrialOutcome) -> None:
        """Learn from an answer that is about to leave, or that its caller did not wait for."""
        if not isinstance(outcome, TrialFailure) or outcome.kind is not FailureKind.DEADLINE_EXCEEDED:
            return
        if request.deadline <= request.arrived:
            return  # it was past on arrival
        late = trio.current_time() - request.deadline
        if outcome.details.get("stuck") == "true" or outcome.details.get("rung") == "kill":
            late -= self.patience(request.margin)  # it waited on purpose
        self._learn(late * _SAFETY)

    def loop_was_late(self, seconds: float) -> None:
        """Learn from the loop's own lateness: an answer that is to leave now will leave as late."""
        self._learn(seconds * _TURNS)

    def given_up(self, deadline: TrialDeadline) -> None:
        """Learn from a caller that gives up now: around its deadline that means that the answer came too late for it.

        Twice the margin before its deadline counts as around it: a request that was read late has a deadline that is as
        much too late.
        """
        early = deadline.callers - trio.current_time()
        if -_UNRELATED <= early <= deadline.margin * _RAISE:
            self._learn(deadline.margin * _RAISE + max(early, 0.0))

    def _learn(self, seconds: float) -> None:
        if seconds > self.learnt():
            self._learnt, self._learnt_at = min(seconds, _MOST_LEARNT), trio.current_time()


def _applies() -> bool:
    return time_is_real() or isinstance(trio.lowlevel.current_clock(), ThreadClock)
