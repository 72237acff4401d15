"""`BridgeService` as a session store: sessions and variables in memory, with the statuses of a real one.

What belongs to tools and telemetry is UNIMPLEMENTED here.
"""

from __future__ import annotations

import time
import weakref
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import contextmanager
from typing import Final

import trio

from dspex_trio import rpc
from dspex_trio.errors import ValueNotDecodable
from dspex_trio.generated import bridge_pb2, timestamp_pb2
from dspex_trio.generated.any_pb2 import Any as AnyMessage
from dspex_trio.generated.bridge_grpc import BridgeServiceServicer
from dspex_trio.service.in_process import in_process_stub
from dspex_trio.sessions import MemoryStore
from dspex_trio.sessions.records import Change, Conflict, Exists, Full, NotStored, Record, Refused, StoreError
from dspex_trio.wire import decode_constraints, decode_stored, encode_variable

__all__ = ["SessionStore", "in_process_stub"]

_STATUSES: Final[dict[type[StoreError], rpc.StatusCode]] = {
    NotStored: rpc.StatusCode.NOT_FOUND,
    Refused: rpc.StatusCode.INVALID_ARGUMENT,
    Exists: rpc.StatusCode.ALREADY_EXISTS,
    Conflict: rpc.StatusCode.ABORTED,
    Full: rpc.StatusCode.RESOURCE_EXHAUSTED,
}


