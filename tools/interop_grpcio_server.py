"""grpc.testing.TestService on grpcio's server, with code from its own generator."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent import futures
from contextlib import contextmanager
from typing import Any

import grpc
from interop_cases import INITIAL, TRAILING
from interop_wire import WasCompressed


class GrpcioService:
    """grpc.testing.TestService for grpcio's server.

    Args:
        pb: grpcio's module of the messages.
        was_compressed: How a request came, which grpcio does not tell.

    Attributes:
        over: Set when a FullDuplexCall is over; when its caller does not end it, then by cancellation.
    """

    def __init__(self, empty: Any, pb: Any, was_compressed: WasCompressed) -> None:
        self.over = threading.Event()
        self._empty = empty
        self._pb = pb
        self._was_compressed = was_compressed

    def EmptyCall(self, request: Any, context: Any) -> Any:  # noqa: ARG002, N802
        """Nothing for nothing."""
        return self._empty.Empty()

    def UnaryCall(self, request: Any, context: Any) -> Any:  # noqa: N802
        """As many bytes as are asked for, compressed if that is asked for."""
        _echo_metadata(context)
        self._check_compression(request, 0, context)
        _fail_if_asked(request, context)
        if request.response_compressed.value:
            context.set_compression(grpc.Compression.Gzip)
        return self._pb.SimpleResponse(payload=self._zeros(request.response_size))

    def StreamingInputCall(self, requests: Any, context: Any) -> Any:  # noqa: N802
        """The number of bytes that were sent."""
        total = 0
        for number, request in enumerate(requests):
            self._check_compression(request, number, context)
            total += len(request.payload.body)
        return self._pb.StreamingInputCallResponse(aggregated_payload_size=total)

    def StreamingOutputCall(self, request: Any, context: Any) -> Iterator[Any]:  # noqa: N802
        """The replies that one request asks for."""
        _fail_if_asked(request, context)
        if any(one.compressed.value for one in request.response_parameters):
            context.set_compression(grpc.Compression.Gzip)
        for one in request.response_parameters:
            if not one.compressed.value:
                context.disable_next_message_compression()
            yield self._pb.StreamingOutputCallResponse(payload=self._zeros(one.size))

    def FullDuplexCall(self, requests: Any, context: Any) -> Iterator[Any]:  # noqa: N802
        """The replies that each request asks for, as it comes."""
        _echo_metadata(context)
        context.add_callback(self.over.set)
        for request in requests:
            _fail_if_asked(request, context)
            for one in request.response_parameters:
                yield self._pb.StreamingOutputCallResponse(payload=self._zeros(one.size))

    def _zeros(self, size: int) -> Any:
        return self._pb.Payload(body=bytes(size))

    def _check_compression(self, request: Any, number: int, context: Any) -> None:
        if request.HasField("expect_compressed") and request.expect_compressed.value != self._was_compressed(number):
            context.abort(grpc.StatusCode.INVALID_ARGUMENT, "the request's compression is not what it says")


def _echo_metadata(context: Any) -> None:
    sent = dict(context.invocation_metadata())
    if INITIAL[0] in sent:
        context.send_initial_metadata([(INITIAL[0], sent[INITIAL[0]])])
    if TRAILING[0] in sent:
        context.set_trailing_metadata([(TRAILING[0], sent[TRAILING[0]])])


def _fail_if_asked(request: Any, context: Any) -> None:
    status = request.response_status
    if status.code:
        (code,) = (code for code in grpc.StatusCode if code.value[0] == status.code)
        context.abort(code, status.message)


@contextmanager
def grpcio_server(code: tuple[Any, Any, Any], was_compressed: WasCompressed) -> Iterator[tuple[int, GrpcioService]]:
    """Run the service on grpcio's server; its port and the service."""
    empty, pb, made = code
    # Methods that it does not have, UnimplementedCall for one, are those of the generated class.
    service = type("Servicer", (GrpcioService, made.TestServiceServicer), {})(empty, pb, was_compressed)
    server = grpc.server(futures.ThreadPoolExecutor(8), options=[("grpc.so_reuseport", 0)])
    made.add_TestServiceServicer_to_server(service, server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    try:
        yield port, service
    finally:
        server.stop(None).wait()
