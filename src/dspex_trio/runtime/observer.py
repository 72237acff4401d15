"""What a runtime learns from what becomes of trials, and whom it tells: the log, records, whoever else asked for it."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from typing import Final, ParamSpec, TypeVar

import trio

from dspex_trio.model import TrialOutcome, TrialRequest
from dspex_trio.observing.records import Records
from dspex_trio.runtime.settings import Settings
from dspex_trio.trials import LatenessWatch, MarginRules, Observer, ReplyMargin, StuckLimit, TrialLog

logger: Final = logging.getLogger(__name__)
T = TypeVar("T")
P = ParamSpec("P")


def _told(observe: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T | None:
    """Tell an observer. What it raises, an exit too, ends neither the trial nor the worker; None if it did."""
    try:
        return observe(*args, **kwargs)
    except KeyboardInterrupt:
        raise
    except BaseException:  # noqa: ASYNC103 - nothing is awaited here
        logger.exception("an observer of trials failed")
        return None  # noqa: ASYNC104 - as above


class RuntimeObserver(TrialLog):
    """The observer of a runtime's trials.

    Args:
        settings: What the operator chose.
        nursery: For what goes on while stuck threads are counted.
        others: Who else is told.

    Attributes:
        margin: The reply margin.
        lateness: How late the loop is.
        limit: The limit on stuck threads.
        records: Where trials are recorded, if they are.
        looked: Told how late the loop was, in seconds, each time that this is measured.
    """

    def __init__(self, settings: Settings, nursery: trio.Nursery, others: Sequence[Observer]) -> None:
        self._others = others
        self.margin = ReplyMargin(margin_rules(settings), settings.max_trial_seconds)
        self.lateness = LatenessWatch(self.on_lateness)
        self.limit = StuckLimit(settings.max_stuck_threads or settings.max_trials, nursery, self.on_stuck)
        self.records: Records | None = None
        self.looked: Callable[[float], None] = lambda _seconds: None
        super().__init__(self.lateness.worst_since)

    def begins(self, request: TrialRequest) -> TrialRequest:
        """A trial arrives."""
        for observer in self._others:
            request = _told(observer.begins, request) or request
        # The record's watch is the outermost, and known by that.
        return request if self.records is None else self.records.begins(request)

    def on_outcome(self, request: TrialRequest, outcome: TrialOutcome) -> None:
        """A trial has ended."""
        self.margin.observe(request, outcome)
        if self.records is not None:
            self.records.trial_ended(request, outcome)
        for observer in self._others:
            _told(observer.on_outcome, request, outcome)
        super().on_outcome(request, outcome)

    def on_late_end(self, request: TrialRequest, details: Mapping[str, str]) -> None:
        """Its threads have ended, after all."""
        if self.records is not None:
            self.records.thread_ended(request.trial_id, details)
        for observer in self._others:
            _told(observer.on_late_end, request, details)
        super().on_late_end(request, details)

    def on_stuck(self, trials: int) -> None:
        """Another number of them is stuck."""
        for observer in self._others:
            _told(observer.on_stuck, trials)

    def on_lateness(self, seconds: float) -> None:
        """The loop was looked at."""
        self.margin.loop_was_late(seconds)
        self.looked(seconds)
        for observer in self._others:
            _told(observer.on_lateness, seconds)

    def on_records_dropped(self, records: int) -> None:
        """Records were lost."""
        for observer in self._others:
            _told(observer.on_records_dropped, records)


def margin_rules(settings: Settings) -> MarginRules:
    """What the operator chose of the reply margin."""
    share, most = settings.reply_margin_share, settings.reply_margin_share_ms / 1e3
    return MarginRules(settings.reply_margin_ms / 1e3, share, most)
