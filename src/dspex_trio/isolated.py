"""The child's side of isolated trials: the same road as in the worker, in a process of its own, one trial at a time."""

from __future__ import annotations

import importlib
import logging
import os
import sys
import threading
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AbstractContextManager, asynccontextmanager
from dataclasses import replace
from functools import partial
from typing import Any, Final

import trio

from dspex_trio import threads
from dspex_trio.config import Settings
from dspex_trio.errors import Stage
from dspex_trio.generated.bridge_grpc import BridgeServiceStub
from dspex_trio.isolation.messages import LogLine, Opening, decode_trial, encode_ending, encode_progress, encode_told
from dspex_trio.isolation.store import ThroughParent
from dspex_trio.model import (
    BoundVariable,
    Cost,
    HydratedProgram,
    Interrupt,
    Prediction,
    ProgramLoader,
    Recording,
    RunInThread,
    StageStarted,
    TrialEvent,
    TrialFailure,
    TrialOutcome,
    TrialRequest,
    TrialSession,
)
from dspex_trio.rooms import Executor, budgets, open_rooms, redactor
from dspex_trio.sessions import Sessions
from dspex_trio.telemetry import continuing, export_as_child, no_context
from dspex_trio.threads.child import Answer, Parent
from dspex_trio.trials import Admission, Trials
from dspex_trio.trials.observer import Nobody

logger: Final = logging.getLogger(__name__)


@asynccontextmanager
async def open_answering(warm_up: bytes, parent: Parent) -> AsyncIterator[Answer]:
    """A road that is ready for trials; made for `threads.open_processes`.

    Raises:
        CannotLoad, UnsupportedDspy: As `open_runtime` says.
    """
    opening = Opening.from_bytes(warm_up)
    sys.path[:] = opening.path
    logging.basicConfig(handlers=[_ToParent(parent)], format="%(message)s", level=opening.log_level, force=True)
    settings = Settings(**opening.settings)
    _import_others(opening.homes, settings.load)
    if settings.otel:
        export_as_child()
    redact = redactor(settings)
    trial = _Trial(parent)
    sessions = Sessions(
        BridgeServiceStub(ThroughParent(parent)), where=settings.store, variables_tool=settings.variables_tool
    )
    async with open_rooms(settings, redact, lambda _job: trial.patience) as (loader, workers):
        threads.carries_programs(_Program.call)
        trials = Trials(
            loader=_Loader(trial, loader),
            sources=sessions.context,
            executor=Executor(workers, partial(_Job, trial.checked)),
            admission=Admission(trial.slots, settings.max_queue),
            redact=redact,
            observer=trial,
            budgets=budgets(settings),
        )
        continued = continuing if settings.otel else no_context
        yield partial(_answer, trials, trial, settings.max_message_bytes, continued=continued)


async def _answer(
    trials: Trials,
    trial: _Trial,
    max_bytes: int,
    data: bytes,
    scope: trio.CancelScope,
    *,
    continued: Callable[[Mapping[str, str]], AbstractContextManager[None]],
) -> bytes:
    request, terms = decode_trial(data)
    now = trio.current_time()
    trial.begin(terms.patience)
    watch = trial.tell if terms.watched else None
    with scope, continued(request.metadata):
        await trials.run(replace(request, arrived=now, deadline=now + terms.seconds, watch=watch))
    return encode_ending(trial.outcome(), max_bytes=max_bytes, max_trace_bytes=request.options.max_trace_bytes)


def _import_others(homes: Mapping[str, list[str]], loaded: tuple[str, ...]) -> None:
    """Import where the worker's programs and tools are registered, beside the modules that the operator named."""
    for module, names in homes.items():
        if module in loaded:
            continue
        try:
            importlib.import_module(module)
        except Exception as error:  # noqa: BLE001 - a trial that needs it is told
            logger.info("%s: %s cannot be imported into a child process: %s", ", ".join(names), module, error)


class _ToParent(logging.Handler):
    """Logs through the parent."""

    def __init__(self, parent: Parent) -> None:
        super().__init__()
        self._parent = parent

    def emit(self, record: logging.LogRecord) -> None:
        """Send one entry."""
        try:
            self._parent.log(LogLine(record.levelno, record.name, self.format(record)).to_bytes())
        except Exception:  # noqa: BLE001 - as logging itself does
            self.handleError(record)


