"""A snakepit worker: a runtime behind both services, with the pool on one side and Elixir's store on the other."""

from __future__ import annotations

import os
import platform
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from functools import partial
from importlib import metadata
from typing import TYPE_CHECKING, Any, Final

import trio

from dspex_trio import rpc
from dspex_trio.observing import correlation
from dspex_trio.observing.telemetry import open_metrics
from dspex_trio.runtime.embedded import Runtime, open_runtime
from dspex_trio.runtime.serving import serve_runtime
from dspex_trio.runtime.settings import Settings
from dspex_trio.sessions import STORE_CHANNEL
from dspex_trio.snakepit.bridge import WorkerBridge
from dspex_trio.snakepit.elixir import Contact, Elixir
from dspex_trio.snakepit.guards import end_when_stuck
from dspex_trio.snakepit.pool import Pool
from dspex_trio.snakepit.tools import Tools
from dspex_trio.snakepit.trial_tool import TrialTool, room_for_json
from dspex_trio.tasks.background import open_background
from dspex_trio.wire import encode_tool_spec
from dspex_trio.wire.generated import bridge_pb2
from dspex_trio.wire.generated.bridge_grpc import BridgeServiceStub
from dspex_trio.wire.generated.program_grpc import SnakepitBridgeServicer

if TYPE_CHECKING:
    from dspex_trio.observing.telemetry.providers import Telemetry

# A standstill is not taken for one before so many seconds.
_LEAST_STANDSTILL: Final = 30.0
_POOLS_PATIENCE: Final = 2.0
_TOOL_CALLS: Final = frozenset(
    f"/snakepit.bridge.BridgeService/{name}" for name in ("ExecuteTool", "ExecuteStreamingTool")
)


async def serve_worker(  # noqa: ASYNC128 - serve_runtime tells when it has started
    settings: Settings,
    pool: Pool,
    *,
    stopping: trio.Event,
    lost: Callable[[], object],
    telemetry: Telemetry | None = None,
    on_open: Callable[[Runtime], object] = lambda _runtime: None,
    stacks_to: int = 2,
    task_status: trio.TaskStatus[list[rpc.Listener]] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Serve a pool until `stopping` is set and what is running has ended; see `serving.serve`.

    Args:
        settings: What the operator chose; its `store` is where variables live.
        pool: What the pool said.
        stopping: Set it to end in an orderly way.
        lost: Called once when Elixir is gone and the worker depends on it.
        telemetry: Where spans and metrics go; as `serving.serve` says.
        on_open: As `serving.serve` says.
        stacks_to: The descriptor that gets every thread's stack when the process is ended because it stands still.
        task_status: `started` gets the listeners once the server answers.

    Raises:
        OSError, CannotLoad, InvalidSettings, UnsupportedDspy: As `serving.serve` says.
    """
    async with AsyncExitStack() as stack:
        telemetry = await stack.enter_async_context(open_metrics(settings, telemetry))
        # Variables are in the store, Elixir's tools in the pool, also where the store is another one.
        tools = pool.address if pool.address and settings.store != pool.address else None
        runtime = await stack.enter_async_context(
            open_runtime(settings, tools=tools, telemetry=telemetry, front=settings.isolation != "thread")
        )
        on_open(runtime)
        contact: Contact | None = None
        own_tools = Tools(runtime, lambda: _status(runtime, pool, contact))
        adopted: Callable[[str], object] = _nobody
        background = await stack.enter_async_context(open_background())
        if pool.address:
            channel = await stack.enter_async_context(rpc.open_channel(pool.address, settings=STORE_CHANNEL))
            elixir = Elixir(
                BridgeServiceStub(channel),
                worker_id=f"dspex-trio-{os.getpid()}",
                tools=[_registration(tool) for tool in own_tools.specs()],
                policy=pool.heartbeats,
                lost=lost,
            )
            contact, adopted = elixir.contact, elixir.adopt
            background.start_soon(elixir.run)
            if pool.run_id and pool.heartbeats.enabled and pool.heartbeats.dependent:
                standstill = max(_LEAST_STANDSTILL, 2 * pool.heartbeats.silence)
                background.start_soon(end_when_stuck, standstill, stopping, stacks_to)
        room = room_for_json(settings)
        bridge = WorkerBridge(
            own_tools, TrialTool(runtime, room), adopted=adopted, redact=runtime.redact, max_bytes=room
        )
        background.start_soon(_end_telemetry, bridge, stopping)
        programs = [each for each in runtime.servicers if isinstance(each, SnakepitBridgeServicer)]
        await serve_runtime(
            runtime,
            [*programs, bridge],
            stopping=stopping,
            interceptors=[_correlate, partial(_watch_callers, runtime)],
            patience=pools_patience,
            task_status=task_status,
        )


def pools_patience(call: rpc.Call) -> float:
    """How many times the `grpc-timeout` of a call its caller waits: a pool twice for a tool, and never resets it."""
    return _POOLS_PATIENCE if call.method in _TOOL_CALLS else 1.0


def _nobody(_session_id: str) -> None:
    """There is no Elixir to be told of a session."""


async def _end_telemetry(bridge: WorkerBridge, stopping: trio.Event) -> None:
    await stopping.wait()
    bridge.telemetry.end()


async def _watch_callers(runtime: Runtime, call: rpc.Call, proceed: Callable[[], Awaitable[None]]) -> None:
    if call.method in _TOOL_CALLS:
        runtime.watch_caller(call)
    await proceed()


async def _correlate(call: rpc.Call, proceed: Callable[[], Awaitable[None]]) -> None:
    with correlation.correlated(call.metadata.get(correlation.HEADER)):
        await proceed()


def _registration(spec: Any) -> bridge_pb2.ToolRegistration:
    message = encode_tool_spec(spec)
    return bridge_pb2.ToolRegistration(
        name=message.name,
        description=message.description,
        parameters=message.parameters,
        supports_streaming=message.supports_streaming,
    )


def _status(runtime: Runtime, pool: Pool, contact: Contact | None) -> dict[str, Any]:
    settings = runtime.settings
    return {
        "pid": os.getpid(),
        "run_id": pool.run_id,
        "version": metadata.version("dspex-trio"),
        "python": platform.python_version(),
        "dspy": metadata.version("dspy"),
        "running": runtime.running,
        "max_trials": settings.max_trials,
        "max_queue": settings.max_queue,
        "store": settings.store,
        "elixir": None
        if contact is None
        else {
            "address": pool.address,
            "answered_ms_ago": None
            if contact.answered is None
            else round((trio.current_time() - contact.answered) * 1e3),
            "missed_heartbeats": contact.missed,
        },
    }
