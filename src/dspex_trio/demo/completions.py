"""OpenAI's chat completions, as JSON: what a request asks of the demo's model, and what the answer looks like."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from dspex_trio.demo.prompt import NotUnderstood, Task, read_prompt
from dspex_trio.demo.reader import Reply, Sampling, prompt_tokens, thinking_seconds, write_reply
from dspex_trio.demo.words import pieces

MODEL: Final = "demo-extractive"
_SLOW_MODEL: Final = re.compile(rf"{MODEL}-(\d{{1,6}})ms")
MAX_CHOICES: Final = 16


class ApiError(Exception):
    """The request cannot be served; becomes an error document with this status."""

    def __init__(self, status: int, message: str, *, kind: str = "invalid_request_error") -> None:
        super().__init__(message)
        self.status = status
        self.kind = kind

    def document(self) -> dict[str, Any]:
        """The error as OpenAI writes it."""
        return {"error": {"message": str(self), "type": self.kind, "param": None, "code": None}}


class _StreamOptions(BaseModel):
    include_usage: bool = False


class _Body(BaseModel):
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
        asked = _Body.model_validate_json(body)
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


def document(asked: Completion, said: Sequence[Reply], identifier: str, created: int) -> dict[str, Any]:
    """The whole answer as one JSON document."""
    choices = [
        {
            "index": index,
            "message": {"role": "assistant", "content": reply.text},
            "finish_reason": reply.finish_reason,
            "logprobs": None,
        }
        for index, reply in enumerate(said)
    ]
    head = _head(asked, "chat.completion", identifier, created)
    return {**head, "choices": choices, "usage": usage(asked, said)}


def events(asked: Completion, said: Sequence[Reply], identifier: str, created: int) -> Iterator[bytes]:
    """The answer as server-sent events, a token each, ending in `[DONE]`."""
    head = _head(asked, "chat.completion.chunk", identifier, created)

    def event(index: int, delta: Mapping[str, str], finish_reason: str | None = None) -> bytes:
        choice = {"index": index, "delta": delta, "finish_reason": finish_reason}
        return _event({**head, "choices": [choice]})

    for index, reply in enumerate(said):
        yield event(index, {"role": "assistant", "content": ""})
        for piece in pieces(reply.text):
            yield event(index, {"content": piece})
        yield event(index, {}, reply.finish_reason)
    if asked.include_usage:
        yield _event({**head, "choices": [], "usage": usage(asked, said)})
    yield b"data: [DONE]\n\n"


def usage(asked: Completion, said: Sequence[Reply]) -> dict[str, int]:
    """The tokens of a request and its replies."""
    completion = sum(reply.completion_tokens for reply in said)
    return {
        "prompt_tokens": asked.prompt_tokens,
        "completion_tokens": completion,
        "total_tokens": asked.prompt_tokens + completion,
    }


def models() -> dict[str, Any]:
    """The list of models."""
    return {"object": "list", "data": [{"id": MODEL, "object": "model", "created": 0, "owned_by": "dspex-trio"}]}


def _head(asked: Completion, kind: str, identifier: str, created: int) -> dict[str, Any]:
    return {"id": identifier, "object": kind, "created": created, "model": asked.model}


def _event(payload: Mapping[str, Any]) -> bytes:
    return b"data: " + json.dumps(payload, ensure_ascii=False).encode() + b"\n\n"
