"""Generated from grpc/testing/test.proto by tools/generate_protos.py. Do not edit."""

from collections.abc import AsyncIterator

from dspex_trio.rpc.server.call import Call
from dspex_trio.rpc.server.service import (
    STREAM_STREAM,
    STREAM_UNARY,
    UNARY_STREAM,
    UNARY_UNARY,
    Reply,
    Service,
    Servicer,
    unimplemented,
)
from dspex_trio.rpc.client.stubs import Caller, StreamStream, StreamUnary, UnaryStream, UnaryUnary

from . import empty_testing_pb2
from . import messages_pb2


class TestServiceServicer(Servicer):
    """The server's side of `grpc.testing.TestService`; a method that is not overridden is UNIMPLEMENTED."""

    def EmptyCall(self, request: empty_testing_pb2.Empty, call: Call) -> Reply[empty_testing_pb2.Empty]:
        raise unimplemented("/grpc.testing.TestService/EmptyCall")

    def UnaryCall(self, request: messages_pb2.SimpleRequest, call: Call) -> Reply[messages_pb2.SimpleResponse]:
        raise unimplemented("/grpc.testing.TestService/UnaryCall")

    def CacheableUnaryCall(self, request: messages_pb2.SimpleRequest, call: Call) -> Reply[messages_pb2.SimpleResponse]:
        raise unimplemented("/grpc.testing.TestService/CacheableUnaryCall")

    def StreamingOutputCall(self, request: messages_pb2.StreamingOutputCallRequest, call: Call) -> AsyncIterator[messages_pb2.StreamingOutputCallResponse]:
        raise unimplemented("/grpc.testing.TestService/StreamingOutputCall")

    async def StreamingInputCall(self, requests: AsyncIterator[messages_pb2.StreamingInputCallRequest], call: Call) -> messages_pb2.StreamingInputCallResponse:
        raise unimplemented("/grpc.testing.TestService/StreamingInputCall")

    def FullDuplexCall(self, requests: AsyncIterator[messages_pb2.StreamingOutputCallRequest], call: Call) -> AsyncIterator[messages_pb2.StreamingOutputCallResponse]:
        raise unimplemented("/grpc.testing.TestService/FullDuplexCall")

    def HalfDuplexCall(self, requests: AsyncIterator[messages_pb2.StreamingOutputCallRequest], call: Call) -> AsyncIterator[messages_pb2.StreamingOutputCallResponse]:
        raise unimplemented("/grpc.testing.TestService/HalfDuplexCall")

    def UnimplementedCall(self, request: empty_testing_pb2.Empty, call: Call) -> Reply[empty_testing_pb2.Empty]:
        raise unimplemented("/grpc.testing.TestService/UnimplementedCall")

    @property
    def service(self) -> Service:
        service = Service("grpc.testing.TestService")
        service.add("EmptyCall", self.EmptyCall, UNARY_UNARY, empty_testing_pb2.Empty, empty_testing_pb2.Empty)
        service.add("UnaryCall", self.UnaryCall, UNARY_UNARY, messages_pb2.SimpleRequest, messages_pb2.SimpleResponse)
        service.add("CacheableUnaryCall", self.CacheableUnaryCall, UNARY_UNARY, messages_pb2.SimpleRequest, messages_pb2.SimpleResponse)
        service.add("StreamingOutputCall", self.StreamingOutputCall, UNARY_STREAM, messages_pb2.StreamingOutputCallRequest, messages_pb2.StreamingOutputCallResponse)
        service.add("StreamingInputCall", self.StreamingInputCall, STREAM_UNARY, messages_pb2.StreamingInputCallRequest, messages_pb2.StreamingInputCallResponse)
        service.add("FullDuplexCall", self.FullDuplexCall, STREAM_STREAM, messages_pb2.StreamingOutputCallRequest, messages_pb2.StreamingOutputCallResponse)
        service.add("HalfDuplexCall", self.HalfDuplexCall, STREAM_STREAM, messages_pb2.StreamingOutputCallRequest, messages_pb2.StreamingOutputCallResponse)
        service.add("UnimplementedCall", self.UnimplementedCall, UNARY_UNARY, empty_testing_pb2.Empty, empty_testing_pb2.Empty)
        return service


class TestServiceStub:
    """The client's side of `grpc.testing.TestService`."""

    def __init__(self, channel: Caller) -> None:
        self.EmptyCall = UnaryUnary[empty_testing_pb2.Empty, empty_testing_pb2.Empty](channel, "/grpc.testing.TestService/EmptyCall", empty_testing_pb2.Empty)
        self.UnaryCall = UnaryUnary[messages_pb2.SimpleRequest, messages_pb2.SimpleResponse](channel, "/grpc.testing.TestService/UnaryCall", messages_pb2.SimpleResponse)
        self.CacheableUnaryCall = UnaryUnary[messages_pb2.SimpleRequest, messages_pb2.SimpleResponse](channel, "/grpc.testing.TestService/CacheableUnaryCall", messages_pb2.SimpleResponse)
        self.StreamingOutputCall = UnaryStream[messages_pb2.StreamingOutputCallRequest, messages_pb2.StreamingOutputCallResponse](channel, "/grpc.testing.TestService/StreamingOutputCall", messages_pb2.StreamingOutputCallResponse)
        self.StreamingInputCall = StreamUnary[messages_pb2.StreamingInputCallRequest, messages_pb2.StreamingInputCallResponse](channel, "/grpc.testing.TestService/StreamingInputCall", messages_pb2.StreamingInputCallResponse)
        self.FullDuplexCall = StreamStream[messages_pb2.StreamingOutputCallRequest, messages_pb2.StreamingOutputCallResponse](channel, "/grpc.testing.TestService/FullDuplexCall", messages_pb2.StreamingOutputCallResponse)
        self.HalfDuplexCall = StreamStream[messages_pb2.StreamingOutputCallRequest, messages_pb2.StreamingOutputCallResponse](channel, "/grpc.testing.TestService/HalfDuplexCall", messages_pb2.StreamingOutputCallResponse)
        self.UnimplementedCall = UnaryUnary[empty_testing_pb2.Empty, empty_testing_pb2.Empty](channel, "/grpc.testing.TestService/UnimplementedCall", empty_testing_pb2.Empty)


class UnimplementedServiceServicer(Servicer):
    """The server's side of `grpc.testing.UnimplementedService`; a method that is not overridden is UNIMPLEMENTED."""

    def UnimplementedCall(self, request: empty_testing_pb2.Empty, call: Call) -> Reply[empty_testing_pb2.Empty]:
        raise unimplemented("/grpc.testing.UnimplementedService/UnimplementedCall")

    @property
    def service(self) -> Service:
        service = Service("grpc.testing.UnimplementedService")
        service.add("UnimplementedCall", self.UnimplementedCall, UNARY_UNARY, empty_testing_pb2.Empty, empty_testing_pb2.Empty)
        return service


class UnimplementedServiceStub:
    """The client's side of `grpc.testing.UnimplementedService`."""

    def __init__(self, channel: Caller) -> None:
        self.UnimplementedCall = UnaryUnary[empty_testing_pb2.Empty, empty_testing_pb2.Empty](channel, "/grpc.testing.UnimplementedService/UnimplementedCall", empty_testing_pb2.Empty)
