"""Generated from grpc/reflection/v1/reflection.proto by tools/generate_protos.py. Do not edit."""

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

from . import reflection_v1_pb2


class ServerReflectionServicer(Servicer):
    """The server's side of `grpc.reflection.v1.ServerReflection`; a method that is not overridden is UNIMPLEMENTED."""

    def ServerReflectionInfo(self, requests: AsyncIterator[reflection_v1_pb2.ServerReflectionRequest], call: Call) -> AsyncIterator[reflection_v1_pb2.ServerReflectionResponse]:
        raise unimplemented("/grpc.reflection.v1.ServerReflection/ServerReflectionInfo")

    @property
    def service(self) -> Service:
        service = Service("grpc.reflection.v1.ServerReflection")
        service.add("ServerReflectionInfo", self.ServerReflectionInfo, STREAM_STREAM, reflection_v1_pb2.ServerReflectionRequest, reflection_v1_pb2.ServerReflectionResponse)
        return service


class ServerReflectionStub:
    """The client's side of `grpc.reflection.v1.ServerReflection`."""

    def __init__(self, channel: Caller) -> None:
        self.ServerReflectionInfo = StreamStream[reflection_v1_pb2.ServerReflectionRequest, reflection_v1_pb2.ServerReflectionResponse](channel, "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo", reflection_v1_pb2.ServerReflectionResponse)
