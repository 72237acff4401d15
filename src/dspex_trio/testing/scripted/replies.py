"""What a scripted model does when it is asked, as plain data."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, TypeAlias

from dspex_trio.model import Usage
from dspex_trio.model.values import plain

_PIECE: Final = re.compile(r"\S+\s*|\s+")


@dataclass(frozen=True, slots=True)
class Token:
    """A piece of an answer.

    Attributes:
        text: The piece.
        delay: Seconds that pass before it comes.
    """

    text: str
    delay: float = 0.0

    def __post_init__(self) -> None:
        _check_seconds("delay", self.delay)


@dataclass(frozen=True, slots=True)
class ToolCall:
    """A tool that the model asks for, by the provider's own way of calling tools.

    Attributes:
        name: The tool.
        arguments: What to call it with.
        id: What the provider calls this call; made up by default.
    """

    name: str
    arguments: Mapping[str, Any] = field(default_factory=dict)
    id: str = ""


@dataclass(frozen=True, slots=True)
class Answer:
    """The model answers.

    Attributes:
        text: What it says, as it says it: text that the program's adapter cannot parse is one way to fail.
        fields: Output field → value, in place of `text`: written in the format that the prompt asks for.
        tokens: The text in the pieces in which it is streamed, each with its own delay, in place of both.
        tool_calls: Tools that it asks for.
        reasoning: What it says that it thought.
        delay: Seconds that pass before anything comes.
        pause: Seconds that pass before each piece of a text that has no `tokens`. A caller who asks for no stream waits
            for all of them together.
        usage: What it is said to have cost; by default the pieces of prompt and text are counted.
        finish_reason: Why it stops: `stop`, or `length` where it was cut off.
    """

    text: str = ""
    fields: Mapping[str, Any] = field(default_factory=dict)
    tokens: Sequence[Token | str] = ()
    tool_calls: Sequence[ToolCall] = ()
    reasoning: str = ""
    delay: float = 0.0
    pause: float = 0.0
    usage: Usage | None = None
    finish_reason: str = "stop"

    def __post_init__(self) -> None:
        if bool(self.text) + bool(self.fields) + bool(self.tokens) > 1:
            raise ValueError("an answer has a text, or fields, or tokens")
        _check_seconds("delay", self.delay)
        _check_seconds("pause", self.pause)


@dataclass(frozen=True, slots=True)
class Refusal:
    """The provider answers with an error.

    Attributes:
        status: The HTTP status, such as 429 or 500.
        message: What it says.
        retry_after: Seconds after which it may be asked again, as it says.
        code: The provider's own word for it, such as `context_length_exceeded`.
        delay: Seconds that pass before.
    """

    status: int
    message: str = "the script refuses"
    retry_after: float | None = None
    code: str = ""
    delay: float = 0.0

    def __post_init__(self) -> None:
        if not 400 <= self.status <= 599:  # noqa: PLR2004 - HTTP's errors
            raise ValueError(f"a refusal has a status from 400 to 599; got {self.status}")
        if self.retry_after is not None:
            _check_seconds("retry_after", self.retry_after)
        _check_seconds("delay", self.delay)


@dataclass(frozen=True, slots=True)
class Malformed:
    """The provider answers with status 200 and something that is no completion.

    Attributes:
        body: What it sends.
        delay: Seconds that pass before.
    """

    body: bytes = b'{"object": "chat.completion", "choices"'
    delay: float = 0.0

    def __post_init__(self) -> None:
        _check_seconds("delay", self.delay)


@dataclass(frozen=True, slots=True)
class Hang:
    """The provider never answers.

    Attributes:
        text: What it still says to a caller who asks for a stream; empty for not even the head of a reply.
    """

    text: str = ""


@dataclass(frozen=True, slots=True)
class Drip:
    """The provider answers without end: there is always something more, so that no timeout between bytes ever helps.

    Attributes:
        text: What comes again and again.
        every: Seconds that pass before each time.
    """

    text: str = "… "
    every: float = 1.0

    def __post_init__(self) -> None:
        if not 0 < self.every < math.inf:
            raise ValueError(f"a drip takes its time, in seconds; got every={self.every}")


@dataclass(frozen=True, slots=True)
class HangUp:
    """The provider closes the connection in the middle of its reply.

    Attributes:
        text: What it still says; empty for not even the head of a reply.
        delay: Seconds that pass before.
    """

    text: str = ""
    delay: float = 0.0

    def __post_init__(self) -> None:
        _check_seconds("delay", self.delay)


Reply: TypeAlias = Answer | Refusal | Malformed | Hang | Drip | HangUp

ReplyLike: TypeAlias = Reply | str | Mapping[str, Any]
"""A reply; or in short the text, or the output fields, of an Answer."""


def reply_of(given: ReplyLike) -> Reply:
    """The reply that is meant.

    Raises:
        TypeError: It is none.
    """
    if isinstance(given, str):
        return Answer(given)
    if isinstance(given, Mapping):
        return Answer(fields=given)
    if isinstance(given, Reply):
        return given
    raise TypeError(
        "a reply is a text, output fields, or an Answer, Refusal, Malformed, Hang, Drip or HangUp; "
        f"got {type(given).__name__}"
    )


def tokens_of(answer: Answer, prompt: str, *, as_json: bool = False) -> list[Token]:
    """The pieces of an answer, in the format that `prompt` asks for.

    Args:
        answer: The answer.
        prompt: All the text that the model was given.
        as_json: Whether it was told to answer in JSON.
    """
    if answer.tokens:
        return [Token(token) if isinstance(token, str) else token for token in answer.tokens]
    text = _formatted(answer.fields, prompt, as_json=as_json) if answer.fields else answer.text
    return [Token(piece, answer.pause) for piece in _PIECE.findall(text)]


def usage_of(answer: Answer, prompt: str, text: str) -> Usage:
    """What an answer is said to have cost."""
    if answer.usage is not None:
        return answer.usage
    asked, said = (len(_PIECE.findall(each)) for each in (prompt, text))
    return Usage(prompt_tokens=asked, completion_tokens=said, total_tokens=asked + said)


def _formatted(fields: Mapping[str, Any], prompt: str, *, as_json: bool) -> str:
    """Output fields as one of DSPy's adapters reads them; its prompt shows which."""
    first = next(iter(fields))
    if not as_json and f"[[ ## {first} ## ]]" in prompt:
        sections = [f"[[ ## {name} ## ]]\n{_written(value)}" for name, value in fields.items()]
        return "\n\n".join([*sections, "[[ ## completed ## ]]"])
    if not as_json and f"<{first}>" in prompt:
        return "\n\n".join(f"<{name}>\n{_escaped(value)}\n</{name}>" for name, value in fields.items())
    return json.dumps(plain(dict(fields)), ensure_ascii=False)


def _written(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(plain(value), ensure_ascii=False)


def _escaped(value: Any) -> str:
    return _written(value).replace("&", "&amp;").replace("<", "&lt;")


def _check_seconds(name: str, seconds: float) -> None:
    if not 0 <= seconds < math.inf:
        raise ValueError(f"{name} is in seconds, from 0; got {seconds} (a Hang never answers)")