class SessionStore(BridgeServiceServicer):
    """Serves a store's sessions and variables.

    Args:
        memory: The store.
    """

    def __init__(self, memory: MemoryStore) -> None:
        self._memory = memory
        # A variable is read far more often than it is written.
        self._encoded: weakref.WeakKeyDictionary[Record, bridge_pb2.Variable] = weakref.WeakKeyDictionary()

    # ---- sessions

    async def Ping(self, request: bridge_pb2.PingRequest, call: rpc.Call) -> bridge_pb2.PingResponse:  # noqa: ARG002, N802
        """Answer `pong: ` and the message."""
        return bridge_pb2.PingResponse(message=f"pong: {request.message}", server_time=_timestamp(time.time()))

    async def InitializeSession(  # noqa: N802
        self,
        request: bridge_pb2.InitializeSessionRequest,
        call: rpc.Call,  # noqa: ARG002
    ) -> bridge_pb2.InitializeSessionResponse:
        """Create a session; one that exists is no error and keeps its variables."""
        with _told_as_status():
            self._memory.initialize(request.session_id, request.metadata)
        return bridge_pb2.InitializeSessionResponse(success=True)

    async def CleanupSession(  # noqa: N802
        self,
        request: bridge_pb2.CleanupSessionRequest,
        call: rpc.Call,  # noqa: ARG002
    ) -> bridge_pb2.CleanupSessionResponse:
        """Remove a session; one that does not exist is no error."""
        cleaned = self._memory.cleanup(request.session_id)
        return bridge_pb2.CleanupSessionResponse(success=True, resources_cleaned=cleaned)

    async def GetSession(  # noqa: N802
        self,
        request: bridge_pb2.GetSessionRequest,
        call: rpc.Call,  # noqa: ARG002
    ) -> bridge_pb2.GetSessionResponse:
        """Describe a session."""
        with _told_as_status():
            session = self._memory.session(request.session_id)
        return bridge_pb2.GetSessionResponse(
            session_id=session.session_id, metadata=session.metadata, created_at=_timestamp(session.created_at)
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
        return bridge_pb2.HeartbeatResponse(server_time=_timestamp(time.time()), session_valid=valid)

    # ---- variables

    async def RegisterVariable(  # noqa: N802
        self,
        request: bridge_pb2.RegisterVariableRequest,
        call: rpc.Call,  # noqa: ARG002
    ) -> bridge_pb2.RegisterVariableResponse:
        """Add a variable."""
        with _told_as_status():
            record = self._memory.register(
                request.session_id,
                request.name,
                request.type,
                _decoded(request.initial_value, request.initial_binary_value, request.type, request.metadata),
                constraints=_constraints(request.constraints_json),
                metadata=request.metadata,
            )
        return bridge_pb2.RegisterVariableResponse(success=True, variable_id=record.variable.id)

    async def GetVariable(  # noqa: N802
        self,
        request: bridge_pb2.GetVariableRequest,
        call: rpc.Call,  # noqa: ARG002
    ) -> bridge_pb2.GetVariableResponse:
        """Read one variable, by name or id."""
        with _told_as_status():
            record = self._memory.get(request.session_id, request.variable_identifier)
        return bridge_pb2.GetVariableResponse(variable=self._encode(record))

    async def GetVariables(  # noqa: N802
        self,
        request: bridge_pb2.BatchGetVariablesRequest,
        call: rpc.Call,  # noqa: ARG002
    ) -> bridge_pb2.BatchGetVariablesResponse:
        """Read several variables as of one moment; those that are not there are named."""
        with _told_as_status():
            found = self._memory.get_many(request.session_id, request.variable_identifiers)
        reply = bridge_pb2.BatchGetVariablesResponse()
        for identifier, record in found.items():
            if record is None:
                reply.missing_variables.append(identifier)
            else:
                reply.variables[identifier].CopyFrom(self._encode(record))
        return reply

    async def ListVariables(  # noqa: N802
        self,
        request: bridge_pb2.ListVariablesRequest,
        call: rpc.Call,  # noqa: ARG002
    ) -> bridge_pb2.ListVariablesResponse:
        """Read the variables whose names match, in the order in which they were registered."""
        with _told_as_status():
            records = self._memory.list(request.session_id, request.pattern)
        return bridge_pb2.ListVariablesResponse(variables=map(self._encode, records))

    async def SetVariable(  # noqa: N802
        self,
        request: bridge_pb2.SetVariableRequest,
        call: rpc.Call,  # noqa: ARG002
    ) -> bridge_pb2.SetVariableResponse:
        """Give a variable its next value; another version than expected is ABORTED."""
        with _told_as_status():
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
        with _told_as_status():
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
        with _told_as_status():
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
        with _told_as_status():
            watch = _Watch(self._memory, request)
        try:
            while True:
                for change in watch.take():
                    yield self._update(change)
                if watch.ended:
                    return
                await watch.changed.wait()
        finally:
            watch.stop()

    # ---- inside

    def _encode(self, record: Record) -> bridge_pb2.Variable:
        message = self._encoded.get(record)
        if message is None:
            message = self._encoded[record] = encode_variable(record.variable)
            message.last_updated_at.CopyFrom(_timestamp(record.updated_at))
            if record.variable.metadata.get("source", "").lower() == "python":
                message.source = bridge_pb2.Variable.PYTHON
        return message

    def _update(self, change: Change) -> bridge_pb2.VariableUpdate:
        return bridge_pb2.VariableUpdate(
            variable_id=change.record.variable.id,
            variable=self._encode(change.record),
            update_source=change.record.variable.metadata.get("source", ""),
            update_metadata=change.record.variable.metadata,
            timestamp=_timestamp(change.record.updated_at),
            update_type=change.kind,
        )


class _Watch:
    """The changes that a watcher has not been told of yet: at most one for each variable."""

    def __init__(self, memory: MemoryStore, request: bridge_pb2.WatchVariablesRequest) -> None:
        self.ended = False
        self.changed = trio.Event()
        self._pending: dict[str, Change] = {}
        named = memory.get_many(request.session_id, request.variable_identifiers)
        for identifier, record in named.items():
            if record is None:
                raise NotStored(f"Variable not found: {identifier}")
        # By name, so that a variable that is deleted and registered again is still the one that was meant.
        self._names = {record.variable.name for record in named.values() if record is not None}
        if request.include_initial_values:
            for record in memory.list(request.session_id):
                self._told(Change("initial", record))
        self.stop = memory.watch(request.session_id, self._told)

    def take(self) -> list[Change]:
        """The changes since the last call."""
        changes = list(self._pending.values())
        self._pending.clear()
        self.changed = trio.Event()
        return changes

    def _told(self, change: Change | None) -> None:
        if change is None:
            self.ended = True
        elif not self._names or change.record.variable.name in self._names:
            self._pending.pop(change.record.variable.name, None)  # it moves to the end
            self._pending[change.record.variable.name] = change
        self.changed.set()


@contextmanager
def _told_as_status() -> Iterator[None]:
    try:
        yield
    except StoreError as error:
        raise rpc.RpcError(_STATUSES[type(error)], str(error)) from error


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


def _timestamp(seconds: float) -> timestamp_pb2.Timestamp:
    whole, nanos = divmod(round(seconds * 1e9), 10**9)
    return timestamp_pb2.Timestamp(seconds=whole, nanos=nanos)
