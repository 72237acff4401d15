"""A script: which reply each call of a language model gets, and which calls there were."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, TypeAlias

import trio

from dspex_trio.testing.scripted.replies import Reply, ReplyLike, reply_of
from dspex_trio.threads import current_job

Replies: TypeAlias = ReplyLike | Sequence[ReplyLike]
"""One reply, for every call; or several, one after another."""


class NoReply(Exception):
    """A call for which the script has no reply; the text says which. It reaches the program as an error of the LM."""


@dataclass(frozen=True, slots=True)
class Asked:
    """A call of a model.

    Attributes:
        number: Counts the calls of the script, from 1.
        messages: The prompt, as dictionaries with `role` and `content`.
        model: The model that was asked.
        predictor: Who asked: a dotted name inside the program; empty for the program's own code, and over HTTP, where
            nobody says it.
        arguments: What else was asked for, such as `temperature`.
        as_json: Whether the answer was to be JSON.
        at: When: on the virtual clock of the trial, else on the clock of the Trio run, in a thread on `time.monotonic`.
        reply: What it got; None for none.
    """

    number: int
    messages: Sequence[Mapping[str, Any]]
    model: str
    predictor: str = ""
    arguments: Mapping[str, Any] = field(default_factory=dict)
    as_json: bool = False
    at: float = 0.0
    reply: Reply | None = None

    @property
    def prompt(self) -> str:
        """All the text of the messages."""
        return "\n".join(_text(message.get("content")) for message in self.messages)


class Script:
    """Gives each call of a model its reply; for any thread.

    A call's reply is the first one of these that there is: that of its number; that of the first text in `prompts`
    which its prompt has in it; that of its predictor; the next of `replies`. Where those of a key are used up, or there
    is none, `default` answers; without a default the call fails, and `check` says so.

    Args:
        replies: For the calls that no key is for, one after another. A text or output fields stand for an `Answer`.
        predictors: Predictor → its replies. A single one is for all of its calls, a list for one after another.
        prompts: A text in the prompt → replies, likewise.
        calls: The number of a call, from 1 → its reply.
        default: For every other call.
    """

    def __init__(
        self,
        *replies: ReplyLike,
        predictors: Mapping[str, Replies] | None = None,
        prompts: Mapping[str, Replies] | None = None,
        calls: Mapping[int, ReplyLike] | None = None,
        default: ReplyLike | None = None,
    ) -> None:
        self._lock = threading.Lock()
        self._sequence = deque(map(reply_of, replies))
        self._predictors = {name: _Replies(given) for name, given in (predictors or {}).items()}
        self._prompts = {text: _Replies(given) for text, given in (prompts or {}).items()}
        self._calls = {number: reply_of(given) for number, given in (calls or {}).items()}
        self._default = None if default is None else reply_of(default)
        self._asked: list[Asked] = []

    def __deepcopy__(self, memo: object) -> Script:
        return self  # copies of a program ask the same model

    def add(self, *replies: ReplyLike, predictor: str | None = None, prompt: str | None = None) -> None:
        """Add replies after those there are: for a predictor, for a text in the prompt, or for other calls."""
        found = map(reply_of, replies)
        with self._lock:
            if prompt is not None:
                self._prompts.setdefault(prompt, _Replies([])).add(found)
            elif predictor is not None:
                self._predictors.setdefault(predictor, _Replies([])).add(found)
            else:
                self._sequence.extend(found)

    def ask(
        self,
        messages: Sequence[Mapping[str, Any]],
        *,
        model: str,
        predictor: str = "",
        arguments: Mapping[str, Any] | None = None,
        as_json: bool = False,
    ) -> tuple[Asked, Reply]:
        """The call as it is remembered, and its reply.

        Raises:
            NoReply: There is none; the call is remembered all the same.
        """
        at = now()
        with self._lock:
            number = len(self._asked) + 1
            asked = Asked(number, messages, model, predictor, arguments or {}, as_json=as_json, at=at)
            reply, why = self._choose(asked)
            asked = replace(asked, reply=reply)
            self._asked.append(asked)
        if reply is None:
            raise NoReply(f"the script has no reply for {_named(asked)}: {why}")
        return asked, reply

    @property
    def asked(self) -> tuple[Asked, ...]:
        """The calls until now."""
        with self._lock:
            return tuple(self._asked)

    @property
    def unused(self) -> int:
        """How many replies of sequences have not been asked for."""
        with self._lock:
            return len(self._sequence) + sum(map(len, (*self._predictors.values(), *self._prompts.values())))

    def check(self) -> None:
        """Assert that every call had its reply.

        Raises:
            AssertionError: Some had none; the text shows them.
        """
        missed = [asked for asked in self.asked if asked.reply is None]
        if missed:
            lines = (f"  {_named(asked)}, at {asked.at:.3f}: {_shown(asked.prompt)}" for asked in missed)
            raise AssertionError("\n".join(["the script had no reply for:", *lines]))

    def _choose(self, asked: Asked) -> tuple[Reply | None, str]:
        """The reply, or why there is none."""
        if (reply := self._calls.get(asked.number)) is not None:
            return reply, ""
        prompt = asked.prompt if self._prompts else ""
        key = next((text for text in self._prompts if text in prompt), None)
        if key is not None:
            reply, why = self._prompts[key].next(), f"those for prompts with {key!r} are used up"
        elif (replies := self._predictors.get(asked.predictor)) is not None:
            reply, why = replies.next(), f"those of predictor {asked.predictor!r} are used up"
        elif self._sequence:
            return self._sequence.popleft(), ""
        else:
            reply, why = None, "no key is for it, and those for other calls are used up"
        return (reply if reply is not None else self._default), why


class _Replies:
    """The replies of one key."""

    def __init__(self, given: Replies) -> None:
        self._next: deque[Reply] = deque()
        self._always: Reply | None = None
        if isinstance(given, Sequence) and not isinstance(given, str):
            self._next.extend(map(reply_of, given))
        else:
            self._always = reply_of(given)

    def __len__(self) -> int:
        return len(self._next)

    def add(self, replies: Iterable[Reply]) -> None:
        self._next.extend(replies)

    def next(self) -> Reply | None:
        return self._next.popleft() if self._next else self._always


def now() -> float:
    """What time it is for the calling thread, as `Asked.at` tells it."""
    job = current_job()
    clock: object = None if job is None else job.clock
    if isinstance(clock, trio.abc.Clock):
        return clock.current_time()
    return trio.current_time() if trio.lowlevel.in_trio_run() else time.monotonic()


def _named(asked: Asked) -> str:
    who = f" (predictor {asked.predictor!r})" if asked.predictor else ""
    return f"call {asked.number} of model {asked.model!r}{who}"


def _shown(prompt: str) -> str:
    end = prompt[-200:]
    return repr(end) if end == prompt else f"…{end!r}"


def _text(content: Any) -> str:
    """The text of a message, whose parts may be of several kinds."""
    if isinstance(content, str):
        return content
    if isinstance(content, Sequence):
        return "\n".join(part.get("text") or "" for part in content if isinstance(part, Mapping))
    return ""
