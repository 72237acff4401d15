"""Connections in memory whose bytes can be held up, lost, changed and cut off: a network that fails when told to."""

from __future__ import annotations

import math
import operator
from collections import deque
from collections.abc import Awaitable
from dataclasses import dataclass
from typing import Final, TypeVar

import trio

from dspex_trio.rpc.memory import MemoryListener

# Bytes that lie in one direction of one connection before its sender waits, as a socket's buffers have it.
_BUFFER: Final = 2**16
_BACKLOG: Final = 64
_LOGGED: Final = 10_000

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Carried:
    """Bytes that were given to a link.

    Attributes:
        at: When, on Trio's clock.
        connection: The how manyth connection of the link it was, from 0.
        direction: "to_server" or "to_client".
        data: As they were sent.
    """

    at: float
    connection: int
    direction: str
    data: bytes


class Link:
    """The way from clients to one server: a listener for `serve`, and `connect`, the target for `open_channel`.

    What is set holds for connections that are open and for those to come.

    Attributes:
        listener: Give it to the server.
        to_server: What happens to bytes on their way to the server.
        to_client: And to those on their way back.
    """

    def __init__(self) -> None:
        self._outgoing, incoming = trio.open_memory_channel[trio.abc.Stream](_BACKLOG)
        self.listener = MemoryListener(incoming)
        self.to_server = Direction(self, "to_server")
        self.to_client = Direction(self, "to_client")
        self._opened = 0
        self._connections: list[tuple[_End, _End]] = []
        self._carried: deque[Carried] = deque(maxlen=_LOGGED)
        self._refusing = False

    async def connect(self) -> trio.abc.Stream:
        """Open a connection.

        Raises:
            ConnectionRefusedError: Nobody listens, or the link refuses.
        """
        await trio.lowlevel.checkpoint()
        number = self._opened
        there, back = _OneWay(self.to_server, number), _OneWay(self.to_client, number)
        client, server = _End(there, back), _End(back, there)
        try:
            if self._refusing:
                raise ConnectionRefusedError("the link refuses connections")
            self._outgoing.send_nowait(server)
        except (trio.BrokenResourceError, trio.WouldBlock):
            raise ConnectionRefusedError("nobody listens") from None
        self._opened += 1
        self._connections = [*self._open(), (client, server)]
        return client

    @property
    def connections(self) -> int:
        """How many there were until now."""
        return self._opened

    @property
    def open_connections(self) -> int:
        """How many have an end that is not closed."""
        return len(self._open())

    @property
    def log(self) -> tuple[Carried, ...]:
        """What was given to it, in its order: the last 10,000 writes."""
        return tuple(self._carried)

    def cut(self) -> None:
        """Break every open connection as a reset does, what is on its way included; new ones can be made."""
        for client, server in self._connections:
            client.break_off()
            server.break_off()

    def refuse(self, *, refusing: bool = True) -> None:
        """Let no new connection be made, until `refuse(refusing=False)`."""
        self._refusing = refusing

    def stall(self) -> None:
        """Carry nothing, both ways, until `resume`; what is sent waits."""
        self.to_server.stall()
        self.to_client.stall()

    def resume(self) -> None:
        """Carry again."""
        self.to_server.resume()
        self.to_client.resume()

    def delay(self, seconds: float) -> None:
        """Let all bytes that are sent from now on take so long, each way."""
        self.to_server.delay = self.to_client.delay = seconds

    def _pipes(self, direction: Direction) -> list[_OneWay]:
        ends = (client.sending if direction is self.to_server else server.sending for client, server in self._open())
        return list(ends)

    def _open(self) -> list[tuple[_End, _End]]:
        return [(client, server) for client, server in self._connections if not (client.closed and server.closed)]


class Direction:
    """What a link does to bytes that go one way.

    Attributes:
        delay: Seconds that bytes take which are sent from now on; they stay in order.
        piece: How many bytes arrive at most at a time; None for as many as there are.
    """

    def __init__(self, link: Link, name: str) -> None:
        self.delay = 0.0
        self.piece: int | None = None
        self._link = link
        self._name = name
        self._stalled = False
        self._seen = 0
        self._faults: deque[tuple[int, int, int | None]] = deque()  # from, to (by bytes seen), what to change them by
        self._cut_at: float = math.inf

    @property
    def stalled(self) -> bool:
        """Whether nothing arrives."""
        return self._stalled

    def stall(self) -> None:
        """Carry nothing until `resume`; what is sent waits."""
        self._set_stalled(True)

    def resume(self) -> None:
        """Carry again."""
        self._set_stalled(False)

    def half_close(self) -> None:
        """End this way of every open connection: the receiver reads the end after what is on its way."""
        for pipe in self._link._pipes(self):  # noqa: SLF001 - the other half of this class
            pipe.end()

    def lose(self, count: int, *, after: int = 0) -> None:
        """Lose `count` bytes, once `after` more have gone this way."""
        self._add_fault(count, after, None)

    def corrupt(self, count: int = 1, *, after: int = 0, change: int = 0xFF) -> None:
        """Change `count` bytes (exclusive or with `change`), once `after` more have gone this way."""
        self._add_fault(count, after, change)

    def cut(self, *, after: int) -> None:
        """Cut the link's connections once `after` more bytes have gone this way: also in the middle of a frame."""
        self._cut_at = self._seen + after

    def _add_fault(self, count: int, after: int, change: int | None) -> None:
        begin = self._seen + after
        self._faults.append((begin, begin + count, change))

    def _set_stalled(self, stalled: bool) -> None:  # noqa: FBT001 - a setter
        self._stalled = stalled
        for pipe in self._link._pipes(self):  # noqa: SLF001 - as above
            pipe.changed()

    def _carry(self, data: bytes, connection: int) -> tuple[bytes, bool]:
        """What becomes of bytes that are sent, and whether the link breaks behind them."""
        self._link._carried.append(Carried(trio.current_time(), connection, self._name, data))  # noqa: SLF001
        begin, end = self._seen, self._seen + len(data)
        cut = end >= self._cut_at
        if cut:
            data = data[: int(self._cut_at) - begin]
            end, self._cut_at = begin + len(data), math.inf
        self._seen = end
        while self._faults and self._faults[0][1] <= begin:
            self._faults.popleft()
        changed = bytearray()
        for position, byte in enumerate(data, begin) if self._faults else ():
            change = next((change for low, high, change in self._faults if low <= position < high), 0)
            if change is not None:
                changed.append(byte ^ change)
        return (bytes(changed) if self._faults else data), cut


