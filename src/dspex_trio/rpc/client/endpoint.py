"""One address of a channel: connects when it is needed, again after a while when that fails."""

from __future__ import annotations

import random
import ssl
from collections.abc import Callable

import trio

from dspex_trio.rpc.client.connection import ClientConnection
from dspex_trio.rpc.client.target import Address, reason, secure
from dspex_trio.rpc.http2.client_engine import H2ClientEngine
from dspex_trio.rpc.settings import ChannelSettings


class Endpoint:
    """The connection to one address, and its attempts.

    Args:
        address: Where to.
        tls: Makes it TLS.
        settings: Limits and habits.
        changed: Called whenever `connection` or `failure` changed.

    Attributes:
        address: Where to.
        connection: The one that takes calls now, if there is one.
        failure: Why the last attempt failed; None once one has succeeded.
    """

    def __init__(
        self, address: Address, tls: ssl.SSLContext | None, settings: ChannelSettings, changed: Callable[[], None]
    ) -> None:
        self.address = address
        self.connection: ClientConnection | None = None
        self.failure: str | None = None
        self._tls = tls
        self._settings = settings
        self._changed = changed
        self._wanted = trio.Event()
        self._keepalive_time = settings.keepalive_time

    def want(self) -> None:
        """There are calls: connect, if it has not been begun."""
        self._wanted.set()

    async def run(self) -> None:
        """Keep at most one connection that takes calls; those that went out of use end by themselves."""
        try:
            await self._keep_connected()
        finally:
            self.connection = None

    async def _keep_connected(self) -> None:
        failures = 0
        async with trio.open_nursery() as connections:
            while True:
                await self._wanted.wait()
                connection = await self._attempt(connections)
                if connection is None:
                    failures += 1
                    await trio.sleep(backoff(self._settings, failures, random.uniform(-1, 1)))  # noqa: S311
                    continue
                failures = 0
                self.connection, self.failure = connection, None
                self._wanted = trio.Event()
                self._changed()
                await connection.retired.wait()
                if connection.pinged_too_often:
                    self._keepalive_time *= 2  # gRPC A8
                self.connection = None
                self._changed()

    async def _attempt(self, connections: trio.Nursery) -> ClientConnection | None:
        why = f"no answer within {self._settings.connect_timeout:g} seconds"
        with trio.move_on_after(self._settings.connect_timeout):
            try:
                stream = await self._open()
            except (OSError, trio.BrokenResourceError, trio.ClosedResourceError) as error:
                why = reason(error)
            else:
                connection = self._new_connection(stream)
                connections.start_soon(connection.run)
                try:
                    await _first_of(connection.ready, connection.retired)
                except trio.Cancelled:
                    connection.abort()
                    raise
                if connection.accepting:
                    return connection
                why = "the server closed the connection before it spoke HTTP/2"
        self.failure = why
        self._changed()
        return None

    async def _open(self) -> trio.abc.Stream:
        stream = await self.address.connect()
        if self._tls is None:
            return stream
        try:
            return await secure(stream, self._tls, self.address.host)
        except BaseException:
            await trio.aclose_forcefully(stream)
            raise

    def _new_connection(self, stream: trio.abc.Stream) -> ClientConnection:
        engine = H2ClientEngine(
            self._settings.limits(),
            authority=self._settings.authority or self.address.authority,
            scheme="http" if self._tls is None else "https",
            user_agent=self._settings.user_agent,
        )
        return ClientConnection(stream, engine, self._settings, self._keepalive_time)


def backoff(settings: ChannelSettings, failures: int, shake: float) -> float:
    """Seconds to wait after the n-th failure in a row; `shake` between -1 and 1 is where in the jitter it falls."""
    wait = min(settings.backoff_base * settings.backoff_multiplier ** min(failures - 1, 1000), settings.backoff_max)
    return wait * (1 + settings.backoff_jitter * shake)


async def _first_of(*events: trio.Event) -> None:
    async def wait(event: trio.Event, scope: trio.CancelScope) -> None:
        await event.wait()
        scope.cancel()

    async with trio.open_nursery() as nursery:
        for event in events:
            nursery.start_soon(wait, event, nursery.cancel_scope)
