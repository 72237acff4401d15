"""The cases on this project's channel, whoever serves."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, Final

import trio
from interop_cases import (
    CALL_SECONDS,
    COMPRESSED_RESPONSES,
    INITIAL,
    REQUEST_SIZES,
    RESPONSE_SIZES,
    SLEEPING_TIMEOUT,
    SPECIAL_MESSAGE,
    STATUS,
    TRAILING,
    Miss,
    compressed_inputs,
    compressed_outputs,
    echo_status,
    expect,
    expect_zeros,
    inputs,
    large,
    outputs,
    ping,
    pings,
    probe,
)
from interop_protos import empty, services
from interop_protos import messages as pb
from interop_wire import Direction, TappedConnector

from dspex_trio import rpc

_CANCEL: Final = 8  # RST_STREAM's code for a call that is given up


@dataclass(frozen=True, slots=True)
class Caller:
    """A channel to a server, with what a case may want to know of both.

    Attributes:
        connect: Where the connection is seen.
        stub: The service.
        missing: The service that no server has.
        server_cancelled: Waits until the server has seen a cancellation.
        rounds: How many calls a soak makes.
    """

    connect: TappedConnector
    stub: services.TestServiceStub
    missing: services.UnimplementedServiceStub
    server_cancelled: Callable[[], Awaitable[None]]
    rounds: int

    @property
    def sent(self) -> Direction:
        """What the channel sent."""
        assert self.connect.connection is not None  # noqa: S101 - a call was made
        return self.connect.connection.sent

    @property
    def replies_compressed(self) -> list[bool]:
        """Whether each reply of the call that began last came compressed."""
        assert self.connect.connection is not None  # noqa: S101 - as above
        return self.connect.connection.received.latest.compressed


async def _nothing_to_see() -> None:
    """For servers that do not tell."""


@asynccontextmanager
async def caller(
    connect: TappedConnector, rounds: int, server_cancelled: Callable[[], Awaitable[None]] = _nothing_to_see
) -> AsyncIterator[Caller]:
    """Open a channel."""
    async with rpc.open_channel(connect) as channel:
        stub, missing = services.TestServiceStub(channel), services.UnimplementedServiceStub(channel)
        yield Caller(connect, stub, missing, server_cancelled, rounds)


@asynccontextmanager
async def failing(status: int, message: str | None = None) -> AsyncIterator[None]:
    """The block must end with this status, and with this message if one is given."""
    try:
        yield
    except rpc.RpcError as error:
        expect(int(error.status), status, "status")
        if message is not None:
            expect(error.message, message, "status message")
    else:
        raise Miss(f"the call succeeded; expected status {status}")


async def empty_unary(on: Caller) -> None:
    """Nothing for nothing."""
    expect((await on.stub.EmptyCall(empty.Empty())).ByteSize(), 0, "size of the reply")


async def large_unary(on: Caller) -> None:
    """Flow control in both directions."""
    expect_zeros((await on.stub.UnaryCall(large(pb))).payload, large(pb).response_size)


async def client_compressed_unary(on: Caller) -> None:
    """The server looks, takes what is compressed, and what is not."""
    yes, no = pb.BoolValue(value=True), pb.BoolValue(value=False)
    async with failing(rpc.StatusCode.INVALID_ARGUMENT):
        await on.stub.UnaryCall(large(pb, expect_compressed=yes))
    expect_zeros((await on.stub.UnaryCall(large(pb, expect_compressed=yes), compression="gzip")).payload, 314159)
    expect(on.sent.latest.compressed, [True], "compressed-flag of the request")
    expect_zeros((await on.stub.UnaryCall(large(pb, expect_compressed=no))).payload, 314159)
    expect(on.sent.latest.compressed, [False], "compressed-flag of the request")


async def server_compressed_unary(on: Caller) -> None:
    """A compressed reply, and one that is not."""
    for wanted in (True, False):
        reply = await on.stub.UnaryCall(large(pb, response_compressed=pb.BoolValue(value=wanted)))
        expect_zeros(reply.payload, 314159)
        expect(on.replies_compressed, [wanted], "compressed-flag of the reply")


async def client_streaming(on: Caller) -> None:
    """Several requests, one reply."""
    async with on.stub.StreamingInputCall() as call:
        for request in inputs(pb):
            await call.send(request)
        expect((await call.reply()).aggregated_payload_size, sum(REQUEST_SIZES), "aggregated size")


async def client_compressed_streaming(on: Caller) -> None:
    """One compressed request and one that is not on the same call."""
    async with failing(rpc.StatusCode.INVALID_ARGUMENT), on.stub.StreamingInputCall() as call:
        await call.send(probe(pb))
        await call.reply()
    async with on.stub.StreamingInputCall(compression="gzip") as call:
        for request, compressed in compressed_inputs(pb):
            await call.send(request, compress=compressed)
        expect((await call.reply()).aggregated_payload_size, 73086, "aggregated size")
    expect(on.sent.latest.compressed, [True, False], "compressed-flags of the requests")


async def server_streaming(on: Caller) -> None:
    """One request, several replies."""
    async with on.stub.StreamingOutputCall(outputs(pb)) as replies:
        got = [reply.payload async for reply in replies]
    expect([len(payload.body) for payload in got], list(RESPONSE_SIZES), "sizes of the replies")


async def server_compressed_streaming(on: Caller) -> None:
    """One compressed reply and one that is not on the same call."""
    async with on.stub.StreamingOutputCall(compressed_outputs(pb)) as replies:
        sizes = [len(reply.payload.body) async for reply in replies]
    expect(list(zip(sizes, on.replies_compressed, strict=True)), list(COMPRESSED_RESPONSES), "sizes and flags")


async def ping_pong(on: Caller) -> None:
    """Each request waits for the reply to the last."""
    async with on.stub.FullDuplexCall() as call:
        for request, size in zip(pings(pb), RESPONSE_SIZES, strict=True):
            await call.send(request)
            expect_zeros((await anext(call)).payload, size)
        call.done()
        expect([reply async for reply in call], [], "replies after the last request")


async def empty_stream(on: Caller) -> None:
    """No request, no reply."""
    async with on.stub.FullDuplexCall() as call:
        call.done()
        expect([reply async for reply in call], [], "replies")


async def custom_metadata(on: Caller) -> None:
    """Text comes back first, bytes come back last, on calls of two shapes."""
    async with on.stub.UnaryCall.open(large(pb), metadata=[INITIAL, TRAILING]) as unary:
        await unary.reply()
        await _expect_echo(unary)
    async with on.stub.FullDuplexCall(metadata=[INITIAL, TRAILING]) as stream:
        await stream.send(ping(pb, 271828, 314159))
        stream.done()
        expect(len([reply async for reply in stream]), 1, "number of replies")
        await _expect_echo(stream)


async def _expect_echo(call: Any) -> None:
    expect((await call.initial_metadata()).get(INITIAL[0]), INITIAL[1], "initial metadata")
    expect(call.trailing_metadata.binary(TRAILING[0]), TRAILING[1], "trailing metadata")


async def status_code_and_message(on: Caller) -> None:
    """A failure of the server's choice, on calls of two shapes."""
    status = echo_status(pb, STATUS[1])
    async with failing(*STATUS):
        await on.stub.UnaryCall(pb.SimpleRequest(response_status=status))
    async with failing(*STATUS), on.stub.FullDuplexCall() as call:
        await call.send(pb.StreamingOutputCallRequest(response_status=status))
        call.done()
        expect([reply async for reply in call], [], "replies")


