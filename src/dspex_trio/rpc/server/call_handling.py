"""One call on the server: from its request to its handler, and from whatever the handler does to a status."""

from __future__ import annotations

import inspect
import logging
import math
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import aclosing
from functools import partial
from typing import Any, Final

import trio
from google.protobuf.message import DecodeError, EncodeError

from dspex_trio.rpc._purerpc import RpcFailedError
from dspex_trio.rpc.call_stream import CallStream
from dspex_trio.rpc.details import fitted, pack_details
from dspex_trio.rpc.http2.interface import ServerEngine
from dspex_trio.rpc.http2.messages import BadMessage, compressor, frame
from dspex_trio.rpc.server.call import Call
from dspex_trio.rpc.server.interceptors import Interceptor, chain
from dspex_trio.rpc.server.service import Route, replied
from dspex_trio.rpc.server.undelivered import Undelivered
from dspex_trio.rpc.status import OK, RpcError, Status, StatusCode
from dspex_trio.rpc.transport import Connection

log: Final = logging.getLogger("dspex_trio.rpc")

_SHUTTING_DOWN: Final = Status(StatusCode.UNAVAILABLE, "the server is shutting down")
_TOO_LATE: Final = Status(StatusCode.DEADLINE_EXCEEDED, "the deadline was exceeded")
_FAILED: Final = Status(StatusCode.UNKNOWN, "the handler failed")


