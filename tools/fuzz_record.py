"""Record what real clients say to the server: ours and grpcio's, one connection for each habit."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from functools import partial
from typing import Any, Final

import grpc
import trio
from google.protobuf.wrappers_pb2 import BytesValue
from hostile_peer import HOST, SERVICE, Stub, subject

from dspex_trio import rpc

_READ_SIZE: Final = 65_536


@asynccontextmanager
async def tap(port: int, said: bytearray) -> AsyncIterator[int]:
    """A proxy that keeps what clients say; yields its port."""

    async def pump(source: trio.SocketStream, sink: trio.SocketStream, *, keep: bool) -> None:
        try:
            while data := await source.receive_some(_READ_SIZE):
                if keep:
                    said.extend(data)
                await sink.send_all(data)
            await sink.send_eof()
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            pass

    async def serve(client: trio.SocketStream) -> None:
        async with client, await trio.open_tcp_stream(HOST, port) as server, trio.open_nursery() as nursery:
            nursery.start_soon(partial(pump, client, server, keep=True))
            await pump(server, client, keep=False)
            nursery.cancel_scope.cancel()

    async with trio.open_nursery() as nursery:
        listeners = await nursery.start(partial(trio.serve_tcp, serve, 0, host=HOST))
        yield listeners[0].socket.getsockname()[1]
        nursery.cancel_scope.cancel()


def value(text: bytes = b"hello") -> BytesValue:
    """A request."""
    return BytesValue(value=text)


async def _unary(stub: Stub) -> None:
    await stub.echo(value(), metadata=[("x-text", "words"), ("x-data-bin", b"\x00\xff")])
    await stub.echo(value(bytes(300)))


async def _large(stub: Stub) -> None:
    await stub.echo(value(bytes(40_000)))


async def _many(stub: Stub) -> None:
    async with trio.open_nursery() as nursery:
        for number in range(10):
            nursery.start_soon(stub.echo, value(str(number).encode()))


async def _streams(stub: Stub) -> None:
    async with stub.watch(value(b"5 200")) as replies:
        async for _ in replies:
            pass
    async with stub.collect() as call:
        for text in (b"a", b"b", b"enough"):
            await call.send(value(text))
        await call.reply()
    async with stub.chat() as call_and_replies:
        for text in (b"a", b"b"):
            await call_and_replies.send(value(text))
            await call_and_replies.__anext__()
        call_and_replies.done()


async def _given_up(stub: Stub) -> None:
    with trio.move_on_after(0.05):
        await stub.sleep(value())
    with trio.CancelScope() as scope:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(stub.sleep, value())
            await stub.echo(value())
            scope.cancel()
    await stub.echo(value())


async def _missing(stub: Stub) -> None:
    try:
        await stub.missing(value())
    except rpc.RpcError:
        await stub.echo(value())


OURS: Final[dict[str, Callable[[Stub], Awaitable[None]]]] = {
    "unary": _unary,
    "large": _large,
    "many": _many,
    "streams": _streams,
    "given up": _given_up,
    "missing": _missing,
}


def _grpcio(port: int) -> None:
    """Every shape of call, one given up, one out of time, one compressed, with grpcio's core."""

    def serialize(message: Any) -> bytes:
        data: bytes = message.SerializeToString()
        return data

    def parse(data: bytes) -> BytesValue:
        return BytesValue.FromString(data)

    coders = {"request_serializer": serialize, "response_deserializer": parse}
    with grpc.insecure_channel(f"{HOST}:{port}") as channel:
        path = f"/{SERVICE}/"
        channel.unary_unary(path + "Echo", **coders)(value(), metadata=[("x-text", "words"), ("x-data-bin", b"\0\xff")])
        channel.unary_unary(path + "Echo", **coders)(value(bytes(2000)), compression=grpc.Compression.Gzip)
        list(channel.unary_stream(path + "Watch", **coders)(value(b"3 100")))
        channel.stream_unary(path + "Collect", **coders)(value(text) for text in (b"a", b"b", b"enough"))
        list(channel.stream_stream(path + "Chat", **coders)(value(text) for text in (b"a", b"b")))
        channel.unary_unary(path + "Sleep", **coders).future(value(), timeout=0.05).exception()
        channel.unary_unary(path + "Sleep", **coders).future(value()).cancel()
        channel.unary_unary(path + "Echo", **coders)(value())


async def record() -> dict[str, bytes]:
    """Run every habit against the server; returns what each client said."""
    recorded: dict[str, bytes] = {}
    async with subject() as port:
        for name, habit in OURS.items():
            said = bytearray()
            async with tap(port, said) as tapped, rpc.open_channel(f"{HOST}:{tapped}") as channel:
                await habit(Stub(channel))
            recorded[f"dspex_trio: {name}"] = bytes(said)
        settings = rpc.ChannelSettings(compression="gzip")
        said = bytearray()
        async with tap(port, said) as tapped, rpc.open_channel(f"{HOST}:{tapped}", settings=settings) as channel:
            await Stub(channel).echo(value(bytes(5000)))
        recorded["dspex_trio: gzip"] = bytes(said)
        said = bytearray()
        async with tap(port, said) as tapped:
            await trio.to_thread.run_sync(_grpcio, tapped)
        recorded["grpcio"] = bytes(said)
    return recorded
