"""A provider on loopback that keeps its callers waiting, plain or TLS, and notes when they close the connection."""

from __future__ import annotations

import math
import ssl
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import h11
import trio

from dspex_trio.model import Usage
from dspex_trio.testing.http_provider import CallerGone, HttpExchange, Server
from dspex_trio.testing.http_provider.chat import ApiError, ChatRequest, Head, read_request
from dspex_trio.testing.http_provider.http import receive

# Signs itself, for 127.0.0.1 alone; its key is public.
CERTIFICATE: Final = Path(__file__).with_name("loopback_only.pem")

SILENT: Final = "openai/silent"
ANSWERING: Final = "openai/answers"

_TEXT: Final = "[[ ## answer ## ]]\nyes\n\n[[ ## completed ## ]]\n"
_NOT_READABLE: Final = ChatRequest(model="", messages=())


class SilentProvider(Server):
    """OpenAI's chat completions, as far as callers wait for them.

    The model `answers` answers at once. Every other one never does; a caller who asked for a stream gets its beginning.
    So does whoever asks for anything else, and whoever begins a TLS handshake on the plain port: silence.

    Attributes:
        asked: How often something was asked so far; the number of the last one.
        closes: Number → when whoever was owed that answer closed the connection, on `time.monotonic`.
        owed: How many wait now.
    """

    def __init__(self) -> None:
        super().__init__()
        self.asked = 0
        self.closes: dict[int, float] = {}
        self.owed = 0

    async def answer(self, exchange: HttpExchange) -> None:
        """Answer, or keep the caller waiting until it is gone."""
        with self._owing():
            try:
                asked = read_request(exchange.request.body)
            except ApiError:
                asked = _NOT_READABLE
            head = Head("chatcmpl-1", asked.model, 1)
            if asked.model == ANSWERING.partition("/")[2]:
                await exchange.reply(head.document([({"content": _TEXT}, "stop")], Usage(1, 1, 2)))
                return
            if asked.stream:
                await exchange.begin(headers={"Content-Type": "text/event-stream"})
                await exchange.send(head.event(0, {"role": "assistant", "content": _TEXT[:10]}))
            await exchange.linger(math.inf)

    async def unreadable(self, stream: trio.abc.Stream, error: h11.RemoteProtocolError) -> None:  # noqa: ARG002
        """Keep it waiting as well."""
        with self._owing():
            while await receive(stream):
                pass
            raise CallerGone

    @contextmanager
    def _owing(self) -> Iterator[None]:
        self.asked += 1
        self.owed += 1
        number = self.asked
        self.tell()
        try:
            yield
        except CallerGone:
            self.closes[number] = time.monotonic()
            raise
        finally:
            self.owed -= 1
            self.tell()


def server_context() -> ssl.SSLContext:
    """TLS with that certificate."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(CERTIFICATE)
    return context
