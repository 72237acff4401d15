"""The road of one trial: admission, session, hydrate, sync, execute, under one deadline.

`Trials.run` turns whatever happens on the road into an outcome; only a cancel from outside stays a cancel.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from typing import Any, Final

import trio

from dspex_trio.errors import (
    DeadlineExceeded,
    Overloaded,
    ProgramError,
    ShuttingDown,
    Stage,
    StoreUnavailable,
    ToolError,
)
from dspex_trio.model import (
    ProgramLoader,
    TrialFailure,
    TrialOutcome,
    TrialRequest,
    TrialSession,
    TrialSuccess,
)
from dspex_trio.trials.admission import Admission
from dspex_trio.trials.contained import blaming, contained
from dspex_trio.trials.failures import failure_of
from dspex_trio.trials.joints import Executor, Isolation
from dspex_trio.trials.lateness import LatenessWatch
from dspex_trio.trials.margin import ReplyMargin
from dspex_trio.trials.observer import LATE, Nobody, Observer
from dspex_trio.trials.work import Trial, Work

_MOMENT: Final = 1.0  # seconds


class Trials:
    """Runs trials.

    Args:
        loader: Makes program instances.
        sources: Session id → the session, as trials reach it.
        executor: Runs blocking work.
        admission: Hands out slots.
        isolation: Runs those trials that it takes.
        redact: Takes secrets out of text that leaves.
        observer: Told of every trial that arrives and that ends, also of those whose caller is gone.
        budgets: The most that a stage may take, in seconds; without one the trial's deadline alone holds.
        lateness: Knows how late the loop is.
    """

    def __init__(
        self,
        *,
        loader: ProgramLoader,
        sources: Callable[[str], TrialSession],
        executor: Executor,
        admission: Admission,
        isolation: Isolation | None = None,
        redact: Callable[[str], str] = str,
        observer: Observer | None = None,
        budgets: Mapping[Stage, float] | None = None,
        lateness: LatenessWatch | None = None,
    ) -> None:
        self._loader = loader
        self._sources = sources
        self._executor = executor
        self._admission = admission
        self._isolation = isolation
        self._redact = redact
        self._observer: Observer = observer or Nobody()
        self._budgets = budgets or {}
        self._lateness = lateness or LatenessWatch()
        self._running: set[Work] = set()
        self._idle = trio.Event()

    @property
    def running(self) -> int:
        """How many trials are on the road, queued ones included."""
        return len(self._running)

    @property
    def queued(self) -> int:
        """How many of them wait for a slot."""
        return self._admission.queued

    @property
    def slots(self) -> int:
        """How many slots are taken, also by threads that go on after their trial."""
        return self._admission.slots

    async def run(self, request: TrialRequest) -> TrialOutcome:
        """Run one trial to its outcome; never raises but when it is cancelled from outside.

        A deadline that passes is a DEADLINE_EXCEEDED outcome. A cancel from outside (the caller is gone) propagates;
        the trial is then told to the observer as CANCELLED, or as DEADLINE_EXCEEDED if its deadline was past.
        """
        request = self._observer.begins(request)
        name = request.trial_id or request.program.name or request.program.python_class
        trial = Trial(request, self._executor.job(name, request))
        with self._under_way(trial):
            try:
                outcome = await self._end_to_end(trial)
            except BaseException:
                # Cancelled, or Trio's own KeyboardInterrupt: nobody is answered, but the trial did take place.
                self._observer.on_outcome(trial.request, self._failure(trial, trial.unanswered()))
                raise
        self._observer.on_outcome(trial.request, outcome)
        return outcome

    async def call(self, name: str, deadline: float, function: Callable[..., Any], /, *args: Any) -> Any:
        """Run blocking code that is no trial, such as an operator's tool, in a slot like one; returns what it returns.

        Args:
            name: What to call it in thread names and logs.
            deadline: When it is stopped, on Trio's clock.
            function: What to run, on `args`.
            args: What to give it.

        Raises:
            Overloaded, ShuttingDown: As a trial would be.
            DeadlineExceeded: The deadline passed.
            Described: The function raised something, which is a TOOL_ERROR.
        """
        work = Work(self._executor.job(name), deadline)
        with self._under_way(work), work.scope:
            async with self._admission.admit() as slot:
                arguments = (work.job, self._redact, blaming, ToolError, function, *args)
                return await self._executor.run(contained, *arguments, job=work.job, slot=slot)
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
        """Have the trials that are under way end earlier, where the margin has grown since they arrived."""
        for work in self._running:
            if isinstance(work, Trial):
                work.hasten(margin.deadline(work.request.arrived, work.request.deadline + work.request.margin))

    async def drain(self, grace: float) -> None:
        """Take no new trials, let running ones end for `grace` seconds, then end them as SHUTTING_DOWN.

        Returns when no trial is on the road. When cancelled, admission stays closed.
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
                return await self._road(trial)
            except Exception as error:  # noqa: BLE001 - every exception of a trial is its outcome
                return self._failure(trial, self._blamed(trial, error))
        return self._failure(trial, trial.ending or self._blamed(trial, trial.deadline_exceeded()))

    def _blamed(self, trial: Trial, error: Exception) -> Exception:
        """That its store was away, for a trial that was turned away meanwhile or has waited for most of its time.

        Others may have held the slots that wait for the store, or have waited until a moment ago.
        """
        request, timings = trial.request, trial.progress.timings()
        if not isinstance(error, (Overloaded, DeadlineExceeded)) or not request.program.config_space:
            return error
        if trial.stage > Stage.SYNC and (trial.exceeded or timings.execute_ms * 2 > timings.total_ms):
            return error
        since = min(request.arrived, trio.current_time() - _MOMENT)
        away = self._sources(request.session_id).away(since)
        return error if away is None else StoreUnavailable(f"{away}, and {error}")

    async def _road(self, trial: Trial) -> TrialOutcome:
        request = trial.request
        async with self._admission.admit() as slot:
            if self._isolation is not None and self._isolation.takes(request.program):
                with trial.elsewhere(self._budgets):
                    outcome = await self._isolation.run(request, trial)
                return replace(outcome, timings=trial.progress.timings())

            def run_in_thread(function: Callable[..., Any], /, *args: Any) -> Awaitable[Any]:
                return self._executor.run(contained, trial.job, self._redact, function, *args, job=trial.job, slot=slot)

            trial.progress.enter(Stage.SESSION)
            session = self._sources(request.session_id)

            with trial.within(Stage.HYDRATE, self._budgets):
                program = await self._loader.hydrate(request, session, run_in_thread)
                trial.recording = program.recording

            with trial.within(Stage.SYNC, self._budgets):
                trial.variables = await program.sync_variables()

            with trial.within(Stage.EXECUTE, self._budgets):
                prediction = await run_in_thread(blaming, ProgramError, program.call, request.inputs, trial.job)

            trial.progress.enter(Stage.SERIALIZE)
            recording = program.recording()
            timings = trial.progress.timings()
            return TrialSuccess(
                prediction=prediction.fields,
                completions=prediction.completions,
                trace=recording.trace,
                latency_ms=timings.execute_ms,
                cost=recording.cost,
                timings=timings,
                variables={**trial.variables, **recording.written},
                trial_id=request.trial_id,
                warnings=prediction.warnings,
                trace_truncated=recording.truncated,
            )

    def _failure(self, trial: Trial, error: BaseException) -> TrialFailure:
        failure = failure_of(error, trial.progress.stage, redact=self._redact, trial_id=trial.request.trial_id)
        recording = trial.recording()
        late = self._lateness.worst_since(trial.request.arrived)
        return replace(
            failure,
            timings=trial.progress.timings(),
            partial_trace=recording.trace,
            cost=recording.cost,
            details={
                **failure.details,
                **trial.details(),
                **({"budget": trial.exceeded} if trial.exceeded else {}),
                **({"trace_truncated": "true"} if recording.truncated else {}),
                **({"loop_late_ms": f"{late * 1e3:.1f}"} if late >= LATE else {}),
            },
            variables={**trial.variables, **recording.written},
        )
