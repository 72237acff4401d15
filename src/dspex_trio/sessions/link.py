"""What a session needs of its store: the calls of `BridgeService`, over whatever carries them."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Any, Final, Protocol, TypeAlias, TypeVar

from dspex_trio import rpc
from dspex_trio.wire.generated import bridge_pb2

STORE_CHANNEL: Final = rpc.ChannelSettings(
    connect_timeout=5.0,
    # A store that restarts is back within a second or two, and trials are waiting for it.
    backoff_base=0.05,
    backoff_multiplier=2.0,
    backoff_max=0.5,
    # A connection that died silently is noticed while a trial still has time for another try.
    keepalive_time=10.0,
    keepalive_timeout=5.0,
    # A tool may take its time, and a watch may have nothing to tell.
    max_pings_without_data=3,
)
"""How a channel to a store should behave."""


class ConnectionState(Protocol):
    """The state of the connection to a store; implemented by `rpc.Channel`."""

    @property
    def failure(self) -> str | None:
        """Why there is no connection; None while there is one, or when that is not known."""
        ...

    async def connected(self) -> None:
        """Wait until there is a connection."""
        ...


@dataclass(frozen=True, slots=True)
class ElixirToolsElsewhere:
    """Where Elixir tools are, when they are not in the store.

    Attributes:
        store: Lists and calls them; asked for nothing else.
        where: Its address, for messages.
        link: What is known of the connection to it, if anything is.
    """

    store: Store
    where: str
    link: ConnectionState | None = None


RequestT = TypeVar("RequestT")
RequestT_contra = TypeVar("RequestT_contra", contravariant=True)
ReplyT_co = TypeVar("ReplyT_co", covariant=True)
ReplyT = TypeVar("ReplyT")
UnaryCall: TypeAlias = Callable[[RequestT], Awaitable[ReplyT]]


class SeveralCalls(Protocol[RequestT_contra, ReplyT_co]):
    """A unary call that can be made several times at once."""

    async def each(
        self, requests: Sequence[RequestT_contra], answered: Callable[[int, ReplyT_co | rpc.RpcError], None]
    ) -> None:
        """Make a call for each request, and report each as it ends."""
        ...


class Store(Protocol):
    """The part of `BridgeServiceStub` that sessions use; its calls raise `rpc.RpcError`."""

    @property
    def Ping(self) -> UnaryCall[bridge_pb2.PingRequest, bridge_pb2.PingResponse]: ...  # noqa: N802
    @property
    def InitializeSession(  # noqa: N802
        self,
    ) -> UnaryCall[bridge_pb2.InitializeSessionRequest, bridge_pb2.InitializeSessionResponse]: ...
    @property
    def CleanupSession(  # noqa: N802
        self,
    ) -> UnaryCall[bridge_pb2.CleanupSessionRequest, bridge_pb2.CleanupSessionResponse]: ...
    @property
    def GetSession(self) -> UnaryCall[bridge_pb2.GetSessionRequest, bridge_pb2.GetSessionResponse]: ...  # noqa: N802
    @property
    def GetVariable(self) -> SeveralCalls[bridge_pb2.GetVariableRequest, bridge_pb2.GetVariableResponse]: ...  # noqa: N802
    @property
    def SetVariable(self) -> UnaryCall[bridge_pb2.SetVariableRequest, bridge_pb2.SetVariableResponse]: ...  # noqa: N802
    @property
    def GetVariables(  # noqa: N802
        self,
    ) -> UnaryCall[bridge_pb2.BatchGetVariablesRequest, bridge_pb2.BatchGetVariablesResponse]: ...
    @property
    def SetVariables(  # noqa: N802
        self,
    ) -> UnaryCall[bridge_pb2.BatchSetVariablesRequest, bridge_pb2.BatchSetVariablesResponse]: ...
    @property
    def RegisterVariable(  # noqa: N802
        self,
    ) -> UnaryCall[bridge_pb2.RegisterVariableRequest, bridge_pb2.RegisterVariableResponse]: ...
    @property
    def ListVariables(  # noqa: N802
        self,
    ) -> UnaryCall[bridge_pb2.ListVariablesRequest, bridge_pb2.ListVariablesResponse]: ...
    @property
    def DeleteVariable(  # noqa: N802
        self,
    ) -> UnaryCall[bridge_pb2.DeleteVariableRequest, bridge_pb2.DeleteVariableResponse]: ...
    @property
    def GetExposedElixirTools(  # noqa: N802
        self,
    ) -> UnaryCall[bridge_pb2.GetExposedElixirToolsRequest, bridge_pb2.GetExposedElixirToolsResponse]: ...
    @property
    def ExecuteElixirTool(  # noqa: N802
        self,
    ) -> UnaryCall[bridge_pb2.ExecuteElixirToolRequest, bridge_pb2.ExecuteElixirToolResponse]: ...
    @property
    def WatchVariables(  # noqa: N802
        self,
    ) -> Callable[
        [bridge_pb2.WatchVariablesRequest], AbstractAsyncContextManager[AsyncIterator[bridge_pb2.VariableUpdate]]
    ]: ...


class TwoStores:
    """A store whose Elixir tools are elsewhere, as one; a `Store`."""

    def __init__(self, store: Store, tools: Store) -> None:
        self._store = store
        self._tools = tools

    def __getattr__(self, call: str) -> Any:
        """The call of that name, at whichever of the two it is for."""
        return getattr(self._tools if call in _TOOL_CALLS else self._store, call)


_TOOL_CALLS: Final = frozenset({"GetExposedElixirTools", "ExecuteElixirTool"})
