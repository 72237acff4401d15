"""A scripted language model in this process: DSPy's own engine, with the script in the place of the network."""

from __future__ import annotations

import asyncio
import math
import threading
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any, Final

import dspy
from dspy import lm15

from dspex_trio.programs.dspy.private import AsyncTransportResponse, ReadError, TransportResponse
from dspex_trio.programs.record.recorder import asking_predictor
from dspex_trio.testing.http_provider.chat import ChatRequest, read_request
from dspex_trio.testing.replays.playing import Begin, Cut, Send, Step, Wait, play
from dspex_trio.testing.scripted.replies import ReplyLike
from dspex_trio.testing.scripted.script import Asked, Script

_KEY: Final = "scripted"
_PARAMS: Final = frozenset(
    {
        *("temperature", "max_tokens", "max_completion_tokens", "top_p", "stop", "stream", "seed", "user"),
        *("logit_bias", "presence_penalty", "frequency_penalty"),
        *("response_format", "tools", "tool_choice", "parallel_tool_calls"),
    }
)


class ScriptedLM(dspy.LM):  # type: ignore[misc] # mypy does not look into dspy
    """A language model whose replies a script gives.

    DSPy's own engine for OpenAI-compatible providers runs as ever, but what it sends goes to the script and what it
    reads comes from there: so replies, streams and errors are what they are with a provider. Delays are `time.sleep` in
    the program's thread, which virtual time and the ladder reach. Where a call awaits (`acall`), they are asyncio's.

    Args:
        replies: One for each call, one after another; see `Script` for more, and give it as `script`.
        script: The script, in place of `replies`.
        model: What the model is called. Whatever its name, DSPy takes it for one that can call tools and write JSON.
        num_retries: How often DSPy asks again; each time takes one more reply. Not at all by default, where a
            `dspy.LM` has 3.
        cache: Whether DSPy's cache may answer in place of the script.
        arguments: What else a `dspy.LM` takes, such as `temperature`.

    Attributes:
        script: Who answers.
    """

    def __init__(
        self,
        *replies: ReplyLike,
        script: Script | None = None,
        model: str = "scripted",
        num_retries: int = 0,
        cache: bool = False,
        **arguments: Any,
    ) -> None:
        if script is not None and replies:
            raise ValueError("replies are given one after another, or by a script")
        self.script = script if script is not None else Script(*replies)
        super().__init__(
            model,
            num_retries=num_retries,
            cache=cache,
            engine=ScriptedEngine(self.script),
            async_engine=ScriptedAsyncEngine(self.script),
            **arguments,
        )

    @property
    def asked(self) -> tuple[Asked, ...]:
        """The calls until now; those of copies too."""
        return self.script.asked


class _Capable:
    """What DSPy's adapters are told of the model."""

    supports_function_calling = True
    supports_reasoning = False
    supports_response_schema = True
    supported_params = _PARAMS


class ScriptedEngine(_Capable):
    """An engine of DSPy's that asks a script."""

    def __init__(self, script: Script) -> None:
        self._provider = lm15.OpenAIChatLM(api_key=_KEY, transport=_Transport(script))

    def __deepcopy__(self, memo: object) -> ScriptedEngine:
        return self

    def complete(self, request: lm15.Request) -> lm15.Response:
        """The whole reply."""
        return self._provider.complete(request)

    def stream(self, request: lm15.Request) -> Iterator[Any]:
        """The reply while it comes."""
        return self._provider.stream(request)  # type: ignore[no-any-return] # as above

    def close(self) -> None:
        """Nothing is open."""


class ScriptedAsyncEngine(_Capable):
    """The same for callers that await."""

    def __init__(self, script: Script) -> None:
        self._provider = lm15.AsyncOpenAIChatLM(api_key=_KEY, transport=_AsyncTransport(script))

    def __deepcopy__(self, memo: object) -> ScriptedAsyncEngine:
        return self

    async def complete(self, request: lm15.Request) -> lm15.Response:
        """The whole reply."""
        return await self._provider.complete(request)

    async def stream(self, request: lm15.Request) -> AsyncIterator[Any]:
        """The reply while it comes."""
        async for event in self._provider.stream(request):
            yield event

    async def aclose(self) -> None:
        """Nothing is open."""


class _Transport:
    """What DSPy's engine takes for the network."""

    def __init__(self, script: Script) -> None:
        self._script = script

    def stream(self, request: Any) -> TransportResponse:
        steps = _steps(self._script, request)
        for step in steps:
            match step:
                case Wait(seconds):
                    _sleep(seconds)
                case Begin(status, headers):
                    return TransportResponse(chunks=_sent(steps), release=lambda _whole: None, **_head(status, headers))
                case _:
                    break
        raise _cut()


def _sent(steps: Iterator[Step]) -> Iterator[bytes]:
    for step in steps:
        match step:
            case Wait(seconds):
                _sleep(seconds)
            case Send(data):
                yield data
            case Cut():
                raise _cut()


def _sleep(seconds: float) -> None:
    if seconds == math.inf:
        threading.Event().wait()
    elif seconds:
        time.sleep(seconds)


class _AsyncTransport:
    """And what its asynchronous one does."""

    def __init__(self, script: Script) -> None:
        self._script = script

    @asynccontextmanager
    async def stream(self, request: Any) -> AsyncIterator[AsyncTransportResponse]:
        steps = _steps(self._script, request)
        for step in steps:
            match step:
                case Wait(seconds):
                    await asyncio.sleep(seconds)
                case Begin(status, headers):
                    chunks = _sent_async(steps)
                    async with AsyncTransportResponse(
                        chunks=chunks, release=_release, **_head(status, headers)
                    ) as response:
                        yield response
                    return
                case _:
                    break
        raise _cut()


async def _sent_async(steps: Iterator[Step]) -> AsyncIterator[bytes]:
    for step in steps:
        match step:
            case Wait(seconds):
                await asyncio.sleep(seconds)
            case Send(data):
                yield data
            case Cut():
                raise _cut()


async def _release(_whole: bool) -> None:  # noqa: FBT001 - as DSPy calls it
    pass


def _steps(script: Script, request: Any) -> Iterator[Step]:
    read: ChatRequest = read_request(request.body)
    asked, reply = script.ask(
        read.messages,
        model=read.model,
        predictor=asking_predictor(),
        arguments=read.arguments,
        as_json=read.as_json,
    )
    return play(reply, replace(read, choices=1), asked)


def _head(status: int, headers: Any) -> dict[str, Any]:
    return {"status": status, "reason": "", "headers": list(headers.items()), "http_version": "HTTP/1.1"}


def _cut() -> Exception:
    cut: Exception = ReadError("the connection was closed before the reply was complete (scripted)")
    return cut
