"""A gRPC client in the manner of h2load: one connection, many streams, blocks encoded once, next to no CPU.

It keeps flow control in both directions, answers pings, and checks of every call that its status is OK and that its
replies have the right length. Frames are those of RFC 9113, section 6.
"""

from __future__ import annotations

import select
import socket
import struct
import time
from typing import Any, Final

import hpack
from bench_rpc_shapes import Shape

_PREFACE: Final = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
_FRAME: Final = struct.Struct(">HBBBI")  # length (two parts), type, flags, stream
_SETTING: Final = struct.Struct(">HI")
_PREFIX: Final = struct.Struct(">BI")
_DATA, _HEADERS, _RST_STREAM, _SETTINGS, _PING, _GOAWAY, _WINDOW_UPDATE = 0, 1, 3, 4, 6, 7, 8
_END_STREAM, _ACK, _END_HEADERS = 1, 1, 4
_MAX_CONCURRENT_STREAMS, _INITIAL_WINDOW_SIZE, _MAX_FRAME_SIZE = 3, 4, 5
_DEFAULT_WINDOW: Final = 65_535
_DEFAULT_FRAME: Final = 16_384
_OUR_WINDOW: Final = 2**30  # more than any stream gets
_GIVE_BACK: Final = 2**28  # of the connection's window, in one go
_READ_SIZE: Final = 2**18
_PATIENCE_MS: Final = 5_000


def frame(kind: int, flags: int, stream_id: int, payload: bytes = b"") -> bytes:
    """One frame."""
    return _FRAME.pack(len(payload) >> 8, len(payload) & 0xFF, kind, flags, stream_id) + payload


class ConnectionLost(Exception):
    """The server hung up, was silent for too long, or did what a correct one does not."""


