"""The messages of one call, both ways: what arrives waits to be read, what is sent waits for the peer's windows."""

from __future__ import annotations

from collections import deque
from typing import Final

import trio

from dspex_trio.rpc.http2.messages import Packed
from dspex_trio.rpc.transport import Connection, EngineT

_MESSAGES_PER_TURN: Final = 16


class CallStream:
    """The messages of one call, both ways.

    Args:
        connection: Where it runs.
        stream_id: Its HTTP/2 stream.
    """

    def __init__(self, connection: Connection[EngineT], stream_id: int) -> None:
        self.connection = connection
        self.stream_id = stream_id
        self.input_ended = False
        self.torn = False  # whether the last message that was sent is not whole, and never will be
        self._turns = 0
        self._inbox: deque[tuple[bytes | Packed, int]] = deque()
        self._arrived: trio.Event | None = None
        self._window: trio.Event | None = None

    def deliver(self, data: bytes | Packed, size: int) -> None:
        """A message came that cost the sender `size` of its window."""
        self._inbox.append((data, size))
        self._notify()

    def end_input(self) -> None:
        """No more messages will come."""
        self.input_ended = True
        self._notify()

    def _notify(self) -> None:
        if self._arrived is not None:
            self._arrived.set()
            self._arrived = None

    async def receive(self) -> bytes | None:
        """The next message, or None after the last; when cancelled, no message is lost.

        Raises:
            BadMessage: It cannot be unpacked.
        """
        if self._inbox:
            await self.yield_now_and_then()
        while not self._inbox:
            if self.input_ended:
                return None
            await self.arrival()  # looked for after every wait, for other tasks may be reading too
        return self._take()

    def _take(self) -> bytes:
        data, size = self._inbox.popleft()
        self._release(data, size)
        if not isinstance(data, Packed):
            return data
        self._turns = -1  # it may be a thousand times as large as it was: the others come before the next one
        return data.unpack()

    async def yield_now_and_then(self) -> None:
        """Let a cancellation arrive; and, every few messages, let the others have their turn.

        A full turn for each message would be most of what a small one costs; none at all, and a call with thousands of
        messages waiting would hold up everybody else.
        """
        self._turns += 1
        if self._turns % _MESSAGES_PER_TURN:
            await trio.lowlevel.checkpoint_if_cancelled()
        else:
            await trio.lowlevel.checkpoint()

    def take_only(self) -> bytes | None:
        """The message, if exactly one has come and no more will; else None, and nothing was taken.

        Raises:
            BadMessage: It cannot be unpacked.
        """
        return self._take() if self.input_ended and len(self._inbox) == 1 else None

    def _release(self, data: bytes | Packed, size: int) -> None:
        engine = self.connection.engine
        if engine.release(self.stream_id, len(data), size):
            self.connection.wake()

    @property
    def complete(self) -> bool:
        """Whether what is still to come matters to nobody who wants exactly one message."""
        return self.input_ended or len(self._inbox) > 1

    def tell(self, arrived: trio.Event) -> None:
        """Set an event when something new is known about the peer's half, instead of waking who waits for `arrival`."""
        self._arrived = arrived

    async def arrival(self) -> None:
        """Wait until something new is known about the peer's half."""
        if self._arrived is None:
            self._arrived = trio.Event()
        await self._arrived.wait()

    def window_opened(self) -> None:
        """More may be sent."""
        if self._window is not None:
            self._window.set()
            self._window = None

    def send_now(self, framed: bytes, *, end: bool = False) -> bool:
        """Queue one framed message, if the windows and the buffer have room for all of it; the writer is not woken."""
        connection = self.connection
        if not connection.has_room or not connection.engine.fits(self.stream_id, len(framed)):
            return False
        connection.engine.send_data(self.stream_id, framed, end=end)
        return True

    async def send(self, framed: bytes, *, end: bool = False) -> None:
        """Send one framed message as far as the peer's windows and the connection's buffer let it; waits for the rest.

        When cancelled, part of the message may have been sent: then the call is `torn` and cannot go on.

        Raises:
            trio.ClosedResourceError: The stream is over.
        """
        rest = memoryview(framed)
        try:
            while rest:
                allowed = await self.connection.room()
                sent = self._send_some(rest[:allowed], end=end and len(rest) <= allowed)
                rest = rest[sent:]
                if not sent:
                    await self._wait_for_window()
        finally:
            self.torn = 0 < len(rest) < len(framed)
            self.connection.share_window()

    def _send_some(self, data: memoryview, *, end: bool) -> int:
        engine = self.connection.engine
        try:
            if not engine.is_open(self.stream_id):
                raise trio.ClosedResourceError("the call is over")
            size = min(engine.sendable(self.stream_id), len(data))
            if size > 0:
                engine.send_data(self.stream_id, data[:size], end=end and size == len(data))
            # The headers have to go out, at least: the window may stay shut until the peer has seen them.
            self.connection.wake()
            return max(size, 0)
        finally:
            self.connection.pass_on()

    async def _wait_for_window(self) -> None:
        self._window = trio.Event()
        self.connection.wait_for_window(self)
        self.connection.share_window()  # it may be this stream's own that is used up, and not the connection's
        try:
            await self._window.wait()
        finally:
            self.connection.give_up_window(self)
