"""Metrics as Prometheus reads them: HTTP/1.1 at `/metrics`, by tasks of the loop; the text is made in a thread."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial
from typing import Final

import h11
import trio

from dspex_trio.rpc import open_tcp, place
from dspex_trio.runtime.settings import InvalidSettings
from dspex_trio.tasks.background import open_background

logger: Final = logging.getLogger(__name__)

MetricsText = Callable[[str], tuple[str, bytes]]
"""Of a request's Accept header makes the answer's Content-Type and its text; it blocks."""

PATH: Final = "/metrics"
MAX_CONNECTIONS: Final = 16
"""So many connections are served at once; others are closed."""
# A scrape that takes longer is of no use to anybody, in seconds.
_LONGEST: Final = 10.0
_PIECE: Final = 4096


@asynccontextmanager
async def open_scraping(host: str, port: int, text: MetricsText) -> AsyncIterator[int]:
    """Serve the metrics until the block ends; gives the port.

    Raises:
        InvalidSettings: It cannot be listened on.
    """
    try:
        listeners = await open_tcp(host, port)
    except OSError as error:
        raise InvalidSettings(
            f"metrics_port: cannot listen on {place(host, port)}: {error.strerror or error}"
        ) from None
    served = _Scraping(text)
    bound: int = listeners[0].socket.getsockname()[1]
    async with open_background() as nursery:
        await nursery.start(partial(trio.serve_listeners, served.converse, listeners))
        logger.info("metrics are served at http://%s%s", listeners[0].address, PATH)
        yield bound


class _Scraping:
    def __init__(self, text: MetricsText) -> None:
        self._text = text
        self._open = 0
        self._limiter = trio.CapacityLimiter(1)

    async def converse(self, stream: trio.abc.Stream) -> None:
        """Answer one request, and close."""
        self._open += 1
        try:
            if self._open <= MAX_CONNECTIONS:
                with trio.move_on_after(_LONGEST):
                    await self._answer(stream)
        except (h11.RemoteProtocolError, trio.BrokenResourceError) as error:
            logger.debug("a scrape was dropped: %s", error)
        finally:
            self._open -= 1
            await trio.aclose_forcefully(stream)

    async def _answer(self, stream: trio.abc.Stream) -> None:
        http = h11.Connection(h11.SERVER)
        while (event := http.next_event()) is h11.NEED_DATA:
            http.receive_data(bytes(await stream.receive_some(_PIECE)))
        if not isinstance(event, h11.Request):
            return
        status, kind, body = await self._reply(event)
        headers = [("Content-Type", kind), ("Content-Length", str(len(body))), ("Connection", "close")]
        answer = (h11.Response(status_code=status, headers=headers), h11.Data(body), h11.EndOfMessage())
        await stream.send_all(b"".join(http.send(part) or b"" for part in answer))

    async def _reply(self, request: h11.Request) -> tuple[int, str, bytes]:
        plain = "text/plain; charset=utf-8"
        if request.target.partition(b"?")[0] != PATH.encode():
            return 404, plain, f"the metrics are at {PATH}\n".encode()
        if request.method != b"GET":
            return 405, plain, b"the metrics are there to be read\n"
        accept = b",".join(value for name, value in request.headers if name == b"accept").decode("latin-1")
        # Left to itself when the scrape is over: nobody waits for it any more.
        kind, body = await trio.to_thread.run_sync(self._text, accept, limiter=self._limiter, abandon_on_cancel=True)
        return 200, kind, body