class RawClient:
    """A connection that makes calls of one shape.

    Args:
        port: Where the server listens on loopback.
        shape: What to call.

    Raises:
        ConnectionLost: From any method; the client is of no more use then.
    """

    def __init__(self, port: int, shape: Shape) -> None:
        self._socket = socket.create_connection(("127.0.0.1", port))
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._socket.setblocking(False)
        self._poll = select.poll()
        self._poll.register(self._socket, select.POLLIN)
        encoder = hpack.Encoder()
        fields = [
            (":method", "POST"),
            (":scheme", "http"),
            (":path", shape.path),
            (":authority", f"127.0.0.1:{port}"),
            ("te", "trailers"),
            ("content-type", "application/grpc"),
            ("user-agent", "bench-rpc"),
        ]
        # The first block fills the server's dynamic table; from then on the block is a few bytes, always the same.
        self._first_block: bytes | None = encoder.encode(fields)
        self._block: bytes = encoder.encode(fields)
        self._decoder = hpack.Decoder()
        self._decoded: dict[bytes, dict[str, str]] = {}
        self._request = memoryview(_PREFIX.pack(0, len(shape.message)) + shape.message)
        self._expected = len(self._request) * (shape.replies or 1)
        self._next_stream = 1
        self._window = self._initial_window = _DEFAULT_WINDOW
        self._max_frame = _DEFAULT_FRAME
        self._max_streams = 2**31
        self._windows: dict[int, int] = {}
        self._uploads: dict[int, int] = {}  # stream → how much of its request was sent
        self._began: dict[int, float] = {}
        self._received: dict[int, int] = {}
        self._owed = 0
        self._in = b""
        self._out = bytearray()
        self._latencies: list[float] = []
        self._to_begin = 0
        self._settled = False
        settings = _SETTING.pack(_INITIAL_WINDOW_SIZE, _OUR_WINDOW)
        self._out += _PREFACE + frame(_SETTINGS, 0, 0, settings)
        self._out += frame(_WINDOW_UPDATE, 0, 0, struct.pack(">I", _OUR_WINDOW))
        try:
            while not self._settled:
                self._exchange()
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Hang up."""
        self._socket.close()

    def batch(self, calls: int, at_once: int) -> list[float]:
        """Make so many calls, so many at once (or as the server allows); returns the seconds that each took."""
        self._latencies = []
        self._to_begin = calls
        for _ in range(min(at_once, calls, self._max_streams)):
            self._begin()
        while len(self._latencies) < calls:
            self._exchange()
        return self._latencies

    def _begin(self) -> None:
        self._to_begin -= 1
        stream_id, self._next_stream = self._next_stream, self._next_stream + 2
        self._began[stream_id] = time.perf_counter()
        self._received[stream_id] = 0
        block, self._first_block = self._first_block or self._block, None
        self._out += frame(_HEADERS, _END_HEADERS, stream_id, block)
        self._windows[stream_id] = self._initial_window
        self._uploads[stream_id] = 0
        self._upload(stream_id)

    def _upload(self, stream_id: int) -> None:
        """Send of a request what the server's windows let through."""
        start, size = self._uploads[stream_id], len(self._request)
        while start < size:
            room = min(self._window, self._windows[stream_id], self._max_frame, size - start)
            if room <= 0:
                self._uploads[stream_id] = start
                return
            part = self._request[start : start + room]
            start += room
            self._window -= room
            self._windows[stream_id] -= room
            flags = _END_STREAM if start == size else 0
            self._out += _FRAME.pack(room >> 8, room & 0xFF, _DATA, flags, stream_id)
            self._out += part
        del self._uploads[stream_id], self._windows[stream_id]

    def _exchange(self) -> None:
        """Write what can be written, wait, and act on what came."""
        if self._out:
            try:
                sent = self._socket.send(self._out)
            except BlockingIOError:
                sent = 0
            except (BrokenPipeError, ConnectionResetError):
                raise ConnectionLost("the server closed the connection") from None
            del self._out[:sent]
        self._poll.modify(self._socket, select.POLLIN | (select.POLLOUT if self._out else 0))
        ready = self._poll.poll(_PATIENCE_MS)
        if not ready:
            raise ConnectionLost(f"the server was silent for {_PATIENCE_MS / 1000:.0f} s")
        if ready[0][1] & ~select.POLLOUT:
            try:
                data = self._socket.recv(_READ_SIZE)
            except ConnectionResetError:
                data = b""
            if not data:
                raise ConnectionLost("the server closed the connection")
            self._take(self._in + data)

    def _take(self, data: bytes) -> None:
        start, end = 0, len(data)
        while end - start >= _FRAME.size:
            high, low, kind, flags, stream_id = _FRAME.unpack_from(data, start)
            length = high << 8 | low
            body = start + _FRAME.size
            if body + length > end:
                break
            start = body + length
            if kind == _DATA:
                self._received[stream_id] += length
                self._owed += length
                if flags & _END_STREAM:
                    raise ConnectionLost("a response ended without a status")
            elif kind == _HEADERS:
                self._take_headers(data[body:start], flags, stream_id)
            else:
                self._take_control(kind, flags, stream_id, data[body:start])
        self._in = data[start:]
        if self._owed > _GIVE_BACK:
            self._out += frame(_WINDOW_UPDATE, 0, 0, struct.pack(">I", self._owed))
            self._owed = 0

    def _take_headers(self, block: bytes, flags: int, stream_id: int) -> None:
        if not flags & _END_HEADERS:
            raise ConnectionLost("a header block came in parts, which this client does not take")
        fields = self._decode(block)
        if not flags & _END_STREAM:
            return
        if fields.get("grpc-status") != "0" or self._received[stream_id] != self._expected:
            raise ConnectionLost(f"a call failed: {fields}, {self._received[stream_id]} of {self._expected} bytes")
        del self._received[stream_id]
        self._latencies.append(time.perf_counter() - self._began.pop(stream_id))
        if self._to_begin:
            self._begin()

    def _decode(self, block: bytes) -> dict[str, str]:
        """The fields of a block, remembered while the dynamic table stays what it is."""
        found = self._decoded.get(block)
        if found is None:
            table = self._decoder.header_table.dynamic_entries
            before = tuple(table)
            found = dict(self._decoder.decode(block))
            if tuple(table) == before:
                self._decoded[block] = found
            else:
                self._decoded.clear()
        return found

    def _take_control(self, kind: int, flags: int, stream_id: int, payload: bytes) -> None:
        if kind == _SETTINGS and not flags & _ACK:
            self._settle(dict(_SETTING.iter_unpack(payload)))
            self._out += frame(_SETTINGS, _ACK, 0)
        elif kind == _PING and not flags & _ACK:
            self._out += frame(_PING, _ACK, 0, payload)
        elif kind == _WINDOW_UPDATE:
            increment = int.from_bytes(payload, "big")
            if stream_id == 0:
                self._window += increment
            elif stream_id in self._windows:
                self._windows[stream_id] += increment
            self._upload_all()
        elif kind in {_RST_STREAM, _GOAWAY}:
            raise ConnectionLost(f"the server gave up: frame type {kind}, {payload!r}")

    def _settle(self, settings: dict[Any, Any]) -> None:
        self._settled = True
        self._max_frame = settings.get(_MAX_FRAME_SIZE, self._max_frame)
        self._max_streams = settings.get(_MAX_CONCURRENT_STREAMS, self._max_streams)
        before, self._initial_window = self._initial_window, settings.get(_INITIAL_WINDOW_SIZE, self._initial_window)
        for stream_id in self._windows:
            self._windows[stream_id] += self._initial_window - before
        self._upload_all()

    def _upload_all(self) -> None:
        for stream_id in tuple(self._uploads):
            self._upload(stream_id)
