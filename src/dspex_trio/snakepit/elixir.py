"""The worker's side towards Elixir: wait for its BridgeServer, introduce the worker, ask for signs of life."""

from __future__ import annotations

import logging
import re
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Final, Protocol, TypeVar

import trio
from google.protobuf.message import Message

from dspex_trio import rpc
from dspex_trio.snakepit.pool import HeartbeatPolicy
from dspex_trio.wire.generated import bridge_pb2, timestamp_pb2

logger: Final = logging.getLogger(__name__)

MAX_SESSIONS: Final = 64
"""The most sessions that are made known in Elixir; a pool has one for each worker."""

CONTACT_SECONDS: Final = 60.0
"""A dependent worker ends when Elixir does not answer for so long after the start."""

AGAIN_SECONDS: Final = 0.25
"""How long to wait after a connection broke under a call; until there is a new one, the channel waits by itself."""

# What Elixir takes for a tool's name. It registers all tools of a call or none of them.
_TOOL_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}", re.ASCII)

# Elixir is not there. Any other status is an answer.
_AWAY: Final = frozenset({rpc.StatusCode.UNAVAILABLE, rpc.StatusCode.CANCELLED, rpc.StatusCode.DEADLINE_EXCEEDED})

ReplyT = TypeVar("ReplyT")


class Bridge(Protocol):
    """The part of `BridgeServiceStub` that the worker needs for itself."""

    @property
    def Ping(self) -> Callable[..., Awaitable[bridge_pb2.PingResponse]]: ...  # noqa: N802
    @property
    def InitializeSession(self) -> Callable[..., Awaitable[bridge_pb2.InitializeSessionResponse]]: ...  # noqa: N802
    @property
    def RegisterTools(self) -> Callable[..., Awaitable[bridge_pb2.RegisterToolsResponse]]: ...  # noqa: N802
    @property
    def Heartbeat(self) -> Callable[..., Awaitable[bridge_pb2.HeartbeatResponse]]: ...  # noqa: N802


@dataclass(slots=True)
class Contact:
    """How things stand with Elixir.

    Attributes:
        answered: When it last answered, on Trio's clock; None for never.
        missed: Heartbeats missed since then.
    """

    answered: float | None = None
    missed: int = 0


