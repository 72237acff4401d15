"""`serve`: listeners in, connections out, and the order in which all of it ends."""

from __future__ import annotations

import logging
import math
import ssl
from collections.abc import Callable, Iterable, Sequence
from types import NoneType
from typing import Any, Final

import trio

from dspex_trio.interface.arguments import check_type, needs_trio
from dspex_trio.rpc.server.arrivals import Arrivals
from dspex_trio.rpc.server.call import Call
from dspex_trio.rpc.server.connection import ServerConnection
from dspex_trio.rpc.server.crowd import Crowd, fitting
from dspex_trio.rpc.server.deadlines import DeadlineWatch
from dspex_trio.rpc.server.drain import Drain
from dspex_trio.rpc.server.interceptors import Interceptor
from dspex_trio.rpc.server.listeners import (
    Listener,
    listening,
    notice_dead_peers,
    open_listeners,
    peer_address,
    peer_name,
)
from dspex_trio.rpc.server.service import Servicer, routes
from dspex_trio.rpc.server.undelivered import Undelivered
from dspex_trio.rpc.settings import ServerSettings

log: Final = logging.getLogger("dspex_trio.rpc")

# The least time between two lines of the log about the same flood, in seconds.
_SELDOM: Final = 10.0


async def serve(
    servicers: Iterable[Servicer],
    *,
    host: str = "127.0.0.1",
    port: int = 0,
    listeners: Sequence[trio.abc.Listener[Any]] | None = None,
    tls: ssl.SSLContext | None = None,
    settings: ServerSettings = ServerSettings(),  # noqa: B008 - frozen
    interceptors: Sequence[Interceptor] = (),
    drain: Drain | None = None,
    patience: Callable[[Call], float] | None = None,
    task_status: trio.TaskStatus[list[Listener]] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Serve until cancelled or drained.

    `task_status.started` gets the listeners once calls can be answered: one for each that was given, or for each
    address of the host, with its `socket`, `address` and `port`, under TLS as without. When cancelled, calls that are
    running get UNAVAILABLE, and everything is closed, within about `settings.close_timeout`.

    Args:
        servicers: What to serve.
        host: Where to listen, by default for this machine alone: a name, an address (IPv6 with or without brackets), or
            "unix:/path" for a UNIX socket, which only its owner may connect to (see `open_unix`).
        port: Where to listen; 0 for a free port. A UNIX socket has none.
        listeners: Instead of host and port: anything that accepts Trio streams. They are closed at the end.
        tls: Makes it TLS; see `server_tls`.
        settings: Limits.
        interceptors: Functions around each call, the first one outermost.
        drain: A way to end it gracefully.
        patience: How many times its `grpc-timeout` the caller of a call really waits, if that is more than once. Its
            handler sees the deadline that it has named, but is cancelled, and its reply too late, only after that time.
        task_status: For `nursery.start`.

    Raises:
        OSError: The port, or the UNIX socket, cannot be bound.
        RuntimeError: No Trio runs here.
        TypeError: An argument is of the wrong type.
        ValueError: Two servicers serve the same service.
    """
    needs_trio("serve")
    check_type("tls", tls, (ssl.SSLContext, NoneType), "an ssl.SSLContext, such as server_tls() makes, or None")
    check_type("settings", settings, ServerSettings, "an rpc.ServerSettings")
    server = _Server(servicers, tls, settings, tuple(interceptors), patience)
    opened = listening(listeners if listeners is not None else await open_listeners(host, port), tls)
    async with trio.open_nursery() as watching:
        watching.start_soon(server.watch.run)
        watching.start_soon(server.arrivals.follow)
        async with trio.open_nursery() as connections:
            connections.start_soon(server.accept, opened, connections)
            if drain is not None:
                drain.attach(server.drain)
            task_status.started(opened)
        watching.cancel_scope.cancel()


class _Guest:
    """One connection as the crowd sees it."""

    def __init__(self, stream: trio.abc.Stream) -> None:
        self.address = peer_address(stream)
        self.scope = trio.CancelScope()
        self.connection: ServerConnection | None = None  # after TLS's handshake
        self._came_at = trio.current_time()

    @property
    def known(self) -> bool:
        return self.connection is not None and self.connection.known

    @property
    def heard_at(self) -> float:
        return self._came_at if self.connection is None else self.connection.heard_at

    def evict(self) -> None:
        if self.connection is None:
            self.scope.cancel()
        else:
            self.connection.evict()


class _Server:
    def __init__(
        self,
        servicers: Iterable[Servicer],
        tls: ssl.SSLContext | None,
        settings: ServerSettings,
        interceptors: Sequence[Interceptor],
        patience: Callable[[Call], float] | None,
    ) -> None:
        self.watch = DeadlineWatch()
        self.arrivals = Arrivals()
        self._undelivered = Undelivered(settings.max_undelivered_bytes, settings.undelivered_timeout, self.watch)
        self._routes = routes(servicers)
        self._tls = tls
        self._settings = settings
        self._interceptors = interceptors
        self._patience = patience
        self._connections: set[ServerConnection] = set()
        self._handshakes: set[trio.CancelScope] = set()
        most = fitting(settings.max_connections)
        if most < settings.max_connections:
            log.info("max_connections is %d, as the limit of open files has it", most)
        self._crowd = Crowd(most, settings.max_connections_per_peer)  # those in a handshake included
        self._turned_away = 0
        self._told = -math.inf
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
        guest = _Guest(stream)
        if not self._crowd.let_in(guest):
            self._tell_of_turning_away(guest)
            await trio.aclose_forcefully(stream)
            return
        try:
            with guest.scope:
                await self._serve_one(stream, guest)
        except Exception:
            # One connection's bug is not the others' end.
            log.exception("a connection ended with an internal error")
        finally:
            self._crowd.leave(guest)
            await trio.aclose_forcefully(stream)

    def _tell_of_turning_away(self, guest: _Guest) -> None:
        """Now and then: whoever is turned away may come back a thousand times a second."""
        self._turned_away += 1
        if trio.current_time() >= self._told + _SELDOM:
            log.warning(
                "connections were turned away: %d, the last from %s; there are %d",
                self._turned_away,
                guest.address or "a peer without an address",
                len(self._crowd),
            )
            self._turned_away, self._told = 0, trio.current_time()

    async def _serve_one(self, stream: trio.abc.Stream, guest: _Guest) -> None:
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
            arrivals=self.arrivals,
            undelivered=self._undelivered,
            patience=self._patience,
        )
        guest.connection = connection
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
