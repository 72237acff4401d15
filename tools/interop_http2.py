"""gRPC's eight negative HTTP/2 cases: a server that misbehaves frame by frame, and this project's channel.

The procedures are those of gRPC's doc/http2-interop-test-descriptions.md.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from functools import partial
from typing import Final

import trio
from hyperframe.frame import SettingsFrame
from interop_cases import LARGE_RESPONSE, Miss, expect, expect_zeros, large
from interop_protos import messages as pb
from interop_protos import services
from interop_raw import Disconnected, RawConnection, message

from dspex_trio import rpc

_HEADERS: Final = ((":status", "200"), ("content-type", "application/grpc"))
_TRAILERS: Final = (("grpc-status", "0"),)
_MOST_PADDING: Final = 255
_CALLS_AT_ONCE: Final = 10

Answer = Callable[[RawConnection, int, bytes], Awaitable[None]]


class RawServer:
    """Answers every call in turn, in a way of its own.

    Args:
        answers: What to do with the first call, the second and so on; the last one is for all that follow.

    Attributes:
        connections: All of them.
    """

    def __init__(self, *answers: Answer) -> None:
        self.connections: list[RawConnection] = []
        self._answers = list(answers)

    async def serve(self, stream: trio.abc.Stream) -> None:
        """One connection, until the client closes it."""
        connection = RawConnection(stream)
        self.connections.append(connection)
        answered = 0
        try:
            await connection.begin(client=False)
            while True:
                while answered < len(connection.order) and connection.order[answered] in connection.ended:
                    await self._answer(connection, connection.order[answered])
                    answered += 1
                await connection.receive()
        except Disconnected:
            await trio.aclose_forcefully(stream)

    async def _answer(self, connection: RawConnection, stream_id: int) -> None:
        request = pb.SimpleRequest.FromString(bytes(connection.bodies[stream_id][len(message(b"")) :]))
        reply = pb.SimpleResponse(payload=pb.Payload(body=bytes(request.response_size)))
        answer = self._answers.pop(0) if len(self._answers) > 1 else self._answers[0]
        await answer(connection, stream_id, message(reply.SerializeToString()))


@asynccontextmanager
async def _open(server: RawServer) -> AsyncIterator[services.TestServiceStub]:
    """Run the server; a stub on a channel to it. At the end the channel is closed, then the server has seen that."""
    listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
    port = listeners[0].socket.getsockname()[1]
    async with trio.open_nursery() as connections, trio.open_nursery() as accepting:
        accepting.start_soon(partial(trio.serve_listeners, server.serve, listeners, handler_nursery=connections))
        async with rpc.open_channel(f"127.0.0.1:{port}") as channel:
            yield services.TestServiceStub(channel)
        accepting.cancel_scope.cancel()


async def _normally(
    connection: RawConnection, stream_id: int, reply: bytes, *, size: int = 2**14, padding: int | None = None
) -> None:
    await connection.send_headers(stream_id, *_HEADERS)
    await connection.send_data(stream_id, reply, size=size, padding=padding)
    await connection.send_headers(stream_id, *_TRAILERS, end=True)


async def _goodbye(connection: RawConnection, stream_id: int, reply: bytes) -> None:
    await connection.send_goaway(stream_id)
    await _normally(connection, stream_id, reply)


async def _break_off(connection: RawConnection, stream_id: int, reply: bytes, *, share: float) -> None:
    await connection.send_headers(stream_id, *_HEADERS)
    await connection.send_data(stream_id, reply[: int(len(reply) * share)])
    await connection.send_reset(stream_id)


async def _with_pings(connection: RawConnection, stream_id: int, reply: bytes) -> None:
    await connection.send_ping()
    await connection.send_headers(stream_id, *_HEADERS)
    await connection.send_ping()
    await connection.send_data(stream_id, reply)
    await connection.send_ping()
    await connection.send_headers(stream_id, *_TRAILERS, end=True)


async def _one_at_a_time(connection: RawConnection, stream_id: int, reply: bytes) -> None:
    before = connection.settings_answered
    await connection.send_setting(SettingsFrame.MAX_CONCURRENT_STREAMS, 1)
    while connection.settings_answered == before:
        await connection.receive()
    await _normally(connection, stream_id, reply)


async def _succeed(stub: services.TestServiceStub) -> None:
    expect_zeros((await stub.UnaryCall(large(pb))).payload, LARGE_RESPONSE)


async def goaway() -> None:
    """The call in flight is answered, the next one goes over another connection."""
    server = RawServer(_goodbye, _normally)
    async with _open(server) as stub:
        await _succeed(stub)
        await _succeed(stub)
    expect(len(server.connections), 2, "number of connections")


async def _reset(share: float) -> None:
    """The call fails, even if all data came, and the connection lives on."""
    server = RawServer(partial(_break_off, share=share), _normally)
    async with _open(server) as stub:
        try:
            await stub.UnaryCall(large(pb))
        except rpc.RpcError as error:
            expect(error.status, rpc.StatusCode.INTERNAL, "status of a call that was reset")
        else:
            raise Miss("the call succeeded")
        await _succeed(stub)
    expect(len(server.connections), 1, "number of connections")


async def ping() -> None:
    """Every ping is answered."""
    server = RawServer(_with_pings)
    async with _open(server) as stub:
        await _succeed(stub)
        await _succeed(stub)
    expect([connection.pings for connection in server.connections], [0], "pings without an answer")


async def max_streams() -> None:
    """Ten calls at once wait for one another when the server allows one."""
    server = RawServer(_one_at_a_time, _normally)
    async with _open(server) as stub:
        await _succeed(stub)
        async with trio.open_nursery() as nursery:
            for _ in range(_CALLS_AT_ONCE):
                nursery.start_soon(_succeed, stub)
    expect([connection.most_open for connection in server.connections], [1], "calls at once on each connection")


async def _small_frames(size: int, padding: int | None) -> None:
    """Thousands of small frames; padded ones cost many times their content of the windows."""
    async with _open(RawServer(partial(_normally, size=size, padding=padding))) as stub:
        await _succeed(stub)


def http2_cases(frame_size: int) -> Mapping[str, Callable[[], Awaitable[None]]]:
    """Each case, with the size of the frames of the last two; gRPC's description has 5 bytes."""
    return {
        "goaway": goaway,
        "rst_after_header": partial(_reset, 0.0),
        "rst_during_data": partial(_reset, 0.5),
        "rst_after_data": partial(_reset, 1.0),
        "ping": ping,
        "max_streams": max_streams,
        "data_frame_padding": partial(_small_frames, frame_size, _MOST_PADDING),
        "no_df_padding_sanity_test": partial(_small_frames, frame_size, None),
    }
