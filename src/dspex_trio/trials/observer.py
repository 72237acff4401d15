"""Observers of trials: what the log, spans and metrics, and records are made from."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from typing import Final

from dspex_trio.model import TrialOutcome, TrialRequest, TrialSuccess

logger: Final = logging.getLogger(__name__)

# A loop that was later than this, in seconds, may be why a trial missed its deadline, and is reported with its outcome.
LATE: Final = 0.01
_LONGEST_TRACEPARENT: Final = 55  # of W3C Trace Context's first version


class Observer:
    """Called for trials and for what they do to their process, in the Trio thread; must neither block nor raise.

    Every method does nothing here; override those that are of interest. `begins` and `on_outcome` are called in the
    trial's own task, and so is the watch for its stages, except for a trial that runs in a child process. What they set
    in the task's context is there in the program's threads.
    """

    def begins(self, request: TrialRequest) -> TrialRequest:
        """A trial arrives; returns the request to run, which the methods below get too.

        That is the given one, or a copy whose watch wraps the watch it had. Other observers may wrap it too; `key` is
        the same in all copies.
        """
        return request

    def on_outcome(self, request: TrialRequest, outcome: TrialOutcome) -> None:
        """A trial has ended, answered or not: one whose caller is gone is reported as CANCELLED."""

    def on_late_end(self, request: TrialRequest, details: Mapping[str, str]) -> None:
        """The threads have ended of a trial that was previously reported abandoned and stuck.

        `details` are those of a failure, as they are now: `rung`, `rung_ms`; and `abandoned_ms`, from the trial's
        cancellation until the last of its threads had ended.
        """

    def on_stuck(self, trials: int) -> None:
        """The number of trials that are over and whose threads have ignored that for two seconds or more."""

    def on_lateness(self, seconds: float) -> None:
        """How late the loop was for a timer; sampled ten times a second while trials run."""

    def on_records_dropped(self, records: int) -> None:
        """How many trial records were lost since the last call."""


class TrialLog(Observer):
    """A line in the log for each trial, and one more for each thread that ended late.

    Args:
        late_since: How late the loop has been since a time of Trio's clock, in seconds.
    """

    def __init__(self, late_since: Callable[[float], float]) -> None:
        self._late_since = late_since

    def on_outcome(self, request: TrialRequest, outcome: TrialOutcome) -> None:
        """Log how the trial ended."""
        if not logger.isEnabledFor(logging.INFO):
            return
        late = self._late_since(request.arrived)
        logger.info(
            "trial %.200r of %.200r: %s after %.0f ms%s",  # both are the caller's: as long as they like, newlines too
            request.trial_id,
            _program(request),
            "OK" if isinstance(outcome, TrialSuccess) else f"{outcome.kind.name} in {outcome.stage.name}",
            outcome.timings.total_ms,
            f"; the loop was up to {late * 1e3:.0f} ms late meanwhile" if late >= LATE else "",
            extra=_fields(request, outcome),
        )

    def on_late_end(self, request: TrialRequest, details: Mapping[str, str]) -> None:
        """Log what ended its threads, and when."""
        logger.info(
            "trial %.200r of %.200r: its threads have ended, by %s after %s ms; the last one after %s ms",
            request.trial_id,
            _program(request),
            details.get("rung"),
            details.get("rung_ms"),
            details.get("abandoned_ms"),
        )


def _fields(request: TrialRequest, outcome: TrialOutcome) -> dict[str, object]:
    """The same as fields of the log record, for logs that machines read."""
    fields: dict[str, object] = {
        "trial_id": request.trial_id,
        "session_id": request.session_id,
        "program": _program(request),
        "outcome": "success" if isinstance(outcome, TrialSuccess) else "failure",
        "total_ms": round(outcome.timings.total_ms, 3),
        "execute_ms": round(outcome.timings.execute_ms, 3),
        "tokens": outcome.cost.usage.total_tokens,
        "cost_usd": outcome.cost.total_usd,
    }
    if traceparent := request.metadata.get("traceparent"):
        fields["traceparent"] = traceparent[:_LONGEST_TRACEPARENT]
    if not isinstance(outcome, TrialSuccess):
        fields |= {"kind": outcome.kind.name, "stage": outcome.stage.name, "retryable": outcome.retryable}
        fields["details"] = dict(outcome.details)
    return fields


def _program(request: TrialRequest) -> str:
    return request.program.name or request.program.python_class
