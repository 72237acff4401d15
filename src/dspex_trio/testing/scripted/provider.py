"""A script as a provider over HTTP: OpenAI's chat completions on loopback, with all that can go wrong on the way."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, Final

from dspex_trio.interface.arguments import needs_trio
from dspex_trio.tasks.background import open_background
from dspex_trio.testing.http_provider import CallerGone, HttpExchange, HttpRequest, Server
from dspex_trio.testing.http_provider.chat import PATH, ApiError, ChatRequest, read_request
from dspex_trio.testing.replays.playing import Begin, Cut, Send, Wait, play
from dspex_trio.testing.scripted.replies import Reply, ReplyLike
from dspex_trio.testing.scripted.script import Asked, NoReply, Script
from dspex_trio.testing.time.timeline import Timeline

if TYPE_CHECKING:
    import dspy

HOST: Final = "127.0.0.1"
_KEY: Final = "scripted"


class ScriptedProvider(Server):
    """The provider, and what it saw; made by `open_provider`.

    Attributes:
        script: Who answers. Nobody says over HTTP which predictor asks: key replies by number, or by what stands in the
            prompt.
        owed: Calls that wait for the rest of their reply now.
    """

    def __init__(self, script: Script, timeline: Timeline) -> None:
        super().__init__()
        self.script = script
        self.owed = 0
        self.port = 0
        self._timeline = timeline
        self._lms: list[dspy.LM] = []

    @property
    def url(self) -> str:
        """Where it is, as `api_base`."""
        return f"http://{HOST}:{self.port}/v1"

    @property
    def lm_args(self) -> dict[str, Any]:
        """The keywords with which a stock `dspy.LM`, or a worker's `Settings(lm_args=…)`, finds it."""
        return {"api_base": self.url, "api_key": _KEY}

    def lm(self, model: str = "openai/gpt-4o-mini", **arguments: Any) -> dspy.LM:
        """A stock `dspy.LM` that asks it; `engine="litellm"` by way of litellm.

        DSPy's cache is off, and it does not ask again, unless `arguments` say so. Connections end with the provider.
        """
        import dspy  # noqa: PLC0415 - the provider itself does without

        lm = dspy.LM(model, **{"cache": False, "num_retries": 0, **self.lm_args, **arguments})
        self._lms.append(lm)
        return lm

    def close_lms(self) -> None:
        """Close the connections that `lm` keeps."""
        for lm in self._lms:
            lm.close()

    async def answer(self, exchange: HttpExchange) -> None:
        """Answer as the script says."""
        try:
            read, asked, reply = self._choose(exchange.request)
        except ApiError as error:
            await exchange.reply(error.document(), error.status)
            return
        self.owed += 1
        self._happens("provider_request", call=asked.number, model=read.model)
        try:
            for step in play(reply, read, asked):
                match step:
                    case Wait(seconds) if seconds:
                        await exchange.linger(seconds)
                    case Begin(status, headers):
                        await exchange.begin(status, headers)
                    case Send(data):
                        await exchange.send(data)
                    case Cut():
                        self._happens("provider_hung_up", call=asked.number)
                        return
            await exchange.end()
        except CallerGone:
            self._happens("provider_closed", call=asked.number)
            raise
        finally:
            self.owed -= 1
            self.tell()
        self._happens("provider_replied", call=asked.number)

    def _choose(self, request: HttpRequest) -> tuple[ChatRequest, Asked, Reply]:
        """What is asked, and its reply; raises ApiError where there is none."""
        if (request.method, request.path) != ("POST", PATH):
            raise ApiError(404, f"Unknown request URL: {request.method} {request.path}.")
        read = read_request(request.body)
        try:
            asked, reply = self.script.ask(
                read.messages, model=read.model, arguments=read.arguments, as_json=read.as_json
            )
        except NoReply as error:
            raise ApiError(400, str(error)) from None
        return read, asked, reply

    def _happens(self, name: str, **data: Any) -> None:
        self._timeline.record(name, **data)
        self.tell()


@asynccontextmanager
async def open_provider(
    *replies: ReplyLike, script: Script | None = None, timeline: Timeline | None = None
) -> AsyncIterator[ScriptedProvider]:
    """A provider on a free port of 127.0.0.1 until the block ends; what is under way then is cut off.

    In virtual time so are its delays: a thread that waits for it keeps no time from passing.

    On the timeline stand `provider_request`, and how that ended: `provider_replied`; `provider_closed`, when the caller
    closed the connection, or had it shut down, while the reply was under way; or `provider_hung_up`.

    Args:
        replies: One for each call, one after another; see `Script` for more, and give it as `script`.
        script: The script, in place of `replies`.
        timeline: Told of what happens; by default nobody is.
    """
    needs_trio("open_provider")
    if script is not None and replies:
        raise ValueError("replies are given one after another, or by a script")
    provider = ScriptedProvider(
        script if script is not None else Script(*replies), timeline if timeline is not None else Timeline()
    )
    async with open_background() as nursery:
        provider.port = await nursery.start(provider.serve)
        try:
            yield provider
        finally:
            provider.close_lms()
