"""The caller's side: trials and session variables over gRPC, for orchestrators in Python."""

from __future__ import annotations

import ssl
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from types import NoneType
from typing import TYPE_CHECKING, Any, Final

from dspex_trio import rpc
from dspex_trio.interface.arguments import check_callback, check_telemetry, check_type, needs_trio
from dspex_trio.model import EventCallback, Program, TrialOptions, TrialOutcome, TrialRequest, check_trial
from dspex_trio.model.errors import ValueNotDecodable
from dspex_trio.rpc.client.stubs import Caller
from dspex_trio.rpc.client.target import Target
from dspex_trio.sessions import STORE_CHANNEL, SessionContext, Sessions
from dspex_trio.wire import decode_event, decode_outcome, encode_request, program_from_json
from dspex_trio.wire.generated.bridge_grpc import BridgeServiceStub
from dspex_trio.wire.generated.program_grpc import SnakepitBridgeStub
from dspex_trio.wire.generated.program_pb2 import ExecuteProgramRequest, ExecuteProgramResponse

if TYPE_CHECKING:
    from dspex_trio.observing.telemetry.providers import Telemetry

_NO_OPTIONS: Final = TrialOptions()


@asynccontextmanager
async def open_client(
    target: Target,
    *,
    store: Target | None = None,
    tls: ssl.SSLContext | None = None,
    token: str | None = None,
    settings: rpc.ChannelSettings | None = None,
    telemetry: Telemetry | None = None,
) -> AsyncIterator[Client]:
    """A client of the worker at `target`; it connects with the first call, and again whenever that is needed.

    At the end of the block, calls that still run are given up.

    Args:
        target: The worker: "host:port", "unix:path", a function that opens a stream, or several of these, over which
            trials are spread.
        store: The session store of the worker, if it is not the worker's own.
        tls: Makes it TLS.
        token: A bearer token, sent with every call; it wants TLS unless the worker is on this machine.
        settings: Limits and habits of the connection.
        telemetry: Makes a span of every call, whose context goes along as `traceparent`.

    Raises:
        RuntimeError: No Trio runs here.
        TypeError: An argument is of the wrong type.
        ValueError: A target is no address.
    """
    needs_trio("open_client")
    check_type("token", token, (str, NoneType), "text")
    check_telemetry(telemetry)
    async with AsyncExitStack() as stack:
        channel = await stack.enter_async_context(
            rpc.open_channel(target, tls=tls, settings=settings or rpc.ChannelSettings())
        )
        bridge = channel
        if store is not None:
            bridge = await stack.enter_async_context(
                rpc.open_channel(store, tls=tls, settings=settings or STORE_CHANNEL)
            )
        where = target if store is None else store
        name = where if isinstance(where, str) else "the given address"
        yield Client(
            SnakepitBridgeStub(_caller(channel, token, telemetry)),
            Sessions(BridgeServiceStub(_caller(bridge, token, telemetry)), where=name, link=bridge),
        )


def _caller(channel: rpc.Channel, token: str | None, telemetry: Telemetry | None) -> Caller:
    caller = channel if telemetry is None else telemetry.channel(channel)
    return caller if token is None else rpc.Attached(caller, lambda: {"authorization": f"Bearer {token}"})


class Client:
    """Executes trials and reaches sessions; made by `open_client`. Any number of tasks may use one."""

    def __init__(self, worker: SnakepitBridgeStub, sessions: Sessions) -> None:
        self._worker = worker
        self._sessions = sessions

    async def execute(
        self,
        program: Program | Mapping[str, Any],
        inputs: Mapping[str, Any],
        *,
        session_id: str = "",
        timeout: float | None = None,  # noqa: ASYNC109 - a field of the request, which the worker keeps
        trial_id: str = "",
        options: TrialOptions = _NO_OPTIONS,
        metadata: Mapping[str, str] | None = None,
        on_event: EventCallback | None = None,
    ) -> TrialOutcome:
        """Run one trial.

        The enclosing cancel scope's deadline travels along: the worker ends the trial by then, and its
        DEADLINE_EXCEEDED outcome arrives just before the scope itself would cancel. When this is cancelled, so is the
        trial.

        Args:
            program: What to run, as a Program or in its JSON form.
            inputs: Input field → value.
            session_id: The session whose variables the program is bound to.
            timeout: The trial's time in seconds from its arrival at the worker; the earlier of this and the enclosing
                scope's deadline rules.
            trial_id: Your name for the trial, echoed in the outcome and in the worker's logs.
            options: What the outcome leaves out.
            metadata: What to see again in logs and records.
            on_event: Called with what happens while the trial runs: stages, LM and tool calls, output as it comes.

        Raises:
            InvalidSpec: `program` is a mapping and not a program's JSON form, or holds what has no JSON form.
            InvalidInput: An input has no JSON form.
            TypeError: An argument is of the wrong type, or `on_event` does not take an event and its milliseconds.
            RuntimeError: No Trio runs here.
            rpc.RpcError: The call failed; nothing is known of what became of the trial.
        """
        needs_trio("execute")
        check_trial(program, inputs, session_id=session_id, trial_id=trial_id, options=options, metadata=metadata)
        check_type("timeout", timeout, (int, float, NoneType), "a number of seconds")
        if on_event is not None:
            check_callback("on_event", on_event, "event", "at_ms")
        request = TrialRequest(
            program=program if isinstance(program, Program) else program_from_json(program),
            inputs=inputs,
            session_id=session_id,
            trial_id=trial_id,
            metadata=metadata or {},
            options=options,
        )
        message = encode_request(request, timeout=timeout)
        try:
            if on_event is None:
                return decode_outcome(await self._worker.ExecuteProgram(message))
            return decode_outcome(await self._streamed(message, on_event))
        except ValueNotDecodable as error:
            raise rpc.RpcError(rpc.StatusCode.INTERNAL, f"the worker's reply cannot be decoded: {error}") from error

    async def _streamed(self, message: ExecuteProgramRequest, on_event: EventCallback) -> ExecuteProgramResponse:
        async with self._worker.StreamProgram(message) as events:
            async for event in events:
                if event.HasField("response"):
                    return event.response
                on_event(decode_event(event), event.at_ms)
        raise rpc.RpcError(rpc.StatusCode.INTERNAL, "the worker's stream ended without a response")

    def session(self, session_id: str) -> SessionContext:
        """The session of that id in the store, for its variables; the session itself need not exist."""
        return self._sessions.context(session_id)

    async def initialize_session(self, session_id: str, metadata: Mapping[str, str] | None = None) -> SessionContext:
        """Create a session in the store; one that exists keeps its variables.

        Raises:
            StoreUnavailable: The store cannot be reached or does not answer as a store.
            VariableInvalid: The store refuses the session.
        """
        session = self.session(session_id)
        await session.initialize(metadata)
        return session

    async def ping(self, message: str = "") -> str:
        """Ask the session store for a sign of life; returns its answer.

        Raises:
            StoreUnavailable: It cannot be reached.
        """
        return await self._sessions.ping(message)
