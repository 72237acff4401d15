"""Run what is planned: so many at once on each worker, trying again what another try may help."""

from __future__ import annotations

import logging
import math
import os
import random
from collections import Counter, deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import trio

from dspex_trio import rpc
from dspex_trio.arguments import needs_trio
from dspex_trio.errors import TrialError
from dspex_trio.model import TrialFailure, TrialOutcome, TrialSuccess
from dspex_trio.redaction import Redactor
from dspex_trio.runs.metrics import Metric
from dspex_trio.runs.plan import Planned
from dspex_trio.runs.results import Results
from dspex_trio.runs.workers import Worker
from dspex_trio.wire import outcome_to_json

logger: Final = logging.getLogger(__name__)

# Between two tries, in seconds: twice as long each time, with jitter, so that workers are not asked all at once.
_FIRST_WAIT: Final = 0.5
_LONGEST_WAIT: Final = 30.0
_OTHERS_FIRST: Final = 0.25
# A call outlives its trial's time by so much, in seconds, before it counts as lost.
_REPLY_SLACK: Final = 10.0


# What another try does not change.
_REFUSALS: Final = frozenset(
    {rpc.StatusCode.UNAUTHENTICATED, rpc.StatusCode.PERMISSION_DENIED, rpc.StatusCode.UNIMPLEMENTED}
)


class Refused(RuntimeError):
    """A worker does not take trials at all: it wants another token, or is none."""


class Progress:
    """How far a run has come.

    Attributes:
        total: How many trials there are to run.
        ended: How many have ended, by kind: `OK`, or the kind of the failure.
        latencies_ms: Of those that have ended.
        tokens: That they used.
        cost_usd: What is known of what they cost.
        tries: How many tries were made in vain.
        given_up: Trials that did not end: their calls failed again and again. The last reason of each.
    """

    def __init__(self, total: int) -> None:
        self.total = total
        self.began = trio.current_time()
        self.ended: Counter[str] = Counter()
        self.latencies_ms: list[float] = []
        self.tokens = 0
        self.cost_usd = 0.0
        self.tries = 0
        self.given_up: dict[str, str] = {}

    @property
    def done(self) -> int:
        """How many trials are over, for better or worse."""
        return self.ended.total() + len(self.given_up)

    def count(self, outcome: TrialOutcome) -> None:
        """One more has ended."""
        self.ended["OK" if isinstance(outcome, TrialSuccess) else outcome.kind.name] += 1
        self.latencies_ms.append(outcome.timings.total_ms)
        self.tokens += outcome.cost.usage.total_tokens
        self.cost_usd += outcome.cost.total_usd


@dataclass(slots=True)
class _Item:
    trial: Planned
    tries: int = 0
    not_before: float = -math.inf
    tried_by: Worker | None = None
    lost_by: set[Worker] = field(default_factory=set)


async def run_trials(
    plan: Sequence[Planned],
    workers: Iterable[Worker],
    results: Results,
    *,
    concurrency: int = 8,
    timeout: float = 600.0,  # noqa: ASYNC109 - of each trial that has none of its own
    retries: int = 3,
    metric: Metric | None = None,
    on_progress: Callable[[Progress], object] = lambda _progress: None,
) -> Progress:
    """Run the trials that have no result yet, and add their results.

    A failure that says `retryable` and a call that fails are tried again, with growing waits, by any of the workers.
    When cancelled, the trials that run are given up; what has ended is scored and kept, and the next call goes on.

    Args:
        plan: The trials.
        workers: Who runs them.
        results: What there is already, and where the rest goes.
        concurrency: How many run at once on each worker.
        timeout: The time of a trial that has none of its own, in seconds.
        retries: How many more times a trial is tried.
        metric: Scores the successes that have something expected.
        on_progress: Called whenever a trial has ended.

    Raises:
        CannotKeep: The results cannot be written, or are of other trials.
        Refused: A worker does not take trials at all.
    """
    needs_trio("run_trials")
    missing = results.missing(plan)
    workers = tuple(workers)
    run = _Run(missing, workers, results, timeout=timeout, retries=retries, metric=metric, on_progress=on_progress)
    async with trio.open_nursery() as nursery:
        for worker in workers:
            for _ in range(concurrency):
                nursery.start_soon(run.work, worker)
    return run.progress


