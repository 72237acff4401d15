"""The sessions of one store: a bounded number of contexts over one connection."""

from __future__ import annotations

from functools import partial
from typing import Final, cast

import trio

from dspex_trio.sessions.calling import StoreCalls
from dspex_trio.sessions.context import SessionContext
from dspex_trio.sessions.decoded import DecodedVariables
from dspex_trio.sessions.link import ConnectionState, ElixirToolsElsewhere, Store, TwoStores
from dspex_trio.sessions.reading import VariableReader
from dspex_trio.sessions.tools import ElixirTools
from dspex_trio.wire.generated import bridge_pb2

MAX_ID_CHARS: Final = 512
"""The longest session id that is remembered."""


class Sessions:
    """Hands out session contexts; one that nobody asked for in a while is dropped, and made anew when it is asked for.

    Args:
        store: The store: a `BridgeServiceStub` on a channel with `STORE_CHANNEL`'s habits, or one in this process.
        where: The store's address, for messages.
        max_sessions: Contexts kept at once; the longest unused one goes first.
        idle_seconds: A context unused for so long is dropped.
        max_reads: The most calls of one read at the same time, where the store cannot read several variables at once.
        patience: The most seconds to go on trying a store that cannot be reached; a trial's deadline ends it earlier.
        variables_tool: An Elixir tool that reads the variables, for stores that have none.
        tools: Where Elixir tools are, if not in the store.
        link: What is known of the connection to the store, so that one that is away is not asked meanwhile.

    Attributes:
        store: The store.
    """

    def __init__(
        self,
        store: Store,
        *,
        where: str = "in this process",
        max_sessions: int = 1024,
        idle_seconds: float = 300.0,
        max_reads: int = 32,
        patience: float = 30.0,
        variables_tool: str | None = None,
        link: ConnectionState | None = None,
        tools: ElixirToolsElsewhere | None = None,
    ) -> None:
        calls = None
        if tools is not None:
            store = cast("Store", TwoStores(store, tools.store))
            calls = StoreCalls(tools.where, patience, link=tools.link)
        self.store: Final = store
        self._reader = VariableReader(store, where, max_reads, patience, variables_tool, link=link, tool_calls=calls)
        self._tools = ElixirTools(store, calls or self._reader.calls)
        self._decoded = DecodedVariables()
        self._max_sessions = max_sessions
        self._idle_seconds = idle_seconds
        self._contexts: dict[str, tuple[float, SessionContext]] = {}  # in the order of their last use

    def context(self, session_id: str) -> SessionContext:
        """The context of a session; the session itself need not exist."""
        now = trio.current_time()
        self._drop_idle(now)
        found = self._contexts.pop(session_id, None)
        context = (
            found[1]
            if found is not None
            else SessionContext(session_id, self.store, self._reader, self._tools, self._decoded)
        )
        if len(session_id) > MAX_ID_CHARS:
            return context  # callers choose ids; they must not choose how much is kept
        if len(self._contexts) >= self._max_sessions:
            del self._contexts[next(iter(self._contexts))]
        self._contexts[session_id] = (now, context)
        return context

    async def ping(self, message: str = "") -> str:
        """Ask the store for a sign of life; returns its answer.

        Raises:
            StoreUnavailable: The store cannot be reached or does not answer as a store.
        """
        request = bridge_pb2.PingRequest(message=message)
        reply = await self._reader.calls.reading(partial(self.store.Ping, request))
        return reply.message

    def __len__(self) -> int:
        return len(self._contexts)

    def _drop_idle(self, now: float) -> None:
        while self._contexts:
            session_id, (used, _) = next(iter(self._contexts.items()))
            if now - used < self._idle_seconds:
                return
            del self._contexts[session_id]
