"""A session as trials and clients see it: its variables, read fresh and decoded once."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

from dspex_trio import rpc
from dspex_trio.model import ToolSpec, Variable
from dspex_trio.model.errors import ToolError, VariableInvalid, VariableNotFound
from dspex_trio.model.values import plain
from dspex_trio.sessions.changes import Changes, VariableChange
from dspex_trio.sessions.decoded import DecodedVariables
from dspex_trio.sessions.link import Store
from dspex_trio.sessions.pattern import loosened, matcher
from dspex_trio.sessions.reading import VariableReader
from dspex_trio.sessions.tools import ElixirTools
from dspex_trio.wire import decode_variable, encode_json, encode_typed
from dspex_trio.wire.generated import bridge_pb2
from dspex_trio.wire.generated.any_pb2 import Any as AnyMessage


class SessionContext:
    """One session of a store. Made by `Sessions.context`; the session itself need not exist.

    Every read asks the store: a value that was read before the call began never answers it. What is kept from earlier
    reads are decoded forms, for as long as the store sends the same bytes.

    Attributes:
        session_id: The session's id.
    """

    def __init__(
        self, session_id: str, store: Store, reader: VariableReader, tools: ElixirTools, decoded: DecodedVariables
    ) -> None:
        self.session_id = session_id
        self._store = store
        self._reader = reader
        self._tools = tools
        self._calls = reader.calls
        self._decoded = decoded

    # ---- reading

    async def get_variables(self, identifiers: Sequence[str]) -> Mapping[str, Variable | None]:
        """Read variables at once, by name or id; None for those that the store does not have.

        A store that cannot be reached is tried again while the enclosing deadline leaves room.

        Args:
            identifiers: Names or ids, each once.

        Raises:
            VariableNotFound: The store does not have the session.
            NoVariables: The store does not have variables at all.
            VariableInvalid: A value cannot be decoded; of several, the one that was asked for first.
            StoreUnavailable: The store cannot be reached or does not answer as a store.
        """
        if not identifiers:
            return {}
        if not self.session_id:
            raise VariableNotFound(f"variable {identifiers[0]!r} is asked for, and no session is named to read it from")
        found = await self._reader.read(self.session_id, identifiers)
        return {
            identifier: None if message is None else self._decoded.decode(self.session_id, identifier, message)
            for identifier, message in found.items()
        }

    async def get_variable(self, identifier: str) -> Variable:
        """Read one variable, by name or id.

        Raises:
            VariableNotFound: The store does not have it, or not the session.
            VariableInvalid, StoreUnavailable: As `get_variables`.
        """
        variable = (await self.get_variables([identifier]))[identifier]
        if variable is None:
            raise VariableNotFound(f"session {self.session_id!r} has no variable {identifier!r}")
        return variable

    async def get(self, identifier: str) -> Any:
        """Read the value of one variable; raises as `get_variable`."""
        return (await self.get_variable(identifier)).value

    async def list(self, pattern: str = "") -> Sequence[Variable]:
        """Read the variables of the session; `*` in a pattern stands for anything.

        Raises:
            VariableNotFound: The store does not have the session.
            VariableInvalid, StoreUnavailable: As `get_variables`.
        """
        request = bridge_pb2.ListVariablesRequest(session_id=self.session_id, pattern=loosened(pattern))
        reply = await self._calls.reading(partial(self._store.ListVariables, request), variables=True)
        matches = matcher(pattern)
        return [decode_variable(message) for message in reply.variables if matches(message.name)]

    @asynccontextmanager
    async def watch(
        self, identifiers: Sequence[str] = (), *, include_initial: bool = True
    ) -> AsyncIterator[AsyncIterator[VariableChange]]:
        """Follow variables, all of the session's if none are named; leaving the block ends it.

        The watch has begun when the first change arrives; with the initial values, which come first, nothing is
        missed. Of changes that come faster than they are taken, the last one of each variable arrives. The iteration
        ends when the session does.

        Raises:
            VariableNotFound: The session or a named variable is not in the store; raised by the iteration.
            StoreUnavailable: The store went away, or cannot be watched; raised by the iteration.
        """
        request = bridge_pb2.WatchVariablesRequest(
            session_id=self.session_id, variable_identifiers=identifiers, include_initial_values=include_initial
        )
        try:
            async with self._store.WatchVariables(request) as updates:
                yield Changes(updates, self._calls)
        except rpc.RpcError as error:
            raise await self._calls.to_trial_error(error) from error

    def away(self, since: float) -> str | None:
        """Why the store could not be reached at some time since then, on Trio's clock; None if nobody knows that."""
        return self._reader.away(since)

    # ---- writing

    async def set(
        self, identifier: str, value: Any, *, expected_version: int = 0, metadata: Mapping[str, str] | None = None
    ) -> int:
        """Give a variable its next value; returns its new version.

        Args:
            identifier: Name or id.
            value: The value.
            expected_version: The version that the writer saw; 0 to write whatever it is.
            metadata: What to keep beside the value.

        Raises:
            VariableInvalid: The value does not fit the variable.
            VersionConflict: The variable has another version than expected.
            VariableNotFound: The session or the variable is not in the store.
            StoreUnavailable: The store cannot be reached; whether it wrote the value is then unknown.
        """
        request = bridge_pb2.SetVariableRequest(
            session_id=self.session_id,
            variable_identifier=identifier,
            value=_encode(identifier, value),
            metadata=metadata or {},
            expected_version=expected_version,
        )
        reply = await self._calls.writing(partial(self._store.SetVariable, request))
        _check_done(reply.success, reply.error_message)
        return reply.new_version

    async def set_many(
        self, updates: Mapping[str, Any], *, atomic: bool = True, metadata: Mapping[str, str] | None = None
    ) -> Mapping[str, int]:
        """Set several variables; returns their new versions.

        Raises:
            VariableInvalid: A value does not fit, or a variable is not there: the text names each. An atomic call has
                then set none, any other has set the rest.
            VariableNotFound: The session is not in the store.
            StoreUnavailable: The store cannot be reached; what it wrote is then unknown.
        """
        request = bridge_pb2.BatchSetVariablesRequest(
            session_id=self.session_id,
            updates={name: _encode(name, value) for name, value in updates.items()},
            metadata=metadata or {},
            atomic=atomic,
        )
        reply = await self._calls.writing(partial(self._store.SetVariables, request))
        if not reply.success:
            problems = "; ".join(f"{name}: {reply.errors[name]}" for name in sorted(reply.errors))
            raise VariableInvalid(problems or "the store did not set the variables")
        return dict(reply.new_versions)

    async def register(
        self,
        name: str,
        kind: str,
        value: Any,
        *,
        constraints: Mapping[str, Any] | None = None,
        metadata: Mapping[str, str] | None = None,
    ) -> str:
        """Add a variable; returns its id.

        Args:
            name: Its name, unique in the session.
            kind: One of float, integer, string, boolean, choice, module, embedding, tensor, map, list.
            value: Its first value.
            constraints: What its values must meet, such as `{"min": 0, "max": 2}`.
            metadata: What to keep beside the value.

        Raises:
            VariableInvalid: The value, the type or a constraint is wrong, or the name is taken.
            VariableNotFound: The session is not in the store.
            StoreUnavailable: The store cannot be reached; whether it has the variable is then unknown.
        """
        request = bridge_pb2.RegisterVariableRequest(
            session_id=self.session_id,
            name=name,
            type=kind,
            initial_value=_encode(name, value, kind),
            constraints_json=encode_json(dict(constraints)).decode() if constraints else "",
            metadata=metadata or {},
        )
        reply = await self._calls.writing(partial(self._store.RegisterVariable, request))
        _check_done(reply.success, reply.error_message)
        return reply.variable_id

    async def delete(self, identifier: str) -> None:
        """Remove a variable; raises as `set`."""
        request = bridge_pb2.DeleteVariableRequest(session_id=self.session_id, variable_identifier=identifier)
        reply = await self._calls.writing(partial(self._store.DeleteVariable, request))
        _check_done(reply.success, reply.error_message)

    # ---- tools

    async def tools(self) -> Sequence[ToolSpec]:
        """The Elixir tools that the session offers, as they are now.

        Raises:
            VariableNotFound: The store does not have the session.
            StoreUnavailable: The store cannot be reached or has no tools.
        """
        if not self.session_id:
            raise VariableNotFound("Elixir tools are asked for, and no session is named to ask")
        return await self._tools.list(self.session_id)

    async def call_tool(self, name: str, arguments: Mapping[str, Any]) -> Any:
        """Call an Elixir tool of the session; returns what it answers.

        Args:
            name: The tool's name.
            arguments: Argument → value.

        Raises:
            ToolError: The tool failed, or there is none: the text is the tool's. Or an argument has no JSON form.
            StoreUnavailable: The store cannot be reached; whether the tool ran is then unknown.
        """
        warnings: list[str] = []
        made = {key: plain(value, warnings=warnings, path=key) for key, value in arguments.items()}
        if warnings:
            raise ToolError(f"Elixir tool {name!r}: argument {warnings[0]}")
        return await self._tools.call(self.session_id, name, made)

    # ---- the session itself

    async def initialize(self, metadata: Mapping[str, str] | None = None, *, ttl_seconds: int = 0) -> None:
        """Create the session; one that exists keeps its variables.

        Args:
            metadata: What to keep with it.
            ttl_seconds: Have a store of ours drop it when nobody used it for so long; 0 leaves that to the store.

        Raises:
            VariableInvalid: The store refuses it.
            StoreUnavailable: The store cannot be reached or does not answer as a store.
        """
        request = bridge_pb2.InitializeSessionRequest(session_id=self.session_id, metadata=metadata or {})
        if ttl_seconds:
            request.config.cache_ttl_seconds = ttl_seconds

        async def initialize() -> bridge_pb2.InitializeSessionResponse:
            try:
                return await self._store.InitializeSession(request)
            except rpc.RpcError as error:
                if error.status is not rpc.StatusCode.ALREADY_EXISTS:  # as snakepit 0.4 says it
                    raise
                return bridge_pb2.InitializeSessionResponse(success=True)

        reply = await self._calls.writing(initialize)
        _check_done(reply.success, reply.error_message)

    async def cleanup(self, *, force: bool = False) -> None:
        """Remove the session and its variables; one that does not exist is no error.

        Raises:
            StoreUnavailable: The store cannot be reached or does not answer as a store.
        """
        request = bridge_pb2.CleanupSessionRequest(session_id=self.session_id, force=force)
        await self._calls.writing(partial(self._store.CleanupSession, request))

    async def exists(self) -> bool:
        """Whether the store has the session.

        Raises:
            StoreUnavailable: The store cannot be reached or does not answer as a store.
        """
        request = bridge_pb2.GetSessionRequest(session_id=self.session_id)
        try:
            await self._calls.reading(partial(self._store.GetSession, request))
        except VariableNotFound:
            return False
        return True


def _encode(name: str, value: Any, kind: str = "") -> AnyMessage:
    """A value for the store, which knows the variable's type: text is text there, whatever it looks like."""
    warnings: list[str] = []
    made = plain(value, warnings=warnings, path=name)
    if warnings:
        raise VariableInvalid(f"variable {warnings[0]}")
    return encode_typed(kind or ("string" if isinstance(made, str) else ""), made)


def _check_done(success: bool, message: str) -> None:  # noqa: FBT001 - a field of the reply
    if success:
        return
    if "not found" in message.lower():
        raise VariableNotFound(message)
    raise VariableInvalid(message or "the store did not do it, and does not say why")
