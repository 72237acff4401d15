"""HTTP/1.1: h11 on a Trio stream, one exchange after the other."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final

import h11
import trio

MAX_BODY_BYTES: Final = 8 * 1024 * 1024
RECEIVE_BYTES: Final = 65536
_EVENTS: Final = {"Content-Type": "text/event-stream", "Cache-Control": "no-cache"}


class CallerGone(Exception):
    """The caller closed the connection although it was owed a reply."""


@dataclass(frozen=True, slots=True)
class HttpRequest:
    """A request, whole.

    Attributes:
        method: `POST` and its like.
        path: Without the query.
        headers: Name, in lower case → value; the last one of several.
        body: As it came.
    """

    method: str
    path: str
    headers: Mapping[str, str]
    body: bytes


class HttpExchange:
    """One request, and the means to answer it. Who leaves it half answered closes the connection."""

    def __init__(self, request: HttpRequest, http: h11.Connection, stream: trio.abc.Stream) -> None:
        self.request = request
        self._http = http
        self._stream = stream

    async def linger(self, seconds: float) -> None:
        """Wait for so long; raises CallerGone as soon as the caller closes the connection."""
        with trio.move_on_after(seconds):
            while True:
                data = await receive(self._stream)
                if not data:
                    raise CallerGone
                self._http.receive_data(data)  # the next request, sent early

    async def begin(self, status: int = 200, headers: Mapping[str, str] | None = None) -> None:
        """Send the head of a reply whose length is not known; `send` its parts, then `end` it.

        They raise CallerGone if nobody takes them.
        """
        told = {"Transfer-Encoding": "chunked", **(headers or {})}
        await self._send(h11.Response(status_code=status, headers=list(told.items())))

    async def send(self, data: bytes) -> None:
        """Send a part of the reply that was begun."""
        await self._send(h11.Data(data))

    async def end(self) -> None:
        """Say that this was all."""
        await self._send(h11.EndOfMessage())

    async def reply(self, document: Any, status: int = 200, headers: Mapping[str, str] | None = None) -> None:
        """Answer with a JSON document; raises CallerGone if nobody takes it."""
        body = json.dumps(document, ensure_ascii=False).encode()
        told = {"Content-Type": "application/json", "Content-Length": str(len(body)), **(headers or {})}
        head = h11.Response(status_code=status, headers=list(told.items()))
        await self._send(head, h11.Data(body), h11.EndOfMessage())

    async def reply_events(self, events: Iterable[bytes]) -> None:
        """Answer with server-sent events, each in a chunk of its own; raises CallerGone if nobody takes them."""
        await self.begin(headers=_EVENTS)
        for event in events:
            await self.send(event)
        await self.end()

    async def _send(self, *events: h11.Event) -> None:
        data = b"".join(self._http.send(event) or b"" for event in events)
        try:
            await self._stream.send_all(data)
        except trio.BrokenResourceError as error:
            raise CallerGone from error


async def converse(
    stream: trio.abc.Stream, answer: Callable[[HttpExchange], Awaitable[None]], *, idle_seconds: float
) -> None:
    """Hold a connection: read requests and have each answered, until the caller closes it or is idle for too long.

    Raises CallerGone when the caller closes it while it is owed a reply, h11.RemoteProtocolError for what is no HTTP.
    """
    http = h11.Connection(h11.SERVER)
    while True:
        request = None
        with trio.move_on_after(idle_seconds):
            request = await _request(http, stream)
        if request is None:
            return
        exchange = HttpExchange(request, http, stream)
        if len(request.body) > MAX_BODY_BYTES:
            await exchange.reply({"error": {"message": f"the body is over {MAX_BODY_BYTES} bytes"}}, 413)
            return
        await answer(exchange)
        if http.our_state is not h11.DONE or http.their_state is not h11.DONE:
            return
        http.start_next_cycle()


async def _request(http: h11.Connection, stream: trio.abc.Stream) -> HttpRequest | None:
    """The next request; None when the caller closed the connection between two. A body over the limit is cut there."""
    head = await _event(http, stream)
    if not isinstance(head, h11.Request):
        return None
    body = bytearray()
    while len(body) <= MAX_BODY_BYTES:
        event = await _event(http, stream)
        if not isinstance(event, h11.Data):
            break
        body += event.data
    return HttpRequest(
        method=head.method.decode(),
        path=head.target.decode("latin-1").partition("?")[0],
        headers={name.decode("latin-1"): value.decode("latin-1") for name, value in head.headers},
        body=bytes(body),
    )


async def _event(http: h11.Connection, stream: trio.abc.Stream) -> object:
    while True:
        event = http.next_event()
        if event is not h11.NEED_DATA:
            return event
        if http.they_are_waiting_for_100_continue:
            go_on = http.send(h11.InformationalResponse(status_code=100, headers=[]))
            await stream.send_all(go_on or b"")
        http.receive_data(await receive(stream))


async def receive(stream: trio.abc.Stream) -> bytes:
    """What came; empty when the caller closed, politely or not."""
    try:
        return bytes(await stream.receive_some(RECEIVE_BYTES))
    except trio.BrokenResourceError:
        return b""
