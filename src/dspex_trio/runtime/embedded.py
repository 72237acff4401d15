"""A runtime: all packages wired together, for any Trio program to run trials in."""

from __future__ import annotations

import math
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager, nullcontext
from dataclasses import dataclass
from functools import partial
from types import NoneType
from typing import TYPE_CHECKING, Any, Final, Protocol, TypeAlias

import trio

from dspex_trio import rpc
from dspex_trio.interface.arguments import check_callback, check_telemetry, check_type, kind_of, needs_trio
from dspex_trio.model import Program, ToolSpec, TrialOptions, TrialOutcome, TrialRequest, Watch, check_trial
from dspex_trio.model.errors import WorkerStuck
from dspex_trio.observing import correlation
from dspex_trio.observing.records import Records, open_records
from dspex_trio.observing.redaction import Redactor
from dspex_trio.observing.telemetry import NEVER_INTERRUPTED, process_telemetry
from dspex_trio.runtime.in_executors import open_executors
from dspex_trio.runtime.observer import RuntimeObserver
from dspex_trio.runtime.servicer import ProgramExecutor
from dspex_trio.runtime.settings import InvalidSettings, Settings
from dspex_trio.sessions import STORE_CHANNEL, ElixirToolsElsewhere, SessionContext, Sessions
from dspex_trio.store.in_process import in_process_stub
from dspex_trio.store.opening import open_store
from dspex_trio.tasks.background import open_background
from dspex_trio.threads import StuckThread
from dspex_trio.trials import (
    Admission,
    LoopLateness,
    Observer,
    ReplyMargin,
    TrialDeadline,
    TrialRunner,
    Trials,
    UnderWay,
)
from dspex_trio.trials.admission import Slot, Slots
from dspex_trio.trials.protocols import Job
from dspex_trio.trials.work import Work
from dspex_trio.wire import in_full, program_from_json
from dspex_trio.wire.generated.any_pb2 import Any as AnyMessage
from dspex_trio.wire.generated.bridge_grpc import BridgeServiceStub

if TYPE_CHECKING:
    import dspy

    from dspex_trio.observing.telemetry.providers import Telemetry

EMBEDDED: Final = "embedded"

_TOLD: Final = tuple(name for name in vars(Observer) if name.startswith(("begins", "on_")))

Take: TypeAlias = Callable[[AnyMessage], Awaitable[None]]
"""What takes one encoded value of a stream; it returns once the next can be taken."""


