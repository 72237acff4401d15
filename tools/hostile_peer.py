"""What the hostile-peer tools share: the server's process, its statistics, raw frames, and connections by hand."""

from __future__ import annotations

import json
import struct
import subprocess
import sys
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import hpack
import trio
from google.protobuf.wrappers_pb2 import BytesValue

from dspex_trio import rpc
from dspex_trio.rpc.client.stubs import StreamStream, StreamUnary, UnaryStream, UnaryUnary

HOST: Final = "127.0.0.1"
SERVICE: Final = "hostile.Hostile"
PREFACE: Final = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
DATA, HEADERS, PRIORITY, RST_STREAM, SETTINGS, PUSH_PROMISE, PING, GOAWAY, WINDOW_UPDATE, CONTINUATION = range(10)
END_STREAM: Final = 1
ACK: Final = 1
END_HEADERS: Final = 4
CANCEL: Final = 8
HEAD_SIZE: Final = 9
_SUBJECT: Final = Path(__file__).with_name("hostile_subject.py")
_PATIENCE: Final = 30.0
_READ_SIZE: Final = 65_536
_MIB: Final = 2**20


@dataclass(frozen=True, slots=True)
class Stats:
    """What the server's process holds: handlers, tasks, file descriptors, bytes of memory; and errors it has logged."""

    running: int
    begun: int
    errors: int
    tasks: int
    fds: int
    rss: int

    def __str__(self) -> str:
        return (
            f"{self.running} handlers, {self.tasks} tasks, {self.fds} fds, {self.rss / _MIB:.1f} MiB, "
            f"{self.errors} errors logged"
        )


class Stub:
    """The server's methods over a channel."""

    def __init__(self, channel: rpc.Channel) -> None:
        self.echo = UnaryUnary[BytesValue, BytesValue](channel, f"/{SERVICE}/Echo", BytesValue)
        self.sleep = UnaryUnary[BytesValue, BytesValue](channel, f"/{SERVICE}/Sleep", BytesValue)
        self.watch = UnaryStream[BytesValue, BytesValue](channel, f"/{SERVICE}/Watch", BytesValue)
        self.collect = StreamUnary[BytesValue, BytesValue](channel, f"/{SERVICE}/Collect", BytesValue)
        self.chat = StreamStream[BytesValue, BytesValue](channel, f"/{SERVICE}/Chat", BytesValue)
        self.missing = UnaryUnary[BytesValue, BytesValue](channel, f"/{SERVICE}/Missing", BytesValue)
        self._stats = UnaryUnary[BytesValue, BytesValue](channel, f"/{SERVICE}/Stats", BytesValue)

    async def stats(self) -> Stats:
        """What the server holds."""
        return Stats(**json.loads((await self._stats(BytesValue())).value))

    async def settled(self, patience: float = 10.0) -> Stats:
        """What the server holds once no handler but this is running and no other connection is left, or after patience.

        The kernel and the server take their time over the last connections of a crowd; polling is all that an outsider
        can do.
        """
        least = await self.stats()
        with trio.move_on_after(patience):
            still = 0
            while still < 5:  # noqa: PLR2004 - another process cannot set an event here
                await trio.sleep(0.1)
                now = await self.stats()
                still = still + 1 if (now.running, now.tasks, now.fds) == (0, least.tasks, least.fds) else 0
                least = now
        return least


