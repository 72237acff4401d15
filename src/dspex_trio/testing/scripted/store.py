"""A session store that is slow, refuses, lies or hangs when told to: the project's own one, in memory, with faults."""

from __future__ import annotations

import math
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

import trio

from dspex_trio import rpc
from dspex_trio.model import MISSING
from dspex_trio.model.errors import VariableInvalid
from dspex_trio.rpc.server.service import UNARY_STREAM, UNARY_UNARY, Service
from dspex_trio.sessions import MemoryStore
from dspex_trio.store.records import Refused
from dspex_trio.store.servicer import SessionStore
from dspex_trio.testing.scripted.variables import variables_of
from dspex_trio.wire import encode_typed
from dspex_trio.wire.generated import bridge_pb2

_SESSION: Final = "test"


@dataclass(frozen=True, slots=True)
class Fault:
    """What befalls calls of a store.

    Attributes:
        method: Which calls: `GetVariables`, `SetVariable` and their like; empty for all of them.
        key: Which of them: those that name this variable (by name or id), tool or session; empty for all.
        times: How many of them; the next ones are answered as ever. None for all of them.
        delay: Seconds that pass before the call is looked at.
        status: The status that it ends with.
        message: What that says.
        hang: Whether it is never answered.
        value: What the variable `key` is said to have, in place of what it has.
        missing: Whether the variable `key` is said not to be there.
    """

    method: str = ""
    key: str = ""
    times: int | None = None
    delay: float = 0.0
    status: rpc.StatusCode | None = None
    message: str = "as the test has it"
    hang: bool = False
    value: Any = MISSING
    missing: bool = False

    def __post_init__(self) -> None:
        if not 0 <= self.delay < math.inf:
            raise ValueError(f"delay is in seconds, from 0; got {self.delay}")
        chosen = [self.status is not None, self.hang, self.value is not MISSING, self.missing]
        if sum(chosen) > 1:
            raise ValueError("a fault has one of status, hang, value and missing")
        if (self.value is not MISSING or self.missing) and not self.key:
            raise ValueError("of which variable? A fault with value or missing has a key")


@dataclass(frozen=True, slots=True)
class StoreCall:
    """A call that reached the store.

    Attributes:
        method: Its name.
        keys: The session, variables and tool that it named.
        at: When, on Trio's clock.
        fault: What befell it; None for nothing.
    """

    method: str
    keys: frozenset[str]
    at: float
    fault: Fault | None


