"""One HTTP/2 connection over one Trio stream: who reads, who writes, who has to wait, how it is closed."""

from __future__ import annotations

import logging
import os
from typing import Final, Generic, Protocol, TypeVar

import trio

from dspex_trio.rpc.http2.events import Event
from dspex_trio.rpc.http2.interface import Engine

EngineT = TypeVar("EngineT", bound=Engine)

log: Final = logging.getLogger("dspex_trio.rpc")

# Elsewhere a socket's number is none for os.write.
_SOCKETS_ARE_FILES: Final = os.name == "posix"
_READ_SIZE: Final = 2**16
_LARGE_READ_SIZE: Final = 2**18
# What was read is acted on in slices, so that one connection's flood of small frames holds up no other: after so many
# seconds the others have their turn, and slices are made to take a quarter to a half of that.
_FAIR_SHARE: Final = 0.0005
_SLICES: Final = (2**7, 2**16)  # the first one is the smallest: a stranger may be a flood
# Reading stops when answers to what was read (pings, resets) pile up to this many times the output buffer: data of
# calls stops at one. A peer that reads nothing could make us buffer without end.
_CONTROL_FACTOR: Final = 4
# How much of the connection's window a call that waits for it is expected to take.
_WINDOW_SHARE: Final = 2**14
# Writes are cut, so that a peer which takes a large one slowly is seen to take it.
_WRITE_SIZE: Final = 2**17
# What is read and thrown away from a peer that still sends when we have closed.
_LINGER_BYTES: Final = 2**20


class Blocked(Protocol):
    """A call that waits until more may be sent."""

    @property
    def stream_id(self) -> int:
        """Its stream."""
        ...

    def window_opened(self) -> None:
        """More may be sent."""
        ...


