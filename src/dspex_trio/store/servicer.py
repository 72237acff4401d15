"""`BridgeService` as a session store: sessions, variables and stand-ins for Elixir tools, with a real one's statuses.

The tools of workers, and telemetry, are UNIMPLEMENTED here.
"""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Callable, Collection, Iterable, Mapping
from functools import partial
from typing import Any, Final, Protocol

import trio

from dspex_trio import rpc
from dspex_trio.model import ToolSpec
from dspex_trio.model.errors import ToolError, ValueNotDecodable
from dspex_trio.model.values import plain, type_name
from dspex_trio.observing.redaction import Redactor
from dspex_trio.store.answering import DurableReply, as_status
from dspex_trio.store.in_process import in_process_stub
from dspex_trio.store.journal import Journal
from dspex_trio.store.memory import MemoryStore
from dspex_trio.store.messages import StoredMessages, timestamp
from dspex_trio.store.records import NotStored, Refused, StoreError
from dspex_trio.store.watching import Watch
from dspex_trio.wire import (
    decode_constraints,
    decode_stored,
    decode_tool_arguments,
    encode_tool_result,
    encode_tool_spec,
)
from dspex_trio.wire.generated import bridge_pb2
from dspex_trio.wire.generated.any_pb2 import Any as AnyMessage
from dspex_trio.wire.generated.bridge_grpc import BridgeServiceServicer

__all__ = ["SessionStore", "in_process_stub"]

_REDACT_SHAPES: Final = Redactor()


class ToolFunctions(Protocol):
    """Functions that stand in for Elixir tools."""

    def specs(self) -> Iterable[ToolSpec]:
        """How they are described."""
        ...

    def __contains__(self, name: str) -> bool: ...

    async def call(self, name: str, arguments: Mapping[str, Any]) -> Any:
        """Call one; raises what it raises."""
        ...


