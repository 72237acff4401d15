"""The road of one trial: admission, session, hydrate, sync, execute, under one deadline.

`Trials.run` turns whatever happens on the road into an outcome; only a cancel from outside stays a cancel.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import replace
from typing import Any, Protocol

import trio

from dspex_trio.errors import DeadlineExceeded, ProgramError, ShuttingDown, Stage, TrialCancelled, TrialError
from dspex_trio.model import (
    BoundVariable,
    HydratedProgram,
    Interrupt,
    ProgramLoader,
    Recording,
    TrialFailure,
    TrialOutcome,
    TrialRequest,
    TrialSession,
    TrialSuccess,
)
from dspex_trio.trials.admission import Admission, Slot
from dspex_trio.trials.failures import failure_of, type_name
from dspex_trio.trials.progress import Progress


class Job(Interrupt, Protocol):
    """One trial's work in threads, as the thread room sees it."""

    def details(self) -> Mapping[str, str]:
        """What is known of how the work was stopped: `rung`, `rung_ms`, `stuck`; empty if it was not."""
        ...


class Executor(Protocol):
    """Runs blocking work in worker threads and stops it when it is cancelled."""

    def job(self, name: str) -> Job:
        """A new cancellable unit of work."""
        ...

    def run(self, function: Callable[..., Any], /, *args: Any, job: Job, slot: Slot) -> Awaitable[Any]:
        """Run `function(*args)` in a thread that holds `slot` until it ends.

        Cancellation stops the work and waits for it only as long as the executor's reply margin allows.
        """
        ...


class Trials:
    """Runs trials.

    Args:
        loader: Makes program instances.
        sources: Session id → the session, as trials reach it.
        executor: Runs blocking work.
        admission: Hands out slots.
        redact: Takes secrets out of text that leaves.
        on_outcome: Told of every trial that ended, also of those whose caller is gone; must not block or raise.
    """

    def __init__(
        self,
        *,
        loader: ProgramLoader,
        sources: Callable[[str], TrialSession],
        executor: Executor,
        admission: Admission,
        redact: Callable[[str], str] = str,
        on_outcome: Callable[[TrialRequest, TrialOutcome], None] = lambda _request, _outcome: None,
    ) -> None:
        self._loader = loader
        self._sources = sources
        self._executor = executor
        self._admission = admission
        self._redact = redact
        self._on_outcome = on_outcome
        self._running: set[_Trial] = set()
        self._idle = trio.Event()

    @property
    def running(self) -> int:
        """How many trials are on the road, queued ones included."""
        return len(self._running)

    async def run(self, request: TrialRequest) -> TrialOutcome:
        """Run one trial to its outcome; never raises but when it is cancelled from outside.

        A deadline that passes is a DEADLINE_EXCEEDED outcome. A cancel from outside (the caller is gone) propagates;
        the trial is then told to `on_outcome` as CANCELLED, or as DEADLINE_EXCEEDED if its deadline was past.
        """
        trial = _Trial(request, self._executor.job(request.trial_id or request.program.name))
        self._running.add(trial)
        try:
            outcome = await self._end_to_end(trial)
        except BaseException:
            # Cancelled, or Trio's own KeyboardInterrupt: nobody is answered, but the trial did take place.
            self._on_outcome(request, self._failure(trial, trial.unanswered()))
            raise
        finally:
            self._running.discard(trial)
            if not self._running:
                self._idle.set()
        self._on_outcome(request, outcome)
        return outcome

    async def drain(self, grace: float) -> None:
        """Take no new trials, let running ones end for `grace` seconds, then end them as SHUTTING_DOWN.

        Returns when no trial is on the road. When cancelled, admission stays closed.
        """
        self._admission.close()
        with trio.move_on_after(grace):
            await self._until_idle()
        for trial in self._running:
            trial.end(ShuttingDown("the worker shut down before the trial ended"))
        await self._until_idle()

    async def _until_idle(self) -> None:
        while self._running:
            self._idle = trio.Event()
            await self._idle.wait()

    async def _end_to_end(self, trial: _Trial) -> TrialOutcome:
        with trial.scope:
            try:
                return await self._road(trial)
            except Exception as error:  # noqa: BLE001 - every exception of a trial is its outcome
                return self._failure(trial, error)
        return self._failure(trial, trial.ending or trial.deadline_exceeded())

    async def _road(self, trial: _Trial) -> TrialSuccess:
        request = trial.request
        async with self._admission.admit() as slot:

            def run_in_thread(function: Callable[..., Any], /, *args: Any) -> Awaitable[Any]:
                return self._executor.run(contained, trial.job, function, *args, job=trial.job, slot=slot)

            trial.progress.enter(Stage.SESSION)
            session = self._sources(request.session_id)

            trial.progress.enter(Stage.HYDRATE)
            trial.program = program = await self._loader.hydrate(request, session, run_in_thread)

            trial.progress.enter(Stage.SYNC)
            trial.variables = await program.sync_variables()

            trial.progress.enter(Stage.EXECUTE)
            try:
                prediction = await run_in_thread(program.call, request.inputs, trial.job)
            except TrialError:
                raise
            except Exception as error:
                raise ProgramError(str(type(error))) from error

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

    def _failure(self, trial: _Trial, error: BaseException) -> TrialFailure:
        failure = failure_of(error, trial.progress.stage, redact=self._redact, trial_id=trial.request.trial_id)
        recording = trial.program.recording() if trial.program is not None else Recording()
        return replace(
            failure,
            timings=trial.progress.timings(),
            partial_trace=recording.trace,
            cost=recording.cost,
            details={
                **failure.details,
                **trial.job.details(),
                **({"trace_truncated": "true"} if recording.truncated else {}),
            },
            variables={**trial.variables, **recording.written},
        )


class _Trial:
    """One trial while it is on the road."""

    __slots__ = ("ending", "job", "program", "progress", "request", "scope", "variables")

    def __init__(self, request: TrialRequest, job: Job) -> None:
        self.request = request
        self.job = job
        self.progress = Progress(request.arrived, request.watch)
        self.scope = trio.CancelScope(deadline=request.deadline)
        self.program: HydratedProgram | None = None
        self.variables: Mapping[str, BoundVariable] = {}
        self.ending: TrialError | None = None

    def end(self, error: TrialError) -> None:
        """End the trial with a failure of that kind, unless it is already ending."""
        if not self.scope.cancel_called:
            self.ending = error
            self.scope.cancel()

    def unanswered(self) -> TrialError:
        """Why nobody is answered: the caller went away, or the answer to a deadline came too late for its caller."""
        if trio.current_time() >= self.request.deadline:
            return self.deadline_exceeded()
        return TrialCancelled("the caller went away or the trial was cancelled")

    def deadline_exceeded(self) -> DeadlineExceeded:
        spent = self.progress.timings().total_ms
        return DeadlineExceeded(
            f"the deadline passed in stage {self.progress.stage.name}, {spent:.0f} ms after the trial arrived"
        )


def contained(interrupt: Interrupt, function: Callable[..., Any], *args: Any) -> Any:
    """Call user code in its thread; a SystemExit or KeyboardInterrupt of its own ends the trial, not the worker."""
    try:
        return function(*args)
    except Exception:
        raise
    except BaseException as error:
        interrupt.check()  # what comes out of an interrupted trial is the interrupt
        raise ProgramError(type_name(error)) from error  # noqa: ASYNC104 - in a thread nothing is Cancelled