class Connection(Generic[EngineT]):
    """The reading and the writing half of one connection.

    Args:
        stream: Any Trio stream; it is closed by `run`'s end.
        engine: The connection's protocol.
        output_buffer: Bytes queued to be written above which senders wait.
        close_timeout: Seconds for the last bytes.

    Attributes:
        heard_at: When the peer last sent something, on Trio's clock.
        writing: Whether a write is under way that the stream has not taken yet.
        wrote_at: When the stream last took something, or such a write began, on Trio's clock.
    """

    def __init__(self, stream: trio.abc.Stream, engine: EngineT, *, output_buffer: int, close_timeout: float) -> None:
        self.engine = engine
        self.stream = stream
        self._output_buffer = output_buffer
        self.close_timeout = close_timeout
        self._writer = trio.lowlevel.ParkingLot()  # where the writer waits for something to write
        self._idle = False  # whether it waits there
        self._room = trio.lowlevel.ParkingLot()  # where senders wait, in turn, until less is queued
        self._writing = trio.CancelScope(shield=True)
        self._slice = _SLICES[0]
        self._closing = False
        self._broken = False
        self._blocked: dict[Blocked, None] = {}  # who waits for a window, in turn
        self._window_grew = False
        self.writing = False
        self.wrote_at = self.heard_at = trio.current_time()
        self._heard: trio.Event | None = None

    def on_event(self, event: Event) -> None:
        """Act on one event of the engine's; must not wait."""
        raise NotImplementedError

    def window_grew(self) -> None:
        """The connection's window may be larger, or all of the streams'; those who wait learn of it in a moment."""
        self._window_grew = True

    def wait_for_window(self, call: Blocked) -> None:
        """Tell a call when it may send, or should look whether it still can, and forget it."""
        self._blocked[call] = None

    def give_up_window(self, call: Blocked) -> None:
        """A call does not wait any more."""
        self._blocked.pop(call, None)

    def share_window(self) -> None:
        """Let some of those go on who wait for a window, in turn; whoever has sent, or given up, calls this again.

        To wake all of them for each byte that the peer gives would be a thousand tasks' work for thirteen bytes of its.
        """
        window = self.engine.window if self._blocked else 0
        woken = []
        for call in self._blocked:
            if window <= 0:
                break
            sendable = self.engine.sendable(call.stream_id) if self.engine.is_open(call.stream_id) else 1
            if sendable > 0:
                woken.append(call)
                window -= min(sendable, _WINDOW_SHARE)
        for call in woken:
            del self._blocked[call]
            call.window_opened()

    def wake(self) -> None:
        """Something was queued."""
        if self._idle:
            self._writer.unpark()
            self._idle = False

    def push(self) -> None:
        """Nothing more is to be expected after what is queued, if anything: write it here and now, if possible.

        It saves the writer's turn, which is a good part of the cost of a small call. What the socket does not take is
        left to the writer, and so is everything on streams that are no plain sockets.
        """
        if not self.engine.unsent:
            return
        if self._idle and isinstance(self.stream, trio.SocketStream) and _SOCKETS_ARE_FILES:
            data = self.engine.data_to_send()
            try:
                written = os.write(self.stream.socket.fileno(), data)
            except OSError:
                written = 0  # it is full, or broken, which the writer will find out
            if written == len(data):
                return
            self.engine.put_back(data[written:])
        self.wake()

    @property
    def has_room(self) -> bool:
        """Whether more may be queued by one who has not waited for it."""
        return self.engine.unsent <= self._output_buffer and not self._room

    async def room(self) -> int:
        """Wait while too much is queued, in turn; returns how much may be queued. Call `pass_on` after that."""
        if not self.has_room and not self._broken:
            self.wake()  # what is queued may be one's own
            await self._room.park()
        return self._output_buffer

    def pass_on(self) -> None:
        """Let in the next sender, if there is room: to wake all of them for each write would be most of the work."""
        if self._room and (self.engine.unsent <= self._output_buffer or self._broken):
            self._room.unpark()

    async def write(self) -> None:
        """Write what is queued until `close` is called and nothing is left; shielded, so that goodbyes get out."""
        with self._writing:
            try:
                while True:
                    data = self.engine.data_to_send()
                    if data:
                        await self._write_out(data)
                        self.pass_on()
                    elif self._closing:
                        return
                    else:
                        self._idle = True
                        await self._writer.park()
            except (trio.BrokenResourceError, trio.ClosedResourceError):
                pass
        self._broken = True
        self._idle = self.writing = False
        self._room.unpark_all()
        self.on_broken()

    async def _write_out(self, data: bytearray) -> None:
        self.writing = True
        self.wrote_at = trio.current_time()
        self.on_writing()
        if len(data) <= _WRITE_SIZE:
            await self.stream.send_all(data)
        else:
            whole = memoryview(data)
            for start in range(0, len(data), _WRITE_SIZE):
                await self.stream.send_all(whole[start : start + _WRITE_SIZE])
                self.wrote_at = trio.current_time()
        self.writing = False

    def on_writing(self) -> None:
        """A write begins."""

    def give_up_writing(self) -> None:
        """Write nothing more, not even what is under way: the connection is broken, and what is queued is dropped."""
        self._writing.cancel()

    def on_broken(self) -> None:
        """Nothing can be written any more."""
        raise NotImplementedError

    async def read(self) -> None:
        """Read and act until the peer ends the connection or breaks its rules."""
        size = _READ_SIZE
        while True:
            try:
                data = await self.stream.receive_some(size)
            except (trio.BrokenResourceError, trio.ClosedResourceError):
                return
            if not data:
                return
            # A read that came back full is likely to be part of a large message.
            size = _LARGE_READ_SIZE if len(data) == size else _READ_SIZE
            self.heard_at = trio.current_time()
            if self._heard is not None:
                self._heard.set()
                self._heard = None
            await self._act_on(bytes(data))
            if self.engine.failed:
                self._log_failure()
                return
            if self.engine.unsent > _CONTROL_FACTOR * self._output_buffer:
                await self.room()
                self.pass_on()

    async def _act_on(self, data: bytes) -> None:
        """Act on what was read; others have their turn when it takes long."""
        start, turn = 0, trio.current_time()
        now = turn
        while start < len(data) and not self.engine.failed:
            end = start + self._slice
            for event in self.engine.receive(data[start:end], now):
                self.on_event(event)
            if self._window_grew:
                self._window_grew = False
                self.share_window()
            start, begun, now = end, now, trio.current_time()
            if now - begun < _FAIR_SHARE / 4:
                self._slice = min(2 * self._slice, _SLICES[1])
            elif now - begun > _FAIR_SHARE / 2:
                self._slice = max(self._slice // 2, _SLICES[0])
            if now - turn >= _FAIR_SHARE:
                await trio.lowlevel.checkpoint()
                now = turn = trio.current_time()
        await self.after_events()
        self.push()

    async def after_events(self) -> None:
        """Do what had to wait until all events of one read were acted on."""

    async def hear(self) -> None:
        """Wait until the peer sends something."""
        if self._heard is None:
            self._heard = trio.Event()
        await self._heard.wait()

    def send_ping(self, data: bytes) -> None:
        """Queue a ping of eight bytes."""
        self.engine.ping(data)
        self.wake()

    def close(self) -> None:
        """Let the writer finish what is queued, within the close timeout, and end."""
        self._closing = True
        self._writing.deadline = min(self._writing.deadline, trio.current_time() + self.close_timeout)
        self.wake()

    async def hang_up(self) -> None:
        """Close the stream so that the peer still gets what was written; to be called shielded, takes a bounded time.

        A socket that is closed with unread bytes in it is reset, and a reset may overtake the last replies. So end our
        half first and throw away what still comes until the peer ends its half.
        """
        with trio.move_on_after(self.close_timeout):
            try:
                stream = self.stream.transport_stream if isinstance(self.stream, trio.SSLStream) else self.stream
                if not self._broken and isinstance(stream, trio.abc.HalfCloseableStream):
                    await stream.send_eof()
                    left = _LINGER_BYTES
                    while left > 0 and (data := await stream.receive_some(_READ_SIZE)):
                        left -= len(data)
            except (trio.BrokenResourceError, trio.ClosedResourceError):
                pass
        await trio.aclose_forcefully(self.stream)

    def _log_failure(self) -> None:
        failure = self.engine.failure
        if self.engine.peer_is_at_fault:
            log.info("closing a connection: %s", failure)
        else:
            log.error("closing a connection after an unexpected error", exc_info=failure)
