"""OpenAI's chat completions, as JSON: what a request asks of the demo's model, and what the answer looks like."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from dspex_trio.demo.prompt import NotUnderstood, Task, read_prompt
from dspex_trio.demo.reader import Reply, Sampling, prompt_tokens, thinking_seconds, write_reply
from dspex_trio.demo.words import pieces
from dspex_trio.model import Usage
from dspex_trio.testing.http_provider.chat import DONE, ApiError, Head

MODEL: Final = "demo-extractive"
_SLOW_MODEL: Final = re.compile(rf"{MODEL}-(\d{{1,6}})ms")
MAX_CHOICES: Final = 16


class _StreamOptions(BaseModel):
    include_usage: bool = False


class _CompletionBody(BaseModel):
    """The part of a chat completion request that this model heeds; it ignores the rest, as others do."""

    model_config = ConfigDict(extra="ignore")

    model: str
    messages: list[dict[str, Any]] = Field(min_length=1)
    temperature: float | None = Field(None, ge=0, le=2)
    max_tokens: int | None = Field(None, ge=1)
    max_completion_tokens: int | None = Field(None, ge=1)
    stop: str | list[str] | None = None
    n: int | None = Field(None, ge=1, le=MAX_CHOICES)
    seed: int | None = None
    stream: bool | None = None
    stream_options: _StreamOptions | None = None


@dataclass(frozen=True, slots=True)
class Completion:
    """A request that was understood.

    Attributes:
        model: The model's name, as asked.
        task: What the prompt asks for.
        sampling: How to draw and cut replies.
        choices: How many replies.
        stream: Whether to answer as server-sent events.
        include_usage: Whether the last event carries the usage.
        prompt_tokens: How long the prompt is.
        delay: Seconds to think before answering.
    """

    model: str
    task: Task
    sampling: Sampling
    choices: int
    stream: bool
    include_usage: bool
    prompt_tokens: int
    delay: float


def understand(body: bytes) -> Completion:
    """Read a request's body; raises ApiError for what a provider refuses."""
    try:
        asked = _CompletionBody.model_validate_json(body)
    except ValidationError as error:
        problem = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(map(str, problem["loc"])) or "body"
        raise ApiError(400, f"{where}: {problem['msg']}") from None
    slow = _SLOW_MODEL.fullmatch(asked.model)
    if asked.model != MODEL and slow is None:
        message = (
            f"The model {asked.model!r} does not exist; there is {MODEL!r}, and {MODEL + '-250ms'!r} and the like."
        )
        raise ApiError(404, message)
    try:
        task = read_prompt(asked.messages)
    except NotUnderstood as error:
        raise ApiError(400, str(error)) from error
    stop = [asked.stop] if isinstance(asked.stop, str) else asked.stop or []
    return Completion(
        model=asked.model,
        task=task,
        sampling=Sampling(
            temperature=asked.temperature or 0.0,
            max_tokens=asked.max_completion_tokens or asked.max_tokens,
            stop=tuple(stop),
            seed=asked.seed or 0,
        ),
        choices=asked.n or 1,
        stream=bool(asked.stream),
        include_usage=asked.stream_options is not None and asked.stream_options.include_usage,
        prompt_tokens=prompt_tokens(asked.messages),
        delay=thinking_seconds(task) + (int(slow[1]) / 1000 if slow else 0.0),
    )


def replies(asked: Completion) -> list[Reply]:
    """One reply for each choice, each drawn with a seed of its own."""
    return [
        write_reply(asked.task, asked.sampling.reseeded(asked.sampling.seed + index)) for index in range(asked.choices)
    ]


def document(asked: Completion, said: Sequence[Reply], head: Head) -> dict[str, Any]:
    """The whole answer as one JSON document."""
    return head.document([({"content": reply.text}, reply.finish_reason) for reply in said], usage(asked, said))


def events(asked: Completion, said: Sequence[Reply], head: Head) -> Iterator[bytes]:
    """The answer as server-sent events, a token each, ending in `[DONE]`."""
    for index, reply in enumerate(said):
        yield head.event(index, {"role": "assistant", "content": ""})
        for piece in pieces(reply.text):
            yield head.event(index, {"content": piece})
        yield head.event(index, {}, reply.finish_reason)
    if asked.include_usage:
        yield head.usage_event(usage(asked, said))
    yield DONE


def usage(asked: Completion, said: Sequence[Reply]) -> Usage:
    """The tokens of a request and its replies."""
    completion = sum(reply.completion_tokens for reply in said)
    return Usage(asked.prompt_tokens, completion, asked.prompt_tokens + completion)


def models() -> dict[str, Any]:
    """The list of models."""
    return {"object": "list", "data": [{"id": MODEL, "object": "model", "created": 0, "owned_by": "dspex-trio"}]}
