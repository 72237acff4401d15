"""One server that `tools/bench_rpc.py` measures, in a process of its own: `bench_rpc_server.py NAME`.

It says `{"port": …}` on standard output once it listens on loopback, then answers every line of standard input with
`{"cpu_s": …}`: user and system time of the whole process, all threads, until now. It ends with its standard input.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import resource
import socket
import sys
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent import futures
from typing import Any, Final

from bench_rpc_shapes import SERVICE, SHAPES
from google.protobuf.wrappers_pb2 import BytesValue

HOST: Final = "127.0.0.1"
THREADS: Final = 16  # of grpcio's synchronous server


def run_ours() -> None:
    """dspex_trio.rpc on Trio."""
    import trio

    from dspex_trio import rpc
    from dspex_trio.rpc.server.service import UNARY_STREAM, UNARY_UNARY, Service

    async def unary(request: BytesValue, _call: rpc.Call) -> BytesValue:  # noqa: ASYNC124 - a servicer
        return BytesValue(value=request.value)

    def stream(replies: int) -> Callable[[BytesValue, rpc.Call], AsyncIterator[BytesValue]]:
        async def many(request: BytesValue, _call: rpc.Call) -> AsyncIterator[BytesValue]:  # noqa: ASYNC124 - a servicer
            for _ in range(replies):
                yield BytesValue(value=request.value)

        return many

    class Echo(rpc.Servicer):
        @property
        def service(self) -> Service:
            service = Service(SERVICE)
            for shape in SHAPES:
                handler = unary if shape.replies is None else stream(shape.replies)
                cardinality = UNARY_UNARY if shape.replies is None else UNARY_STREAM
                service.add(shape.method, handler, cardinality, BytesValue, BytesValue)
            return service

    async def main() -> None:
        async with trio.open_nursery() as nursery:
            listeners = await nursery.start(rpc.serve, [Echo()])
            listening_on(listeners[0].socket.getsockname()[1])

    trio.run(main)


def run_purerpc() -> None:
    """Stock purerpc on Trio. Its own Server binds all interfaces, so its handler gets a listener of ours."""
    import anyio

    from dspex_trio.rpc._purerpc import purerpc  # which makes it importable beside h2 4

    logging.getLogger("purerpc").setLevel(logging.CRITICAL)  # what it loses is counted by the client

    async def unary(request: BytesValue) -> BytesValue:  # noqa: ASYNC124 - a servicer
        return BytesValue(value=request.value)

    def stream(replies: int) -> Callable[[BytesValue], AsyncIterator[BytesValue]]:
        async def many(request: BytesValue) -> AsyncIterator[BytesValue]:  # noqa: ASYNC124 - a servicer
            for _ in range(replies):
                yield BytesValue(value=request.value)

        return many

    service = purerpc.Service(SERVICE)
    kinds = purerpc.Cardinality
    for shape in SHAPES:
        if shape.replies is None:
            service.add_method(shape.method, unary, purerpc.RPCSignature(kinds.UNARY_UNARY, BytesValue, BytesValue))
        else:
            signature = purerpc.RPCSignature(kinds.UNARY_STREAM, BytesValue, BytesValue)
            service.add_method(shape.method, stream(shape.replies), signature)

    async def main() -> None:
        listener = await anyio.create_tcp_listener(local_host=HOST)
        listening_on(listener.extra(anyio.abc.SocketAttribute.local_port))  # noqa: S610 - no Django
        await listener.serve(purerpc.server.ConnectionHandler({SERVICE: service}, purerpc.Server()))

    anyio.run(main, backend="trio")


def run_grpclib() -> None:
    """Grpclib on asyncio."""
    import grpclib.const
    import grpclib.server

    async def unary(stream: Any) -> None:
        request = await stream.recv_message()
        await stream.send_message(BytesValue(value=request.value))

    def many(replies: int) -> Callable[[Any], Any]:
        async def handle(stream: Any) -> None:
            request = await stream.recv_message()
            for _ in range(replies):
                await stream.send_message(BytesValue(value=request.value))

        return handle

    class Echo:
        def __mapping__(self) -> dict[str, Any]:
            kinds = grpclib.const.Cardinality
            return {
                shape.path: grpclib.const.Handler(unary, kinds.UNARY_UNARY, BytesValue, BytesValue)
                if shape.replies is None
                else grpclib.const.Handler(many(shape.replies), kinds.UNARY_STREAM, BytesValue, BytesValue)
                for shape in SHAPES
            }

    async def main() -> None:
        server = grpclib.server.Server([Echo()])
        # asyncio sets TCP_NODELAY only on sockets that say that they are TCP's.
        listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
        listener.bind((HOST, 0))
        await server.start(sock=listener)
        listening_on(listener.getsockname()[1])
        await server.wait_closed()

    asyncio.run(main())


def run_grpc_aio() -> None:
    """Grpcio's asyncio server."""
    import grpc.aio

    async def unary(request: BytesValue, _context: Any) -> BytesValue:  # noqa: ASYNC124 - a servicer
        return BytesValue(value=request.value)

    def stream(replies: int) -> Callable[[BytesValue, Any], AsyncIterator[BytesValue]]:
        async def many(request: BytesValue, _context: Any) -> AsyncIterator[BytesValue]:  # noqa: ASYNC124 - a servicer
            for _ in range(replies):
                yield BytesValue(value=request.value)

        return many

    async def main() -> None:
        server = grpc.aio.server()
        server.add_generic_rpc_handlers((grpcio_handlers(unary, stream),))
        port = server.add_insecure_port(f"{HOST}:0")
        await server.start()
        listening_on(port)
        await server.wait_for_termination()

    asyncio.run(main())


