"""A runtime: the rooms wired together, for any Trio program to run trials in."""

from __future__ import annotations

import logging
import math
import os
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from contextlib import ExitStack, asynccontextmanager, contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any, Final, cast

import trio

from dspex_trio import correlation, rpc, threads
from dspex_trio.config import InvalidSettings, Settings
from dspex_trio.generated.bridge_grpc import BridgeServiceStub
from dspex_trio.isolation import open_isolation
from dspex_trio.model import LanguageModel, Program, TrialOptions, TrialOutcome, TrialRequest, TrialSuccess, Watch
from dspex_trio.observe import Records, open_records
from dspex_trio.programs import (
    CARRIERS,
    Loader,
    ProgramSettings,
    current_interrupt,
    interrupt_of_frame,
    open_programs,
)
from dspex_trio.redaction import Redactor, secrets_in
from dspex_trio.service.executor import ProgramExecutor
from dspex_trio.service.in_process import in_process_stub
from dspex_trio.service.opening import open_store
from dspex_trio.sessions import STORE_CHANNEL, SessionContext, Sessions
from dspex_trio.trials import Admission, ReplyMargin, Trials
from dspex_trio.trials.admission import Slot
from dspex_trio.trials.road import Job, contained
from dspex_trio.wire import program_from_json

if TYPE_CHECKING:
    import dspy

logger: Final = logging.getLogger(__name__)

EMBEDDED: Final = "embedded"


class Runtime:
    """Runs trials in this process; made by `open_runtime`.

    Attributes:
        settings: What it was opened with.
        servicers: What `serve` serves: the program service and, with an embedded store, that store.
        redact: Takes secrets out of text that leaves.
    """

    def __init__(
        self,
        settings: Settings,
        trials: Trials,
        sessions: Sessions,
        servicers: list[rpc.Servicer],
        *,
        margin: ReplyMargin,
        redact: Redactor,
    ) -> None:
        self.settings = settings
        self.servicers = servicers
        self.redact = redact
        self._trials = trials
        self._sessions = sessions
        self._margin = margin

    async def run_trial(
        self,
        program: Program | Mapping[str, Any],
        inputs: Mapping[str, Any],
        *,
        session: SessionContext | str = "",
        trial_id: str = "",
        options: TrialOptions | None = None,
        metadata: Mapping[str, str] | None = None,
        deadline: float = math.inf,
        watch: Watch | None = None,
    ) -> TrialOutcome:
        """Run one trial.

        The enclosing cancel scope is the deadline: a DEADLINE_EXCEEDED outcome comes back just before it would raise.
        When the caller is cancelled, the trial is stopped and the cancel propagates.

        Args:
            program: What to run, as a Program or in its JSON form.
            inputs: Input field → value.
            session: The session whose variables the program is bound to, or its id.
            trial_id: The caller's name for the trial.
            options: What the outcome leaves out.
            metadata: What the caller wants to see again in logs and records.
            deadline: An earlier one, on Trio's clock.
            watch: Told what happens while the trial is on the road.

        Raises:
            InvalidSpec: `program` is a mapping and not a program's JSON form.
        """
        arrived = trio.current_time()
        return await self._trials.run(
            TrialRequest(
                program=program if isinstance(program, Program) else program_from_json(program),
                inputs=inputs,
                session_id=session if isinstance(session, str) else session.session_id,
                trial_id=trial_id,
                arrived=arrived,
                deadline=self._deadline(arrived, deadline),
                metadata=metadata or {},
                options=options or TrialOptions(),
                watch=watch,
            )
        )

    async def call_in_slot(self, name: str, function: Callable[..., Any], /, *args: Any) -> Any:
        """Run blocking code that is no trial, such as a tool, in a slot like one, and return what it returns.

        The enclosing cancel scope is the deadline, as for a trial.

        Raises:
            Overloaded, ShuttingDown, DeadlineExceeded: In place of a trial's outcome of that kind.
            ToolError: From whatever the function raised.
        """
        return await self._trials.call(name, self._deadline(trio.current_time()), function, *args)

    def _deadline(self, arrived: float, earlier: float = math.inf) -> float:
        limit = min(earlier, trio.current_effective_deadline(), arrived + self.settings.max_trial_seconds)
        return limit - self._margin()

    @property
    def running(self) -> int:
        """How many trials and tools are under way, queued ones included."""
        return self._trials.running

    def session(self, session_id: str) -> SessionContext:
        """The session of that id in the runtime's store; it need not exist yet."""
        return self._sessions.context(session_id)

    async def drain(self, grace: float) -> None:
        """Take no new trials, let running ones end for `grace` seconds, then end them as SHUTTING_DOWN."""
        await self._trials.drain(grace)


