"""The cases on grpcio's channel, with code from its own generator."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final

import grpc
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
    compressed_outputs,
    echo_status,
    expect,
    expect_zeros,
    inputs,
    large,
    outputs,
    ping,
    pings,
)

# See timeout_on_sleeping_server.
_TRIES: Final = 4
_GZIP: Final = grpc.Compression.Gzip
# Without it grpcio would share connections between channels, and a case could see the last one's.
_OWN_CONNECTION: Final = [("grpc.use_local_subchannel_pool", 1)]


@dataclass(frozen=True, slots=True)
class GrpcioCaller:
    """grpcio's channel to our server, with what a case may want to know of both.

    Attributes:
        port: Where the server is.
        empty: grpcio's modules of the messages
        pb: and
        made: of the stubs.
        channel: The channel.
        replies_compressed: Whether each reply of the call that began last was sent compressed.
        server_cancelled: Blocks until the server has seen a cancellation.
        rounds: How many calls a soak makes.
    """

    port: int
    empty: Any
    pb: Any
    made: Any
    channel: Any
    replies_compressed: Callable[[], list[bool]]
    server_cancelled: Callable[[], None]
    rounds: int

    @property
    def stub(self) -> Any:
        """The service."""
        return self.made.TestServiceStub(self.channel)


def open_grpcio(port: int) -> Any:
    """A channel that shares nothing with others."""
    return grpc.insecure_channel(f"127.0.0.1:{port}", options=_OWN_CONNECTION)


@contextmanager
def failing(status: int, message: str | None = None) -> Iterator[None]:
    """The block must end with this status, and with this message if one is given."""
    try:
        yield
    except grpc.RpcError as error:
        expect(error.code().value[0], status, "status")
        if message is not None:
            expect(error.details(), message, "status message")
    else:
        raise Miss(f"the call succeeded; expected status {status}")


def empty_unary(on: GrpcioCaller) -> None:
    """Nothing for nothing."""
    expect(on.stub.EmptyCall(on.empty.Empty(), timeout=CALL_SECONDS).ByteSize(), 0, "size of the reply")


def large_unary(on: GrpcioCaller) -> None:
    """Flow control in both directions."""
    expect_zeros(on.stub.UnaryCall(large(on.pb), timeout=CALL_SECONDS).payload, 314159)


def client_compressed_unary(on: GrpcioCaller) -> None:
    """The server looks, takes what is compressed, and what is not."""
    yes, no = on.pb.BoolValue(value=True), on.pb.BoolValue(value=False)
    with failing(3):
        on.stub.UnaryCall(large(on.pb, expect_compressed=yes), timeout=CALL_SECONDS)
    reply = on.stub.UnaryCall(large(on.pb, expect_compressed=yes), timeout=CALL_SECONDS, compression=_GZIP)
    expect_zeros(reply.payload, 314159)
    expect_zeros(on.stub.UnaryCall(large(on.pb, expect_compressed=no), timeout=CALL_SECONDS).payload, 314159)


def server_compressed_unary(on: GrpcioCaller) -> None:
    """A compressed reply, and one that is not."""
    for wanted in (True, False):
        request = large(on.pb, response_compressed=on.pb.BoolValue(value=wanted))
        expect_zeros(on.stub.UnaryCall(request, timeout=CALL_SECONDS).payload, 314159)
        expect(on.replies_compressed(), [wanted], "compressed-flag of the reply")


def client_streaming(on: GrpcioCaller) -> None:
    """Several requests, one reply."""
    reply = on.stub.StreamingInputCall(iter(inputs(on.pb)), timeout=CALL_SECONDS)
    expect(reply.aggregated_payload_size, sum(REQUEST_SIZES), "aggregated size")


def server_streaming(on: GrpcioCaller) -> None:
    """One request, several replies."""
    replies = on.stub.StreamingOutputCall(outputs(on.pb), timeout=CALL_SECONDS)
    expect([len(reply.payload.body) for reply in replies], list(RESPONSE_SIZES), "sizes of the replies")


def server_compressed_streaming(on: GrpcioCaller) -> None:
    """One compressed reply and one that is not on the same call."""
    replies = on.stub.StreamingOutputCall(compressed_outputs(on.pb), timeout=CALL_SECONDS)
    sizes = [len(reply.payload.body) for reply in replies]
    expect(list(zip(sizes, on.replies_compressed(), strict=True)), list(COMPRESSED_RESPONSES), "sizes and flags")


def ping_pong(on: GrpcioCaller) -> None:
    """Each request waits for the reply to the last."""
    answered = threading.Semaphore(1)

    def requests() -> Iterator[Any]:
        for request in pings(on.pb):
            answered.acquire(timeout=CALL_SECONDS)
            yield request

    sizes = []
    for reply in on.stub.FullDuplexCall(requests(), timeout=CALL_SECONDS):
        sizes.append(len(reply.payload.body))
        answered.release()
    expect(sizes, list(RESPONSE_SIZES), "sizes of the replies")


def empty_stream(on: GrpcioCaller) -> None:
    """No request, no reply."""
    expect(list(on.stub.FullDuplexCall(iter([]), timeout=CALL_SECONDS)), [], "replies")


def custom_metadata(on: GrpcioCaller) -> None:
    """Text comes back first, bytes come back last, on calls of two shapes."""
    options = {"metadata": [INITIAL, TRAILING], "timeout": CALL_SECONDS}
    _, unary = on.stub.UnaryCall.with_call(large(on.pb), **options)
    stream = on.stub.FullDuplexCall(iter([ping(on.pb, 271828, 314159)]), **options)
    expect(len(list(stream)), 1, "number of replies")
    for call in (unary, stream):
        expect(dict(call.initial_metadata()).get(INITIAL[0]), INITIAL[1], "initial metadata")
        expect(dict(call.trailing_metadata()).get(TRAILING[0]), TRAILING[1], "trailing metadata")


def status_code_and_message(on: GrpcioCaller) -> None:
    """A failure of the server's choice, on calls of two shapes."""
    status = echo_status(on.pb, STATUS[1])
    with failing(*STATUS):
        on.stub.UnaryCall(on.pb.SimpleRequest(response_status=status), timeout=CALL_SECONDS)
    with failing(*STATUS):
        list(on.stub.FullDuplexCall(iter([on.pb.StreamingOutputCallRequest(response_status=status)]), timeout=20))