class ServerCall(CallStream):
    """A call's messages, its scope and its answer.

    Args:
        connection: Where it runs.
        stream_id: Its HTTP/2 stream.
        call: What its handler sees.
        max_response_size: The largest reply in bytes.
        deadline: When its caller stops waiting, on Trio's clock; later than what its handler sees for a caller that
            waits longer than it says.
        patience: When its handler is cancelled because time is up: a moment before the deadline.
        streaming: Whether there may be several replies.
        handled: Called when its handler is asked: no interceptor has refused the call.
        undelivered: Counts the reply while it waits for its reader.

    Attributes:
        scope: What its handler's task runs under, once there is one.
        result: What a plain handler has returned, if that has not become a reply yet.
    """

    def __init__(
        self,
        connection: Connection[ServerEngine],
        stream_id: int,
        call: Call,
        max_response_size: int,
        *,
        deadline: float,
        patience: float,
        streaming: bool,
        handled: Callable[[Call], None],
        undelivered: Undelivered,
    ) -> None:
        super().__init__(connection, stream_id)
        self.engine = connection.engine
        self.call = call
        self.scope: trio.CancelScope | None = None
        self.result: Any = None
        self.gone = False
        self.replied = False
        self.deadline = deadline
        self._patience = patience
        self._max_response_size = max_response_size
        self._streaming = streaming
        self.handled = handled
        self._compress: Callable[[bytes], bytes] | None = None
        self._headers_sent = False
        self._undelivered = undelivered
        self._sent_at = -math.inf
        self._unread = False  # whether it was ended because its reader took nothing

    def abandon(self) -> None:
        """The caller is not there any more: nothing may be sent, the handler is of no use."""
        if not self.gone and self.call.on_given_up is not None:
            self.call.on_given_up()
        self._let_go()

    def _let_go(self) -> None:
        self.gone = True
        self.end_input()
        if self.scope is not None:
            self.scope.cancel()

    def new_scope(self) -> trio.CancelScope:
        """The scope for its handler's task."""
        self.scope = trio.CancelScope(deadline=self._patience)
        return self.scope

    def expire(self) -> None:
        """The caller's deadline has come and no status was sent: one is, and nothing after it."""
        if not self.gone and self.engine.is_open(self.stream_id):
            self.engine.send_status(self.stream_id, _TOO_LATE)
            self.connection.wake()
        self.abandon()

    @property
    def taken_at(self) -> float:
        """As `Reader.taken_at`: what waits for room in the output buffer moves with what its connection writes."""
        waits_for_window = self._window is not None
        return self._sent_at if waits_for_window else max(self._sent_at, self.connection.wrote_at)

    def end_unread(self, why: str) -> None:
        """As `Reader.end_unread`. The caller has not given up, so that it is not told to `Call.on_given_up`."""
        if not self.gone and self.engine.is_open(self.stream_id):
            self.engine.send_status(self.stream_id, Status(StatusCode.RESOURCE_EXHAUSTED, why))
            self.connection.wake()
        self._unread = True
        self._let_go()

    def finish(self, status: Status) -> None:
        """Queue the answer with a status, if there is anybody to answer."""
        if self.gone or not self.engine.is_open(self.stream_id):
            return
        if self._late():
            self.engine.send_status(self.stream_id, _TOO_LATE)
        else:
            failed = status.code is not StatusCode.OK
            metadata, trailing = self.call.initial_metadata, self.call.trailing_metadata
            if not self._headers_sent and metadata and self.engine.takes_metadata(metadata, surely=failed):
                self._start()
            if failed:  # which is more than what is said about it
                status, trailing = fitted(status, trailing, self.engine.takes_status)
            self.engine.send_status(self.stream_id, status, trailing)

    def cancelled_status(self) -> Status:
        """Why the handler's scope was cancelled, if not by the caller: its deadline, or the end of a drain."""
        return _TOO_LATE if trio.current_time() >= self._patience else _SHUTTING_DOWN

    def cancelled_as(self) -> StatusCode:
        """As `Call.cancelled_as`."""
        if not self.gone:
            return self.cancelled_status().code
        if self._unread:
            return StatusCode.RESOURCE_EXHAUSTED
        return StatusCode.DEADLINE_EXCEEDED if self._late() else StatusCode.CANCELLED

    def _late(self) -> bool:
        return trio.current_time() >= self.deadline

    async def send_initial(self) -> None:
        """Send the response's headers, unless they were sent."""
        await trio.lowlevel.checkpoint_if_cancelled()
        if not self._headers_sent and not self.gone:
            self._start()
            self.connection.wake()

    def _start(self) -> None:
        metadata = self.call.initial_metadata
        if metadata and not self.engine.takes_metadata(metadata):
            raise RpcError(StatusCode.RESOURCE_EXHAUSTED, "the initial metadata is larger than the client takes")
        self._headers_sent = True
        encoding = self.call.compression or "identity"
        if encoding != "identity":
            self._compress = compressor(encoding)
        self.engine.send_initial(self.stream_id, metadata, encoding)

    async def send_reply(self, reply: Any) -> None:
        """Send one message, after the headers if they were not sent yet."""
        data = self._serialized(reply)
        if not self.gone and self._late():
            self.expire()  # the handler has kept the whole process from noticing
        if self.gone:
            await trio.sleep_forever()  # until the cancellation, which is under way, arrives
        framed = self._framed(data)
        del data, reply  # one copy is enough for a reader that may take its time
        if self.send_now(framed):
            # A single reply goes out together with the status; one of several should not wait for the next one.
            if self._streaming:
                self.connection.wake()
                await self.yield_now_and_then()
            return
        try:
            await self.send(framed)
        except trio.ClosedResourceError:
            await trio.sleep_forever()  # as above

    async def send(self, framed: bytes, *, end: bool = False) -> None:
        """As `CallStream.send`; what waits counts among what the server has not delivered."""
        self._sent_at = trio.current_time()
        with self._undelivered.waiting(self, len(framed)):
            await super().send(framed, end=end)

    def _send_some(self, data: memoryview, *, end: bool) -> int:
        sent = super()._send_some(data, end=end)
        if sent:
            self._sent_at = trio.current_time()
            self._undelivered.taken(self)
        return sent

    def reply_now(self, reply: Any) -> bool:
        """Queue the only message, if all of it can be sent now; one that is late is left to `finish`."""
        data = self._serialized(reply)
        return self._late() or self.send_now(self._framed(data))

    def _serialized(self, reply: Any) -> bytes:
        data: bytes = reply.SerializeToString()
        if len(data) > self._max_response_size:
            raise RpcError(
                StatusCode.RESOURCE_EXHAUSTED,
                f"the reply has {len(data)} bytes, more than the limit of {self._max_response_size}",
            )
        return data

    def _framed(self, data: bytes) -> bytes:
        """The message as it is sent, after the headers."""
        self.replied = True
        if not self._headers_sent:
            self._start()
        return frame(data, self._compress if self.call.compress else None)

    async def only_request(self, parse: Callable[[bytes], Any]) -> Any:
        """The request of a method that takes exactly one."""
        try:
            data = self.take_only()
            if data is not None:
                return _parsed(parse, data)
            data = await self.receive()
            more = data is not None and await self.receive() is not None
        except BadMessage as error:
            raise _unreadable(error) from None
        if data is None or more:
            if self.gone:
                await trio.sleep_forever()
            # As gRPC's list of status codes has it for a violated cardinality.
            raise RpcError(StatusCode.UNIMPLEMENTED, "exactly one request message was expected")
        return _parsed(parse, data)


