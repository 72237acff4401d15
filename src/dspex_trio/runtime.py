"""A runtime: the rooms wired together, for any Trio program to run trials in."""

from __future__ import annotations

import math
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager, nullcontext
from dataclasses import dataclass
from functools import partial
from types import NoneType
from typing import TYPE_CHECKING, Any, Final

import trio

from dspex_trio import correlation, rpc, threads
from dspex_trio.arguments import check_callback, check_telemetry, check_type, kind_of, needs_trio
from dspex_trio.config import InvalidSettings, Settings
from dspex_trio.errors import WorkerStuck
from dspex_trio.generated.bridge_grpc import BridgeServiceStub
from dspex_trio.isolation import open_isolation
from dspex_trio.model import Program, TrialOptions, TrialOutcome, TrialRequest, Watch, check_trial
from dspex_trio.observe import Records, open_records
from dspex_trio.programs import check_lm
from dspex_trio.redaction import Redactor
from dspex_trio.rooms import Executor, budgets, open_rooms, redactor
from dspex_trio.runtime_observer import RuntimeObserver
from dspex_trio.service.executor import ProgramExecutor
from dspex_trio.service.in_process import in_process_stub
from dspex_trio.service.opening import open_store
from dspex_trio.sessions import STORE_CHANNEL, SessionContext, Sessions
from dspex_trio.telemetry import KEPT_WHOLE, process_telemetry
from dspex_trio.threads.background import open_background
from dspex_trio.trials import (
    Admission,
    LoopLateness,
    Observer,
    Trials,
)
from dspex_trio.wire import program_from_json

if TYPE_CHECKING:
    import dspy

    from dspex_trio.telemetry.providers import Telemetry

EMBEDDED: Final = "embedded"

_TOLD: Final = tuple(name for name in vars(Observer) if name.startswith(("begins", "on_")))


class Runtime:
    """Runs trials in this process; made by `open_runtime`.

    Attributes:
        settings: What it was opened with.
        servicers: What `serve` serves: the program service and, with an embedded store, that store.
        redact: Takes secrets out of text that leaves.
        telemetry: Where spans and metrics go; None where there are none.
    """

    def __init__(
        self,
        settings: Settings,
        trials: Trials,
        sessions: Sessions,
        servicers: list[rpc.Servicer],
        *,
        observer: RuntimeObserver,
        workers: threads.Threads,
        redact: Redactor,
        telemetry: Telemetry | None,
    ) -> None:
        self.settings = settings
        self.servicers = servicers
        self.redact = redact
        self.telemetry = telemetry
        self._trials = trials
        self._sessions = sessions
        self._margin = observer.margin
        self._lateness = observer.lateness
        self._limit = observer.limit
        self._workers = workers
        self._drained_when_stuck = False

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
            TypeError: An argument is of the wrong type, or `watch` does not take one event.
            RuntimeError: No Trio runs here.
        """
        needs_trio("run_trial")
        session_id = session.session_id if isinstance(session, SessionContext) else session
        check_trial(program, inputs, session_id=session_id, trial_id=trial_id, options=options, metadata=metadata)
        check_type("deadline", deadline, (int, float), "a time of Trio's clock, in seconds")
        if watch is not None:
            check_callback("watch", watch, "event")
        arrived = trio.current_time()
        return await self._trials.run(
            TrialRequest(
                program=program if isinstance(program, Program) else program_from_json(program),
                inputs=inputs,
                session_id=session_id,
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
            Described: The function raised something, which is a TOOL_ERROR.
        """
        return await self._trials.call(name, self._deadline(trio.current_time()), function, *args)

    def _deadline(self, arrived: float, earlier: float = math.inf) -> float:
        limit = min(earlier, trio.current_effective_deadline(), arrived + self.settings.max_trial_seconds)
        return limit - self._margin()

    @property
    def running(self) -> int:
        """How many trials and tools are under way, queued ones included."""
        return self._trials.running

    def status(self) -> RuntimeStatus:
        """How it is doing."""
        return RuntimeStatus(
            running=self._trials.running,
            queued=self._trials.queued,
            slots=self._trials.slots,
            stuck=self._limit.count,
            loop_lateness=self._lateness.summary(),
        )

    def stuck(self) -> list[threads.StuckThread]:
        """The threads that were told to end and have not: which trial's, for how long, and where they are."""
        return self._workers.stuck()

    def session(self, session_id: str) -> SessionContext:
        """The session of that id in the runtime's store; it need not exist yet."""
        return self._sessions.context(session_id)

    async def drain(self, grace: float) -> None:
        """Take no new trials, let running ones end for `grace` seconds, then end them as SHUTTING_DOWN."""
        await self._trials.drain(grace)

    async def until_stuck(self) -> WorkerStuck:
        """Wait until so many threads are stuck that the process must be replaced.

        Who waits for it ends the runtime in an orderly way: `open_runtime` then leaves that to him.
        """
        self._drained_when_stuck = True
        await self._limit.reached()
        return WorkerStuck(self._limit.reason)

    async def _cancel_when_stuck(self, body: trio.CancelScope) -> None:
        await self._limit.reached()
        if not self._drained_when_stuck:
            body.cancel()