class _OneWay:
    """One direction of one connection."""

    def __init__(self, direction: Direction, number: int) -> None:
        self._direction = direction
        self._number = number
        self._chunks: deque[tuple[float, bytearray]] = deque()  # when they arrive
        self._held = 0
        self._ended = False  # nothing more will be sent
        self.broken = False
        self.unread = False  # nobody reads any more
        self._event = trio.Event()

    def changed(self) -> None:
        """Have those who wait look again."""
        self._event.set()
        self._event = trio.Event()

    def end(self) -> None:
        self._ended = True
        self.changed()

    def break_off(self) -> None:
        self.broken = True
        self._chunks.clear()
        self.changed()

    async def room(self) -> None:
        await trio.lowlevel.checkpoint()
        while self._held >= _BUFFER and not (self.broken or self.unread or self._ended):
            await self._event.wait()

    async def send(self, data: bytes) -> None:
        await self.room()
        if self.broken or self.unread or self._ended:
            raise trio.BrokenResourceError("the other end is gone")
        carried, cut = self._direction._carry(data, self._number)  # noqa: SLF001 - the other half of this class
        due = trio.current_time() + self._direction.delay
        if self._chunks:
            due = max(due, self._chunks[-1][0])  # bytes do not overtake others
        if carried:
            self._chunks.append((due, bytearray(carried)))
            self._held += len(carried)
        self.changed()
        if cut:
            self._direction._link.cut()  # noqa: SLF001 - as above
            raise trio.BrokenResourceError("the link was cut")

    async def receive(self, size: int) -> bytes:
        await trio.lowlevel.checkpoint()
        while True:
            if self.broken:
                raise trio.BrokenResourceError("the link was cut")
            due = math.inf if self._direction.stalled else self._chunks[0][0] if self._chunks else math.inf
            if due <= trio.current_time():
                break
            if self._ended and not self._chunks and not self._direction.stalled:
                return b""
            with trio.CancelScope(deadline=due):
                await self._event.wait()
        _, chunk = self._chunks[0]
        count = min(size, self._direction.piece or size)
        data = bytes(chunk[:count])
        del chunk[:count]
        if not chunk:
            self._chunks.popleft()
        self._held -= len(data)
        self.changed()
        return data


class _End(trio.abc.HalfCloseableStream):
    """One end of a connection, with the errors that Trio's own streams give."""

    def __init__(self, sending: _OneWay, receiving: _OneWay) -> None:
        self.sending = sending
        self._receiving = receiving
        self.closed = False
        self._half_closed = False
        self._busy: set[str] = set()

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        self._check("sending", or_half_closed=True)
        try:
            await self._alone("sending", self.sending.send(bytes(data)))
        except trio.BrokenResourceError:
            self._check("sending", busy=False)  # closed meanwhile, here
            raise

    async def wait_send_all_might_not_block(self) -> None:
        self._check("sending", or_half_closed=True)
        await self._alone("sending", self.sending.room())
        self._check("sending", busy=False)  # closed meanwhile, here

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        self._check("receiving")
        if max_bytes is not None and operator.index(max_bytes) < 1:
            raise ValueError("max_bytes must be 1 or more")
        try:
            data = await self._alone("receiving", self._receiving.receive(max_bytes or _BUFFER))
        except trio.BrokenResourceError:
            self._check("receiving", busy=False)
            raise
        self._check("receiving", busy=False)
        return data

    async def send_eof(self) -> None:
        self._check("sending")
        self._half_closed = True
        self.sending.end()
        await trio.lowlevel.checkpoint()

    async def aclose(self) -> None:
        self.closed = True
        self.sending.end()
        self._receiving.unread = True
        self._receiving.end()
        await trio.lowlevel.checkpoint()

    def break_off(self) -> None:
        self.sending.break_off()

    def _check(self, what: str, *, busy: bool = True, or_half_closed: bool = False) -> None:
        if self.closed or (or_half_closed and self._half_closed):
            raise trio.ClosedResourceError("this end was closed")
        if busy and what in self._busy:
            raise trio.BusyResourceError(f"another task is {what}")

    async def _alone(self, what: str, work: Awaitable[T]) -> T:
        self._busy.add(what)
        try:
            return await work
        finally:
            self._busy.discard(what)
