"""Run what is planned: so many at once on each worker, trying again what another try may help."""

from __future__ import annotations

import logging
import math
import random
from collections import Counter, deque
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import trio

from dspex_trio import rpc
from dspex_trio.interface.arguments import needs_trio
from dspex_trio.model import TrialFailure, TrialOutcome, TrialSuccess
from dspex_trio.model.errors import FailureKind, TrialError
from dspex_trio.runs.kept import compare, lm_of, program_name
from dspex_trio.runs.metrics import Metric
from dspex_trio.runs.plan import Planned
from dspex_trio.runs.results import Result, Results, scored
from dspex_trio.runs.scoring import Scorer
from dspex_trio.runs.workers import Worker
from dspex_trio.wire import outcome_to_json

logger: Final = logging.getLogger(__name__)

# Between two tries, in seconds: twice as long each time, with jitter, so that workers are not asked all at once.
_FIRST_WAIT: Final = 0.5
_LONGEST_WAIT: Final = 30.0
_OTHERS_FIRST: Final = 0.25
# A call outlives its trial's time by so much, in seconds, before it counts as lost.
_REPLY_SLACK: Final = 10.0
METRIC_SECONDS: Final = 600.0
"""How long a metric may take for one prediction, unless a run says otherwise."""


# What another try does not change.
_REFUSALS: Final = frozenset(
    {rpc.StatusCode.UNAUTHENTICATED, rpc.StatusCode.PERMISSION_DENIED, rpc.StatusCode.UNIMPLEMENTED}
)


class WorkerRefused(RuntimeError):
    """A worker takes no trials at all: it wants another token, or the address is not a worker's."""


class RunProgress:
    """How far a run has come.

    Attributes:
        total: How many trials there are to run.
        ended: How many have ended, by kind: `OK`, or the kind of the failure.
        latencies_ms: Of those that have ended.
        tokens: That they used.
        cost_usd: What is known of what they cost.
        tries: How many tries were made in vain.
        given_up: Trials that did not end: their calls failed again and again. The last reason of each.
        metric_hangs: Whether the metric did not return in time. Then it is not called any more.
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
        self.metric_hangs = False

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
    metric_seconds: float = METRIC_SECONDS,
    lm: Mapping[str, Any] | None = None,
    retry_failed: Collection[FailureKind] = (),
    on_progress: Callable[[RunProgress], object] = lambda _progress: None,
) -> RunProgress:
    """Run the trials that have no result yet, and add their results.

    A failure that says `retryable` and a call that fails are tried again, with growing waits, by any of the workers.
    Results of another language model or program are of another configuration: they stay, and the trial is run. Results
    of another metric, or with something else expected, are scored again. What a trial came to is written before a
    metric of yours sees it.
    When cancelled, the trials that run are given up; what has ended is kept and scored, and the next call goes on.

    Args:
        plan: The trials.
        workers: Who runs them.
        results: What there is already, and where the rest goes.
        concurrency: How many run at once on each worker.
        timeout: The time of a trial that has none of its own, in seconds.
        retries: How many more times a trial is tried.
        metric: Scores the successes that have something expected.
        metric_seconds: How long it may take for one of them. Once it does not return in time, it is not called again.
        lm: The language model of programs that name none: its `model`, and what else makes it another one. None if
            that is not known: then results of any count as the same.
        retry_failed: Results of these kinds are run again, and replaced.
        on_progress: Called whenever a trial has ended.

    Raises:
        CannotKeep: The results cannot be written, or are of other trials.
        WorkerRefused: A worker does not take trials at all.
    """
    needs_trio("run_trials")
    scorer = None if metric is None else Scorer(metric, metric_seconds)
    kept = compare(plan, results, lm=lm, metric=None if scorer is None else scorer.about, retry_failed=retry_failed)
    workers = tuple(workers)
    run = _Run(
        kept.missing, workers, results, timeout=timeout, retries=retries, scorer=scorer, lm=lm, on_progress=on_progress
    )
    async with trio.open_nursery() as nursery:
        nursery.start_soon(run.score_again, kept.stale)
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
        scorer: Scorer | None,
        lm: Mapping[str, Any] | None,
        on_progress: Callable[[RunProgress], object],
    ) -> None:
        self.progress = RunProgress(len(missing))
        self._waiting = deque(_Item(trial) for trial in missing)
        self._workers = workers
        self._away: set[Worker] = set()
        self._running = 0
        self._changed = trio.Event()
        self._results = results
        self._timeout = timeout
        self._retries = retries
        self._scorer = scorer
        self._lm = lm
        self._on_progress = on_progress

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
                raise WorkerRefused(f"{worker.name} refuses to run trials: {error}") from error
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
        await self._keep(trial, self._result(item, worker, outcome), outcome)
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

    async def _keep(self, trial: Planned, result: Result, outcome: TrialOutcome) -> None:
        """Write it, and score it: a metric of somebody's comes second, for it may end the process, or never return."""
        prediction = outcome.prediction if isinstance(outcome, TrialSuccess) else None
        scorer = None if trial.expected is None else self._scorer
        if scorer is not None and (prediction is None or scorer.ours):
            result = scored(result, await scorer.score(trial.expected or {}, prediction) or {})
            scorer = None
        self._results.add(result)
        self.progress.count(outcome)
        self._on_progress(self.progress)
        if scorer is not None:
            await self._score(scorer, trial, result, prediction)

    async def score_again(self, stale: Sequence[tuple[Planned, Result]]) -> None:
        """Score what has been kept; without a metric, only say that no score holds any more."""
        for trial, result in stale:
            await trio.lowlevel.checkpoint()
            if self._scorer is None or trial.expected is None:
                self._results.score(result, {"expected": trial.expected})
            else:
                await self._score(self._scorer, trial, result, result["outcome"].get("success", {}).get("prediction"))

    async def _score(
        self, scorer: Scorer, trial: Planned, result: Result, prediction: Mapping[str, Any] | None
    ) -> None:
        found = await scorer.score(trial.expected or {}, prediction)
        self.progress.metric_hangs = scorer.hangs
        if found is not None:
            self._results.score(result, found)

    def _result(self, item: _Item, worker: Worker, outcome: TrialOutcome) -> Result:
        trial = item.trial
        trace = outcome.trace if isinstance(outcome, TrialSuccess) else outcome.partial_trace
        return {
            "id": trial.id,
            "digest": trial.digest,
            "program": program_name(trial),
            "program_digest": trial.program_digest,
            "trial_digest": trial.trial_digest,
            "lm": lm_of(trial, self._lm),
            "models": sorted({call.model for entry in trace for call in entry.lm_calls}),
            "variables": dict(trial.variables),
            "session": trial.session,
            "expected": trial.expected,
            "tries": item.tries,
            "worker": worker.name,
            "outcome": outcome_to_json(outcome),
        }