@dataclass(frozen=True, slots=True)
class RuntimeStatus:
    """How a runtime is doing.

    Attributes:
        running: Trials and tools under way, queued ones included.
        queued: Those that wait for a slot.
        slots: Slots that are taken, also by threads that go on after their trial.
        stuck: Trials that are over and whose threads have ignored that for two seconds or more.
        loop_lateness: How late the loop is for its timers.
    """

    running: int
    queued: int
    slots: int
    stuck: int
    loop_lateness: LoopLateness


@asynccontextmanager
async def open_runtime(
    settings: Settings | None = None,
    *,
    lm: dspy.BaseLM | None = None,
    store: rpc.Target | None = None,
    observers: Sequence[Observer] = (),
    telemetry: Telemetry | None = None,
) -> AsyncIterator[Runtime]:
    """A runtime, ready to run trials. It leaves nothing global behind when it closes.

    Args:
        settings: What the operator chose; by default, the environment (`DSPEX_TRIO_*`) over the defaults.
        lm: A ready language model for programs that name none, in place of `settings.lm`.
        store: Where the session store is, in place of `settings.store`; also what has no address, such as a function
            that opens a stream to it.
        observers: Told of every trial that arrives and that ends.
        telemetry: Where spans and metrics go; with `settings.otel`, by default to the process's own providers.

    Raises:
        CannotLoad: A module of `settings.load` cannot be imported, or no child process for isolated programs started.
        InvalidSettings: `lm` was given, and programs are to run in child processes; or OpenTelemetry is asked for and
            is not installed.
        CannotPersist: The file of `settings.persist` cannot be used; in a group, when it cannot be written any more.
        CannotRecord: Nothing can be written to `settings.record`.
        RuntimeError: No Trio runs here.
        TypeError: An argument is of the wrong type, such as a model's name as `lm`.
        UnsupportedDspy: The installed DSPy lacks something that is relied on.
        WorkerStuck: Threads of `settings.max_stuck_threads` trials cannot be ended; the body is cancelled.
    """
    needs_trio("open_runtime")
    check_type("settings", settings, (Settings, NoneType), "a dspex.Settings")
    _check_observers(observers)
    check_telemetry(telemetry)
    settings = settings or Settings()
    redact = redactor(settings)
    if lm is not None and (settings.isolation == "process" or settings.isolate):
        raise InvalidSettings("a child process cannot be given a ready language model: name it by lm and lm_args")
    check_lm(lm)
    if telemetry is None and settings.otel:
        telemetry = process_telemetry(settings)
    if telemetry is not None:
        observers = (*observers, telemetry.trials())
        threads.keep_whole(*KEPT_WHOLE)
    async with open_background() as nursery:
        observer = RuntimeObserver(settings, nursery, observers)
        margin, limit = observer.margin, observer.limit
        async with (
            open_rooms(settings, redact, margin.patience, lm=lm, on_late_end=observer.on_job_ended) as (
                loader,
                workers,
            ),
            _open_sessions(settings, store, workers, redact, telemetry) as (sessions, stores),
            open_isolation(settings, sessions.store, margin.patience) as isolation,
            _open_records(settings, redact, observer, lm) as records,
        ):
            observer.records, observer.workers = records, workers
            trials = Trials(
                loader=loader,
                sources=sessions.context,
                executor=Executor(workers, on_abandoned=limit.abandoned),
                admission=Admission(
                    threads.Slots(settings.max_trials),
                    settings.max_queue,
                    lambda: limit.reason,
                    max_wait=settings.queue_timeout or math.inf,
                ),
                isolation=isolation,
                redact=redact,
                observer=observer,
                budgets=budgets(settings),
                lateness=observer.lateness,
            )
            executor = ProgramExecutor(
                trials,
                max_trial_seconds=settings.max_trial_seconds,
                max_message_bytes=settings.max_message_bytes,
                reply_margin=margin,
                redact=redact,
            )
            runtime = Runtime(
                settings,
                trials,
                sessions,
                [executor, *stores],
                observer=observer,
                workers=workers,
                redact=redact,
                telemetry=telemetry,
            )
            nursery.start_soon(observer.lateness.run)
            with trio.CancelScope() as body:  # noqa: ASYNC100 - the body's checkpoints
                nursery.start_soon(runtime._cancel_when_stuck, body)  # noqa: SLF001 - the other half of that class
                yield runtime
        if body.cancelled_caught:
            raise WorkerStuck(limit.reason)


