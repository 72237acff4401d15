"""Generated from greeting/greeter.proto by tools/generate_protos.py. Do not edit."""

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

from . import empty_protobuf_pb2
from . import greeter_pb2


class GreeterServicer(Servicer):
    """The server's side of `greeting.Greeter`; a method that is not overridden is UNIMPLEMENTED."""

    def SayHello(self, request: greeter_pb2.HelloRequest, call: Call) -> Reply[greeter_pb2.HelloReply]:
        raise unimplemented("/greeting.Greeter/SayHello")

    def Watch(self, request: greeter_pb2.HelloRequest, call: Call) -> AsyncIterator[greeter_pb2.HelloReply]:
        raise unimplemented("/greeting.Greeter/Watch")

    async def Collect(self, requests: AsyncIterator[greeter_pb2.HelloRequest], call: Call) -> greeter_pb2.HelloReply:
        raise unimplemented("/greeting.Greeter/Collect")

    def Chat(self, requests: AsyncIterator[greeter_pb2.HelloRequest], call: Call) -> AsyncIterator[greeter_pb2.HelloReply]:
        raise unimplemented("/greeting.Greeter/Chat")

    def Nested(self, request: greeter_pb2.Outer.Inner, call: Call) -> Reply[empty_protobuf_pb2.Empty]:
        raise unimplemented("/greeting.Greeter/Nested")

    def import_(self, request: greeter_pb2.HelloRequest, call: Call) -> Reply[greeter_pb2.HelloReply]:
        raise unimplemented("/greeting.Greeter/import")

    @property
    def service(self) -> Service:
        service = Service("greeting.Greeter")
        service.add("SayHello", self.SayHello, UNARY_UNARY, greeter_pb2.HelloRequest, greeter_pb2.HelloReply)
        service.add("Watch", self.Watch, UNARY_STREAM, greeter_pb2.HelloRequest, greeter_pb2.HelloReply)
        service.add("Collect", self.Collect, STREAM_UNARY, greeter_pb2.HelloRequest, greeter_pb2.HelloReply)
        service.add("Chat", self.Chat, STREAM_STREAM, greeter_pb2.HelloRequest, greeter_pb2.HelloReply)
        service.add("Nested", self.Nested, UNARY_UNARY, greeter_pb2.Outer.Inner, empty_protobuf_pb2.Empty)
        service.add("import", self.import_, UNARY_UNARY, greeter_pb2.HelloRequest, greeter_pb2.HelloReply)
        return service


class GreeterStub:
    """The client's side of `greeting.Greeter`."""

    def __init__(self, channel: Caller) -> None:
        self.SayHello = UnaryUnary[greeter_pb2.HelloRequest, greeter_pb2.HelloReply](channel, "/greeting.Greeter/SayHello", greeter_pb2.HelloReply)
        self.Watch = UnaryStream[greeter_pb2.HelloRequest, greeter_pb2.HelloReply](channel, "/greeting.Greeter/Watch", greeter_pb2.HelloReply)
        self.Collect = StreamUnary[greeter_pb2.HelloRequest, greeter_pb2.HelloReply](channel, "/greeting.Greeter/Collect", greeter_pb2.HelloReply)
        self.Chat = StreamStream[greeter_pb2.HelloRequest, greeter_pb2.HelloReply](channel, "/greeting.Greeter/Chat", greeter_pb2.HelloReply)
        self.Nested = UnaryUnary[greeter_pb2.Outer.Inner, empty_protobuf_pb2.Empty](channel, "/greeting.Greeter/Nested", empty_protobuf_pb2.Empty)
        self.import_ = UnaryUnary[greeter_pb2.HelloRequest, greeter_pb2.HelloReply](channel, "/greeting.Greeter/import", greeter_pb2.HelloReply)
