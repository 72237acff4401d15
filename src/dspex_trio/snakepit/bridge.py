"""`BridgeService` as a snakepit worker serves it: signs of life, sessions, tools and telemetry."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator
from contextlib import aclosing, contextmanager
from typing import Any, Final, cast

import trio

from dspex_trio import rpc
from dspex_trio.executors.shared import RemoteFailure
from dspex_trio.model import EventsDropped, TrialFailure, TrialOptions, Watch
from dspex_trio.model.errors import DeadlineExceeded, InvalidInput, SerializationFailed, Stage, ValueNotDecodable
from dspex_trio.observing import correlation
from dspex_trio.runtime.embedded import Take
from dspex_trio.runtime.streaming import Ended, streamed
from dspex_trio.snakepit import telemetry
from dspex_trio.snakepit.elixir import timestamp
from dspex_trio.snakepit.tools import Tools
from dspex_trio.snakepit.trial_tool import EXECUTE_PROGRAM, TrialTool
from dspex_trio.tasks.background import open_background
from dspex_trio.trials import failure_of
from dspex_trio.wire import decode_tool_arguments, encode_json, encode_tool_spec, event_to_json, in_full
from dspex_trio.wire.anys import JSON_URL
from dspex_trio.wire.generated import any_pb2, bridge_pb2, timestamp_pb2
from dspex_trio.wire.generated.bridge_grpc import BridgeServiceServicer

MAX_SESSIONS: Final = 1024
"""The most sessions that are remembered; the oldest goes first."""

_MAP_URL: Final = "type.googleapis.com/snakepit.map"
# An empty Any, which means None elsewhere, is no JSON.
_NULL: Final = any_pb2.Any(type_url=JSON_URL, value=b"null")
# How long before its deadline a telemetry stream ends, in seconds.
_EARLIER: Final = 0.25
_BINARY_FORMATS: Final = frozenset({"", "raw", "binary"})
_MAX_NAME: Final = 100


class WorkerBridge(BridgeServiceServicer):
    """Answers a pool.

    A tool's failure is an answer, never a status: snakepit turns statuses into bare atoms, or falls over them.

    Args:
        tools: The tools but `execute_program`.
        trials: That one.
        adopted: Told of every session that the pool uses with this worker.
        redact: Takes secrets out of failures.
        max_bytes: The largest result.
    """

    def __init__(
        self,
        tools: Tools,
        trials: TrialTool,
        *,
        adopted: Callable[[str], object],
        redact: Callable[[str], str],
        max_bytes: int,
    ) -> None:
        self.telemetry = telemetry.ToolTelemetry()
        self._tools = tools
        self._trials = trials
        self._adopted = adopted
        self._redact = redact
        self._max_bytes = max_bytes
        self._sessions: dict[str, tuple[timestamp_pb2.Timestamp, dict[str, str]]] = {}

    # ---- signs of life and sessions

    async def Ping(self, request: bridge_pb2.PingRequest, call: rpc.Call) -> bridge_pb2.PingResponse:  # noqa: ARG002, N802
        """Answer the message."""
        return bridge_pb2.PingResponse(message=f"pong: {request.message}", server_time=timestamp())

    async def Heartbeat(  # noqa: N802
        self,
        request: bridge_pb2.HeartbeatRequest,  # noqa: ARG002
        call: rpc.Call,  # noqa: ARG002
    ) -> bridge_pb2.HeartbeatResponse:
        """Say that the worker is there. Any session is valid: a pool that is told otherwise kills the worker."""
        return bridge_pb2.HeartbeatResponse(server_time=timestamp(), session_valid=True)

    async def InitializeSession(  # noqa: N802
        self,
        request: bridge_pb2.InitializeSessionRequest,
        call: rpc.Call,  # noqa: ARG002
    ) -> bridge_pb2.InitializeSessionResponse:
        """Take note of a session, which Elixir is then told of; variables live over there."""
        if len(self._sessions) >= MAX_SESSIONS and request.session_id not in self._sessions:
            del self._sessions[next(iter(self._sessions))]
        self._sessions.setdefault(request.session_id, (timestamp(), dict(request.metadata)))
        self._adopted(request.session_id)
        tools = {spec.name: encode_tool_spec(spec) for spec in self._tools.specs()}
        return bridge_pb2.InitializeSessionResponse(success=True, available_tools=tools)

    async def GetSession(  # noqa: N802
        self,
        request: bridge_pb2.GetSessionRequest,
        call: rpc.Call,  # noqa: ARG002
    ) -> bridge_pb2.GetSessionResponse:
        """Describe a session that the pool initialised here."""
        if (found := self._sessions.get(request.session_id)) is None:
            raise rpc.RpcError(rpc.StatusCode.NOT_FOUND, "no such session was initialised here")
        created_at, metadata = found
        return bridge_pb2.GetSessionResponse(
            session_id=request.session_id,
            metadata=metadata,
            created_at=created_at,
            tool_count=len(self._tools.specs()),
        )

    async def CleanupSession(  # noqa: N802
        self,
        request: bridge_pb2.CleanupSessionRequest,
        call: rpc.Call,  # noqa: ARG002
    ) -> bridge_pb2.CleanupSessionResponse:
        """Forget a session."""
        found = self._sessions.pop(request.session_id, None)
        return bridge_pb2.CleanupSessionResponse(success=True, resources_cleaned=int(found is not None))

    # ---- tools

    async def RegisterTools(  # noqa: N802
        self,
        request: bridge_pb2.RegisterToolsRequest,
        call: rpc.Call,  # noqa: ARG002
    ) -> bridge_pb2.RegisterToolsResponse:
        """Answer with the tools that are here already: a worker's tools come from its own modules alone."""
        here = {spec.name for spec in self._tools.specs()}
        asked = [tool.name for tool in request.tools]
        if missing := [name for name in asked if name not in here]:
            message = f"this worker has no tools {', '.join(missing)}; its operator registers them (--load)"
            return bridge_pb2.RegisterToolsResponse(success=False, error_message=message)
        ids = {name: f"{request.session_id}:{name}" for name in asked}
        return bridge_pb2.RegisterToolsResponse(success=True, tool_ids=ids)

    async def ExecuteTool(  # noqa: N802
        self, request: bridge_pb2.ExecuteToolRequest, call: rpc.Call
    ) -> bridge_pb2.ExecuteToolResponse:
        """Call a tool. What goes wrong is `success=false` with a JSON object that snakepit understands."""
        with self._reported(request, call) as report:
            try:
                value = await self._run(request, call.deadline)
                report.size = len(value.value)
            except Exception as error:  # noqa: BLE001 - whatever it is, the caller gets it as an answer
                report.failed = True
                problem = encode_json(self._problem(error, request)).decode()
                return bridge_pb2.ExecuteToolResponse(
                    success=False, error_message=problem, execution_time_ms=report.milliseconds
                )
            return bridge_pb2.ExecuteToolResponse(success=True, result=value, execution_time_ms=report.milliseconds)

    async def ExecuteStreamingTool(  # noqa: N802
        self, request: bridge_pb2.ExecuteToolRequest, call: rpc.Call
    ) -> AsyncIterator[bridge_pb2.ToolChunk]:
        """Call a tool whose answer comes in chunks, each a JSON value, with an empty final one behind the last.

        `execute_program` tells its stages before its outcome. A tool that yields has a chunk for each value, made when
        the one before has left; any other tool has one. A failure is a chunk with the one key `error`. When the reader
        goes away, the tool is stopped.
        """
        with self._reported(request, call) as report:
            number = 0
            told = self._trial_chunks if request.tool_name == EXECUTE_PROGRAM else self._tool_chunks
            async with aclosing(told(request, call.deadline, report)) as chunks:
                async for data in chunks:
                    yield bridge_pb2.ToolChunk(chunk_id=str(number), data=data)  # noqa: ASYNC119 - the server closes it
                    number += 1
            yield bridge_pb2.ToolChunk(chunk_id=str(number), is_final=True)  # noqa: ASYNC119 - as above

    async def StreamTelemetry(  # noqa: N802
        self,
        requests: AsyncIterator[bridge_pb2.TelemetryControl],
        call: rpc.Call,
    ) -> AsyncIterator[bridge_pb2.TelemetryEvent]:
        """Tell of tool calls while the pool listens, as it says what it wants to hear.

        It ends in order a moment before the caller's deadline: a pool gives it one of five seconds, and warns of a
        stream that ends in another way.
        """
        async with open_background() as nursery:
            with self.telemetry.listening() as listener:
                nursery.start_soon(_obey, listener, requests)
                nursery.start_soon(_end_at, listener, call.deadline - _EARLIER)
                async for event in listener.events:
                    yield event  # noqa: ASYNC119 - the server closes what it does not read to its end

    # ---- inside

    async def _run(self, request: bridge_pb2.ExecuteToolRequest, deadline: float) -> any_pb2.Any:
        """Call the tool; returns its result, of which snakepit reads the value alone, as JSON.

        What has become of it by its deadline is answered after that, too: a pool waits for twice as long.
        """
        arguments = _arguments(request)
        if request.tool_name == EXECUTE_PROGRAM:
            return any_pb2.Any(type_url=_MAP_URL, value=await self._trials(arguments, deadline=deadline))
        with trio.CancelScope(deadline=deadline):
            result = await self._tools.call(request.tool_name, arguments)
            assert result is not None, "nothing takes what it yields"  # noqa: S101 - our own bug, never the user's
            return self._checked(result)
        raise DeadlineExceeded(f"the deadline of {request.tool_name[:_MAX_NAME]} passed")

    def _checked(self, value: any_pb2.Any) -> any_pb2.Any:
        if len(value.value) > self._max_bytes:
            raise SerializationFailed(
                f"the result has {len(value.value)} bytes, and the limit is {self._max_bytes} (--max-message-bytes)"
            )
        return value if value.value else _NULL

    async def _trial_chunks(
        self, request: bridge_pb2.ExecuteToolRequest, deadline: float, report: _Report
    ) -> AsyncGenerator[bytes, None]:
        async def run(watch: Watch) -> bytes:
            try:
                return await self._trials(_arguments(request), watch, deadline=deadline)
            except Exception as error:  # noqa: BLE001 - as in ExecuteTool
                return self._failed(error, request, report)

        async with aclosing(streamed(run, arrived=trio.current_time())) as events:
            async for at_ms, event in events:
                if isinstance(event, Ended):
                    report.size = len(event.result)
                    outcome = b'{"response":%b,"at_ms":%.3f}' % (event.result, at_ms)
                    yield event.result if report.failed else outcome  # noqa: ASYNC119 - closed by who reads it
                    return
                data = encode_json(event_to_json(event, at_ms))
                if len(data) > self._max_bytes:
                    data = encode_json(event_to_json(EventsDropped(1), at_ms))
                yield data  # noqa: ASYNC119 - as above

    async def _tool_chunks(
        self, request: bridge_pb2.ExecuteToolRequest, deadline: float, report: _Report
    ) -> AsyncGenerator[bytes, None]:
        # Nothing waits in between: a tool goes on once its value is on the way.
        send, receive = trio.open_memory_channel[bytes](0)

        async def take(value: any_pb2.Any) -> None:
            data = self._checked(value).value
            report.size += len(data)
            await send.send(data)

        async def call(take: Take) -> None:
            with trio.CancelScope(deadline=deadline) as scope:
                result = await self._tools.call(request.tool_name, _arguments(request), take)
                if result is not None:
                    await take(result)
            if scope.cancelled_caught:
                raise DeadlineExceeded(f"the deadline of {request.tool_name[:_MAX_NAME]} passed")

        async def run() -> None:
            async with send:
                try:
                    await call(take)
                except Exception as error:  # noqa: BLE001 - as in ExecuteTool
                    await send.send(self._failed(error, request, report))

        async with open_background() as nursery, receive:
            nursery.start_soon(run)
            async for data in receive:
                yield data  # noqa: ASYNC119 - closed by who reads it

    def _failed(self, error: Exception, request: bridge_pb2.ExecuteToolRequest, report: _Report) -> bytes:
        """The chunk that carries a failure."""
        report.failed = True
        return encode_json({"error": self._problem(error, request)})

    def _problem(self, error: Exception, request: bridge_pb2.ExecuteToolRequest) -> dict[str, Any]:
        """An error in the form of snakepit's own workers."""
        if isinstance(error, RemoteFailure):
            failure = cast("TrialFailure", in_full(error.failure, TrialOptions(), self._max_bytes))
        else:
            failure = failure_of(error, Stage.EXECUTE, redact=self._redact)
        return {
            "type": failure.error_type.rpartition(".")[2],
            "message": failure.error_message,
            "stacktrace": failure.traceback.splitlines(),
            "traceback": failure.traceback,
            "context": {
                "tool": request.tool_name,
                "session_id": request.session_id,
                "correlation_id": correlation.current(),
                "kind": failure.kind.name,
                "retryable": failure.retryable,
            },
        }

    @contextmanager
    def _reported(self, request: bridge_pb2.ExecuteToolRequest, call: rpc.Call) -> Iterator[_Report]:
        """Run a tool call under its correlation id, and send its telemetry events."""
        self._adopted(request.session_id)
        given = request.metadata.get(correlation.METADATA_KEY) or call.metadata.get(correlation.HEADER)
        about = {"tool": request.tool_name[:_MAX_NAME], "session_id": request.session_id}
        with correlation.correlated(given):
            self.telemetry.tell(telemetry.START, {"count": 1}, about)
            report = _Report()
            yield report
            if report.failed:
                self.telemetry.tell(telemetry.EXCEPTION, {"count": 1}, about)
            else:
                duration = round(report.seconds * 1e9)
                self.telemetry.tell(telemetry.STOP, {"count": 1, "duration": duration}, about)
                self.telemetry.tell(telemetry.RESULT_SIZE, {"message_size": report.size}, about)


