"""Generated from grpc/health/v1/health.proto by tools/generate_protos.py. Do not edit."""

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

from . import health_pb2


class HealthServicer(Servicer):
    """The server's side of `grpc.health.v1.Health`; a method that is not overridden is UNIMPLEMENTED."""

    def Check(self, request: health_pb2.HealthCheckRequest, call: Call) -> Reply[health_pb2.HealthCheckResponse]:
        raise unimplemented("/grpc.health.v1.Health/Check")

    def List(self, request: health_pb2.HealthListRequest, call: Call) -> Reply[health_pb2.HealthListResponse]:
        raise unimplemented("/grpc.health.v1.Health/List")

    def Watch(self, request: health_pb2.HealthCheckRequest, call: Call) -> AsyncIterator[health_pb2.HealthCheckResponse]:
        raise unimplemented("/grpc.health.v1.Health/Watch")

    @property
    def service(self) -> Service:
        service = Service("grpc.health.v1.Health")
        service.add("Check", self.Check, UNARY_UNARY, health_pb2.HealthCheckRequest, health_pb2.HealthCheckResponse)
        service.add("List", self.List, UNARY_UNARY, health_pb2.HealthListRequest, health_pb2.HealthListResponse)
        service.add("Watch", self.Watch, UNARY_STREAM, health_pb2.HealthCheckRequest, health_pb2.HealthCheckResponse)
        return service


class HealthStub:
    """The client's side of `grpc.health.v1.Health`."""

    def __init__(self, channel: Caller) -> None:
        self.Check = UnaryUnary[health_pb2.HealthCheckRequest, health_pb2.HealthCheckResponse](channel, "/grpc.health.v1.Health/Check", health_pb2.HealthCheckResponse)
        self.List = UnaryUnary[health_pb2.HealthListRequest, health_pb2.HealthListResponse](channel, "/grpc.health.v1.Health/List", health_pb2.HealthListResponse)
        self.Watch = UnaryStream[health_pb2.HealthCheckRequest, health_pb2.HealthCheckResponse](channel, "/grpc.health.v1.Health/Watch", health_pb2.HealthCheckResponse)
