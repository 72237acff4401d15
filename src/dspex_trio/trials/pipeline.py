"""The stages of a trial that runs in this process: session, hydrate, sync, execute, in worker threads."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from dspex_trio.model import ProgramLoader, TrialOutcome, TrialSession, TrialSuccess
from dspex_trio.model.errors import ProgramError, Stage
from dspex_trio.trials.admission import Slot
from dspex_trio.trials.contained import contained, raising_as
from dspex_trio.trials.protocols import Executor
from dspex_trio.trials.work import Trial


class InThreads:
    """Runs trials in threads of this process; a `TrialRunner`.

    Args:
        loader: Makes program instances.
        sources: Session id → the session, as trials reach it.
        executor: Runs blocking work.
        redact: Takes secrets out of text that leaves.
        budgets: The most that a stage may take, in seconds; without one the trial's deadline alone holds.
    """

    def __init__(
        self,
        *,
        loader: ProgramLoader,
        sources: Callable[[str], TrialSession],
        executor: Executor,
        redact: Callable[[str], str] = str,
        budgets: Mapping[Stage, float] | None = None,
    ) -> None:
        self._loader = loader
        self._sources = sources
        self._executor = executor
        self._redact = redact
        self._budgets = budgets or {}

    async def run(self, trial: Trial, slot: Slot) -> TrialOutcome:
        """Run a trial that has a slot; whatever it raises ends the trial."""
        request = trial.request

        def run_in_thread(function: Callable[..., Any], /, *args: Any) -> Awaitable[Any]:
            return self._executor.run(contained, trial.job, self._redact, function, *args, job=trial.job, slot=slot)

        trial.progress.enter(Stage.SESSION)
        session = self._sources(request.session_id)

        with trial.within(Stage.HYDRATE, self._budgets):
            program = await self._loader.hydrate(request, session, run_in_thread)
            trial.recording = program.recording

        with trial.within(Stage.SYNC, self._budgets):
            trial.variables = await program.sync_variables()

        with trial.within(Stage.EXECUTE, self._budgets), self._executor.watching(trial.changes.append):
            prediction = await run_in_thread(raising_as, ProgramError, program.call, request.inputs, trial.job)

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
            warnings=(*prediction.warnings, *recording.warnings, *trial.changes),
            trace_truncated=recording.truncated,
        )