class _Report:
    """How a tool call went.

    Attributes:
        failed: Whether it did.
        size: The bytes of its answer.
    """

    def __init__(self) -> None:
        self.failed = False
        self.size = 0
        self._began = trio.current_time()

    @property
    def seconds(self) -> float:
        """How long it has taken."""
        return trio.current_time() - self._began

    @property
    def milliseconds(self) -> int:
        """How long it has taken, rounded."""
        return round(self.seconds * 1e3)


async def _end_at(listener: telemetry.TelemetryListener, when: float) -> None:
    await trio.sleep_until(when)
    listener.end()


async def _obey(listener: telemetry.TelemetryListener, controls: AsyncIterator[bridge_pb2.TelemetryControl]) -> None:
    async for control in controls:
        listener.control(control)


def _arguments(request: bridge_pb2.ExecuteToolRequest) -> dict[str, Any]:
    """The tool's arguments; the binary ones as bytes. Nothing is ever unpickled."""
    try:
        arguments = decode_tool_arguments(request.parameters)
    except ValueNotDecodable as error:
        raise InvalidInput(str(error)) from None
    for name, value in request.binary_parameters.items():
        if request.metadata.get(f"binary_format:{name}", "raw") not in _BINARY_FORMATS:
            raise InvalidInput(f"binary parameter {name[:_MAX_NAME]!r} is not in a format that is safe to read")
        arguments[name] = value
    return arguments