class Programs(Protocol):
    """Where programs run: `in_threads.InThisProcess` or `in_executors.InExecutors`; also a store's `ToolFunctions`.

    Attributes:
        slots: The slots of trials.
        out_of_process: Whether all programs run in other processes, so that requests need not be decoded here.
    """

    @property
    def slots(self) -> Slots: ...
    @property
    def out_of_process(self) -> bool: ...

    async def ready(self) -> None:
        """Wait until programs can be run; raises CannotLoad."""
        ...

    def runner(self, sessions: Sessions) -> TrialRunner:
        """Runs trials, with the store of these sessions."""
        ...

    def job(self, name: str, request: TrialRequest | None = None) -> Job:
        """A cancellable unit of work."""
        ...

    async def call_tool(
        self, name: str, arguments: Mapping[str, Any], take: Take | None, work: Work, slot: Slot
    ) -> AnyMessage | None:
        """Call an operator's tool; returns its encoded result, None if `take` was given what it yields."""
        ...

    def loop_was_late(self, seconds: float) -> None:
        """The loop was so late for a timer, in seconds."""
        ...

    def stuck(self) -> Sequence[StuckThread]:
        """The threads of this process whose trials are over and that still run."""
        ...

    def show_stacks(self) -> None:
        """Have other processes in which programs run write their threads' stacks to standard error."""
        ...

    def programs(self) -> list[dict[str, Any]]:
        """The registered programs, described."""
        ...

    def tool_specs(self) -> list[ToolSpec]:
        """The registered tools."""
        ...

    def specs(self) -> Iterable[ToolSpec]:
        """The functions that stand in for Elixir tools."""
        ...

    def __contains__(self, name: str) -> bool: ...

    async def call(self, name: str, arguments: Mapping[str, Any]) -> Any:
        """Call a function that stands in for an Elixir tool."""
        ...


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
        programs: Programs,
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
        self._programs = programs
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
            trial_id: The caller's name for the trial; one is made where it is empty.
            options: What the outcome leaves out.
            metadata: What the caller wants to see again in logs and records.
            deadline: An earlier one, on Trio's clock.
            watch: Called with events of the trial while it is under way.

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
        ends = self._deadline(arrived, deadline)
        options = options or TrialOptions()
        outcome = await self._trials.run(
            TrialRequest(
                program=program if isinstance(program, Program) else program_from_json(program),
                inputs=inputs,
                session_id=session_id,
                trial_id=trial_id,
                arrived=arrived,
                deadline=ends.at,
                margin=ends.margin,
                metadata=metadata or {},
                options=options,
                watch=watch,
            )
        )
        return in_full(outcome, options, self.settings.max_message_bytes)

    async def call_tool(self, name: str, arguments: Mapping[str, Any], take: Take | None = None) -> AnyMessage | None:
        """Call an operator's tool in a slot like a trial's; returns its encoded result.

        With `take`, the values that the tool yields are given to that, encoded, and None comes back; else a list does.

        The enclosing cancel scope is the deadline, as for a trial.

        Raises:
            Overloaded, ShuttingDown, DeadlineExceeded, WorkerLost: In place of a trial's outcome of that kind.
            Described, RemoteFailure: The tool raised something, which is a TOOL_ERROR.
        """
        call = partial(self._programs.call_tool, name, arguments, take)
        return await self._trials.in_slot(name, self._deadline(trio.current_time()).at, call)

    def programs(self) -> list[dict[str, Any]]:
        """The registered programs: each one's name, class, docstring, constructor keywords and inputs."""
        return self._programs.programs()

    def tool_specs(self) -> list[ToolSpec]:
        """The registered tools."""
        return self._programs.tool_specs()

    async def ready(self) -> None:
        """Wait until programs can be run; at once, unless the runtime was opened without that.

        Raises:
            CannotLoad: They cannot; says why.
        """
        await self._programs.ready()

    def _deadline(self, arrived: float, earlier: float = math.inf) -> TrialDeadline:
        return self._margin.deadline(arrived, min(earlier, trio.current_effective_deadline()))

    def watch_caller(self, call: rpc.Call) -> None:
        """Learn from the caller of a trial that arrives now, should it give up around its deadline."""
        ends = self._margin.deadline(trio.current_time(), call.deadline, call.timer_slack)
        call.on_given_up = partial(self._margin.given_up, ends)

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

    def under_way(self) -> list[UnderWay]:
        """Trials and tools that have not ended yet, the oldest first: in which stage, for how long."""
        return self._trials.under_way()

    def stuck(self) -> Sequence[StuckThread]:
        """The threads whose trials are over and that still run: which trial's, for how long, and where they are."""
        return self._programs.stuck()

    def show_executor_stacks(self) -> None:
        """Have executor processes write the stacks of their threads to standard error; it is this process's."""
        self._programs.show_stacks()

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
    tools: rpc.Target | None = None,
    observers: Sequence[Observer] = (),
    telemetry: Telemetry | None = None,
    executors: int | None = None,
    front: bool | None = None,
    wait: bool = True,
) -> AsyncIterator[Runtime]:
    """A runtime, ready to run trials. It leaves nothing global behind when it closes.

    Args:
        settings: What the operator chose; by default, the environment (`DSPEX_TRIO_*`) over the defaults.
        lm: A ready language model for programs that name none, in place of `settings.lm`.
        store: Where the session store is, in place of `settings.store`; also what has no address, such as a function
            that opens a stream to it.
        tools: Where the sessions' Elixir tools are, when they are not in the session store.
        observers: Told of every trial that arrives and that ends.
        telemetry: Where spans and metrics go; with `settings.otel`, by default to the process's own providers.
        executors: Run programs in so many executor processes, in place of threads of this one. What is registered in
            this process must be importable there.
        front: Whether this process runs no program at all and imports no DSPy; by default it does not where
            `settings.isolation` is `executor`.
        wait: Whether to wait until programs can be run; without it, trials wait for that.

    Raises:
        CannotLoad: A module of `settings.load` cannot be imported, or no executor process started.
        InvalidSettings: `lm` was given, and programs are to run in executor processes; or OpenTelemetry is asked for
            and is not installed.
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
    if executors is not None:
        settings = settings.model_copy(update={"isolation": "executor", "executors": executors})
    here = not front if front is not None else settings.isolation != "executor"
    if lm is not None and (not here or settings.isolation == "process" or settings.isolate):
        raise InvalidSettings("an executor process cannot be given a ready language model: name it by lm and lm_args")
    redact = settings.redactor()
    if telemetry is None and settings.otel:
        telemetry = process_telemetry(settings)
    if telemetry is not None:
        observers = (*observers, telemetry.trials())
    async with open_background() as nursery, AsyncExitStack() as stack:
        observer = RuntimeObserver(settings, nursery, observers)
        margin, limit = observer.margin, observer.limit
        observer.records = records = await stack.enter_async_context(
            _open_records(settings, redact, observer, lm, here=here)
        )
        programs = await stack.enter_async_context(
            _open_programs(settings, redact, observer, records, lm, here=here, traced=telemetry is not None)
        )
        sessions, stores = await stack.enter_async_context(
            _open_sessions(settings, programs, redact, telemetry, store=store, tools=tools)
        )
        trials = Trials(
            runner=programs.runner(sessions),
            job=programs.job,
            admission=Admission(
                programs.slots, settings.max_queue, lambda: limit.reason, max_wait=settings.queue_timeout or math.inf
            ),
            away=lambda session_id, since: sessions.context(session_id).away(since),
            redact=redact,
            observer=observer,
            lateness=observer.lateness,
        )
        observer.on_sample = partial(_adapt_to_lateness, programs, trials, margin)
        executor = ProgramExecutor(
            trials,
            max_message_bytes=settings.max_message_bytes,
            reply_margin=margin,
            redact=redact,
            pass_on=programs.out_of_process,
        )
        runtime = Runtime(
            settings,
            trials,
            sessions,
            [executor, *stores],
            observer=observer,
            programs=programs,
            redact=redact,
            telemetry=telemetry,
        )
        nursery.start_soon(observer.lateness.run)
        if wait:
            await programs.ready()
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


def _adapt_to_lateness(programs: Programs, trials: Trials, margin: ReplyMargin, late: float) -> None:
    """Called ten times a second while trials run, with how late the loop was, in seconds."""
    programs.loop_was_late(late)
    trials.hasten(margin)


def _open_programs(
    settings: Settings,
    redact: Redactor,
    observer: RuntimeObserver,
    records: Records | None,
    lm: dspy.BaseLM | None,
    *,
    here: bool,
    traced: bool,
) -> AbstractAsyncContextManager[Programs]:
    """Where programs run. Nothing of DSPy is imported here where they run in other processes."""
    if here:
        from dspex_trio.runtime.in_threads import open_in_threads  # noqa: PLC0415 - it imports DSPy

        return open_in_threads(
            settings,
            redact,
            observer.margin,
            observer.limit,
            observer.on_late_end,
            lm=lm,
            shared=NEVER_INTERRUPTED if traced else (),
        )
    return open_executors(settings, observer.margin, observer.on_late_end, records=records)


@asynccontextmanager
async def _open_sessions(
    settings: Settings,
    stand_ins: Programs,
    redact: Redactor,
    telemetry: Telemetry | None,
    *,
    store: rpc.Target | None,
    tools: rpc.Target | None,
) -> AsyncIterator[tuple[Sessions, list[rpc.Servicer]]]:
    async with AsyncExitStack() as stack:

        async def connected(target: rpc.Target) -> tuple[BridgeServiceStub, str, rpc.Channel]:
            channel = await stack.enter_async_context(rpc.open_channel(target, settings=STORE_CHANNEL))
            caller = channel if telemetry is None else telemetry.channel(channel)
            stub = BridgeServiceStub(rpc.Attached(caller, correlation.headers))
            return stub, target if isinstance(target, str) else "the given store", channel

        bounded = partial(
            Sessions,
            max_sessions=settings.max_sessions,
            idle_seconds=settings.session_idle_seconds,
            variables_tool=settings.variables_tool,
            tools=None if tools is None else ElixirToolsElsewhere(*await connected(tools)),
        )
        if store is None and settings.store == EMBEDDED:
            embedded = await stack.enter_async_context(open_store(settings.persist, stand_ins, redact))
            yield bounded(in_process_stub(embedded), where="the embedded store"), [embedded]
        else:
            stub, where, channel = await connected(settings.store if store is None else store)
            yield bounded(stub, where=where, link=channel), []


def _open_records(
    settings: Settings, redact: Redactor, observer: RuntimeObserver, lm: dspy.BaseLM | None, *, here: bool
) -> AbstractAsyncContextManager[Records | None]:
    if settings.record is None:
        return nullcontext()
    return open_records(
        settings.record,
        redact=redact,
        late_since=observer.lateness.worst_since,
        on_dropped=observer.on_records_dropped,
        lm=settings.lm or "" if lm is None else lm.model,
        in_executors=not here,
    )
