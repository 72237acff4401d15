"""Executor processes for a runtime: programs run in them, and this process imports none of it."""

from __future__ import annotations

import base64
import logging
import os
import signal
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from typing import Any, Final

import trio

from dspex_trio.children import ChildFailed, ChildLost
from dspex_trio.children.forking import open_starter
from dspex_trio.executors.alone import Alone, open_alone
from dspex_trio.executors.fleet import Fleet, FleetSettings, open_fleet
from dspex_trio.executors.messages import Catalogue, Kind, LogLine, Opening, decode_records
from dspex_trio.executors.places import ExecutorSlot
from dspex_trio.executors.routing import Homes, Routed, Routing
from dspex_trio.executors.shared import NoJob, Shared
from dspex_trio.executors.store import replies_of
from dspex_trio.model import ToolSpec, TrialRequest
from dspex_trio.observing.records import Records
from dspex_trio.runtime.loading import CannotLoad
from dspex_trio.runtime.settings import Settings
from dspex_trio.sessions import Sessions
from dspex_trio.threads import Slots, StuckThread
from dspex_trio.trials import ReplyMargin, TrialRunner
from dspex_trio.trials.admission import Slot
from dspex_trio.trials.admission import Slots as AnySlots
from dspex_trio.trials.work import Work
from dspex_trio.wire import decode_any, decode_tool_spec
from dspex_trio.wire.generated import any_pb2, bridge_pb2

PREPARE: Final = "dspex_trio.executors.child:prepare"
SERVE: Final = "dspex_trio.executors.child:open_executor"
# Settings that differ in an executor: it has no server, and decides nothing that the front decides.
_OF_AN_EXECUTOR: Final[Mapping[str, Any]] = {
    "isolation": "thread",
    "isolate": (),
    "executors": None,
    "metrics_port": None,
    "record": None,
    "persist": None,
    "max_stuck_threads": None,
}
_FRAME_ROOM: Final = 1 << 20  # what frames may have beside the longest outcome, in bytes