class FaultyStore(SessionStore):
    """The project's own session store, in memory, for `system(store=…)` and `TrialEnvironment(store=…)`.

    A fault befalls the calls that come after it was added; of several that are for a call, the first one.

    A worker reads its variables in one call. Have that refused, and it asks for each by itself:
    `Fault("GetVariables", status=rpc.StatusCode.UNIMPLEMENTED)`.

    Args:
        faults: What befalls it.
        clock: Tells the age of its sessions; by default they age in real time.
    """

    def __init__(self, *faults: Fault, clock: trio.abc.Clock | None = None) -> None:
        self.memory = MemoryStore() if clock is None else MemoryStore(clock=clock.current_time)
        super().__init__(self.memory)
        self._faults: list[_Active] = []
        self._calls: list[StoreCall] = []
        self.add(*faults)

    def add(self, *faults: Fault) -> None:
        """Faults after those there are.

        Raises:
            ValueError: There is no such method.
        """
        methods = super().service.methods
        for fault in faults:
            if fault.method and fault.method not in methods:
                raise ValueError(f"a store has no method {fault.method!r}; it has {', '.join(methods)}")
            self._faults.append(_Active(fault))

    def heal(self) -> None:
        """No faults any more; what hangs goes on to."""
        self._faults.clear()

    @property
    def calls(self) -> tuple[StoreCall, ...]:
        """The calls until now."""
        return tuple(self._calls)

    def put(self, variables: Mapping[str, Any], *, session_id: str = _SESSION) -> None:
        """Give the variables of a session these values; those that are not there are added.

        Args:
            variables: As for `TrialEnvironment`.
            session_id: The session; it is made if it is not there.

        Raises:
            TypeError: A value's type is none that variables have.
            VariableInvalid: A value does not fit its variable's type or constraints.
        """
        memory = self.memory
        memory.initialize(session_id)
        known = self.values(session_id=session_id)
        for one in variables_of(variables):
            about = {"constraints": one.constraints, "metadata": one.metadata}
            try:
                if one.name in known:
                    memory.set(session_id, one.name, one.value)
                else:
                    memory.register(session_id, one.name, one.type, one.value, **about)
            except Refused as error:
                raise VariableInvalid(str(error)) from None

    def values(self, *, session_id: str = _SESSION) -> dict[str, Any]:
        """What the variables of a session are now."""
        return {record.variable.name: record.variable.value for record in self.memory.list(session_id, "*")}

    @property
    def service(self) -> Service:
        """As the store's own, with faults."""
        own = super().service
        faulty = Service(own.name)
        for name, bound in own.methods.items():
            handler, signature = bound.method_fn, bound.signature
            if signature.cardinality is UNARY_UNARY:
                handler = self._unary(name, handler)
            elif signature.cardinality is UNARY_STREAM:
                handler = self._stream(name, handler)
            faulty.add(name, handler, signature.cardinality, signature.request_type, signature.response_type)
        return faulty

    def _unary(self, method: str, handler: Callable[..., rpc.Reply[Any]]) -> Callable[..., Awaitable[Any]]:
        async def call(request: Any, call: rpc.Call) -> Any:
            fault = await self._befall(method, request)
            reply = await rpc.replied(handler(request, call))
            return reply if fault is None else _altered(reply, fault, request)

        return call

    def _stream(self, method: str, handler: Callable[..., AsyncIterator[Any]]) -> Callable[..., AsyncIterator[Any]]:
        async def call(request: Any, call: rpc.Call) -> AsyncIterator[Any]:
            await self._befall(method, request)
            async for reply in handler(request, call):
                yield reply

        return call

    async def _befall(self, method: str, request: Any) -> Fault | None:
        """Let happen to a call what is to happen before it is looked at."""
        keys = _keys(request)
        fault = next((active.fault for active in self._faults if active.takes(method, keys)), None)
        self._calls.append(StoreCall(method, keys, trio.current_time(), fault))
        if fault is None:
            return None
        await trio.sleep(fault.delay)
        if fault.hang:
            await trio.sleep_forever()
        if fault.status is not None:
            raise rpc.RpcError(fault.status, fault.message)
        return fault


class _Active:
    """A fault, and how often it may still befall a call."""

    def __init__(self, fault: Fault) -> None:
        self.fault = fault
        self._left = math.inf if fault.times is None else fault.times

    def takes(self, method: str, keys: frozenset[str]) -> bool:
        fault = self.fault
        if self._left <= 0 or fault.method not in {"", method} or (fault.key and fault.key not in keys):
            return False
        self._left -= 1
        return True


def _keys(request: Any) -> frozenset[str]:
    """Whatever a request names."""
    found: set[str] = set()
    for field, value in request.ListFields():
        match field.name:
            case "session_id" | "variable_identifier" | "name" | "tool_name":
                found.add(value)
            case "variable_identifiers" | "updates":
                found.update(value)
    return frozenset(found)


def _altered(reply: Any, fault: Fault, request: Any) -> Any:
    """The reply as the fault has it."""
    if isinstance(reply, bridge_pb2.BatchGetVariablesResponse) and fault.key in reply.variables:
        if fault.missing:
            del reply.variables[fault.key]
            reply.missing_variables.append(fault.key)
        elif fault.value is not MISSING:
            _set(reply.variables[fault.key], fault.value)
    elif isinstance(reply, bridge_pb2.GetVariableResponse) and fault.key == request.variable_identifier:
        if fault.missing:
            raise rpc.RpcError(rpc.StatusCode.NOT_FOUND, f"Variable not found: {fault.key}")
        if fault.value is not MISSING:
            changed = bridge_pb2.GetVariableResponse()  # what the store answers is its own, and kept
            changed.CopyFrom(reply)
            _set(changed.variable, fault.value)
            return changed
    return reply


def _set(variable: bridge_pb2.Variable, value: Any) -> None:
    variable.value.CopyFrom(encode_typed(variable.type, value))
    variable.ClearField("binary_value")
