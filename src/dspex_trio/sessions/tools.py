"""Elixir tools of a session: listed, and called once each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

from dspex_trio import rpc
from dspex_trio.model import ToolSpec
from dspex_trio.model.errors import StoreUnavailable, ToolError, TrialError, ValueNotDecodable
from dspex_trio.sessions.calling import StoreCalls
from dspex_trio.sessions.link import Store
from dspex_trio.wire import decode_tool_result, decode_tool_spec, encode_tool_arguments
from dspex_trio.wire.generated import bridge_pb2

# These speak of the store and of the way to it; any other status is the tool's.
_STORES: frozenset[rpc.StatusCode] = frozenset(
    {
        rpc.StatusCode.UNAVAILABLE,
        rpc.StatusCode.CANCELLED,
        rpc.StatusCode.UNIMPLEMENTED,
        rpc.StatusCode.DEADLINE_EXCEEDED,
        rpc.StatusCode.UNAUTHENTICATED,
    }
)


class ElixirTools:
    """The tools of one store's sessions.

    Args:
        store: The store.
        calls: How it is called.
    """

    def __init__(self, store: Store, calls: StoreCalls) -> None:
        self._store = store
        self._calls = calls

    async def list(self, session_id: str) -> Sequence[ToolSpec]:
        """The tools that the session offers; raises VariableNotFound without a session, else StoreUnavailable."""
        request = bridge_pb2.GetExposedElixirToolsRequest(session_id=session_id)
        reply = await self._calls.reading(partial(self._store.GetExposedElixirTools, request))
        return [decode_tool_spec(message) for message in reply.tools]

    async def call(self, session_id: str, name: str, arguments: Mapping[str, Any]) -> Any:
        """Call a tool with plain arguments.

        It is never repeated: whether it ran is unknown when the connection broke.

        Raises:
            ToolError: The tool failed, is not there, or answers what cannot be decoded; the text is the tool's.
            StoreUnavailable: The store cannot be reached or has no tools.
        """
        request = bridge_pb2.ExecuteElixirToolRequest(
            session_id=session_id, tool_name=name, parameters=encode_tool_arguments(arguments)
        )
        try:
            reply = await self._store.ExecuteElixirTool(request)
        except rpc.RpcError as error:
            raise await self._to_tool_error(name, error) from error
        if not reply.success:
            raise ToolError(_about_tool(name, reply.error_message or "it failed, and does not say why"))
        try:
            return decode_tool_result(reply.result, reply.binary_result)
        except ValueNotDecodable as error:
            raise ToolError(_about_tool(name, f"its answer cannot be decoded: {error}")) from None

    async def _to_tool_error(self, name: str, error: rpc.RpcError) -> TrialError:
        if error.status not in _STORES:
            return ToolError(_about_tool(name, error.message or error.status.name))
        meant = await self._calls.to_trial_error(error)
        return StoreUnavailable(_about_tool(name, str(meant)), retryable=meant.retryable)


def _about_tool(name: str, message: str) -> str:
    return f"Elixir tool {name!r}: {message}"