def cores() -> int:
    """How many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def homes_here() -> Mapping[str, list[str]]:
    """Where programs and tools are registered in this process, if anything that registers them was imported."""
    registry = sys.modules.get("dspex_trio.programs.registry")
    return {} if registry is None else registry.homes()


def log_line(data: bytes) -> None:
    """Log what an executor wants to have logged."""
    line = LogLine.from_bytes(data)
    logging.getLogger(line.logger).log(line.level, "%s", line.text)


def opening(settings: Settings, slots: int, homes: Mapping[str, list[str]], *, records: bool = False) -> Opening:
    """What an executor with so many slots is opened with."""
    changed = {**_OF_AN_EXECUTOR, "max_trials": slots, "max_queue": slots}
    return Opening(
        settings={**settings.model_dump(mode="json"), **changed},
        path=[str(entry) for entry in sys.path],
        homes=homes,
        log_level=logging.getLogger().getEffectiveLevel(),
        slots=slots,
        records=records,
    )


@contextmanager
def loading_children() -> Iterator[None]:
    """Raise CannotLoad for what child processes cannot load, or for why none can be started."""
    try:
        yield
    except ChildFailed as error:
        known = error.error_type.startswith("dspex_trio.")
        raise CannotLoad(error.message if known else f"no executor can be started: {error}") from None
    except ChildLost as error:
        raise CannotLoad(f"no executor can be started: {error}") from None


@asynccontextmanager
async def open_executors(
    settings: Settings,
    margin: ReplyMargin,
    on_late_end: Callable[[TrialRequest, Mapping[str, str]], None],
    *,
    records: Records | None,
) -> AsyncIterator[InExecutors]:
    """Executors as the settings say; they start, and are ready later.

    Args:
        settings: What the operator chose.
        margin: Says how long a cancelled trial waits for its executor.
        on_late_end: Called with a trial's details when threads that went on after it have ended.
        records: Where trials are recorded.
    """
    homes = Homes(homes_here)
    count = settings.executors or min(cores(), settings.max_trials)

    def opened(slots: int) -> bytes:
        return opening(settings, slots, homes(), records=records is not None).to_bytes()

    def note(data: bytes) -> None:
        assert records is not None, "executors make records only if asked to"  # noqa: S101 - our own bug
        for line in decode_records(data):
            records.add_line(line)

    async with AsyncExitStack() as stack:
        starter = await stack.enter_async_context(open_starter(PREPARE, SERVE, lambda: opened(1)))
        fleet = await stack.enter_async_context(
            open_fleet(
                starter,
                opened,
                FleetSettings(
                    executors=count,
                    slots=settings.max_trials,
                    grace=settings.executor_grace_seconds,
                    max_stuck=settings.max_stuck_threads or max(settings.max_trials // count, 1),
                    max_memory=None
                    if settings.max_executor_memory_mb is None
                    else settings.max_executor_memory_mb << 20,
                    max_answers=settings.max_trials_per_child,
                    max_bytes=settings.max_message_bytes + _FRAME_ROOM,
                ),
                on_log=log_line,
                on_note=note,
            )
        )
        here = InExecutors(settings, fleet, margin.patience, on_late_end, homes)
        here.alone = await stack.enter_async_context(
            open_alone(
                settings,
                starter,
                lambda: opened(1),
                here.routing,
                reply=here.reply,
                patience=margin.patience,
                on_log=log_line,
                on_note=note,
            )
        )
        yield here


class InExecutors:
    """Runs programs in executor processes; made by `open_executors`.

    Attributes:
        slots: Where trials run.
        alone: Runs those trials that have a process to themselves.
        routing: Knows which these are.
    """

    out_of_process = True
    alone: Alone

    def __init__(
        self,
        settings: Settings,
        fleet: Fleet,
        patience: Callable[[float | None], float],
        on_late_end: Callable[[TrialRequest, Mapping[str, str]], None],
        homes: Homes,
    ) -> None:
        self.slots: AnySlots = Slots(settings.max_trials) if settings.isolation == "process" else fleet
        self.routing = Routing(settings, self._isolation_of, lambda: bool(self._catalogue.isolated), homes)
        self._fleet = fleet
        self._catalogue = Catalogue()
        self._reply: Callable[[bytes], Awaitable[bytes]] | None = None
        self._shared = Shared(settings, fleet, self.reply, patience, homes, on_late_end=on_late_end)

    def _isolation_of(self, python_class: str) -> str | None:
        return "process" if python_class in self._catalogue.isolated else None

    async def ready(self) -> None:
        """Wait until programs can be run.

        Raises:
            CannotLoad: They cannot; says why.
        """
        with loading_children():
            self._catalogue = Catalogue.from_bytes(await self._fleet.ready())
            if self.routing.any_alone():
                await self.alone.ready()

    def runner(self, sessions: Sessions) -> TrialRunner:
        """Runs trials; executors reach the store of these sessions through this process."""
        self._reply = replies_of(sessions.store)
        return Routed(self.routing, self.alone, self._shared)

    async def reply(self, data: bytes) -> bytes:
        """Reply to an executor's call of the session store."""
        assert self._reply is not None, "trials run once there is a store"  # noqa: S101 - our own bug
        return await self._reply(data)

    def job(self, _name: str, _request: TrialRequest | None = None) -> NoJob:
        """The work of a trial in this process: none."""
        return NoJob()

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
            RemoteFailure, WorkerLost: As `Shared.call` says.
        """
        there = slot if isinstance(slot, ExecutorSlot) else self._fleet.beside()
        return await self._shared.call(Kind.TOOL, name, arguments, work.scope.deadline, there, take=take)

    def loop_was_late(self, seconds: float) -> None:
        """Does nothing: no program computes in the interpreter of this process."""

    def stuck(self) -> list[StuckThread]:
        """None: threads that cannot be ended are in executors, which are replaced for it."""
        return []

    def show_stacks(self) -> None:
        """Have executors write their threads' stacks to standard error, also those in which C code runs."""
        self._fleet.send_signal(signal.SIGUSR1)

    # ---- what is registered

    def programs(self) -> list[dict[str, Any]]:
        """The registered programs, described."""
        return self._catalogue.programs

    def tool_specs(self) -> list[ToolSpec]:
        """The registered tools."""
        return _specs(self._catalogue.tools)

    # ---- functions that stand in for Elixir tools, as the store calls them

    def specs(self) -> Iterable[ToolSpec]:
        """How they are described."""
        return _specs(self._catalogue.stand_ins)

    def __contains__(self, name: str) -> bool:
        return any(spec.name == name for spec in self.specs())

    async def call(self, name: str, arguments: Mapping[str, Any]) -> Any:
        """Call one in some executor; raises what `Shared.call` does."""
        deadline = trio.current_effective_deadline()
        found = await self._shared.call(Kind.STAND_IN, name, arguments, deadline, self._fleet.beside())
        return None if found is None else decode_any(found)


def _specs(encoded: list[str]) -> list[ToolSpec]:
    return [decode_tool_spec(bridge_pb2.ToolSpec.FromString(base64.b64decode(each))) for each in encoded]
