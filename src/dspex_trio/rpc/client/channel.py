"""`open_channel`: calls to a server, or to several, over connections that come and go."""

from __future__ import annotations

import itertools
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from functools import partial
from types import NoneType
from typing import Final

import trio

from dspex_trio.interface.arguments import check_type, needs_trio
from dspex_trio.rpc.client.call import ClientCall
from dspex_trio.rpc.client.connection import ClientConnection
from dspex_trio.rpc.client.endpoint import Endpoint
from dspex_trio.rpc.client.stubs import CallOptions
from dspex_trio.rpc.client.target import Address, Target, addresses
from dspex_trio.rpc.client.together import Answered, call_each
from dspex_trio.rpc.details import failed_call
from dspex_trio.rpc.settings import ChannelSettings
from dspex_trio.rpc.status import RpcError, StatusCode

# How often a call that no server has looked at is begun again (gRPC's transparent retries have no limit of their own).
_MAX_ATTEMPTS: Final = 8


@asynccontextmanager
async def open_channel(
    target: Target,
    *,
    tls: ssl.SSLContext | None = None,
    settings: ChannelSettings = ChannelSettings(),  # noqa: B008
) -> AsyncIterator[Channel]:
    """A channel to a target; it connects with the first call, and again whenever that is needed.

    At the end of the block calls that are still running, or waiting for a connection, end with UNAVAILABLE and all
    connections are closed; so do calls that are begun later.

    Args:
        target: "host:port" and other names (see `addresses`), a function that opens a stream, or several of these, over
            which calls are spread.
        tls: Makes it TLS; see `client_tls`.
        settings: Limits and habits.

    Raises:
        RuntimeError: No Trio runs here.
        TypeError: An argument is of the wrong type.
        ValueError: The target is no address.
    """
    needs_trio("open_channel")
    check_type("tls", tls, (ssl.SSLContext, NoneType), "an ssl.SSLContext, such as client_tls() makes, or None")
    check_type("settings", settings, ChannelSettings, "an rpc.ChannelSettings")
    channel = Channel(addresses(target), tls, settings)
    body = _BodyError()
    try:
        async with trio.open_nursery() as nursery:
            for endpoint in channel.endpoints:
                nursery.start_soon(endpoint.run)
            with body:
                yield channel
            nursery.cancel_scope.cancel()
    finally:
        channel.close()
    body.raise_again()


class _BodyError:
    """Carries what a block raised past the end of a nursery, which would make a group of it."""

    def __init__(self) -> None:
        self._error: BaseException | None = None

    def __enter__(self) -> None:
        return None

    def __exit__(self, _: object, error: BaseException | None, __: object) -> bool:
        self._error = error
        return True

    def raise_again(self) -> None:
        """Raise what was carried, cancellation included, if there is something."""
        if self._error is not None:
            raise self._error


class Channel:
    """Calls, spread over the endpoints in turn. Made by `open_channel`; stubs are made from it."""

    def __init__(self, where: tuple[Address, ...], tls: ssl.SSLContext | None, settings: ChannelSettings) -> None:
        self._settings = settings
        self._waiting = trio.lowlevel.ParkingLot()
        self._turn = 0
        self._closed = False
        self.endpoints = tuple(Endpoint(address, tls, settings, self._changed) for address in where)

    def _changed(self) -> None:
        self._waiting.unpark_all()

    def close(self) -> None:
        """Make no more connections, so that there is nothing to wait for."""
        self._closed = True
        self._changed()

    @property
    def failure(self) -> str | None:
        """Why no call can be made just now: the last attempt to connect to each target failed.

        None while there is a connection, or nobody knows: before the first attempt, or when one was lost just now.
        """
        failures = [f"{one.address.name}: {one.failure}" for one in self.endpoints if one.failure is not None]
        return "cannot connect to " + "; ".join(failures) if len(failures) == len(self.endpoints) else None

    async def connected(self) -> None:
        """Wait until there is a connection for a call, however many attempts fail; or until the channel is closed."""
        try:
            await self._ready_connection(wait_for_ready=True)
        except RpcError:
            await trio.lowlevel.checkpoint()  # it is closed: a call says so

    async def call(self, path: str, request: bytes, options: CallOptions) -> bytes:
        """Make a call with one request and one reply; see UnaryUnary."""
        for attempt in itertools.count(1):
            call = await self._start(path, options, trio.current_effective_deadline())
            try:
                await call.send_message(request, end=True)
                return await call.only_reply()
            except RpcError:
                if not call.unprocessed or attempt >= _MAX_ATTEMPTS:
                    raise
            finally:
                call.close()
        raise AssertionError("the loop above has no other end")

    async def call_each(self, path: str, requests: Sequence[bytes], options: CallOptions, answered: Answered) -> None:
        """Make a call with one reply for each request, all at once; see UnaryUnary."""
        left = dict(enumerate(requests))
        start = partial(self._start, path, options, trio.current_effective_deadline())
        for attempt in range(1, _MAX_ATTEMPTS + 1):
            left = await call_each(start, left, answered, last=attempt == _MAX_ATTEMPTS)
            if not left:
                return

    @asynccontextmanager
    async def open(self, path: str, options: CallOptions, request: bytes | None = None) -> AsyncIterator[ClientCall]:
        """Begin a call, with its only request if that is given; at the end of the block it is over."""
        attempts = _Attempts(lambda: self._start(path, options, trio.current_effective_deadline()), request)
        try:
            yield await attempts.begin()
        finally:
            attempts.close()

    async def _start(self, path: str, options: CallOptions, deadline: float) -> ClientCall:
        await trio.lowlevel.checkpoint_if_cancelled()
        wait = self._settings.wait_for_ready if options.wait_for_ready is None else options.wait_for_ready
        compression = options.compression or self._settings.compression
        while True:
            connection = await self._ready_connection(wait_for_ready=wait)
            call = await connection.start_call(path, options.metadata, deadline, compression)
            if call is not None:
                return call

    async def _ready_connection(self, *, wait_for_ready: bool) -> ClientConnection:
        while not self._closed:
            ready = [
                one.connection for one in self.endpoints if one.connection is not None and one.connection.accepting
            ]
            for endpoint in self.endpoints:
                if endpoint.connection is None:
                    endpoint.want()
            if ready:
                self._turn += 1
                return ready[self._turn % len(ready)]
            if not wait_for_ready and (failure := self.failure) is not None:
                await trio.lowlevel.checkpoint()  # who tries again at once must not keep us from connecting
                raise failed_call(StatusCode.UNAVAILABLE, failure)
            await self._waiting.park()
        await trio.lowlevel.checkpoint()
        raise failed_call(StatusCode.UNAVAILABLE, "the channel is closed")


class _Attempts:
    """One call, and those that were begun in its place because no server had looked at it."""

    def __init__(self, start: Callable[[], Awaitable[ClientCall]], request: bytes | None) -> None:
        self._start = start
        self._request = request
        self._calls: list[ClientCall] = []

    async def begin(self) -> ClientCall:
        """Begin the call, with its only request if that is known: then it can be begun again."""
        call = await self._start()
        self._calls.append(call)
        if self._request is None:
            call.send_headers()
        else:
            call.again = self.begin if len(self._calls) < _MAX_ATTEMPTS else None
            try:
                await call.send_message(self._request, end=True)
            except RpcError:
                if call.status is None:
                    raise
                # The call has ended: whoever reads from it is told, and may know how to begin it again.
        return call

    def close(self) -> None:
        """Give up what is not over."""
        for call in self._calls:
            call.close()
        self._calls.clear()
