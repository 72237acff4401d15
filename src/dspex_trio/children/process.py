"""One child process, seen from its parent: exchanges and heartbeats over its socket, until it is gone."""

from __future__ import annotations

import math
import socket
from collections.abc import Callable
from contextlib import suppress
from itertools import count
from typing import Final

import trio

from dspex_trio.children.exchange import ChildFailed, ChildLost, Exchange
from dspex_trio.children.frames import (
    ANSWER,
    CALL,
    END,
    FAILURE,
    FREED,
    HELD,
    LOG,
    NOTE,
    PING,
    PONG,
    REPLY,
    REPORT,
    REQUEST,
    STOP,
    Frames,
    TooLarge,
    framed,
)
from dspex_trio.children.starting import Started, exit_reason

# How long a child whose socket closed may take to end by itself, and one that was killed to be gone, in seconds.
_FAREWELL: Final = 1.0
_PIECE: Final = 1 << 20
# So many frames are taken before others of this loop get their turn: a child may log or report without end.
_AT_ONCE: Final = 32
# The exchange in which a child is opened; what it says about that later is why it ends.
_OPENING: Final = 1


class Child:
    """One child. Answers several requests at once.

    Args:
        started: The process.
        ours: This end of its connection.
        max_bytes: The longest frame that it may send; it is killed if it sends a longer one.
        on_log: Called with what it wants to have logged.
        on_note: Called with what it says that belongs to no exchange.

    Attributes:
        started: The process.
        gone: Set once it has ended and everything that it wrote has been read.
        opened: Whether it was ready for requests once.
    """

    def __init__(
        self,
        started: Started,
        ours: socket.socket,
        *,
        max_bytes: int,
        on_log: Callable[[bytes], None],
        on_note: Callable[[bytes], None] = lambda _data: None,
    ) -> None:
        self.started = started
        self.gone = trio.Event()
        self.opened = False
        self._frames = Frames(max_bytes)
        self._on_log = on_log
        self._on_note = on_note
        self._exchanges: dict[int, Exchange] = {}
        self._numbers = count(1)
        self._lost_because = ""
        self._ending = False
        self._waited_for = trio.Event()
        self._exit_code: int | None = None
        # Not bounded, but what is in it is: a request and a stop for each exchange, the replies to `MAX_CALLS` calls of
        # each, which count until they are read, and one ping.
        self._post, self._posted = trio.open_memory_channel[tuple[bytes, trio.Event | None]](math.inf)
        self._stream = trio.SocketStream(trio.socket.from_stdlib_socket(ours))
        self._asked: float | None = None

    # ---- requests

    def begin(self, request: bytes, exchange: Exchange) -> int:
        """Send it a request; returns the number of the exchange, 0 if the child is gone."""
        if self.ending:
            return 0
        number = next(self._numbers)
        self._exchanges[number] = exchange
        self._send(REQUEST, number, request)
        return number

    def stop(self, number: int) -> None:
        """Tell it to end an exchange."""
        self._send(STOP, number, b"")

    async def reply(self, number: int, call: bytes, data: bytes) -> None:
        """Reply to a call that it made in an exchange; waits until it reads, so that unread replies are calls still."""
        written = trio.Event()
        self._send(REPLY, number, call + data, written)
        await written.wait()

    @property
    def open_exchanges(self) -> int:
        """How many requests run in it: not answered yet, or answered and not freed."""
        return len(self._exchanges)

    def _send(self, kind: bytes, number: int, data: bytes, written: trio.Event | None = None) -> None:
        with suppress(trio.BrokenResourceError, trio.ClosedResourceError):  # it is gone
            self._post.send_nowait((framed(kind, number, data), written))

    # ---- signs of life

    def ping(self) -> None:
        """Ask it for a sign of life, unless it owes one."""
        if self._asked is None:
            self._asked = trio.current_time()
            self._send(PING, 0, b"")

    @property
    def silent_for(self) -> float:
        """For how many seconds it has owed a sign of life; 0 if it owes none."""
        return 0.0 if self._asked is None else trio.current_time() - self._asked

    # ---- its end

    def end(self) -> None:
        """Ask it to put away what it has, and to end; for a child that has no requests."""
        self._send(END, 0, b"")

    def kill(self, because: str = "") -> None:
        """End it and the processes that it started; `because` is the reason in the ChildLost that waiters get."""
        self._ending = True
        self._lost_because = self._lost_because or because
        self.started.kill()

    @property
    def ending(self) -> bool:
        """Whether it was killed, has closed its end of the connection, or has ended: it answers nothing new."""
        return self._ending or self._waited_for.is_set() or self.started.has_ended()

    @property
    def lost_because(self) -> str:
        """Why it is gone, in words."""
        return self._lost_because or exit_reason(self._exit_code)

    async def live(self) -> None:
        """Read and write until it is gone; when cancelled, it is killed."""
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._write)
                nursery.start_soon(self._wait)
                await self._read()
                self._ending = True
                with trio.move_on_after(_FAREWELL):
                    await self._waited_for.wait()
                self.kill()
                await self._waited_for.wait()
                nursery.cancel_scope.cancel()
        finally:
            self.kill()
            with trio.CancelScope(deadline=trio.current_time() + _FAREWELL, shield=True):
                await self._wait()
            self._waited_for.set()
            self._stream.socket.close()
            self._posted.close()
            self.gone.set()
            exchanges, self._exchanges = self._exchanges, {}
            for exchange in exchanges.values():
                self._lose(exchange)

    def _lose(self, exchange: Exchange) -> None:
        exchange.end(ChildLost(self.lost_because))
        exchange.free()

    async def _wait(self) -> None:
        self._exit_code = await self.started.wait()
        self._waited_for.set()
        # What it wrote is still read, then comes the end, even if a process that it forked holds the socket.
        with suppress(OSError):
            self._stream.socket.shutdown(socket.SHUT_RDWR)

    async def _write(self) -> None:
        with suppress(trio.BrokenResourceError, trio.ClosedResourceError):  # it is gone
            async for frame, written in self._posted:
                await self._stream.send_all(frame)
                if written is not None:
                    written.set()

    async def _read(self) -> None:
        """Take what it sends, to the end of it."""
        with suppress(trio.BrokenResourceError, trio.ClosedResourceError):  # it is gone
            while data := await self._stream.receive_some(_PIECE):
                try:
                    for done, (kind, number, frame) in enumerate(self._frames.feed(data), 1):
                        self._take(kind, number, frame)
                        if done % _AT_ONCE == 0:
                            await trio.lowlevel.checkpoint()
                except TooLarge as error:
                    self.kill(str(error))
                    return
                except Exception as error:  # noqa: BLE001 - whatever the child wrote, it is at fault
                    self.kill(not_understood(error))
                    return

    def _take(self, kind: bytes, number: int, data: bytes) -> None:
        if kind == LOG:
            self._on_log(data)
        elif kind == PONG:
            self._asked = None
        elif kind == NOTE:
            self._on_note(data)
        elif (exchange := self._exchanges.get(number)) is not None:  # else of a thread that should have ended
            if kind == FREED:
                if not exchange.done.is_set():
                    raise ValueError(f"exchange {number} is over without an answer")
                del self._exchanges[number]
                exchange.free(data)
            elif kind == HELD:
                exchange.held = True
            elif not exchange.done.is_set():  # else of a thread that goes on after the answer
                self._tell(exchange, kind, data)
        elif kind == FAILURE and number == _OPENING:
            self._lost_because = self._lost_because or ChildFailed.from_bytes(data).message

    @staticmethod
    def _tell(exchange: Exchange, kind: bytes, data: bytes) -> None:
        if kind == ANSWER:
            exchange.end(data)
        elif kind == FAILURE:
            exchange.end(ChildFailed.from_bytes(data))
        elif kind == REPORT:
            exchange.on_report(data)
        elif kind == CALL:
            exchange.on_call(data)


def not_understood(error: Exception) -> str:
    """Why a child is killed that writes what cannot be read, as a program can that writes to its descriptors."""
    return f"what it says cannot be understood: {type(error).__name__}: {error}"
