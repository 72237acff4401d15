"""The worker's side of isolated trials: which they are, their way into a child process, and what is known of them."""

from __future__ import annotations

import logging
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any, Final

import trio

from dspex_trio import threads
from dspex_trio.config import Settings
from dspex_trio.errors import FailureKind, Stage, WorkerLost
from dspex_trio.isolation import messages
from dspex_trio.isolation.store import replies_of
from dspex_trio.model import (
    BoundVariable,
    Cost,
    Program,
    Recording,
    TraceEntry,
    TrialFailure,
    TrialOutcome,
    TrialRequest,
    Watch,
)
from dspex_trio.programs import MODULE_CHOICE, CannotLoad, any_isolated, homes, isolation_of
from dspex_trio.sessions import Store
from dspex_trio.trials.joints import Sight

logger: Final = logging.getLogger(__name__)

CHILD: Final = "dspex_trio.isolated:open_answering"
# A child runs one trial at a time; the next one may come while a thread of the last one is being put away.
_OF_A_CHILD: Final[Mapping[str, Any]] = {
    "isolation": "thread",
    "isolate": (),
    "max_trials": 1,
    "max_queue": 1,
    "metrics_port": None,
}
# One more than can be in use: where one was killed, the next trial need not wait for a new one to start.
_SPARE: Final = 1
# Over the longest outcome: what frames and progress may have beside it.
_ROOM: Final = 1 << 20
# Of the time that a cancelled trial has to end in its child: for its threads; the rest is for the answer's way.
_FOR_THREADS: Final = 0.5
# The worker tells a child that its trial is over. Only if it cannot, the child finds out by itself, so much later.
_LATER: Final = 0.05


@asynccontextmanager
async def open_isolation(
    settings: Settings, store: Store, patience: Callable[[float], float]
) -> AsyncIterator[IsolatedTrials]:
    """Child processes for isolated trials; the first is ready where it is known that there will be some.

    Args:
        settings: What the operator chose.
        store: The session store, which children reach through this process.
        patience: How many seconds a cancelled trial waits for its child, of its reply margin.

    Raises:
        CannotLoad: No child can be started; says why.
    """
    everything = settings.isolation == "process"
    expected = everything or bool(settings.isolate) or any_isolated()

    def opening() -> bytes:
        return messages.Opening(
            settings={**settings.model_dump(mode="json"), **_OF_A_CHILD},
            path=[str(entry) for entry in sys.path],
            homes=homes(),
            log_level=logging.getLogger().getEffectiveLevel(),
        ).to_bytes()

    async with threads.open_processes(
        CHILD,
        count=settings.max_trials + _SPARE,
        warm=settings.max_trials + _SPARE if everything else int(expected),
        warm_up=opening,
        max_bytes=settings.max_message_bytes + _ROOM,
        max_answers=settings.max_trials_per_child,
        on_log=_log,
    ) as processes:
        if expected:
            try:
                await processes.ready()
            except threads.ChildLost as error:
                raise CannotLoad(f"isolation: {error}") from None
        yield IsolatedTrials(settings, processes, replies_of(store), patience)


