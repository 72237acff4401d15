"""What a connection really carries, read off its bytes on their way: compressed-flags and resets, call by call.

No gRPC library tells its users whether a message came compressed, and that is what four of the cases are about.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, Final

import trio

PREFACE: Final = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
_FRAME_HEADER: Final = 9
_MESSAGE_HEADER: Final = 5
_DATA, _HEADERS, _RST_STREAM = 0, 1, 3
_PADDED: Final = 0x8


@dataclass(slots=True)
class Half:
    """One direction of one call.

    Attributes:
        compressed: The compressed-flag of each message that has begun.
        reset: The error code of a RST_STREAM.
    """

    compressed: list[bool] = field(default_factory=list)
    reset: int | None = None
    _rest: int = 0
    _prefix: bytes = b""

    def feed(self, data: bytes) -> None:
        """Take the content of DATA frames."""
        at = 0
        while at < len(data):
            if self._rest:
                step = min(self._rest, len(data) - at)
                self._rest -= step
            else:
                step = _MESSAGE_HEADER - len(self._prefix)
                self._prefix += data[at : at + step]
                if len(self._prefix) == _MESSAGE_HEADER:
                    self.compressed.append(self._prefix[0] == 1)
                    self._rest = int.from_bytes(self._prefix[1:], "big")
                    self._prefix = b""
            at += step


class Direction:
    """One direction of a connection.

    Args:
        client: Whether a client sends it, after the preface.
    """

    def __init__(self, *, client: bool) -> None:
        self.calls: dict[int, Half] = {}
        self._skip = len(PREFACE) if client else 0
        self._buffer = bytearray()
        self._changed = trio.lowlevel.ParkingLot()

    @property
    def latest(self) -> Half:
        """The call that began last."""
        return self.calls[max(self.calls)]

    async def until_reset(self) -> int:
        """Wait until the call that began last is reset; the error code."""
        while not self.calls or self.latest.reset is None:
            await self._changed.park()
        return self.latest.reset

    def feed(self, data: bytes) -> None:
        """Take bytes, however they are cut."""
        skipped = min(self._skip, len(data))
        self._skip -= skipped
        self._buffer += data[skipped:]
        for kind, flags, stream_id, payload in self._frames():
            call = self.calls.setdefault(stream_id, Half()) if stream_id else Half()
            if kind == _DATA:
                padding = payload[0] + 1 if flags & _PADDED else 0
                call.feed(payload[1 : len(payload) - padding + 1] if padding else payload)
            elif kind == _RST_STREAM:
                call.reset = int.from_bytes(payload, "big")
        self._changed.unpark_all()

    def _frames(self) -> Iterator[tuple[int, int, int, bytes]]:
        while len(self._buffer) >= _FRAME_HEADER:
            end = _FRAME_HEADER + int.from_bytes(self._buffer[:3], "big")
            if len(self._buffer) < end:
                return
            head = self._buffer[:_FRAME_HEADER]
            payload = bytes(self._buffer[_FRAME_HEADER:end])
            del self._buffer[:end]
            yield head[3], head[4], int.from_bytes(head[5:], "big") & 0x7FFFFFFF, payload


class TappedStream(trio.abc.HalfCloseableStream):
    """A stream that is listened in on.

    Args:
        stream: The stream.
        client: Whether this is the client's end of it.
    """

    def __init__(self, stream: trio.SocketStream, *, client: bool) -> None:
        self.sent = Direction(client=client)
        self.received = Direction(client=not client)
        self._stream = stream

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        """As the stream does."""
        self.sent.feed(bytes(data))
        await self._stream.send_all(data)

    async def wait_send_all_might_not_block(self) -> None:
        """As the stream does."""
        await self._stream.wait_send_all_might_not_block()

    async def send_eof(self) -> None:
        """As the stream does."""
        await self._stream.send_eof()

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        """As the stream does."""
        data = bytes(await self._stream.receive_some(max_bytes))
        self.received.feed(data)
        return data

    async def aclose(self) -> None:
        """As the stream does."""
        await self._stream.aclose()


class TappedListener(trio.abc.Listener[trio.abc.Stream]):
    """A listener whose connections are listened in on.

    Attributes:
        connection: The one that was accepted last.
    """

    def __init__(self, listener: trio.abc.Listener[Any]) -> None:
        self.connection: TappedStream | None = None
        self._listener = listener

    async def accept(self) -> trio.abc.Stream:
        """As the listener does."""
        self.connection = TappedStream(await self._listener.accept(), client=False)
        return self.connection

    async def aclose(self) -> None:
        """As the listener does."""
        await self._listener.aclose()


class TappedConnector:
    """Connects to a port of this machine, listening in on it; a target for a channel.

    Attributes:
        connection: The one that was opened last.
    """

    def __init__(self, port: int) -> None:
        self.connection: TappedStream | None = None
        self._port = port

    async def __call__(self) -> trio.abc.Stream:
        """Open a connection."""
        self.connection = TappedStream(await trio.open_tcp_stream("127.0.0.1", self._port), client=True)
        return self.connection


# Whether the n-th request of the call that began last came compressed.
WasCompressed = Callable[[int], bool]