def run_grpc() -> None:
    """Grpcio's synchronous server."""
    import grpc

    def unary(request: BytesValue, _context: Any) -> BytesValue:
        return BytesValue(value=request.value)

    def stream(replies: int) -> Callable[[BytesValue, Any], Iterator[BytesValue]]:
        def many(request: BytesValue, _context: Any) -> Iterator[BytesValue]:
            for _ in range(replies):
                yield BytesValue(value=request.value)

        return many

    with futures.ThreadPoolExecutor(THREADS) as pool:
        server = grpc.server(pool)
        server.add_generic_rpc_handlers((grpcio_handlers(unary, stream),))
        port = server.add_insecure_port(f"{HOST}:0")
        server.start()
        listening_on(port)
        server.wait_for_termination()


def grpcio_handlers(unary: Callable[..., Any], stream: Callable[[int], Callable[..., Any]]) -> Any:
    """What grpcio's two servers take alike."""
    import grpc

    kinds: dict[str, Any] = {
        "request_deserializer": BytesValue.FromString,
        "response_serializer": BytesValue.SerializeToString,
    }
    methods = {
        shape.method: grpc.unary_unary_rpc_method_handler(unary, **kinds)
        if shape.replies is None
        else grpc.unary_stream_rpc_method_handler(stream(shape.replies), **kinds)
        for shape in SHAPES
    }
    return grpc.method_handlers_generic_handler(SERVICE, methods)


def listening_on(port: int) -> None:
    """Tell the parent, and answer it from now on."""
    say({"port": port})
    # A thread of its own, the same for all, that only wakes between batches.
    threading.Thread(target=answer_lines, daemon=True).start()


def answer_lines() -> None:
    """Say what was used until now for every line; end the process when the parent is gone."""
    for _ in sys.stdin:
        used = resource.getrusage(resource.RUSAGE_SELF)
        say({"cpu_s": used.ru_utime + used.ru_stime})
    os._exit(0)


def say(answer: dict[str, Any]) -> None:
    """One line to the parent."""
    sys.stdout.write(json.dumps(answer) + "\n")
    sys.stdout.flush()


SERVERS: Final[dict[str, Callable[[], None]]] = {
    "dspex_trio": run_ours,
    "purerpc": run_purerpc,
    "grpclib": run_grpclib,
    "grpc.aio": run_grpc_aio,
    "grpc": run_grpc,
}

if __name__ == "__main__":
    SERVERS[sys.argv[1]]()