@asynccontextmanager
async def open_runtime(settings: Settings | None = None, *, lm: dspy.BaseLM | None = None) -> AsyncIterator[Runtime]:
    """A runtime, ready to run trials. It leaves nothing global behind when it closes.

    Args:
        settings: What the operator chose; by default, the environment (`DSPEX_TRIO_*`) over the defaults.
        lm: A ready language model for programs that name none, in place of `settings.lm`.

    Raises:
        CannotLoad: A module of `settings.load` cannot be imported, or no child process for isolated programs started.
        InvalidSettings: `lm` was given, and programs are to run in child processes.
        CannotPersist: The file of `settings.persist` cannot be used; in a group, when it cannot be written any more.
        CannotRecord: Nothing can be written to `settings.record`.
        UnsupportedDspy: The installed DSPy lacks something that is relied on.
    """
    settings = settings or Settings()
    redact = redactor(settings)
    if lm is not None and (settings.isolation == "process" or settings.isolate):
        raise InvalidSettings("a child process cannot be given a ready language model: name it by lm and lm_args")
    margin = ReplyMargin(settings.reply_margin_ms / 1e3)
    async with (
        open_rooms(settings, redact, margin.patience, lm=lm) as (loader, workers),
        _open_sessions(settings, workers, redact) as (sessions, stores),
        open_isolation(settings, sessions.store, margin.patience) as isolation,
        _open_records(settings, redact) as records,
    ):
        trials = Trials(
            loader=loader,
            sources=sessions.context,
            executor=Executor(workers),
            admission=Admission(
                threads.Slots(settings.max_trials), settings.max_queue, partial(_too_many_stuck, workers, settings)
            ),
            isolation=isolation,
            redact=redact,
            begins=records.begins if records is not None else _as_it_is,
            on_outcome=partial(_ended, margin, records),
        )
        executor = ProgramExecutor(
            trials,
            max_trial_seconds=settings.max_trial_seconds,
            max_message_bytes=settings.max_message_bytes,
            reply_margin=margin,
            redact=redact,
        )
        yield Runtime(settings, trials, sessions, [executor, *stores], margin=margin, redact=redact)


@asynccontextmanager
async def open_rooms(
    settings: Settings, redact: Redactor, patience: Callable[[], float], *, lm: dspy.BaseLM | None = None
) -> AsyncIterator[tuple[Loader, threads.Threads]]:
    """What every process that runs programs needs: their loader, and threads to run them in.

    Args:
        settings: What the operator chose.
        redact: Takes secrets out of what is recorded.
        patience: How many seconds a cancelled trial waits for its threads.
        lm: As `open_runtime` takes it.

    Raises:
        CannotLoad, UnsupportedDspy: As `open_runtime` says.
    """
    programs = open_programs(_program_settings(settings), run_in_loop=threads.run_in_loop, lm=lm, redact=redact)
    with programs as loader, _threads_prepared(settings):
        async with threads.open_threads(patience=patience, may_raise=settings.raise_in_threads) as workers:
            yield loader, workers


