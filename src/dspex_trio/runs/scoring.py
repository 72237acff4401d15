"""Score outcomes, one at a time, in a thread: a metric may ask a language model, fail, exit, or never return."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any, Final

import trio

from dspex_trio.observing.redaction import Redactor
from dspex_trio.runs.metrics import Metric, about, is_ours, score


class Scorer:
    """Calls one metric.

    Args:
        metric: The metric.
        seconds: How long it may take for one prediction.

    Attributes:
        about: What results say of it.
        ours: Whether it is one of ours, which always return.
        hangs: Whether it did not return in time. Then it is not called any more: the next run scores the rest.
    """

    def __init__(self, metric: Metric, seconds: float) -> None:
        self.about: Final[Mapping[str, str]] = about(metric)
        self.ours: Final = is_ours(metric)
        self.hangs = False
        self._metric = metric
        self._seconds = seconds
        self._turn = trio.Lock()
        self._redact = Redactor(environment=os.environ)  # a metric may ask a language model, too

    async def score(self, expected: Mapping[str, Any], prediction: Mapping[str, Any] | None) -> dict[str, Any] | None:
        """What to put into the result, `SCORE_FIELDS`: 0 for no prediction. None where the metric hangs.

        A cancellation takes effect only afterwards: the trial has been paid for.
        """
        told = {"expected": expected, **self.about}
        if prediction is None:
            return {**told, "score": 0.0}
        with trio.CancelScope(shield=True):
            async with self._turn:
                if self.hangs:
                    return None
                with trio.move_on_after(self._seconds):
                    found = await trio.to_thread.run_sync(
                        score, self._metric, expected, prediction, limiter=trio.CapacityLimiter(1),
                        abandon_on_cancel=True,  # there is no other way to go on; its thread ends with the process
                    )  # fmt: skip
                    if (error := found.get("metric_error")) is not None:
                        found["metric_error"] = self._redact(error)
                    return told | found
                self.hangs = True
        return {**told, "score": None, "metric_error": f"TimeoutError: it did not return within {self._seconds:g} s"}