class Elixir:
    """Elixir, as the worker sees it.

    Args:
        bridge: The stub of its BridgeServer, on a channel that goes on trying to connect.
        worker_id: What the worker calls itself there.
        tools: What the worker offers.
        policy: How to ask for signs of life.
        lost: Called once when Elixir is gone and the worker depends on it.
    """

    def __init__(
        self,
        bridge: Bridge,
        *,
        worker_id: str,
        tools: Sequence[bridge_pb2.ToolRegistration],
        policy: HeartbeatPolicy,
        lost: Callable[[], object],
    ) -> None:
        self.contact = Contact()
        self._bridge = bridge
        self._worker_id = worker_id
        self._tools = [tool for tool in tools if _TOOL_NAME.fullmatch(tool.name)]
        if others := [tool.name for tool in tools if tool not in self._tools]:
            logger.warning("these tools are not offered to Elixir, which would refuse their names: %.500r", others)
        self._policy = policy
        self._lost = lost
        self._session_id = worker_id  # until there is one
        self._known: dict[str, None] = {}  # in the order in which they came
        self._waiting: set[str] = set()
        self._send, self._new = trio.open_memory_channel[str](MAX_SESSIONS)

    def adopt(self, session_id: str) -> None:
        """The pool uses this session with the worker: Elixir should know it, and which tools it has."""
        if not session_id or session_id in self._known or len(self._known) >= MAX_SESSIONS:
            return
        if not self._known:
            self._session_id = session_id  # the worker's own: the pool's first call names it
        self._known[session_id] = None
        self._make_known_soon(session_id)

    async def run(self) -> None:
        """Wait for Elixir, then do all that; returns when Elixir is lost, else goes on until it is cancelled."""
        with trio.move_on_after(CONTACT_SECONDS if self._depends else float("inf")) as waiting:
            await self._answer(self._bridge.Ping, bridge_pb2.PingRequest(message=self._worker_id))
        if waiting.cancelled_caught:
            logger.error("Elixir has not answered for %.0f s", CONTACT_SECONDS)
            self._lost()
            return
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._make_known)
            if self._policy.enabled:
                nursery.start_soon(self._beat, nursery.cancel_scope)

    @property
    def _depends(self) -> bool:
        return self._policy.enabled and self._policy.dependent

    # ---- sessions and tools

    def _make_known_soon(self, *session_ids: str) -> None:
        for session_id in session_ids:
            if session_id not in self._waiting:
                self._waiting.add(session_id)
                self._send.send_nowait(session_id)

    async def _make_known(self) -> None:
        async for session_id in self._new:
            await self._introduce(session_id)
            self._waiting.discard(session_id)

    async def _introduce(self, session_id: str) -> None:
        session = bridge_pb2.InitializeSessionRequest(session_id=session_id, metadata={"worker_id": self._worker_id})
        tools = bridge_pb2.RegisterToolsRequest(session_id=session_id, tools=self._tools, worker_id=self._worker_id)
        try:
            await self._answer(self._bridge.InitializeSession, session)
        except rpc.RpcError as error:
            if error.status is not rpc.StatusCode.ALREADY_EXISTS:  # as snakepit 0.4 says it
                logger.warning("Elixir does not take the session %.200r: %s", session_id, error)
        try:
            reply = await self._answer(self._bridge.RegisterTools, tools)
        except rpc.RpcError as error:
            logger.warning("Elixir does not take the worker's tools: %s", error)
        else:
            if not reply.success and "duplicate_tool" not in reply.error_message:
                logger.warning("Elixir does not take the worker's tools: %.500s", reply.error_message)

    async def _answer(self, call: Callable[..., Awaitable[ReplyT]], request: Message) -> ReplyT:
        """Make a call until Elixir answers it. A status other than of being away is an answer too, and raised."""
        while True:
            try:
                reply = await call(request, wait_for_ready=True)
            except rpc.RpcError as error:
                if error.status not in _AWAY:
                    self._answered()
                    raise
                logger.info("Elixir went away: %s", error)
                await trio.sleep(AGAIN_SECONDS)
            else:
                self._answered()
                return reply

    def _answered(self) -> None:
        self.contact.answered = trio.current_time()
        self.contact.missed = 0

    # ---- heartbeats

    async def _beat(self, everything: trio.CancelScope) -> None:
        policy = self._policy
        await trio.sleep(policy.initial_delay_ms / 1e3)
        while True:
            await self._ask_for_a_sign()
            if self.contact.missed >= max(policy.max_missed_heartbeats, 1):
                logger.error("Elixir has missed %d heartbeats", self.contact.missed)
                if policy.dependent:
                    self._lost()
                    everything.cancel()
            await trio.sleep(policy.interval_ms / 1e3)

    async def _ask_for_a_sign(self) -> None:
        request = bridge_pb2.HeartbeatRequest(session_id=self._session_id, client_time=timestamp())
        self.contact.missed += 1
        to_be_known = bool(self._waiting)  # Elixir may look before it is told
        with trio.move_on_after(self._policy.timeout_ms / 1e3):
            try:
                valid = (await self._bridge.Heartbeat(request)).session_valid
            except rpc.RpcError as error:
                if error.status in _AWAY:
                    logger.warning("heartbeat to Elixir failed: %s", error)
                    return
                valid = True  # it does not say
            self._answered()
            if not valid and not to_be_known and not self._waiting:
                # Its session store was started anew. Snakepit's own worker makes the session one with each call.
                self._make_known_soon(*self._known)


def timestamp() -> timestamp_pb2.Timestamp:
    """Now."""
    return timestamp_pb2.Timestamp(seconds=int(time.time()))
