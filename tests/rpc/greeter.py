"""A servicer with a behaviour for every need of the tests, and the ways to run it."""

from contextlib import asynccontextmanager
from functools import partial

import trio

from dspex_trio import rpc

from .generated.empty_protobuf_pb2 import Empty
from .generated.greeter_grpc import GreeterServicer, GreeterStub
from .generated.greeter_pb2 import HelloReply

CHANNEL = rpc.ChannelSettings()


class Greeter(GreeterServicer):
    """Greets; a name may be an instruction, and what happens is recorded."""

    def __init__(self):
        self.calls = []
        self.seen = []
        self.entered = trio.Event()
        self.ended = []
        self._has_ended = trio.lowlevel.ParkingLot()
        self.release = trio.Event()

    def end(self, how):
        self.ended.append(how)
        self._has_ended.unpark_all()

    async def ending(self, count=1):
        """Wait until so many handlers have ended."""
        while len(self.ended) < count:
            await self._has_ended.park()

    async def SayHello(self, request, call):
        self.calls.append(call)
        match request.name:
            case "wait":
                try:
                    self.entered.set()
                    await self.release.wait()
                except trio.Cancelled:
                    self.end("cancelled")
                    raise
                self.end("released")
            case "forever":
                self.entered.set()
                try:
                    await trio.sleep_forever()
                finally:
                    self.end("cancelled")
            case "fail":
                raise rpc.RpcError(rpc.StatusCode.NOT_FOUND, "nobody of that name")
            case "bug":
                raise ZeroDivisionError("a secret")
            case "sent":
                return HelloReply(text=str(len(self.seen)))
            case "endings":
                await self.ending(request.times)
                return HelloReply(text=",".join(self.ended))
            case "metadata":
                await call.send_initial_metadata([("first", "1"), ("raw-bin", b"\x00\xff")])
                call.set_trailing_metadata({"last": "2"})
        return HelloReply(text=f"hello {request.name}", body=request.body)

    async def Watch(self, request, call):
        self.calls.append(call)
        try:
            for number in range(request.times if request.HasField("times") else 10**9):
                yield HelloReply(text=f"{request.name} {number}", body=request.body)
                self.seen.append(number)
                self.entered.set()
            if request.name == "fail":
                raise rpc.RpcError(rpc.StatusCode.ABORTED, "half way")
        finally:
            self.end("watch")

    async def Collect(self, requests, call):
        self.calls.append(call)
        names = []
        try:
            async for request in requests:
                names.append(request.name)
                self.entered.set()
                if request.name == "enough":
                    break
        finally:
            self.end("collect")
        return HelloReply(text=",".join(names))

    async def Chat(self, requests, call):
        self.calls.append(call)
        self.entered.set()
        try:
            async for request in requests:
                if request.name == "fail":
                    raise rpc.RpcError(rpc.StatusCode.DATA_LOSS, "lost")
                yield HelloReply(text=f"hello {request.name}", body=request.body)
        finally:
            self.end("chat")

    async def Nested(self, request, call):
        self.seen.append(request.name)
        return Empty()

    async def import_(self, request, call):
        return HelloReply(text="imported")


@asynccontextmanager
async def serving(*servicers, **options):
    """Run a server on a memory link; yields the target that leads to it."""
    listener, connect = rpc.memory_link()
    async with trio.open_nursery() as nursery:
        await nursery.start(partial(rpc.serve, servicers, listeners=[listener], **options))
        yield connect
        nursery.cancel_scope.cancel()


@asynccontextmanager
async def serving_tcp(*servicers, **options):
    """Run a server on a free port of this machine; yields the port."""
    async with trio.open_nursery() as nursery:
        listeners = await nursery.start(partial(rpc.serve, servicers, **options))
        yield port_of(listeners)
        nursery.cancel_scope.cancel()


def port_of(listeners):
    listener = listeners[0]
    listener = getattr(listener, "transport_listener", listener)
    return listener.socket.getsockname()[1]


@asynccontextmanager
async def greeting(greeter=None, *, channel=CHANNEL, **options):
    """A server and a stub connected in memory."""
    async with (
        serving(greeter or Greeter(), **options) as target,
        rpc.open_channel(target, settings=channel) as opened,
    ):
        yield GreeterStub(opened)
