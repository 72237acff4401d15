"""A server that knows its connections, and how many callers left before they had their reply."""

from __future__ import annotations

import logging
import math
import ssl
from abc import ABC, abstractmethod
from collections.abc import Callable
from functools import partial
from typing import ClassVar, Self

import h11
import trio

from dspex_trio.testing.http_provider.http import CallerGone, HttpExchange, converse

logger = logging.getLogger(__name__)


class Server(ABC):
    """Serves HTTP/1.1 connections; what it answers, its subclass says.

    Attributes:
        connections: How many were opened.
        open: How many are open now.
        closed_early: How many the caller closed while it was owed a reply.
    """

    # Bounds of what callers can make it hold.
    max_connections: ClassVar[int] = 1024
    idle_seconds: ClassVar[float] = math.inf

    def __init__(self) -> None:
        self.connections = 0
        self.open = 0
        self.closed_early = 0
        self._changed = trio.Event()
        self._room = trio.Semaphore(self.max_connections)

    @abstractmethod
    async def answer(self, exchange: HttpExchange) -> None:
        """Answer a request. What it leaves half answered closes the connection."""

    async def unreadable(self, stream: trio.abc.Stream, error: h11.RemoteProtocolError) -> None:  # noqa: ARG002 - as above
        """Somebody speaks no HTTP, on a connection that is closed afterwards."""
        logger.info("connection dropped: %s", error)

    async def serve(
        self,
        *,
        host: str = "127.0.0.1",
        port: int = 0,
        tls: ssl.SSLContext | None = None,
        task_status: trio.TaskStatus[int] = trio.TASK_STATUS_IGNORED,
    ) -> None:
        """Serve until cancelled; starts with the port once connections are accepted."""
        handler = self.converse if tls is None else partial(self._converse_tls, tls)
        listeners = await trio.open_tcp_listeners(port, host=host, backlog=self.max_connections)
        async with trio.open_nursery() as nursery:
            await nursery.start(partial(trio.serve_listeners, handler, listeners))
            task_status.started(listeners[0].socket.getsockname()[1])

    async def wait_until(self, condition: Callable[[Self], bool]) -> None:
        """Return once `condition(self)` holds; it is asked anew whenever something changes."""
        while not condition(self):
            await self._changed.wait()

    async def converse(self, stream: trio.abc.Stream) -> None:
        """Serve one connection."""
        async with self._room:
            self.connections += 1
            self.open += 1
            self.tell()
            try:
                await self._converse(stream)
            except trio.BrokenResourceError as error:
                logger.info("connection dropped: %s", error)
            except CallerGone:
                self.closed_early += 1
            finally:
                self.open -= 1
                self.tell()

    async def _converse(self, stream: trio.abc.Stream) -> None:
        try:
            await converse(stream, self.answer, idle_seconds=self.idle_seconds)
        except h11.RemoteProtocolError as error:
            await self.unreadable(stream, error)

    def tell(self) -> None:
        """Something has changed that `wait_until` may be about."""
        self._changed.set()
        self._changed = trio.Event()

    async def _converse_tls(self, context: ssl.SSLContext, stream: trio.SocketStream) -> None:
        await self.converse(trio.SSLStream(stream, context, server_side=True, https_compatible=True))
