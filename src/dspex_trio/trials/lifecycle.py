"""One trial from its arrival to its outcome, under one deadline; a runner runs the stages.

`Trials.run` turns whatever happens into an outcome; only a cancellation from outside stays one.
"""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Final, Protocol, TypeVar

import trio

from dspex_trio.model import TrialFailure, TrialOutcome, TrialRequest
from dspex_trio.model.errors import (
    DeadlineExceeded,
    Overloaded,
    ShuttingDown,
    Stage,
    StoreUnavailable,
)
from dspex_trio.trials.admission import Admission, Slot
from dspex_trio.trials.failures import failure_of
from dspex_trio.trials.ids import trial_ids
from dspex_trio.trials.lateness import LatenessWatch
from dspex_trio.trials.margin import ReplyMargin, TrialDeadline
from dspex_trio.trials.observer import LATE, Observer
from dspex_trio.trials.protocols import Job
from dspex_trio.trials.work import Trial, UnderWay, Work

T = TypeVar("T")

_MOMENT: Final = 1.0  # seconds
# How long an answer takes to be made on a busy machine, in seconds: of several that are due together, the first ones
# leave so much earlier. And how far ahead this is planned.
_EACH: Final = 0.003
_SOON: Final = 0.25


class TrialRunner(Protocol):
    """Runs trials that have been admitted: in threads of this process, or in other processes."""

    async def run(self, trial: Trial, slot: Slot) -> TrialOutcome:
        """Run a trial in its slot. What it raises ends the trial; a cancellation stops it, within the reply margin."""
        ...


def _never_away(_session_id: str, _since: float) -> str | None:
    return None


