"""A store in this process, called like one behind a channel: the same messages and statuses without HTTP/2."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterable
from contextlib import aclosing, asynccontextmanager
from typing import Any, cast

import trio

from dspex_trio import rpc
from dspex_trio.sessions import Store
from dspex_trio.wire.generated import bridge_pb2
from dspex_trio.wire.generated.bridge_grpc import BridgeServiceServicer

_SERVICE = "/snakepit.bridge.BridgeService/"


def in_process_stub(servicer: BridgeServiceServicer) -> Store:
    """What `BridgeServiceStub` is for a channel, for a servicer of this process."""
    return cast("Store", _InProcess(servicer))


class _InProcess:
    """Has each unary method of the service, and WatchVariables, as a stub has them."""

    def __init__(self, servicer: BridgeServiceServicer) -> None:
        self._servicer = servicer
        for name, method in servicer.service.methods.items():
            if name != "WatchVariables":
                setattr(self, name, _Unary(_SERVICE + name, method.method_fn))

    @asynccontextmanager
    async def WatchVariables(  # noqa: N802
        self, request: bridge_pb2.WatchVariablesRequest
    ) -> AsyncIterator[AsyncIterator[bridge_pb2.VariableUpdate]]:
        updates = self._servicer.WatchVariables(request, rpc.Call(_SERVICE + "WatchVariables"))
        async with aclosing(cast("AsyncGenerator[bridge_pb2.VariableUpdate, None]", updates)):
            yield updates


class _Unary:
    """A method with one request and one reply, as a stub has it."""

    def __init__(self, path: str, handler: Callable[[Any, rpc.Call], rpc.Reply[Any]]) -> None:
        self._path = path
        self._handler = handler

    async def __call__(self, request: Any) -> Any:
        await trio.lowlevel.checkpoint()  # as a call over a channel would
        call = rpc.Call(self._path, deadline=trio.current_effective_deadline())
        return await rpc.replied(self._handler(request, call))

    async def each(self, requests: Iterable[Any], answered: Callable[[int, Any], None]) -> None:
        await rpc.each_in_a_task(self, requests, answered)