async def special_status_message(on: Caller) -> None:
    """Text that has to be escaped in a header."""
    async with failing(STATUS[0], SPECIAL_MESSAGE):
        await on.stub.UnaryCall(pb.SimpleRequest(response_status=echo_status(pb, SPECIAL_MESSAGE)))


async def unimplemented_method(on: Caller) -> None:
    """A method that the service does not have."""
    async with failing(rpc.StatusCode.UNIMPLEMENTED):
        await on.stub.UnimplementedCall(empty.Empty())


async def unimplemented_service(on: Caller) -> None:
    """A service that the server does not have."""
    async with failing(rpc.StatusCode.UNIMPLEMENTED):
        await on.missing.UnimplementedCall(empty.Empty())


async def cancel_after_begin(on: Caller) -> None:
    """Given up before anything was sent: the server is told CANCEL."""
    with trio.CancelScope() as scope:
        async with on.stub.StreamingInputCall() as call:
            scope.cancel()
            await call.initial_metadata()  # asked for the reply, the server may be quicker than the cancel
    expect(scope.cancelled_caught, True, "cancelled")
    expect(await on.sent.until_reset(), _CANCEL, "error code of the RST_STREAM")


async def cancel_after_first_response(on: Caller) -> None:
    """Given up half way: the server is told CANCEL and sees it."""
    with trio.CancelScope() as scope:
        async with on.stub.FullDuplexCall() as call:
            await call.send(pings(pb)[0])
            expect_zeros((await anext(call)).payload, RESPONSE_SIZES[0])
            scope.cancel()
            await anext(call)
    expect(scope.cancelled_caught, True, "cancelled")
    expect(await on.sent.until_reset(), _CANCEL, "error code of the RST_STREAM")
    await on.server_cancelled()


async def timeout_on_sleeping_server(on: Caller) -> None:
    """The deadline of the scope ends the call, or the server's DEADLINE_EXCEEDED does, a moment earlier."""
    await on.stub.EmptyCall(empty.Empty())  # a millisecond is not enough for connecting
    with trio.move_on_after(SLEEPING_TIMEOUT) as scope:
        async with failing(rpc.StatusCode.DEADLINE_EXCEEDED), on.stub.FullDuplexCall() as call:
            await call.send(ping(pb, 27182))
            await anext(call)
        return
    expect(scope.cancelled_caught, True, "cancelled at the deadline")


async def rpc_soak(on: Caller) -> None:
    """Many calls on one channel."""
    for _ in range(on.rounds):
        with trio.fail_after(CALL_SECONDS):
            await large_unary(on)


async def channel_soak(on: Caller) -> None:
    """Many channels, one call each."""
    for _ in range(on.rounds):
        with trio.fail_after(CALL_SECONDS):
            async with caller(on.connect, on.rounds) as fresh:
                await large_unary(fresh)