class SessionStore(BridgeServiceServicer):
    """Serves a store's sessions and variables.

    Args:
        memory: The store.
        journal: Where the store notes what must outlive the process; nobody is told of anything that is not safe there.
        tools: What stands in for Elixir tools; by default there are none.
        redact: Takes secrets out of what a tool's failure says.
    """

    def __init__(
        self,
        memory: MemoryStore,
        *,
        journal: Journal | None = None,
        tools: ToolFunctions | None = None,
        redact: Callable[[str], str] = _REDACT_SHAPES,
    ) -> None:
        self._memory = memory
        self._answer = DurableReply(journal)
        self._tools = tools
        self._redact = redact
        self._messages = StoredMessages()

    # ---- sessions

    async def Ping(self, request: bridge_pb2.PingRequest, call: rpc.Call) -> bridge_pb2.PingResponse:  # noqa: ARG002, N802
        """Answer `pong: ` and the message."""
        return bridge_pb2.PingResponse(message=f"pong: {request.message}", server_time=timestamp(time.time()))

    async def InitializeSession(  # noqa: N802
        self,
        request: bridge_pb2.InitializeSessionRequest,
        call: rpc.Call,  # noqa: ARG002
    ) -> bridge_pb2.InitializeSessionResponse:
        """Create a session; one that exists is no error and keeps its variables.

        `config.cache_ttl_seconds`, where it is not 0, is how long the session lives when nobody uses it.
        """
        async with self._answer:
            self._memory.initialize(
                request.session_id, request.metadata, idle_seconds=max(request.config.cache_ttl_seconds, 0)
            )
        return bridge_pb2.InitializeSessionResponse(success=True)

    async def CleanupSession(  # noqa: N802
        self,
        request: bridge_pb2.CleanupSessionRequest,
        call: rpc.Call,  # noqa: ARG002
    ) -> bridge_pb2.CleanupSessionResponse:
        """Remove a session; one that does not exist is no error."""
        async with self._answer:
            cleaned = self._memory.cleanup(request.session_id)
        return bridge_pb2.CleanupSessionResponse(success=True, resources_cleaned=cleaned)

    async def GetSession(  # noqa: N802
        self,
        request: bridge_pb2.GetSessionRequest,
        call: rpc.Call,  # noqa: ARG002
    ) -> bridge_pb2.GetSessionResponse:
        """Describe a session."""
        async with self._answer:
            session = self._memory.session(request.session_id)
            metadata = session.metadata  # replaced when it changes, and never changed
        return bridge_pb2.GetSessionResponse(
            session_id=session.session_id, metadata=metadata, created_at=timestamp(session.created_at)
        )

    async def Heartbeat(  # noqa: N802
        self,
        request: bridge_pb2.HeartbeatRequest,
        call: rpc.Call,  # noqa: ARG002
    ) -> bridge_pb2.HeartbeatResponse:
        """Keep a session alive, and say whether there is one."""
        try:
            self._memory.session(request.session_id)
        except NotStored:
            valid = False
        else:
            valid = True
        await self._answer.settled()
        return bridge_pb2.HeartbeatResponse(server_time=timestamp(time.time()), session_valid=valid)

    # ---- variables

    async def RegisterVariable(  # noqa: N802
        self,
        request: bridge_pb2.RegisterVariableRequest,
        call: rpc.Call,  # noqa: ARG002
    ) -> bridge_pb2.RegisterVariableResponse:
        """Add a variable."""
        async with self._answer:
            record = self._memory.register(
                request.session_id,
                request.name,
                request.type,
                _decoded(request.initial_value, request.initial_binary_value, request.type, request.metadata),
                constraints=_constraints(request.constraints_json),
                metadata=request.metadata,
            )
        return bridge_pb2.RegisterVariableResponse(success=True, variable_id=record.variable.id)

    def GetVariable(  # noqa: N802
        self,
        request: bridge_pb2.GetVariableRequest,
        call: rpc.Call,  # noqa: ARG002
    ) -> rpc.Reply[bridge_pb2.GetVariableResponse]:
        """Read one variable, by name or id. Workers ask for dozens at once, so it has no task unless it has to wait."""
        return self._answer.of(partial(self._get, request))

    def _get(self, request: bridge_pb2.GetVariableRequest) -> bridge_pb2.GetVariableResponse:
        record = self._memory.get(request.session_id, request.variable_identifier)
        return bridge_pb2.GetVariableResponse(variable=self._messages.variable(record))

    async def GetVariables(  # noqa: N802
        self,
        request: bridge_pb2.BatchGetVariablesRequest,
        call: rpc.Call,  # noqa: ARG002
    ) -> bridge_pb2.BatchGetVariablesResponse:
        """Read several variables as of one moment; those that are not there are named."""
        async with self._answer:
            self._check_number(request.variable_identifiers)
            found = self._memory.get_many(request.session_id, request.variable_identifiers)
        reply = bridge_pb2.BatchGetVariablesResponse()
        for identifier, record in found.items():
            if record is None:
                reply.missing_variables.append(identifier)
            else:
                reply.variables[identifier].CopyFrom(self._messages.variable(record))
        return reply

    async def ListVariables(  # noqa: N802
        self,
        request: bridge_pb2.ListVariablesRequest,
        call: rpc.Call,  # noqa: ARG002
    ) -> bridge_pb2.ListVariablesResponse:
        """Read the variables whose names match, in the order in which they were registered."""
        async with self._answer:
            records = self._memory.list(request.session_id, request.pattern)
        return bridge_pb2.ListVariablesResponse(variables=map(self._messages.variable, records))

    async def SetVariable(  # noqa: N802
        self,
        request: bridge_pb2.SetVariableRequest,
        call: rpc.Call,  # noqa: ARG002
    ) -> bridge_pb2.SetVariableResponse:
        """Give a variable its next value; another version than expected is ABORTED."""
        async with self._answer:
            kind = self._memory.get(request.session_id, request.variable_identifier).variable.type
            record = self._memory.set(
                request.session_id,
                request.variable_identifier,
                _decoded(request.value, request.binary_value, kind, request.metadata),
                expected_version=request.expected_version,
                metadata=request.metadata,
            )
        return bridge_pb2.SetVariableResponse(success=True, new_version=record.variable.version)

    async def SetVariables(  # noqa: N802
        self,
        request: bridge_pb2.BatchSetVariablesRequest,
        call: rpc.Call,  # noqa: ARG002
    ) -> bridge_pb2.BatchSetVariablesResponse:
        """Set several variables; an atomic call sets all or none, and what is wrong is told for each."""
        async with self._answer:
            self._check_number(request.updates)
            known = self._memory.get_many(request.session_id, {*request.updates, *request.binary_updates})
            updates, errors = {}, {}
            for identifier, record in known.items():
                kind = record.variable.type if record is not None else ""
                binary = request.binary_updates.get(identifier, b"")
                try:
                    updates[identifier] = _decoded(request.updates[identifier], binary, kind, request.metadata)
                except Refused as error:
                    errors[identifier] = str(error)
            if request.atomic and errors:
                return bridge_pb2.BatchSetVariablesResponse(success=False, errors=errors)
            made, refused = self._memory.set_many(
                request.session_id, updates, atomic=request.atomic, metadata=request.metadata
            )
        return bridge_pb2.BatchSetVariablesResponse(
            success=not errors and not refused,
            errors=errors | refused,
            new_versions={identifier: record.variable.version for identifier, record in made.items()},
        )

    async def DeleteVariable(  # noqa: N802
        self,
        request: bridge_pb2.DeleteVariableRequest,
        call: rpc.Call,  # noqa: ARG002
    ) -> bridge_pb2.DeleteVariableResponse:
        """Remove a variable."""
        async with self._answer:
            self._memory.delete(request.session_id, request.variable_identifier)
        return bridge_pb2.DeleteVariableResponse(success=True)

    async def WatchVariables(  # noqa: N802
        self,
        request: bridge_pb2.WatchVariablesRequest,
        call: rpc.Call,  # noqa: ARG002
    ) -> AsyncIterator[bridge_pb2.VariableUpdate]:
        """Tell of changes until the session ends.

        A reader that is slower than the writers gets the last change of each variable; so no buffer grows.
        """
        try:
            watch = self._watch(request)
        except StoreError as error:
            raise as_status(error) from error
        try:
            while True:
                changes = watch.take()
                await self._answer.settled()
                for change in changes:
                    yield self._messages.update(change)
                if watch.ended:
                    return
                await watch.changed.wait()
        finally:
            watch.stop()

    def _watch(self, request: bridge_pb2.WatchVariablesRequest) -> Watch:
        self._check_number(request.variable_identifiers)
        return Watch(self._memory, request)

    # ---- tools

    async def GetExposedElixirTools(  # noqa: N802
        self,
        request: bridge_pb2.GetExposedElixirToolsRequest,
        call: rpc.Call,  # noqa: ARG002
    ) -> bridge_pb2.GetExposedElixirToolsResponse:
        """Describe the tools of a session; as with snakepit, one that does not exist has none."""
        try:
            self._memory.session(request.session_id)
        except NotStored:
            return bridge_pb2.GetExposedElixirToolsResponse()
        specs = [] if self._tools is None else self._tools.specs()
        return bridge_pb2.GetExposedElixirToolsResponse(tools=map(encode_tool_spec, specs))

    async def ExecuteElixirTool(  # noqa: N802
        self,
        request: bridge_pb2.ExecuteElixirToolRequest,
        call: rpc.Call,  # noqa: ARG002
    ) -> bridge_pb2.ExecuteElixirToolResponse:
        """Call a tool; whatever goes wrong is told in an OK reply, as with snakepit."""
        began = trio.current_time()
        try:
            value = await self._execute(request)
        except Exception as error:  # noqa: BLE001 - a tool may raise anything
            known = isinstance(error, (StoreError, ToolError, ValueNotDecodable))
            text = str(error) if known else f"{type_name(type(error))}: {error}"
            reply = bridge_pb2.ExecuteElixirToolResponse(success=False, error_message=self._redact(text))
        else:
            result, binary = encode_tool_result(value)
            reply = bridge_pb2.ExecuteElixirToolResponse(success=True, result=result, binary_result=binary)
        reply.execution_time_ms = round((trio.current_time() - began) * 1e3)
        return reply

    async def _execute(self, request: bridge_pb2.ExecuteElixirToolRequest) -> Any:
        self._memory.session(request.session_id)
        if self._tools is None or request.tool_name not in self._tools:
            raise NotStored(f"Tool not found: {request.tool_name}")
        return plain(await self._tools.call(request.tool_name, decode_tool_arguments(request.parameters)))

    # ---- inside

    def _check_number(self, identifiers: Collection[str]) -> None:
        most = self._memory.limits.max_variables
        if len(identifiers) > most:
            raise Refused(f"{len(identifiers)} variables are asked for at once; the limit is {most}")


def _decoded(value: AnyMessage, binary: bytes, kind: str, metadata: Mapping[str, str]) -> object:
    try:
        return decode_stored(value, binary, kind, metadata)
    except ValueNotDecodable as error:
        raise Refused(f"the value cannot be decoded: {error}") from error


def _constraints(text: str) -> dict[str, object]:
    try:
        return decode_constraints(text)
    except ValueNotDecodable as error:
        raise Refused(str(error)) from error
