"""Reading several variables at once: one batch where the store has it, else concurrent calls, else an Elixir tool."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from functools import partial
from typing import Final

from dspex_trio import rpc
from dspex_trio.model.errors import NoVariables, StoreUnavailable, ValueNotDecodable, VariableNotFound
from dspex_trio.sessions.calling import StoreCalls
from dspex_trio.sessions.link import ConnectionState, Store
from dspex_trio.wire import decode_tool_result, encode_tool_arguments, encode_typed
from dspex_trio.wire.generated import bridge_pb2

# What snakepit 0.13 answers to a call of a tool in a session that it does not have, and what ours does. A tool's own
# failure, or one that is missing, may speak of sessions too.
_NO_SESSION: Final = re.compile(r"(session_)?not_found$|Session not found")
_NO_TOOL: Final = re.compile(r"\W*tool_not_found|Tool not found")


class VariableReader:
    """Reads variables from one store, and remembers what that store cannot do until the connection is lost.

    Args:
        store: The store.
        where: Its address, for messages.
        max_reads: The most GetVariable calls of one read at the same time.
        patience: The most seconds to go on trying a store that cannot be reached.
        variables_tool: An Elixir tool that answers `{"names": [...]}` with a JSON object of values; for stores that
            have no variables.
        link: What is known of the connection to the store, if anything is.
        tool_calls: How Elixir tools are called, where they are elsewhere.
    """

    def __init__(
        self,
        store: Store,
        where: str,
        max_reads: int,
        patience: float,
        variables_tool: str | None,
        *,
        link: ConnectionState | None = None,
        tool_calls: StoreCalls | None = None,
    ) -> None:
        self.calls = StoreCalls(where, patience, self._forget, link)
        self._reading = self.calls if variables_tool is None or tool_calls is None else tool_calls
        self._store = store
        self._max_reads = max_reads
        self._tool = variables_tool
        self._has_batch = True

    async def read(self, session_id: str, identifiers: Sequence[str]) -> dict[str, bridge_pb2.Variable | None]:
        """Identifier → variable; None for one that the store does not have. Every value is read after the call began.

        Raises:
            VariableNotFound: The store does not have the session.
            NoVariables: The store does not have variables at all.
            StoreUnavailable: The store cannot be reached or does not answer as a store.
        """
        if self._tool is not None:
            return await self._reading.reading(partial(self._read_by_tool, self._tool, session_id, identifiers))
        return await self.calls.reading(partial(self._read_once, session_id, identifiers))

    def away(self, since: float) -> str | None:
        """Why what answers reads could not be reached at some time since then; None if nobody knows that."""
        return self._reading.away(since)

    def _forget(self) -> None:
        self._has_batch = True

    async def _read_once(self, session_id: str, identifiers: Sequence[str]) -> dict[str, bridge_pb2.Variable | None]:
        if not self._has_batch:
            return await self._read_each(session_id, identifiers)
        request = bridge_pb2.BatchGetVariablesRequest(
            session_id=session_id, variable_identifiers=identifiers, include_metadata=True, bypass_cache=True
        )
        try:
            reply = await self._store.GetVariables(request)
        except rpc.RpcError as error:
            if error.status is not rpc.StatusCode.UNIMPLEMENTED:
                raise
            self._has_batch = False
            return await self._read_each(session_id, identifiers)
        missing = set(reply.missing_variables)
        found: dict[str, bridge_pb2.Variable | None] = dict.fromkeys(identifiers)
        unsaid = []
        for identifier in identifiers:
            if identifier in reply.variables:
                found[identifier] = reply.variables[identifier]
            elif identifier not in missing:
                unsaid.append(identifier)
        if unsaid:
            # Snakepit 0.4 leaves out what it cannot encode; asked for alone it says why.
            found |= await self._read_each(session_id, unsaid)
        return found

    async def _read_each(self, session_id: str, identifiers: Iterable[str]) -> dict[str, bridge_pb2.Variable | None]:
        """A call for each variable, a bounded number at a time; the first error ends them all.

        Of errors that came together, the one of the variable that was asked for first is raised.
        """
        found: dict[str, bridge_pb2.Variable | None] = dict.fromkeys(identifiers)
        names = list(found)
        for start in range(0, len(names), self._max_reads):
            found |= await self._read_at_once(session_id, names[start : start + self._max_reads])
        return found

    async def _read_at_once(self, session_id: str, names: Sequence[str]) -> dict[str, bridge_pb2.Variable | None]:
        found: dict[str, bridge_pb2.Variable | None] = dict.fromkeys(names)
        missing: dict[int, rpc.RpcError] = {}

        def answered(number: int, answer: bridge_pb2.GetVariableResponse | rpc.RpcError) -> None:
            if not isinstance(answer, rpc.RpcError):
                found[names[number]] = answer.variable
            elif answer.status is rpc.StatusCode.UNIMPLEMENTED:
                raise self.calls.no_variables("has no variable calls (snakepit 0.13 has none)") from answer
            elif answer.status is rpc.StatusCode.NOT_FOUND:
                missing[number] = answer
            else:
                raise answer

        await self._store.GetVariable.each(
            [
                bridge_pb2.GetVariableRequest(session_id=session_id, variable_identifier=name, bypass_cache=True)
                for name in names
            ],
            answered,
        )
        # Those that are not there tell alike whether the session is.
        if missing and await self._lacks_session(session_id, first := missing[min(missing)]):
            raise first
        return found

    async def _lacks_session(self, session_id: str, error: rpc.RpcError) -> bool:
        """Whether NOT_FOUND speaks of the session rather than of the variable; the text usually says."""
        text = error.message.lower()
        if text.startswith(("session", "variable")):
            return text.startswith("session")
        try:
            await self._store.GetSession(bridge_pb2.GetSessionRequest(session_id=session_id))
        except rpc.RpcError as answer:
            return answer.status is rpc.StatusCode.NOT_FOUND
        return False

    async def _read_by_tool(
        self, tool: str, session_id: str, identifiers: Sequence[str]
    ) -> dict[str, bridge_pb2.Variable | None]:
        request = bridge_pb2.ExecuteElixirToolRequest(
            session_id=session_id,
            tool_name=tool,
            parameters=encode_tool_arguments({"names": list(identifiers)}),
        )
        reply = await self._store.ExecuteElixirTool(request)
        if not reply.success:
            if _NO_SESSION.match(reply.error_message):
                text = f"session {session_id!r} is not in the store: {reply.error_message} (Elixir tool {tool!r})"
                raise VariableNotFound(text)
            text = f"the Elixir tool {tool!r} (--variables-tool), which reads the variables, failed"
            if _NO_TOOL.match(reply.error_message):
                raise NoVariables(f"{text}; there is none of that name: {reply.error_message}")
            raise StoreUnavailable(f"{text}: {reply.error_message}")
        try:
            values = decode_tool_result(reply.result, reply.binary_result)
        except ValueNotDecodable as error:
            text = f"the Elixir tool {tool!r} (--variables-tool) answers what cannot be decoded: {error}"
            raise StoreUnavailable(text, retryable=False) from None
        if not isinstance(values, dict):
            text = f"the Elixir tool {tool!r} (--variables-tool) answers no JSON object of variables"
            raise StoreUnavailable(text, retryable=False)
        return {
            name: bridge_pb2.Variable(name=name, value=encode_typed("", values[name])) if name in values else None
            for name in identifiers
        }