class _Trial(Nobody):
    """The trial that is on the road: what the parent is told of it, and how it ended.

    Attributes:
        slots: The one slot.
        patience: How many seconds a trial that is over waits for its threads.
    """

    def __init__(self, parent: Parent) -> None:
        self.slots = threads.Slots(1)
        self.patience = 0.0
        self._parent = parent
        self._lock = threading.Lock()
        self._outcome: TrialOutcome | None = None
        self._program: HydratedProgram | None = None
        self._told = 0
        self._cost = Cost()
        self._written: Mapping[str, BoundVariable] = {}

    def begin(self, patience: float) -> None:
        """A trial begins."""
        self.patience = patience
        self._outcome, self._told, self._cost, self._written = None, 0, Cost(), {}
        self.enter(Stage.SESSION)

    def enter(self, stage: Stage, variables: Mapping[str, BoundVariable] | None = None) -> None:
        """It enters a stage, with variables that are known since."""
        self._parent.report(encode_progress(stage, variables=variables))

    def tell(self, event: TrialEvent) -> None:
        """Tell whoever watches it; stages are told by the worker."""
        if not isinstance(event, StageStarted):
            self._parent.report(encode_told(event))

    def running(self, program: HydratedProgram | None) -> None:
        """Its program runs now, or no more."""
        with self._lock:
            self._program = program

    def checked(self) -> None:
        """A step of the program, in whichever of its threads: tell what was recorded since the last one."""
        with self._lock:
            if self._program is None:
                return
            seen = self._program.recording()
            ended = [entry for entry in seen.trace if entry.inputs or entry.outputs]  # not what may still go on
            if len(ended) == self._told and seen.cost == self._cost and seen.written == self._written:
                return
            news = replace(seen, trace=tuple(ended[self._told :]))
            self._told, self._cost, self._written = len(ended), seen.cost, seen.written
            self._parent.report(encode_progress(Stage.EXECUTE, news))

    def on_outcome(self, request: TrialRequest, outcome: TrialOutcome) -> None:  # noqa: ARG002 - there is only one
        """It has ended, cancelled ones too."""
        self.running(None)
        if isinstance(outcome, TrialFailure) and "rung" in outcome.details and (not self.slots.free or _has_children()):
            # The program was stopped, but a thread or a process of its own goes on: only a kill ends all of it.
            outcome = replace(outcome, details={**outcome.details, "stuck": "true"})
        self._outcome = outcome

    def outcome(self) -> TrialOutcome:
        """How it ended."""
        assert self._outcome is not None, "the trial is on the road"  # noqa: S101 - our own bug, never the user's
        return self._outcome


def _has_children() -> bool:
    """Whether processes that this one started are there, running or not waited for."""
    try:
        os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    except ChildProcessError:
        return False
    return True


class _Job(threads.Job):
    """A job that says when its code checks it, which programs do at every step."""

    __slots__ = ("_on_check",)

    def __init__(self, on_check: Callable[[], None], name: str, _request: TrialRequest | None) -> None:
        super().__init__(name)
        self._on_check = on_check

    def check(self) -> None:
        """As every job's."""
        self._on_check()
        super().check()


class _Loader:
    """A ProgramLoader that tells the stages of its programs."""

    def __init__(self, trial: _Trial, loader: ProgramLoader) -> None:
        self._trial = trial
        self._loader = loader

    async def hydrate(
        self, request: TrialRequest, session: TrialSession, run_in_thread: RunInThread
    ) -> HydratedProgram:
        """As the loader's."""
        self._trial.enter(Stage.HYDRATE)
        return _Program(self._trial, await self._loader.hydrate(request, session, run_in_thread))


class _Program:
    """A HydratedProgram that tells its stages."""

    def __init__(self, trial: _Trial, program: HydratedProgram) -> None:
        self._trial = trial
        self._program = program

    async def sync_variables(self) -> Mapping[str, BoundVariable]:
        """As the program's."""
        self._trial.enter(Stage.SYNC)
        variables = await self._program.sync_variables()
        self._trial.enter(Stage.EXECUTE, variables)
        return variables

    def call(self, inputs: Mapping[str, Any], interrupt: Interrupt) -> Prediction:
        """As the program's."""
        self._trial.running(self._program)
        prediction = self._program.call(inputs, interrupt)
        self._trial.enter(Stage.SERIALIZE)
        return prediction

    def recording(self) -> Recording:
        """As the program's."""
        return self._program.recording()