def special_status_message(on: GrpcioCaller) -> None:
    """Text that has to be escaped in a header."""
    request = on.pb.SimpleRequest(response_status=echo_status(on.pb, SPECIAL_MESSAGE))
    with failing(STATUS[0], SPECIAL_MESSAGE):
        on.stub.UnaryCall(request, timeout=CALL_SECONDS)


def unimplemented_method(on: GrpcioCaller) -> None:
    """A method that the service does not have."""
    with failing(12):
        on.stub.UnimplementedCall(on.empty.Empty(), timeout=CALL_SECONDS)


def unimplemented_service(on: GrpcioCaller) -> None:
    """A service that the server does not have."""
    with failing(12):
        on.made.UnimplementedServiceStub(on.channel).UnimplementedCall(on.empty.Empty(), timeout=CALL_SECONDS)


def cancel_after_begin(on: GrpcioCaller) -> None:
    """Given up before anything was sent."""
    with _open_requests() as requests:
        call = on.stub.StreamingInputCall.future(requests, timeout=CALL_SECONDS)
        call.cancel()
        expect(call.code(), grpc.StatusCode.CANCELLED, "status")


def cancel_after_first_response(on: GrpcioCaller) -> None:
    """Given up half way; the server's handler is cancelled."""
    with _open_requests(pings(on.pb)[0]) as requests:
        call = on.stub.FullDuplexCall(requests, timeout=CALL_SECONDS)
        expect_zeros(next(call).payload, RESPONSE_SIZES[0])
        call.cancel()
        expect(call.code(), grpc.StatusCode.CANCELLED, "status")
        on.server_cancelled()


def timeout_on_sleeping_server(on: GrpcioCaller) -> None:
    """A deadline that passes while nobody answers.

    When the server is a moment late it may only reset the stream; grpcio calls that DEADLINE_EXCEEDED if its clock,
    which counts milliseconds, is past the deadline, and else CANCELLED. Only then the call is made again.
    """
    for _ in range(_TRIES):
        with _open_requests(ping(on.pb, 27182)) as requests:
            call = on.stub.FullDuplexCall(requests, timeout=SLEEPING_TIMEOUT)
            if call.code() is not grpc.StatusCode.CANCELLED:
                break
    expect(call.code(), grpc.StatusCode.DEADLINE_EXCEEDED, "status")


@contextmanager
def _open_requests(*requests: Any) -> Iterator[Iterator[Any]]:
    """Some requests, and no end of them before the end of the block."""
    over = threading.Event()

    def all_of_them() -> Iterator[Any]:
        yield from requests
        over.wait(CALL_SECONDS)

    try:
        yield all_of_them()
    finally:
        over.set()


def rpc_soak(on: GrpcioCaller) -> None:
    """Many calls on one channel."""
    for _ in range(on.rounds):
        large_unary(on)


def channel_soak(on: GrpcioCaller) -> None:
    """Many channels, one call each."""
    for _ in range(on.rounds):
        with open_grpcio(on.port) as channel:
            stub = on.made.TestServiceStub(channel)
            expect_zeros(stub.UnaryCall(large(on.pb), timeout=CALL_SECONDS).payload, 314159)