def _check_observers(observers: Sequence[Observer]) -> None:
    check_type("observers", observers, (list, tuple), "a list of observers")
    for number, observer in enumerate(observers):
        missing = [name for name in _TOLD if not callable(getattr(observer, name, None))]
        if missing or isinstance(observer, type):
            lacks = f", which has no {', '.join(missing)}" if missing else ""
            raise TypeError(f"observers[{number}] is an observer of trials; got {kind_of(observer)}{lacks}")


@asynccontextmanager
async def _open_sessions(
    settings: Settings,
    store: rpc.Target | None,
    workers: threads.Threads,
    redact: Redactor,
    telemetry: Telemetry | None,
) -> AsyncIterator[tuple[Sessions, list[rpc.Servicer]]]:
    bounded = partial(
        Sessions,
        max_sessions=settings.max_sessions,
        idle_seconds=settings.session_idle_seconds,
        variables_tool=settings.variables_tool,
    )
    if store is None and settings.store == EMBEDDED:
        async with open_store(settings.persist, workers, redact) as embedded:
            yield bounded(in_process_stub(embedded), where="the embedded store"), [embedded]
    else:
        target = settings.store if store is None else store
        async with rpc.open_channel(target, settings=STORE_CHANNEL) as channel:
            caller = channel if telemetry is None else telemetry.channel(channel)
            stub = BridgeServiceStub(rpc.Attached(caller, correlation.headers))
            where = target if isinstance(target, str) else "the given store"
            yield bounded(stub, where=where, link=channel), []


def _open_records(
    settings: Settings, redact: Redactor, observer: RuntimeObserver, lm: dspy.BaseLM | None
) -> AbstractAsyncContextManager[Records | None]:
    if settings.record is None:
        return nullcontext()
    return open_records(
        settings.record,
        redact=redact,
        late_since=observer.lateness.worst_since,
        on_dropped=observer.on_records_dropped,
        lm=settings.lm or "" if lm is None else lm.model,
    )
