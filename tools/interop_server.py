"""grpc.testing.TestService on this project's server."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial

import trio
from interop_cases import INITIAL, TRAILING
from interop_protos import empty, messages, services
from interop_wire import TappedListener, WasCompressed

from dspex_trio import rpc


class TestService(services.TestServiceServicer):
    """As gRPC's description of its interoperability tests has it; UnimplementedCall stays unimplemented.

    Args:
        was_compressed: How a request came.

    Attributes:
        cancelled: Set when a call was cancelled while its handler ran.
    """

    def __init__(self, was_compressed: WasCompressed) -> None:
        self.cancelled = trio.Event()
        self._was_compressed = was_compressed

    async def EmptyCall(self, request: empty.Empty, call: rpc.Call) -> empty.Empty:  # noqa: ARG002, N802
        """Nothing for nothing."""
        return empty.Empty()

    async def UnaryCall(self, request: messages.SimpleRequest, call: rpc.Call) -> messages.SimpleResponse:  # noqa: N802
        """As many bytes as are asked for, compressed if that is asked for."""
        echo_metadata(call)
        self._check_compression(request, 0)
        fail_if_asked(request)
        call.compression = "gzip" if request.response_compressed.value else None
        return messages.SimpleResponse(payload=zeros(request.response_size))

    async def StreamingInputCall(  # noqa: N802
        self, requests: AsyncIterator[messages.StreamingInputCallRequest], call: rpc.Call
    ) -> messages.StreamingInputCallResponse:
        """The number of bytes that were sent."""
        echo_metadata(call)
        total = count = 0
        async for request in requests:
            self._check_compression(request, count)
            total += len(request.payload.body)
            count += 1
        return messages.StreamingInputCallResponse(aggregated_payload_size=total)

    async def StreamingOutputCall(  # noqa: N802
        self, request: messages.StreamingOutputCallRequest, call: rpc.Call
    ) -> AsyncIterator[messages.StreamingOutputCallResponse]:
        """The replies that one request asks for."""
        echo_metadata(call)
        fail_if_asked(request)
        if any(one.compressed.value for one in request.response_parameters):
            call.compression = "gzip"
        for one in request.response_parameters:
            yield await response(one, call)

    async def FullDuplexCall(  # noqa: N802
        self, requests: AsyncIterator[messages.StreamingOutputCallRequest], call: rpc.Call
    ) -> AsyncIterator[messages.StreamingOutputCallResponse]:
        """The replies that each request asks for, as it comes."""
        echo_metadata(call)
        try:
            async for request in requests:
                fail_if_asked(request)
                for one in request.response_parameters:
                    yield await response(one, call)
        except trio.Cancelled:
            self.cancelled.set()
            raise

    async def HalfDuplexCall(  # noqa: N802
        self, requests: AsyncIterator[messages.StreamingOutputCallRequest], call: rpc.Call
    ) -> AsyncIterator[messages.StreamingOutputCallResponse]:
        """The replies that all requests ask for, when the last of them has come."""
        for request in [request async for request in requests]:
            for one in request.response_parameters:
                yield await response(one, call)

    def _check_compression(
        self, request: messages.SimpleRequest | messages.StreamingInputCallRequest, number: int
    ) -> None:
        if request.HasField("expect_compressed") and request.expect_compressed.value != self._was_compressed(number):
            raise rpc.RpcError(rpc.StatusCode.INVALID_ARGUMENT, "the request's compression is not what it says")


def echo_metadata(call: rpc.Call) -> None:
    """Send back what custom_metadata sends along."""
    initial, trailing = call.metadata.get(INITIAL[0]), call.metadata.binary(TRAILING[0])
    if initial is not None:
        call.set_initial_metadata({INITIAL[0]: initial})
    if trailing is not None:
        call.set_trailing_metadata({TRAILING[0]: trailing})


def fail_if_asked(request: messages.SimpleRequest | messages.StreamingOutputCallRequest) -> None:
    """Answer with the status that the request asks for."""
    if request.response_status.code:
        raise rpc.RpcError(rpc.StatusCode(request.response_status.code), request.response_status.message)


async def response(one: messages.ResponseParameters, call: rpc.Call) -> messages.StreamingOutputCallResponse:
    """One reply, when its time has come."""
    await trio.sleep(one.interval_us / 1e6)
    call.compress = one.compressed.value
    return messages.StreamingOutputCallResponse(payload=zeros(one.size))


def zeros(size: int) -> messages.Payload:
    """A payload of zeros."""
    return messages.Payload(body=bytes(size))


class OurServer:
    """This project's server, listened in on.

    Attributes:
        port: Where it listens.
        listener: Where its connections are seen.
        service: What it serves.
    """

    def __init__(self, port: int, listener: TappedListener) -> None:
        self.port = port
        self.listener = listener
        self.service = TestService(self.request_compressed)

    def request_compressed(self, number: int) -> bool:
        """Whether the n-th request of the call that began last came compressed."""
        assert self.listener.connection is not None  # noqa: S101 - a call has come over it
        return self.listener.connection.received.latest.compressed[number]

    def replies_compressed(self) -> list[bool]:
        """Whether each reply of the call that began last was sent compressed."""
        assert self.listener.connection is not None  # noqa: S101 - as above
        return self.listener.connection.sent.latest.compressed


@asynccontextmanager
async def our_server() -> AsyncIterator[OurServer]:
    """Run the server on a free port."""
    (opened,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
    listener = TappedListener(opened)
    server = OurServer(opened.socket.getsockname()[1], listener)
    async with trio.open_nursery() as nursery:
        await nursery.start(partial(rpc.serve, [server.service], listeners=[listener]))
        yield server
        nursery.cancel_scope.cancel()