class Requests:
    """The requests of a method that takes any number, as an asynchronous iterator."""

    def __init__(self, call: ServerCall, parse: Callable[[bytes], Any]) -> None:
        self._call = call
        self._parse = parse

    def __aiter__(self) -> Requests:
        return self

    async def __anext__(self) -> Any:
        try:
            data = await self._call.receive()
        except BadMessage as error:
            raise _unreadable(error) from None
        if data is None:
            if self._call.gone:
                await trio.sleep_forever()  # until the cancellation, which is under way, arrives
            raise StopAsyncIteration
        return _parsed(self._parse, data)


def _unreadable(error: BadMessage) -> RpcError:
    return RpcError(error.status.code, error.status.message)


def _parsed(parse: Callable[[bytes], Any], data: bytes) -> Any:
    try:
        return parse(data)
    except DecodeError:
        raise RpcError(StatusCode.INVALID_ARGUMENT, "a request message cannot be parsed") from None


def respond_at_once(call: ServerCall, route: Route) -> Status | None:
    """Ask a plain handler here and now, and queue what it replies; None if `respond` has to go on in a task."""
    try:
        data = call.take_only()
        if data is None:
            return None
        call.handled(call.call)
        call.result = route.handler(_parsed(route.parse, data), call.call)
        if inspect.isawaitable(call.result) or not call.reply_now(call.result):
            return None
    except BadMessage as error:
        return error.status
    except Exception as error:  # noqa: BLE001 - a handler may raise anything; its caller is told nothing of it
        return _status_after(error, call)
    return OK


async def respond(call: ServerCall, route: Route, interceptors: Sequence[Interceptor]) -> Status:
    """Run the handler and send what it replies; what becomes of it is returned, only cancellation is raised."""
    try:
        if interceptors:
            await chain(interceptors, call.call, partial(_handle, call, route))()
        else:
            await _handle(call, route)
    except Exception as error:  # noqa: BLE001 - a handler may raise anything; its caller is told nothing of it
        return _status_after(error, call)
    if not call.replied and not route.stream_out:  # an interceptor has kept the handler, or what it raised, to itself
        log.error("%s ended without a reply and without an error", call.call.method)
        return _FAILED
    return OK


async def _handle(call: ServerCall, route: Route) -> None:
    result = call.result
    if result is None:
        call.handled(call.call)
        argument = Requests(call, route.parse) if route.stream_in else await call.only_request(route.parse)
        result = route.handler(argument, call.call)
    if not route.stream_out:
        await call.send_reply(await replied(result) if route.plain else await result)
    elif isinstance(result, AsyncGenerator):
        async with aclosing(result):
            async for reply in result:
                await call.send_reply(reply)
    else:
        async for reply in result:
            await call.send_reply(reply)


def code_after(error: Exception) -> StatusCode:
    """How a call ends whose handler, or an interceptor of it, raises that."""
    match unwrapped(error):
        case RpcError(received=False) as chosen:
            return chosen.status
        case RpcFailedError() as failed:
            return StatusCode.from_wire(failed.status.int_value)
    return StatusCode.UNKNOWN


def unwrapped(error: Exception) -> Exception:
    """What a handler raises; its own nursery wraps what ends it."""
    while isinstance(error, ExceptionGroup) and len(error.exceptions) == 1:
        error = error.exceptions[0]
    return error


def _status_after(error: Exception, call: ServerCall) -> Status:
    error = unwrapped(error)
    if isinstance(error, RpcError) and not error.received:
        try:
            details = pack_details(error)
        except EncodeError as problem:
            error = problem
        else:
            call.call.set_trailing_metadata(call.call.trailing_metadata + error.metadata)
            return Status(error.status, error.message, details)
    if isinstance(error, RpcFailedError):
        return Status(StatusCode.from_wire(error.status.int_value), error.status.status_message)
    if not call.gone:
        log.error("the handler of %s failed", call.call.method, exc_info=error)
    return _FAILED
