"""One end of an HTTP/2 connection that sends what it is told to, frame by frame, with hyperframe and hpack alone."""

from __future__ import annotations

import struct
from collections import defaultdict
from typing import Any, Final

import hpack
import trio
from hyperframe.frame import (
    DataFrame,
    Frame,
    GoAwayFrame,
    HeadersFrame,
    PingFrame,
    RstStreamFrame,
    SettingsFrame,
    WindowUpdateFrame,
)
from interop_wire import PREFACE

_HEADER: Final = 9
_DEFAULT_WINDOW: Final = 65_535
_OUR_WINDOW: Final = 2**24
_MAX_DATA: Final = 2**14


class Disconnected(Exception):
    """The other end has closed."""


class RawConnection:
    """A connection and what came over it.

    Args:
        stream: Any Trio stream.

    Attributes:
        headers: All headers of each stream, trailers last.
        bodies: The content of DATA frames of each stream.
        ended: Streams that the other end has ended.
        order: Streams in the order in which they began.
        resets: Error codes of RST_STREAM.
        finished: Streams that this end has ended or reset.
        most_open: The most streams that were open at once.
        pings: Pings of ours that were not answered yet.
        settings_answered: How many SETTINGS of ours were.
    """

    def __init__(self, stream: trio.abc.Stream) -> None:
        self.headers: dict[int, dict[str, str]] = defaultdict(dict)
        self.bodies: dict[int, bytearray] = defaultdict(bytearray)
        self.ended: set[int] = set()
        self.order: list[int] = []
        self.resets: dict[int, int] = {}
        self.finished: set[int] = set()
        self.most_open = 0
        self.pings = 0
        self.settings_answered = 0
        self._stream = stream
        self._encoder, self._decoder = hpack.Encoder(), hpack.Decoder()
        self._buffer = bytearray()
        self._initial_window = self._window = _DEFAULT_WINDOW
        self._windows: dict[int, int] = {}

    async def begin(self, *, client: bool) -> None:
        """Say the first words, with windows large enough for any case."""
        settings = SettingsFrame(0)
        settings.settings = {SettingsFrame.INITIAL_WINDOW_SIZE: _OUR_WINDOW}
        window = WindowUpdateFrame(0)
        window.window_increment = _OUR_WINDOW
        await self.send(settings, window, first=PREFACE if client else b"")
        if not client:
            while len(self._buffer) < len(PREFACE):
                await self._read()
            del self._buffer[: len(PREFACE)]

    async def send(self, *frames: Any, first: bytes = b"") -> None:
        """Send frames."""
        try:
            await self._stream.send_all(first + b"".join(frame.serialize() for frame in frames))
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            raise Disconnected from None

    async def send_headers(self, stream_id: int, *fields: tuple[str, str], end: bool = False) -> None:
        """Send a header block."""
        frame = HeadersFrame(stream_id)
        frame.data = self._encoder.encode(fields)
        frame.flags.add("END_HEADERS")
        if end:
            frame.flags.add("END_STREAM")
            self.finished.add(stream_id)
        await self.send(frame)

    async def send_data(
        self, stream_id: int, data: bytes, *, size: int = _MAX_DATA, padding: int | None = None, end: bool = False
    ) -> None:
        """Send data in frames of a size, each with padding if that is given, as fast as the windows open."""
        at = 0
        while at < len(data):
            frames = []
            while at < len(data):
                piece = data[at : at + size]
                cost = len(piece) + (padding + 1 if padding is not None else 0)
                left = self._windows.get(stream_id, 0) + self._initial_window
                if cost > min(self._window, left):
                    break
                self._window -= cost
                self._windows[stream_id] = self._windows.get(stream_id, 0) - cost
                at += len(piece)
                frames.append(_data(stream_id, piece, padding, end=end and at == len(data)))
            if frames:
                await self.send(*frames)
            else:
                await self.receive()

    async def send_reset(self, stream_id: int, code: int = 0) -> None:
        """Send RST_STREAM."""
        frame = RstStreamFrame(stream_id)
        frame.error_code = code
        self.finished.add(stream_id)
        await self.send(frame)

    async def send_ping(self) -> None:
        """Send a PING and count it."""
        self.pings += 1
        await self.send(PingFrame(0, opaque_data=b"interop!"))

    async def send_setting(self, setting: int, value: int) -> None:
        """Change one setting."""
        frame = SettingsFrame(0)
        frame.settings = {setting: value}
        await self.send(frame)

    async def send_goaway(self, last: int) -> None:
        """Say goodbye; streams up to the last one are served."""
        await self.send(GoAwayFrame(0, last_stream_id=last))

    async def receive(self) -> None:
        """Read once and act on every whole frame.

        Raises:
            Disconnected: The other end has closed.
        """
        await self._read()
        await self._take_all()

    async def _read(self) -> None:
        try:
            data = await self._stream.receive_some()
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            data = b""
        if not data:
            raise Disconnected
        self._buffer += data

    async def _take_all(self) -> None:
        while len(self._buffer) >= _HEADER:
            frame, length = Frame.parse_frame_header(memoryview(bytes(self._buffer[:_HEADER])))
            if len(self._buffer) < _HEADER + length:
                return
            frame.parse_body(memoryview(bytes(self._buffer[_HEADER : _HEADER + length])))
            del self._buffer[: _HEADER + length]
            await self._take(frame)

    async def _take(self, frame: Any) -> None:
        stream_id = frame.stream_id
        match frame:
            case HeadersFrame():
                self._take_headers(frame)
            case DataFrame():
                self.bodies[stream_id] += frame.data
            case RstStreamFrame():
                self.resets[stream_id] = frame.error_code
            case WindowUpdateFrame() if stream_id:
                self._windows[stream_id] = self._windows.get(stream_id, 0) + frame.window_increment
            case WindowUpdateFrame():
                self._window += frame.window_increment
            case PingFrame() | SettingsFrame():
                await self._take_control(frame)
        if "END_STREAM" in frame.flags:
            self.ended.add(stream_id)

    def _take_headers(self, frame: Any) -> None:
        if frame.stream_id not in self.headers:
            self.order.append(frame.stream_id)
            self.most_open = max(self.most_open, len(set(self.order) - self.finished))
        self.headers[frame.stream_id].update(self._decoder.decode(frame.data))

    async def _take_control(self, frame: Any) -> None:
        match frame:
            case PingFrame() if "ACK" in frame.flags:
                self.pings -= 1
            case PingFrame():
                await self.send(PingFrame(0, opaque_data=frame.opaque_data, flags=["ACK"]))
            case SettingsFrame() if "ACK" in frame.flags:
                self.settings_answered += 1
            case _:
                self._initial_window = frame.settings.get(SettingsFrame.INITIAL_WINDOW_SIZE, self._initial_window)
                await self.send(SettingsFrame(0, flags=["ACK"]))


def _data(stream_id: int, content: bytes, padding: int | None, *, end: bool) -> DataFrame:
    frame = DataFrame(stream_id, data=content)
    if padding is not None:
        frame.pad_length = padding
        frame.flags.add("PADDED")
    if end:
        frame.flags.add("END_STREAM")
    return frame


def message(data: bytes, *, compressed: bool = False) -> bytes:
    """A length-prefixed message."""
    return struct.pack(">BI", compressed, len(data)) + data