def redactor(settings: Settings) -> Redactor:
    """Takes what is secret here out of text."""
    return Redactor([*secrets_in(settings.lm_args), settings.token or ""], os.environ)


# A thread that ignores for so long that its trial is over counts as stuck, in seconds.
_STUCK_AFTER: Final = 2.0


class Executor:
    """The thread room, as the road sees it.

    Args:
        workers: Runs the threads.
        job: Makes a job of a name.
    """

    def __init__(self, workers: threads.Threads, job: Callable[[str], Job] = threads.Job) -> None:
        self._workers = workers
        self.job = job

    def run(self, function: Callable[..., Any], /, *args: Any, job: Job, slot: Slot) -> Awaitable[Any]:
        """As the road wants it."""
        # What comes back is what `job` and the slots that admission was given handed out.
        return self._workers.run(function, *args, job=cast("threads.Job", job), slot=cast("threads.Slot", slot))


def _too_many_stuck(workers: threads.Threads, settings: Settings) -> str | None:
    stuck = workers.stuck_longer_than(_STUCK_AFTER)
    if stuck < settings.max_trials:
        return None
    return f"{stuck} threads ignore that their trials are over, and no slot is left; this worker must be replaced"


@contextmanager
def _threads_prepared(settings: Settings) -> Iterator[None]:
    """Tell the thread room which trial a thread of dspy.Parallel works for, and which of our frames carry programs."""
    for carrier in (*CARRIERS, contained):
        threads.carries_programs(carrier)
    with ExitStack() as stack:
        stack.enter_context(threads.switch_interval(settings.switch_interval_ms / 1e3))
        stack.callback(threads.add_lookup(current_interrupt))
        stack.callback(threads.add_frame_lookup(interrupt_of_frame))
        yield


@asynccontextmanager
async def _open_sessions(
    settings: Settings, workers: threads.Threads, redact: Redactor
) -> AsyncIterator[tuple[Sessions, list[rpc.Servicer]]]:
    bounded = partial(
        Sessions,
        max_sessions=settings.max_sessions,
        idle_seconds=settings.session_idle_seconds,
        variables_tool=settings.variables_tool,
    )
    if settings.store == EMBEDDED:
        async with open_store(settings.persist, workers, redact) as store:
            yield bounded(in_process_stub(store), where="the embedded store"), [store]
    else:
        async with rpc.open_channel(settings.store, settings=STORE_CHANNEL) as channel:
            stub = BridgeServiceStub(rpc.Attached(channel, correlation.headers))
            yield bounded(stub, where=settings.store), []


def _program_settings(settings: Settings) -> ProgramSettings:
    return ProgramSettings(
        lm=LanguageModel(settings.lm, settings.lm_args) if settings.lm is not None else None,
        load=settings.load,
        allow_import=settings.allow_import,
        allow_lm_arg=settings.allow_lm_arg,
        memory_cache=settings.memory_cache,
        disk_cache=settings.disk_cache,
    )


@asynccontextmanager
async def _open_records(settings: Settings, redact: Redactor) -> AsyncIterator[Records | None]:
    if settings.record is None:
        yield None
        return
    async with open_records(settings.record, redact=redact) as records:
        yield records


def _as_it_is(request: TrialRequest) -> TrialRequest:
    return request


def _ended(margin: ReplyMargin, records: Records | None, request: TrialRequest, outcome: TrialOutcome) -> None:
    margin.observe(request, outcome)
    if records is not None:
        records.trial_ended(request, outcome)
    if logger.isEnabledFor(logging.INFO):
        told = "OK" if isinstance(outcome, TrialSuccess) else f"{outcome.kind.name} in {outcome.stage.name}"
        logger.info(
            "trial %.200r of %.200r: %s after %.0f ms",  # both are the caller's: as long as they like, newlines too
            request.trial_id,
            request.program.name or request.program.python_class,
            told,
            outcome.timings.total_ms,
        )
