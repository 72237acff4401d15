"""A scripted reply on the wire: what an OpenAI-compatible provider sends of it, and when. Knows no sockets."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain, repeat
from typing import Any, Final, TypeAlias, assert_never

from dspex_trio.testing.http_provider.chat import DONE, ApiError, ChatRequest, Head
from dspex_trio.testing.scripted.replies import (
    Answer,
    Drip,
    Hang,
    HangUp,
    Malformed,
    Refusal,
    Reply,
    Token,
    tokens_of,
    usage_of,
)
from dspex_trio.testing.scripted.script import Asked

_JSON: Final = {"Content-Type": "application/json"}
_EVENTS: Final = {"Content-Type": "text/event-stream", "Cache-Control": "no-cache"}


@dataclass(frozen=True, slots=True)
class Begin:
    """The head of the reply."""

    status: int
    headers: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Wait:
    """Seconds pass; infinitely many for a reply that does not go on."""

    seconds: float


@dataclass(frozen=True, slots=True)
class Send:
    """A part of the body."""

    data: bytes


@dataclass(frozen=True, slots=True)
class Cut:
    """The connection is closed here."""


Step: TypeAlias = Begin | Wait | Send | Cut


def play(reply: Reply, request: ChatRequest, asked: Asked) -> Iterator[Step]:
    """The reply to `request`, step by step; it is complete with the last one, unless that is a Cut."""
    head = Head(f"chatcmpl-{asked.number}", request.model, 1)
    match reply:
        case Answer():
            yield from _answer(reply, request, asked, head)
        case Refusal(status, message, retry_after, code, delay):
            yield Wait(delay)
            after = {} if retry_after is None else {"Retry-After": f"{retry_after:g}"}
            yield Begin(status, {**_JSON, **after})
            yield Send(json.dumps(ApiError(status, message, kind="scripted", code=code).document()).encode())
        case Malformed(body, delay):
            yield Wait(delay)
            yield Begin(200, _EVENTS if request.stream else _JSON)
            yield Send(b"data: %b\n\n" % body if request.stream else body)
        case Hang(text):
            yield from _beginning(text, request, head)
            yield Wait(math.inf)
        case Drip(text, every):
            yield from _dripping(text, every, request, head)
        case HangUp(text, delay):
            yield Wait(delay)
            yield from _beginning(text, request, head)
            yield Cut()
        case _:
            assert_never(reply)


def _answer(answer: Answer, request: ChatRequest, asked: Asked, head: Head) -> Iterator[Step]:
    tokens = tokens_of(answer, asked.prompt, as_json=request.as_json)
    text = "".join(token.text for token in tokens)
    usage = usage_of(answer, asked.prompt, text)
    finish_reason = "tool_calls" if answer.tool_calls and answer.finish_reason == "stop" else answer.finish_reason
    yield Wait(answer.delay)
    if request.stream:
        yield Begin(200, _EVENTS)
        for index in range(request.choices):
            # Several choices come one after another, and all at once but for the first.
            yield from _streamed(answer, tokens if index == 0 else [Token(text)], index, head, finish_reason)
        if request.include_usage:
            yield Send(head.usage_event(usage))
        yield Send(DONE)
        return
    yield Wait(sum(token.delay for token in tokens))
    message: dict[str, Any] = {"content": text or None if answer.tool_calls else text}
    if answer.reasoning:
        message["reasoning_content"] = answer.reasoning
    if answer.tool_calls:
        message["tool_calls"] = _calls(answer)
    yield Begin(200, _JSON)
    yield Send(json.dumps(head.document([(message, finish_reason)] * request.choices, usage)).encode())


def _streamed(answer: Answer, tokens: Sequence[Token], index: int, head: Head, finish_reason: str) -> Iterator[Step]:
    yield Send(head.event(index, {"role": "assistant", "content": ""}))
    if answer.reasoning:
        yield Send(head.event(index, {"reasoning_content": answer.reasoning}))
    for token in tokens:
        if token.delay:
            yield Wait(token.delay)
        yield Send(head.event(index, {"content": token.text}))
    for number, call in enumerate(_calls(answer)):
        yield Send(head.event(index, {"tool_calls": [{"index": number, **call}]}))
    yield Send(head.event(index, {}, finish_reason))


def _beginning(text: str, request: ChatRequest, head: Head) -> Iterator[Step]:
    """The head of a reply, and some of its text; of one that is no stream, half a document."""
    if not text:
        return
    if request.stream:
        yield Begin(200, _EVENTS)
        yield Send(head.event(0, {"role": "assistant", "content": text}))
    else:
        yield Begin(200, _JSON)
        yield Send(b'{"object": "chat.completion", "choices": [{"message": {"content": ' + json.dumps(text).encode())


def _dripping(text: str, every: float, request: ChatRequest, head: Head) -> Iterator[Step]:
    yield Begin(200, _EVENTS if request.stream else _JSON)
    # White space before a document is no end of it.
    drop = Send(head.event(0, {"content": text}) if request.stream else b" ")
    yield from chain.from_iterable(repeat((Wait(every), drop)))


def _calls(answer: Answer) -> list[dict[str, Any]]:
    return [
        {
            "id": call.id or f"call_{number}",
            "type": "function",
            "function": {"name": call.name, "arguments": json.dumps(dict(call.arguments))},
        }
        for number, call in enumerate(answer.tool_calls, 1)
    ]
