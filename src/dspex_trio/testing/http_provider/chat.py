"""OpenAI's chat completions, as JSON: what is asked, and what replies look like."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from dspex_trio.model import Usage

PATH: Final = "/v1/chat/completions"
DONE: Final = b"data: [DONE]\n\n"
# What says how to answer, and not what.
_NOT_ARGUMENTS: Final = frozenset({"model", "messages", "stream", "stream_options"})


class ApiError(Exception):
    """The request cannot be served; becomes an error document with this status."""

    def __init__(self, status: int, message: str, *, kind: str = "invalid_request_error", code: str = "") -> None:
        super().__init__(message)
        self.status = status
        self.kind = kind
        self.code = code

    def document(self) -> dict[str, Any]:
        """The error as OpenAI writes it."""
        return {"error": {"message": str(self), "type": self.kind, "param": None, "code": self.code or None}}


@dataclass(frozen=True, slots=True)
class ChatRequest:
    """A request, as far as every model reads it.

    Attributes:
        model: The model.
        messages: The prompt.
        stream: Whether the answer is to come as events.
        include_usage: Whether the last event is to carry the usage.
        choices: How many answers are wanted.
        as_json: Whether the answer is to be JSON.
        arguments: All the rest.
    """

    model: str
    messages: Sequence[Mapping[str, Any]]
    stream: bool = False
    include_usage: bool = False
    choices: int = 1
    as_json: bool = False
    arguments: Mapping[str, Any] | None = None


def read_request(body: bytes) -> ChatRequest:
    """Read a request's body; raises ApiError for what cannot be read."""
    try:
        asked = json.loads(body)
    except ValueError:
        raise ApiError(400, "the body is no JSON") from None
    match asked:
        case {"model": str(model), "messages": list(messages)} if all(isinstance(each, dict) for each in messages):
            return ChatRequest(
                model=model,
                messages=messages,
                stream=bool(asked.get("stream")),
                include_usage=bool((asked.get("stream_options") or {}).get("include_usage")),
                choices=asked.get("n") or 1,
                as_json=(asked.get("response_format") or {}).get("type") in {"json_object", "json_schema"},
                arguments={name: value for name, value in asked.items() if name not in _NOT_ARGUMENTS},
            )
    raise ApiError(400, "the body is to be an object with model and messages")


@dataclass(frozen=True, slots=True)
class Head:
    """What every part of a reply says.

    Attributes:
        identifier: The reply's.
        model: Who answers.
        created: When, in seconds since the epoch.
    """

    identifier: str
    model: str
    created: int

    def document(self, choices: Sequence[tuple[Mapping[str, Any], str]], usage: Usage) -> dict[str, Any]:
        """The whole reply: for each choice its message, less the role, and why it ends."""
        return {
            **self._fields("chat.completion"),
            "choices": [
                {
                    "index": index,
                    "message": {"role": "assistant", **message},
                    "finish_reason": finish_reason,
                    "logprobs": None,
                }
                for index, (message, finish_reason) in enumerate(choices)
            ],
            "usage": usage_document(usage),
        }

    def event(self, index: int, delta: Mapping[str, Any], finish_reason: str | None = None) -> bytes:
        """A part of a choice, as a server-sent event."""
        return self._event([{"index": index, "delta": delta, "finish_reason": finish_reason}])

    def usage_event(self, usage: Usage) -> bytes:
        """What comes behind all choices where the usage is wanted."""
        return self._event([], usage=usage_document(usage))

    def _event(self, choices: Sequence[Mapping[str, Any]], **more: Any) -> bytes:
        payload = {**self._fields("chat.completion.chunk"), "choices": choices, **more}
        return b"data: " + json.dumps(payload, ensure_ascii=False).encode() + b"\n\n"

    def _fields(self, kind: str) -> dict[str, Any]:
        return {"id": self.identifier, "object": kind, "created": self.created, "model": self.model}


def usage_document(usage: Usage) -> dict[str, Any]:
    """The tokens of a request and its replies."""
    written: dict[str, Any] = {
        "prompt_tokens": usage.prompt_tokens,
        "completion_tokens": usage.completion_tokens,
        "total_tokens": usage.total_tokens,
    }
    if usage.cached_tokens:
        written["prompt_tokens_details"] = {"cached_tokens": usage.cached_tokens}
    if usage.reasoning_tokens:
        written["completion_tokens_details"] = {"reasoning_tokens": usage.reasoning_tokens}
    return written
