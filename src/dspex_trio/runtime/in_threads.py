"""Threads of this process for a runtime: programs run here. Imports DSPy."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from typing import TYPE_CHECKING, Any

from dspex_trio import threads
from dspex_trio.children.forking import open_starter
from dspex_trio.executors.alone import Alone, open_alone
from dspex_trio.executors.routing import Homes, Routed, Routing
from dspex_trio.executors.store import replies_of
from dspex_trio.model import ToolSpec, TrialRequest
from dspex_trio.model.errors import ToolError
from dspex_trio.model.values import plain
from dspex_trio.observing.redaction import Redactor
from dspex_trio.programs import any_isolated, catalogue, check_lm, homes, isolation_of
from dspex_trio.programs.yielding_tools import STREAMED
from dspex_trio.runtime.assembly import Executor, TrialJob, open_programs_and_threads
from dspex_trio.runtime.in_executors import PREPARE, SERVE, loading_children, log_line, opening
from dspex_trio.runtime.settings import Settings
from dspex_trio.sessions import Sessions
from dspex_trio.store.elixir_tools import StandIns
from dspex_trio.trials import InThreads, ReplyMargin, StuckLimit, TrialRunner
from dspex_trio.trials.admission import Slot
from dspex_trio.trials.contained import contained, raising_as
from dspex_trio.trials.work import Work
from dspex_trio.wire import encode_any
from dspex_trio.wire.anys import encoding
from dspex_trio.wire.generated import any_pb2

if TYPE_CHECKING:
    import dspy


@asynccontextmanager
async def open_in_threads(
    settings: Settings,
    redact: Redactor,
    margin: ReplyMargin,
    limit: StuckLimit,
    on_late_end: Callable[[TrialRequest, Mapping[str, str]], None],
    *,
    lm: dspy.BaseLM | None,
    shared: Sequence[str] = (),
) -> AsyncIterator[InThisProcess]:
    """Threads for programs, and processes for those that are to have one.

    Args:
        settings: What the operator chose.
        redact: Takes secrets out of what is recorded.
        margin: Says how long a cancelled trial waits for its threads.
        limit: Counts trials whose threads cannot be ended.
        on_late_end: Called with a trial's details when threads that went on after it have ended.
        lm: As `open_runtime` takes it.
        shared: Modules that threads of all programs pass through, and must not be interrupted in.

    Raises:
        CannotLoad, TypeError, UnsupportedDspy: As `open_runtime` says.
    """

    def patience(job: threads.Job) -> float:
        request = job.request if isinstance(job, TrialJob) else None
        return margin.patience(None if request is None else request.margin)

    def job_ended(job: threads.Job) -> None:
        limit.ended(job)
        if isinstance(job, TrialJob) and job.request is not None:
            on_late_end(job.request, {**job.details(), "abandoned_ms": f"{job.ignoring_for() * 1e3:.1f}"})

    check_lm(lm)
    async with AsyncExitStack() as stack:
        stack.enter_context(threads.never_interrupt(*shared))
        loader, workers = await stack.enter_async_context(
            open_programs_and_threads(settings, redact, patience, lm=lm, on_late_end=job_ended)
        )
        here = InThisProcess(settings, redact, workers, limit)
        here.loader = loader
        starter = await stack.enter_async_context(
            open_starter(PREPARE, SERVE, here.opened, at_once=here.routing.any_alone())
        )
        here.alone = await stack.enter_async_context(
            open_alone(
                settings,
                starter,
                here.opened,
                here.routing,
                reply=here.reply,
                patience=margin.patience,
                on_log=log_line,
                on_note=lambda _data: None,
            )
        )
        yield here


class InThisProcess:
    """Runs programs in threads of this process; made by `open_in_threads`.

    Attributes:
        slots: Where trials run.
        alone: Runs those trials that have a process to themselves.
        routing: Knows which these are.
    """

    out_of_process = False
    loader: Any
    alone: Alone

    def __init__(self, settings: Settings, redact: Redactor, workers: threads.Threads, limit: StuckLimit) -> None:
        self.slots = threads.Slots(settings.max_trials)
        self.routing = Routing(settings, isolation_of, any_isolated, Homes(homes))
        self._settings = settings
        self._redact = redact
        self._workers = workers
        self._executor = Executor(workers, on_abandoned=limit.abandoned)
        self._stand_ins = StandIns(workers)
        self._reply: Any = None
        self.job = self._executor.job
        self.loop_was_late = workers.loop_was_late
        self.stuck = workers.stuck
        self.specs = self._stand_ins.specs
        self.call = self._stand_ins.call

    def opened(self) -> bytes:
        """What a process of its own is opened with."""
        return opening(self._settings, 1, homes()).to_bytes()

    async def ready(self) -> None:
        """Wait until programs can be run.

        Raises:
            CannotLoad: No process for those that are to have one can be started.
        """
        if self.routing.any_alone():
            with loading_children():
                await self.alone.ready()

    def runner(self, sessions: Sessions) -> TrialRunner:
        """Runs trials, with the store of these sessions."""
        self._reply = replies_of(sessions.store)
        in_threads = InThreads(
            loader=self.loader,
            sources=sessions.context,
            executor=self._executor,
            redact=self._redact,
            budgets=self._settings.stage_budgets(),
        )
        return Routed(self.routing, self.alone, in_threads)

    async def reply(self, data: bytes) -> bytes:
        """Reply to a process's call of the session store."""
        replied: bytes = await self._reply(data)
        return replied

    async def call_tool(
        self,
        name: str,
        arguments: Mapping[str, Any],
        take: Callable[[any_pb2.Any], Awaitable[None]] | None,
        work: Work,
        slot: Slot,
    ) -> any_pb2.Any | None:
        """Call an operator's tool; returns its encoded result, None if `take` was given what it yields.

        Raises:
            Described: It raised something, which is a TOOL_ERROR.
        """
        function = catalogue.tool_function(name, threads.run_in_loop, encoding(take))
        if function is None:
            raise ToolError(f"there is no tool {name!r}")
        todo = (work.job, self._redact, raising_as, ToolError, partial(function, **arguments))
        result = await self._executor.run(contained, *todo, job=work.job, slot=slot)
        return None if result is STREAMED else encode_any(plain(result))

    def show_stacks(self) -> None:
        """Programs run in this process, whose stacks others show."""

    def programs(self) -> list[dict[str, Any]]:
        """The registered programs, described."""
        return catalogue.programs()

    def tool_specs(self) -> list[ToolSpec]:
        """The registered tools."""
        return catalogue.tool_specs()

    def __contains__(self, name: str) -> bool:
        return name in self._stand_ins