class Trials:
    """Runs trials: admission, one deadline, and an outcome whatever happens.

    Args:
        runner: Runs what was admitted.
        job: Makes the cancellable unit of work that belongs to a name and, if it is one, a trial.
        admission: Hands out slots.
        away: Why the store of a session could not be reached at some time since then; None if it could.
        redact: Takes secrets out of text that leaves.
        observer: Called for every trial that arrives and that ends, also for those whose caller is gone.
        lateness: Knows how late the loop is.
    """

    def __init__(
        self,
        *,
        runner: TrialRunner,
        job: Callable[[str, TrialRequest | None], Job],
        admission: Admission,
        away: Callable[[str, float], str | None] = _never_away,
        redact: Callable[[str], str] = str,
        observer: Observer | None = None,
        lateness: LatenessWatch | None = None,
    ) -> None:
        self._runner = runner
        self._job = job
        self._admission = admission
        self._away = away
        self._redact = redact
        self._observer = observer or Observer()
        self._lateness = lateness or LatenessWatch()
        self._new_id = trial_ids()
        self._running: set[Work] = set()
        self._idle = trio.Event()

    @property
    def running(self) -> int:
        """How many trials are under way, queued ones included."""
        return len(self._running)

    @property
    def queued(self) -> int:
        """How many of them wait for a slot."""
        return self._admission.queued

    @property
    def slots(self) -> int:
        """How many slots are taken, also by threads that go on after their trial."""
        return self._admission.slots

    def under_way(self) -> list[UnderWay]:
        """What is under way: trials and tools, queued ones included, the oldest first."""
        return sorted((work.under_way() for work in self._running), key=lambda each: -each.seconds)

    async def run(self, request: TrialRequest) -> TrialOutcome:
        """Run one trial to its outcome; never raises but when it is cancelled from outside.

        A deadline that passes is a DEADLINE_EXCEEDED outcome. A cancel from outside (the caller is gone) propagates;
        the trial is then reported to the observer as CANCELLED, or as DEADLINE_EXCEEDED if its deadline was past.
        A trial without an id is given one, which stands in the outcome, the log, records and lists of stuck threads.
        """
        if not request.trial_id:
            request = replace(request, trial_id=self._new_id())
        request = self._observer.begins(request)
        trial = Trial(request, self._job(request.trial_id, request))
        with self._under_way(trial):
            try:
                outcome = await self._end_to_end(trial)
            except BaseException:
                # Cancelled, or Trio's own KeyboardInterrupt: there is no reply, but the trial did take place.
                self._observer.on_outcome(trial.request, self._failure(trial, trial.unanswered()))
                raise
            finally:
                trial.let_go()
        self._observer.on_outcome(trial.request, outcome)
        return outcome

    async def in_slot(self, name: str, deadline: float, do: Callable[[Work, Slot], Awaitable[T]]) -> T:
        """Do something that is no trial, such as an operator's tool, in a slot like one; returns what it returns.

        Args:
            name: What to call it in thread names and logs.
            deadline: When it is stopped, on Trio's clock.
            do: What to do with the work and its slot; cancelled at the deadline.

        Raises:
            Overloaded, ShuttingDown: As a trial would be.
            DeadlineExceeded: The deadline passed.
        """
        work = Work(self._job(name, None), deadline, name)
        with self._under_way(work), work.scope:
            async with self._admission.admit() as slot:
                return await do(work, slot)
        raise work.ending or DeadlineExceeded(f"the deadline of {name} passed")

    @contextmanager
    def _under_way(self, work: Work) -> Iterator[None]:
        self._running.add(work)
        self._lateness.begin()
        try:
            yield
        finally:
            self._lateness.end()
            self._running.discard(work)
            if not self._running:
                self._idle.set()

    def hasten(self, margin: ReplyMargin) -> None:
        """End trials earlier than was planned: the margin has grown, or their answers could not all leave together.

        To be called ten times a second. Of trials that end much later only the margin counts: most will be over.
        """
        soon = trio.current_time() + _SOON
        following = math.inf
        trials = [work for work in self._running if isinstance(work, Trial)]
        for trial in sorted(trials, key=lambda each: each.callers_deadline, reverse=True):
            ends = margin.deadline(trial.request.arrived, trial.callers_deadline)
            following = min(ends.at, following - _EACH)
            trial.hasten(TrialDeadline(following, ends.callers - following) if following < soon else ends)

    async def drain(self, grace: float) -> None:
        """Take no new trials, let running ones end for `grace` seconds, then end them as SHUTTING_DOWN.

        Returns when no trial is under way. When cancelled, admission stays closed.
        """
        self._admission.close()
        with trio.move_on_after(grace):
            await self._until_idle()
        for work in self._running:
            work.end(ShuttingDown("the worker shut down before the trial ended"))
        await self._until_idle()

    async def _until_idle(self) -> None:
        while self._running:
            self._idle = trio.Event()
            await self._idle.wait()

    async def _end_to_end(self, trial: Trial) -> TrialOutcome:
        with trial.scope:
            try:
                async with self._admission.admit() as slot:
                    return await self._runner.run(trial, slot)
            except Exception as error:  # noqa: BLE001 - every exception of a trial is its outcome
                return self._failure(trial, self._or_store_unavailable(trial, error))
        return self._failure(trial, trial.ending or self._or_store_unavailable(trial, trial.deadline_exceeded()))

    def _or_store_unavailable(self, trial: Trial, error: Exception) -> Exception:
        """Replace an Overloaded or DeadlineExceeded error by StoreUnavailable if an outage of the store explains it.

        It does if the trial was refused during the outage, or spent most of its time waiting. An outage that has just
        ended counts: trials that waited for the store may have held the slots.
        """
        request, timings = trial.request, trial.progress.timings()
        if not isinstance(error, (Overloaded, DeadlineExceeded)) or not request.program.config_space:
            return error
        if trial.stage > Stage.SYNC and (trial.exceeded or timings.execute_ms * 2 > timings.total_ms):
            return error
        since = min(request.arrived, trio.current_time() - _MOMENT)
        away = self._away(request.session_id, since)
        return error if away is None else StoreUnavailable(f"{away}, and {error}")

    def _failure(self, trial: Trial, error: BaseException) -> TrialFailure:
        failure = failure_of(error, trial.progress.stage, redact=self._redact, trial_id=trial.request.trial_id)
        recording = trial.recording()
        late = self._lateness.worst_since(trial.request.arrived)
        return replace(
            failure,
            timings=trial.progress.timings(),
            partial_trace=recording.trace,
            cost=recording.cost,
            pushed=recording.pushed,
            details={
                **failure.details,
                **recording.details,
                **trial.details(),
                **({"budget": trial.exceeded} if trial.exceeded else {}),
                **({"process_changes": "\n".join(trial.changes)} if trial.changes else {}),
                **({"trace_truncated": "true"} if recording.truncated else {}),
                **({"loop_late_ms": f"{late * 1e3:.1f}"} if late >= LATE else {}),
            },
            variables={**trial.variables, **recording.written},
        )
