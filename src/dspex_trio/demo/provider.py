"""A local model provider: OpenAI's chat completions over HTTP on loopback, answered by the demo's own model.

`python -m dspex_trio.demo.provider --port 0 --ready-file FILE` runs it by itself.
"""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass, replace
from functools import partial
from itertools import count
from pathlib import Path
from typing import Final

import click
import trio

from dspex_trio.demo import completions
from dspex_trio.demo.completions import Completion
from dspex_trio.testing.http_provider import CallerGone, HttpExchange, Server
from dspex_trio.testing.http_provider.chat import PATH, ApiError, Head

logger = logging.getLogger(__name__)

API_KEY: Final = "demo-key"
REMEMBERED: Final = 1000


@dataclass(frozen=True, slots=True)
class SeenCompletion:
    """A completion request as the provider saw it: the proof that variables reach the wire.

    Attributes:
        question: What was asked.
        temperature: As sent.
        max_tokens: As sent; None when it was not.
        prompt_tokens: The prompt's length.
        completion_tokens: The replies' length; 0 until they are written.
        closed_early: Whether the caller closed the connection before it had the reply.
    """

    question: str
    temperature: float
    max_tokens: int | None
    prompt_tokens: int
    completion_tokens: int = 0
    closed_early: bool = False


class Provider(Server):
    """The provider, and what it saw.

    Args:
        api_key: The bearer token that requests must carry.

    Attributes:
        owed: Completion requests that wait for their reply now.
    """

    max_connections = 512
    idle_seconds = 60.0

    def __init__(self, *, api_key: str = API_KEY) -> None:
        super().__init__()
        self.owed = 0
        self._api_key = api_key
        self._asked: dict[int, SeenCompletion] = {}
        self._numbers = count(1)

    @property
    def asked(self) -> list[SeenCompletion]:
        """The latest completion requests, oldest first."""
        return list(self._asked.values())

    async def answer(self, exchange: HttpExchange) -> None:
        """Answer a request, be it with an error."""
        try:
            await self._route(exchange)
        except ApiError as error:
            await exchange.reply(error.document(), error.status)
        except CallerGone:
            raise
        except Exception:
            logger.exception("no reply to %s %s", exchange.request.method, exchange.request.path)
            failed = ApiError(500, "The model failed; its log says why.", kind="server_error")
            await exchange.reply(failed.document(), failed.status)

    async def _route(self, exchange: HttpExchange) -> None:
        request = exchange.request
        if request.headers.get("authorization") != f"Bearer {self._api_key}":
            raise ApiError(401, "Incorrect API key provided.")
        match request.method, request.path:
            case "GET", "/v1/models":
                await exchange.reply(completions.models())
            case "POST", path if path == PATH:
                await self._complete(exchange, completions.understand(request.body))
            case method, path:
                raise ApiError(404, f"Unknown request URL: {method} {path}.")

    async def _complete(self, exchange: HttpExchange, asked: Completion) -> None:
        sampling, number = asked.sampling, next(self._numbers)
        seen = SeenCompletion(asked.task.question, sampling.temperature, sampling.max_tokens, asked.prompt_tokens)
        self.owed += 1
        self._remember(number, seen)
        try:
            if asked.delay:
                await exchange.linger(asked.delay)
            said = completions.replies(asked)
            head = Head(f"chatcmpl-demo-{number}", asked.model, int(time.time()))
            if asked.stream:
                await exchange.reply_events(completions.events(asked, said, head))
            else:
                await exchange.reply(completions.document(asked, said, head))
        except CallerGone:
            self._remember(number, replace(seen, closed_early=True))
            raise
        finally:
            self.owed -= 1
        self._remember(number, replace(seen, completion_tokens=sum(reply.completion_tokens for reply in said)))

    def _remember(self, number: int, seen: SeenCompletion) -> None:
        self._asked[number] = seen
        self._asked.pop(number - REMEMBERED, None)
        self.tell()


@click.command()
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on.")
@click.option("--port", default=0, show_default=True, help="Port to listen on; 0 takes any free one.")
@click.option("--ready-file", type=click.Path(path_type=Path), help="Gets the decimal port once it answers.")
@click.option("--api-key", default=API_KEY, show_default=True, help="The key that requests must carry.")
def main(host: str, port: int, ready_file: Path | None, api_key: str) -> None:
    """Serve the demo's model as an OpenAI-compatible provider."""

    async def serve() -> None:
        async with trio.open_nursery() as nursery:
            bound = await nursery.start(partial(Provider(api_key=api_key).serve, host=host, port=port))
            if ready_file is not None:
                aside = ready_file.with_name(ready_file.name + ".tmp")
                aside.write_text(str(bound))
                aside.replace(ready_file)  # nobody can read half of it

    trio.run(serve)


if __name__ == "__main__":
    main()