class _Run:
    def __init__(
        self,
        missing: Sequence[Planned],
        workers: Sequence[Worker],
        results: Results,
        *,
        timeout: float,
        retries: int,
        metric: Metric | None,
        on_progress: Callable[[Progress], object],
    ) -> None:
        self.progress = Progress(len(missing))
        self._waiting = deque(_Item(trial) for trial in missing)
        self._workers = workers
        self._away: set[Worker] = set()
        self._running = 0
        self._changed = trio.Event()
        self._results = results
        self._timeout = timeout
        self._retries = retries
        self._metric = metric
        self._on_progress = on_progress
        self._scoring = trio.CapacityLimiter(1)
        self._redact = Redactor(environment=os.environ)  # a metric may ask a language model, too

    async def work(self, worker: Worker) -> None:
        """Take one trial after the other, until none waits and none may come back."""
        while (item := await self._next(worker)) is not None:
            try:
                wait = await self._try(item, worker)
            finally:
                self._running -= 1
                self._wake()
            if wait:  # this worker is left alone as long as the trial
                await trio.sleep(wait)

    async def _next(self, worker: Worker) -> _Item | None:
        while self._waiting or self._running:
            now = trio.current_time()
            if (item := next((each for each in self._waiting if self._due(each, worker) <= now), None)) is not None:
                self._waiting.remove(item)
                self._running += 1
                return item
            with trio.move_on_at(min((self._due(each, worker) for each in self._waiting), default=math.inf)):
                await self._changed.wait()
        return None

    def _due(self, item: _Item, worker: Worker) -> float:
        """When that worker may try it; other workers than the last one first, and one that lost it last of all."""
        if worker in item.lost_by and any(w not in item.lost_by and w not in self._away for w in self._workers):
            return math.inf
        return item.not_before + (_OTHERS_FIRST if worker is item.tried_by else 0.0)

    def _wake(self) -> None:
        self._changed.set()
        self._changed = trio.Event()

    async def _try(self, item: _Item, worker: Worker) -> float:
        """Run it once; returns how long to wait before the next one."""
        trial = item.trial
        item.tries += 1
        timeout = self._timeout if trial.timeout is None else trial.timeout
        try:
            with trio.fail_after(timeout + _REPLY_SLACK):
                outcome = await worker.run(trial, timeout)
        except rpc.RpcError as error:
            if error.status in _REFUSALS:
                raise Refused(f"{worker.name} refuses to run trials: {error}") from error
            return self._lost(item, worker, str(error))
        except trio.TooSlowError:
            return self._lost(item, worker, "no answer from the worker or its store in time")
        except TrialError as error:  # its variables cannot be made
            if not error.retryable:
                self._give_up(item, str(error))
                return 0.0
            return self._lost(item, worker, str(error))  # its store is away, and mostly the worker with it
        self._away.discard(worker)
        if isinstance(outcome, TrialFailure) and outcome.retryable and item.tries <= self._retries:
            return self._again(item, worker, outcome.error_message, outcome.retry_after or 0.0)
        self._results.add(await self._result(item, worker, outcome))
        self.progress.count(outcome)
        self._on_progress(self.progress)
        return 0.0

    def _lost(self, item: _Item, worker: Worker, why: str) -> float:
        """A call failed. That costs the trial no try the first time, while another worker is there to take it."""
        self._away.add(worker)
        if worker not in item.lost_by and len(self._away) < len(self._workers):
            item.tries -= 1
        item.lost_by.add(worker)
        return self._again(item, worker, why)

    def _again(self, item: _Item, worker: Worker, why: str, at_least: float = 0.0) -> float:
        logger.info("trial %r on %s, try %d: %s", item.trial.id, worker.name, item.tries, why)
        self.progress.tries += 1
        longest = min(_FIRST_WAIT * 2.0 ** max(item.tries - 1, 0), _LONGEST_WAIT)
        wait = max(longest * random.uniform(0.5, 1.0), at_least)  # noqa: S311 - no secret
        if item.tries > self._retries:
            self._give_up(item, why)
        else:
            item.not_before, item.tried_by = trio.current_time() + wait, worker
            self._waiting.append(item)
        return wait

    def _give_up(self, item: _Item, why: str) -> None:
        self.progress.given_up[item.trial.id] = why
        self._on_progress(self.progress)

    async def _result(self, item: _Item, worker: Worker, outcome: TrialOutcome) -> dict[str, Any]:
        trial = item.trial
        result: dict[str, Any] = {
            "id": trial.id,
            "digest": trial.digest,
            "variables": dict(trial.variables),
            "session": trial.session,
            "expected": trial.expected,
            "tries": item.tries,
            "worker": worker.name,
            "outcome": outcome_to_json(outcome),
        }
        if self._metric is not None and trial.expected is not None:
            result |= await self._scored(self._metric, trial.expected, outcome)
        return result

    async def _scored(self, metric: Metric, expected: Mapping[str, Any], outcome: TrialOutcome) -> dict[str, Any]:
        """The score; 0 for a failure, and none, but the reason, where the metric itself fails."""
        if not isinstance(outcome, TrialSuccess):
            return {"score": 0.0}
        try:
            # In a thread, since somebody's own metric may ask a language model; to its end, for the trial is paid for.
            with trio.CancelScope(shield=True):
                scored = await trio.to_thread.run_sync(metric, expected, outcome.prediction, limiter=self._scoring)
            score = float(scored)
        except Exception as error:  # noqa: BLE001 - a metric may raise anything
            return {"score": None, "metric_error": self._redact(f"{type(error).__name__}: {error}")}
        if not math.isfinite(score):
            return {"score": None, "metric_error": f"{score} is no score"}
        return {"score": score}
