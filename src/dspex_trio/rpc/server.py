"""`serve`: listeners in, connections out, and the order in which all of it ends."""

from __future__ import annotations

import logging
import math
import ssl
from collections.abc import Iterable, Sequence
from types import NoneType
from typing import Final

import trio

from dspex_trio.arguments import check_type, needs_trio
from dspex_trio.rpc.deadlines import DeadlineWatch
from dspex_trio.rpc.drain import Drain
from dspex_trio.rpc.interceptors import Interceptor
from dspex_trio.rpc.listeners import Listener, notice_dead_peers, open_tcp, peer_name, wrap_tls
from dspex_trio.rpc.server_connection import ServerConnection
from dspex_trio.rpc.service import Servicer, routes
from dspex_trio.rpc.settings import ServerSettings

log: Final = logging.getLogger("dspex_trio.rpc")


async def serve(
    servicers: Iterable[Servicer],
    *,
    host: str = "127.0.0.1",
    port: int = 0,
    listeners: Sequence[Listener] | None = None,
    tls: ssl.SSLContext | None = None,
    settings: ServerSettings = ServerSettings(),  # noqa: B008 - frozen
    interceptors: Sequence[Interceptor] = (),
    drain: Drain | None = None,
    task_status: trio.TaskStatus[list[Listener]] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Serve until cancelled or drained.

    `task_status.started` gets the listeners once calls can be answered. When cancelled, calls that are running get
    UNAVAILABLE, and everything is closed, within about `settings.close_timeout`.

    Args:
        servicers: What to serve.
        host: Where to listen, by default for this machine alone.
        port: Where to listen; 0 for a free port.
        listeners: Instead of host and port: anything that accepts Trio streams. They are closed at the end.
        tls: Makes it TLS; see `server_tls`.
        settings: Limits.
        interceptors: Functions around each call, the first one outermost.
        drain: A way to end it gracefully.
        task_status: For `nursery.start`.

    Raises:
        OSError: The port cannot be bound.
        RuntimeError: No Trio runs here.
        TypeError: An argument is of the wrong type.
        ValueError: Two servicers serve the same service.
    """
    needs_trio("serve")
    check_type("tls", tls, (ssl.SSLContext, NoneType), "an ssl.SSLContext, such as server_tls() makes, or None")
    check_type("settings", settings, ServerSettings, "an rpc.ServerSettings")
    server = _Server(servicers, tls, settings, tuple(interceptors))
    opened = list(listeners) if listeners is not None else await open_tcp(host, port)
    if tls is not None:
        opened = wrap_tls(opened, tls)
    async with trio.open_nursery() as watching:
        watching.start_soon(server.watch.run)
        async with trio.open_nursery() as connections:
            connections.start_soon(server.accept, opened, connections)
            if drain is not None:
                drain.attach(server.drain)
            task_status.started(opened)
        watching.cancel_scope.cancel()


class _Server:
    def __init__(
        self,
        servicers: Iterable[Servicer],
        tls: ssl.SSLContext | None,
        settings: ServerSettings,
        interceptors: Sequence[Interceptor],
    ) -> None:
        self.watch = DeadlineWatch()
        self._routes = routes(servicers)
        self._tls = tls
        self._settings = settings
        self._interceptors = interceptors
        self._connections: set[ServerConnection] = set()
        self._handshakes: set[trio.CancelScope] = set()
        self._count = 0  # those in a handshake included
        self._accepting = trio.CancelScope()
        self._drain_deadline = math.inf

    async def accept(self, listeners: list[Listener], connections: trio.Nursery) -> None:
        """Accept until `drain` is called; connections go on."""
        with self._accepting:
            await trio.serve_listeners(self._serve, listeners, handler_nursery=connections)

    def drain(self, deadline: float) -> None:
        """Accept no more and let every connection end, at a time on Trio's clock at the latest; may be called again."""
        self._drain_deadline = deadline
        self._accepting.cancel()
        for connection in self._connections:
            connection.drain(deadline)
        for handshake in self._handshakes:
            handshake.deadline = min(handshake.deadline, deadline)

    async def _serve(self, stream: trio.abc.Stream) -> None:
        if self._count >= self._settings.max_connections:
            log.warning("a connection was turned away: there are %d", self._count)
            await trio.aclose_forcefully(stream)
            return
        self._count += 1
        try:
            await self._serve_one(stream)
        except Exception:
            # One connection's bug is not the others' end.
            log.exception("a connection ended with an internal error")
        finally:
            self._count -= 1
            await trio.aclose_forcefully(stream)

    async def _serve_one(self, stream: trio.abc.Stream) -> None:
        certificate = None
        if isinstance(stream, trio.SSLStream):
            if not await self._handshake(stream):
                return
            certificate = stream.getpeercert(binary_form=True)
        notice_dead_peers(stream)
        connection = ServerConnection(
            stream,
            peer=peer_name(stream),
            certificate=certificate,
            routes=self._routes,
            interceptors=self._interceptors,
            settings=self._settings,
            watch=self.watch,
        )
        self._connections.add(connection)
        try:
            if self._accepting.cancel_called:
                connection.drain(self._drain_deadline)
            await connection.run()
        finally:
            self._connections.discard(connection)

    async def _handshake(self, stream: trio.SSLStream[trio.abc.Stream]) -> bool:
        deadline = min(trio.current_time() + self._settings.handshake_timeout, self._drain_deadline)
        with trio.CancelScope(deadline=deadline) as handshake:
            self._handshakes.add(handshake)
            try:
                await stream.do_handshake()
            except (trio.BrokenResourceError, trio.ClosedResourceError) as error:
                log.info("a TLS handshake failed: %s", error.__cause__ or error)
                return False
            finally:
                self._handshakes.discard(handshake)
            if stream.selected_alpn_protocol() == "h2":
                return True
            log.info("a TLS client does not speak HTTP/2")
        return False