class IsolatedTrials:
    """Runs trials in child processes; made by `open_isolation`."""

    def __init__(
        self,
        settings: Settings,
        processes: threads.Processes,
        reply: Callable[[bytes], Awaitable[bytes]],
        patience: Callable[[float], float],
    ) -> None:
        self._settings = settings
        self._processes = processes
        self._reply = reply
        self._patience = patience

    def takes(self, program: Program) -> bool:
        """Whether a program runs in a child process.

        Where a variable picks the class, which is not known yet, one that may be isolated is.
        """
        if program.python_class in self._settings.isolate:
            return True
        chosen = any(binding.parameter == MODULE_CHOICE for binding in program.config_space)
        if chosen and (self._settings.isolate or any_isolated()):
            return True
        said = None if chosen else isolation_of(program.python_class)
        return (said or self._settings.isolation) == "process"

    async def run(self, request: TrialRequest, sight: Sight) -> TrialOutcome:
        """Run a trial in a child; waits for one that is free.

        When cancelled, the child gets a moment to end it, and is killed if it does not; `sight` then tells what is
        known of the trial.

        Raises:
            InvalidInput, InvalidSpec: A value has no JSON form.
            WorkerLost: The child ended before the trial did, or none can be started.
            ChildFailed: The child's side of this has a fault.
        """
        told = _Told(sight, request.watch)
        sight.recording, sight.details = told.recording, told.details
        patience = self._patience(request.margin)
        seconds = request.deadline - trio.current_time() + _LATER
        terms = messages.Terms(seconds, patience * _FOR_THREADS, watched=request.watch is not None)
        try:
            await self._processes.run(
                messages.encode_trial(request, terms),
                patience=patience,
                may_stay=told.ending,
                on_kill=told.killed,
                on_report=told.progress,
                on_call=self._reply,
            )
        except threads.ChildLost as lost:
            raise WorkerLost(f"the process in which the program ran is lost: {lost}") from None
        return self._explained(told.outcome(), request.program)

    def _explained(self, outcome: TrialOutcome, program: Program) -> TrialOutcome:
        """Say why a child does not have what the worker has."""
        if not isinstance(outcome, TrialFailure) or outcome.kind is not FailureKind.CLASS_NOT_FOUND:
            return outcome
        for module, names in homes().items():
            if program.python_class in names:
                return replace(
                    outcome,
                    error_message=f"{program.python_class!r} is registered in {module!r}, which the child process "
                    f"cannot import: put it into a module of its own and name that with --load",
                )
        return outcome


class _Told:
    """What a child tells of a trial."""

    def __init__(self, sight: Sight, watch: Watch | None) -> None:
        self._sight = sight
        self._watch = watch
        self._news: list[bytes] = []
        self._outcome: TrialOutcome | None = None
        self._kill_ms: float | None = None

    def progress(self, data: bytes) -> None:
        """The child reports where it is, or an event for whoever watches."""
        progress = messages.decode_progress(data)
        if not isinstance(progress, tuple):
            if self._watch is not None:
                self._watch(progress)
            return
        stage, news = progress
        if stage is not self._sight.stage:
            self._sight.entered(stage)
        if news:
            self._news.append(news)

    def ending(self, answer: bytes) -> bool:
        """The child has answered; whether nothing of the trial still runs in it."""
        self._outcome = outcome = messages.decode_ending(answer)
        return not isinstance(outcome, TrialFailure) or outcome.details.get("stuck") != "true"

    def killed(self, seconds: float) -> None:
        """The child was killed, which took so long."""
        self._kill_ms = seconds * 1e3

    def outcome(self) -> TrialOutcome:
        """The child's answer."""
        assert self._outcome is not None, "the child has not answered"  # noqa: S101 - our own bug, never the user's
        if isinstance(self._outcome, TrialFailure):
            return replace(self._outcome, details={**self._outcome.details, **self.details()})
        return self._outcome

    def details(self) -> Mapping[str, str]:
        """How the trial was stopped."""
        if self._kill_ms is not None:
            return {"rung": "kill", "rung_ms": f"{self._kill_ms:.1f}", "stuck": "false"}
        if isinstance(self._outcome, TrialFailure):
            return self._outcome.details
        return {}

    def recording(self) -> Recording:
        """What was seen of the program: all of it if the child has answered, else what it reported."""
        match self._outcome:
            case None:
                return self._reported()
            case TrialFailure(partial_trace=trace, cost=cost, variables=variables):
                return Recording(trace, cost, written=variables)
            case success:
                return Recording(success.trace, success.cost, written=success.variables)

    def _reported(self) -> Recording:
        trace: list[TraceEntry] = []
        cost = Cost()
        variables: dict[str, BoundVariable] = {}
        for news in self._news:
            try:
                recorded, known = messages.decode_news(news)
            except Exception:
                logger.exception("a child's report cannot be understood")
                break
            trace += recorded.trace
            cost = recorded.cost
            variables |= known
        if self._sight.stage is Stage.EXECUTE:
            cost = replace(cost, known=False)  # a call may have been under way, and billed
        return Recording(tuple(trace), cost, written=variables)


def _log(data: bytes) -> None:
    line = messages.LogLine.from_bytes(data)
    logging.getLogger(line.logger).log(line.level, "%s", line.text)