@asynccontextmanager
async def subject(**settings: Any) -> AsyncIterator[int]:
    """Run the server in a process of its own; yields its port."""
    command = [sys.executable, str(_SUBJECT), json.dumps(settings)]
    process = await trio.lowlevel.open_process(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    if process.stdin is None or process.stdout is None:
        raise RuntimeError("the server was started with pipes")
    try:
        line = b""
        with trio.fail_after(_PATIENCE):
            while not line.endswith(b"\n"):
                data = await process.stdout.receive_some()
                if not data:
                    raise RuntimeError("the server did not start")
                line += data
        yield json.loads(line)["port"]
        await process.stdin.aclose()
        with trio.fail_after(_PATIENCE):
            await process.wait()
    finally:
        if process.returncode is None:
            process.kill()


@asynccontextmanager
async def stub(port: int) -> AsyncIterator[Stub]:
    """A well-behaved client."""
    async with rpc.open_channel(f"{HOST}:{port}") as channel:
        yield Stub(channel)


def frame(kind: int, payload: bytes = b"", *, flags: int = 0, stream: int = 0) -> bytes:
    """One HTTP/2 frame."""
    return struct.pack(">I", len(payload))[1:] + struct.pack(">BBI", kind, flags, stream) + payload


def frames(data: bytes) -> tuple[list[tuple[int, int, int, bytes]], bytes]:
    """The whole frames at the beginning of some bytes, as (type, flags, stream, payload), and the rest."""
    found = []
    while len(data) >= HEAD_SIZE:
        size = int.from_bytes(data[:3], "big")
        if len(data) < HEAD_SIZE + size:
            break
        stream = int.from_bytes(data[5:HEAD_SIZE], "big") & 0x7FFFFFFF
        found.append((data[3], data[4], stream, data[HEAD_SIZE : HEAD_SIZE + size]))
        data = data[HEAD_SIZE + size :]
    return found, data


def settings_frame(*pairs: tuple[int, int]) -> bytes:
    """A SETTINGS frame."""
    return frame(SETTINGS, b"".join(struct.pack(">HI", *pair) for pair in pairs))


def window_frame(stream: int, increment: int) -> bytes:
    """A WINDOW_UPDATE frame."""
    return frame(WINDOW_UPDATE, struct.pack(">I", increment), stream=stream)


def reset_frame(stream: int) -> bytes:
    """A RST_STREAM frame with CANCEL."""
    return frame(RST_STREAM, struct.pack(">I", CANCEL), stream=stream)


class Requests:
    """Requests as frames of one connection, with its header compression."""

    def __init__(self) -> None:
        self._encoder = hpack.Encoder()

    def block(self, method: str, extra: Iterable[tuple[str, str]] = ()) -> bytes:
        """The header block of a request."""
        fields = [
            (":method", "POST"),
            (":scheme", "http"),
            (":path", f"/{SERVICE}/{method}"),
            (":authority", "localhost"),
            ("te", "trailers"),
            ("content-type", "application/grpc"),
        ]
        block: bytes = self._encoder.encode([*fields, *extra])
        return block

    def begin(self, stream: int, method: str, extra: Iterable[tuple[str, str]] = ()) -> bytes:
        """A HEADERS frame."""
        return frame(HEADERS, self.block(method, extra), flags=END_HEADERS, stream=stream)

    def call(self, stream: int, method: str, value: bytes = b"", extra: Iterable[tuple[str, str]] = ()) -> bytes:
        """A whole unary request."""
        return self.begin(stream, method, extra) + frame(DATA, message(value), flags=END_STREAM, stream=stream)


def message(value: bytes) -> bytes:
    """A BytesValue with its prefix."""
    body: bytes = BytesValue(value=value).SerializeToString()
    return struct.pack(">BI", 0, len(body)) + body


async def connect(port: int, source: str | None = None) -> trio.SocketStream:
    """A connection, from another address of the loopback network if wanted, so that ports do not run out."""
    sock = trio.socket.socket()
    try:
        if source is not None and sys.platform == "linux":
            await sock.bind((source, 0))
        await sock.connect((HOST, port))
        return trio.SocketStream(sock)
    except BaseException:
        sock.close()
        raise


async def drained(stream: trio.SocketStream) -> bytes:
    """All that still comes."""
    received = bytearray()
    try:
        while data := await stream.receive_some(_READ_SIZE):
            received += data
    except (trio.BrokenResourceError, trio.ClosedResourceError):
        pass
    return bytes(received)
