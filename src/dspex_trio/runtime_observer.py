"""What a runtime learns from what becomes of trials, and whom it tells: the log, records, whoever else asked for it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import trio

from dspex_trio import threads
from dspex_trio.config import Settings
from dspex_trio.model import TrialOutcome, TrialRequest
from dspex_trio.observe import Records
from dspex_trio.rooms import TrialJob
from dspex_trio.trials import LatenessWatch, MarginRules, Observer, ReplyMargin, StuckLimit, TrialLog, Trials


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
        workers: Whose threads share the interpreter with the loop, once there are any.
        trials: Those that are under way, which end earlier when the margin grows.
    """

    def __init__(self, settings: Settings, nursery: trio.Nursery, others: Sequence[Observer]) -> None:
        self._others = others
        self.margin = ReplyMargin(margin_rules(settings), settings.max_trial_seconds)
        self.lateness = LatenessWatch(self.on_lateness)
        self.limit = StuckLimit(settings.max_stuck_threads or settings.max_trials, nursery, self.on_stuck)
        self.records: Records | None = None
        self.workers: threads.Threads | None = None
        self.trials: Trials | None = None
        super().__init__(self.lateness.worst_since)

    def begins(self, request: TrialRequest) -> TrialRequest:
        """A trial arrives."""
        for observer in self._others:
            request = observer.begins(request)
        # The record's watch is the outermost, and known by that.
        return request if self.records is None else self.records.begins(request)

    def on_outcome(self, request: TrialRequest, outcome: TrialOutcome) -> None:
        """A trial has ended."""
        self.margin.observe(request, outcome)
        if self.records is not None:
            self.records.trial_ended(request, outcome)
        for observer in self._others:
            observer.on_outcome(request, outcome)
        super().on_outcome(request, outcome)

    def on_late_end(self, request: TrialRequest, details: Mapping[str, str]) -> None:
        """Its threads have ended, after all."""
        if self.records is not None:
            self.records.thread_ended(request.trial_id, details)
        for observer in self._others:
            observer.on_late_end(request, details)
        super().on_late_end(request, details)

    def on_stuck(self, trials: int) -> None:
        """Another number of them is stuck."""
        for observer in self._others:
            observer.on_stuck(trials)

    def on_lateness(self, seconds: float) -> None:
        """The loop was looked at."""
        self.margin.loop_was_late(seconds)
        if self.margin.raised() and self.trials is not None:
            self.trials.hasten(self.margin)
        if self.workers is not None:
            self.workers.loop_was_late(seconds)
        for observer in self._others:
            observer.on_lateness(seconds)

    def on_records_dropped(self, records: int) -> None:
        """Records were lost."""
        for observer in self._others:
            observer.on_records_dropped(records)

    def patience(self, job: threads.Job) -> float:
        """How long the answer may wait for the job's threads, in seconds."""
        request = job.request if isinstance(job, TrialJob) else None
        return self.margin.patience(None if request is None else request.margin)

    def on_job_ended(self, job: threads.Job) -> None:
        """The threads of a job have ended that were abandoned."""
        self.limit.ended(job)
        if isinstance(job, TrialJob) and job.request is not None:
            self.on_late_end(job.request, {**job.details(), "abandoned_ms": f"{job.ignoring_for() * 1e3:.1f}"})


def margin_rules(settings: Settings) -> MarginRules:
    """What the operator chose of the reply margin."""
    share, most = settings.reply_margin_share, settings.reply_margin_share_ms / 1e3
    return MarginRules(settings.reply_margin_ms / 1e3, share, most)
