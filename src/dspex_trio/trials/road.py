"""The road of one trial: admission, session, hydrate, sync, execute, under one deadline.

`Trials.run` turns whatever happens on the road into an outcome; only a cancel from outside stays a cancel.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from typing import Any, Protocol

import trio

from dspex_trio.errors import DeadlineExceeded, ProgramError, ShuttingDown, Stage, ToolError, TrialCancelled, TrialError
from dspex_trio.model import (
    BoundVariable,
    Interrupt,
    Program,
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


class Sight(Protocol):
    """What is known of a trial that runs outside of this process; whoever runs it keeps it up to date.

    Attributes:
        progress: Its stages.
        recording: What was seen of it until now, with all variables as `written`.
        details: What is known of how it was stopped.
    """

    progress: Progress
    recording: Callable[[], Recording]
    details: Callable[[], Mapping[str, str]]


class Isolation(Protocol):
    """Runs whole trials outside of this process."""

    def takes(self, program: Program) -> bool:
        """Whether it runs that one."""
        ...

    def run(self, request: TrialRequest, sight: Sight) -> Awaitable[TrialOutcome]:
        """Run a trial that has a slot; raises TrialErrors. Cancellation stops it, and waits as an Executor does."""
        ...


class Trials:
    """Runs trials.

    Args:
        loader: Makes program instances.
        sources: Session id → the session, as trials reach it.
        executor: Runs blocking work.
        admission: Hands out slots.
        isolation: Runs those trials that it takes.
        redact: Takes secrets out of text that leaves.
        begins: Given every request first; what it returns is run, and told to `on_outcome`.
        on_outcome: Told of every trial that ended, also of those whose caller is gone; must not block or raise.
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
        begins: Callable[[TrialRequest], TrialRequest] = lambda request: request,
        on_outcome: Callable[[TrialRequest, TrialOutcome], None] = lambda _request, _outcome: None,
    ) -> None:
        self._loader = loader
        self._sources = sources
        self._executor = executor
        self._admission = admission
        self._isolation = isolation
        self._redact = redact
        self._begins = begins
        self._on_outcome = on_outcome
        self._running: set[_Work] = set()
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
        request = self._begins(request)
        trial = _Trial(request, self._executor.job(request.trial_id or request.program.name))
        with self._under_way(trial):
            try:
                outcome = await self._end_to_end(trial)
            except BaseException:
                # Cancelled, or Trio's own KeyboardInterrupt: nobody is answered, but the trial did take place.
                self._on_outcome(request, self._failure(trial, trial.unanswered()))
                raise
        self._on_outcome(request, outcome)
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
            ToolError: From whatever the function raised.
        """
        work = _Work(self._executor.job(name), deadline)
        with self._under_way(work), work.scope:
            async with self._admission.admit() as slot:
                try:
                    return await self._executor.run(contained, work.job, function, *args, job=work.job, slot=slot)
                except Exception as error:
                    raise ToolError(type_name(error)) from error
        raise work.ending or DeadlineExceeded(f"the deadline of {name} passed")

    @contextmanager
    def _under_way(self, work: _Work) -> Iterator[None]:
        self._running.add(work)
        try:
            yield
        finally:
            self._running.discard(work)
            if not self._running:
                self._idle.set()

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

    async def _end_to_end(self, trial: _Trial) -> TrialOutcome:
        with trial.scope:
            try:
                return await self._road(trial)
            except Exception as error:  # noqa: BLE001 - every exception of a trial is its outcome
                return self._failure(trial, error)
        return self._failure(trial, trial.ending or trial.deadline_exceeded())

    async def _road(self, trial: _Trial) -> TrialOutcome:
        request = trial.request
        async with self._admission.admit() as slot:
            if self._isolation is not None and self._isolation.takes(request.program):
                outcome = await self._isolation.run(request, trial)
                return replace(outcome, timings=trial.progress.timings())

            def run_in_thread(function: Callable[..., Any], /, *args: Any) -> Awaitable[Any]:
                return self._executor.run(contained, trial.job, function, *args, job=trial.job, slot=slot)

            trial.progress.enter(Stage.SESSION)
            session = self._sources(request.session_id)

            trial.progress.enter(Stage.HYDRATE)
            program = await self._loader.hydrate(request, session, run_in_thread)
            trial.recording = program.recording

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
        recording = trial.recording()
        return replace(
            failure,
            timings=trial.progress.timings(),
            partial_trace=recording.trace,
            cost=recording.cost,
            details={
                **failure.details,
                **trial.details(),
                **({"trace_truncated": "true"} if recording.truncated else {}),
            },
            variables={**trial.variables, **recording.written},
        )


class _Work:
    """What holds a slot: ends at its deadline, or earlier as `end` says."""

    __slots__ = ("ending", "job", "scope")

    def __init__(self, job: Job, deadline: float) -> None:
        self.job = job
        self.scope = trio.CancelScope(deadline=deadline)
        self.ending: TrialError | None = None

    def end(self, error: TrialError) -> None:
        """End it with a failure of that kind, unless it is already ending."""
        if not self.scope.cancel_called:
            self.ending = error
            self.scope.cancel()


class _Trial(_Work):
    """One trial while it is on the road."""

    __slots__ = ("details", "progress", "recording", "request", "variables")

    def __init__(self, request: TrialRequest, job: Job) -> None:
        super().__init__(job, request.deadline)
        self.request = request
        self.progress = Progress(request.arrived, request.watch)
        self.recording: Callable[[], Recording] = Recording
        self.details: Callable[[], Mapping[str, str]] = job.details
        self.variables: Mapping[str, BoundVariable] = {}

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
