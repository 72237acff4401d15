"""DSPy's calls of models and tools, answered from a record instead of by a provider and by the tools themselves."""

from __future__ import annotations

import asyncio
import builtins
import functools
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any, TypeVar

import dspy

from dspex_trio.model.values import plain
from dspex_trio.programs.dspy.private import CallResult, attributes, execution, response_from_dict
from dspex_trio.programs.record.entries import messages_json
from dspex_trio.programs.record.recorder import asking_predictor
from dspex_trio.testing.replays.recorded import Failed, LmReply, ToolReply

ReplyT = TypeVar("ReplyT", LmReply, ToolReply)


class NotRecorded(Exception):
    """The program made a call that is not in the record; the text says which."""


class RecordedError(Exception):
    """Stands for an exception whose type cannot be made here."""


class Playback:
    """Gives out recorded replies, each once; for any thread.

    A call gets the reply of the same question, if there is one left, and else the next one of its predictor, or of its
    tool.

    Args:
        lm_replies: Those of models.
        tool_replies: Those of tools.

    Attributes:
        live: Whether it answers.
    """

    def __init__(self, lm_replies: list[LmReply], tool_replies: list[ToolReply]) -> None:
        self.live = False
        self._lock = threading.Lock()
        self._lm_replies = list(lm_replies)
        self._tool_replies = list(tool_replies)
        self._notes: list[str] = []

    @property
    def notes(self) -> tuple[str, ...]:
        """What went otherwise than in the record: other prompts, calls that are not in it, replies that are left."""
        with self._lock:
            left = [f"{_asker(reply)} was not asked a recorded question: {_cut(reply)}" for reply in self._lm_replies]
            left += [f"the tool {reply.tool!r} was not called with {reply.arguments!r}" for reply in self._tool_replies]
            return (*self._notes, *left)

    def of_model(self, predictor: str, question: str) -> LmReply:
        """The reply to a call of a model.

        Raises:
            NotRecorded: There is none left.
        """
        with self._lock:
            reply = _taken(
                self._lm_replies,
                lambda each: each.predictor == predictor,
                lambda each: each.messages_json == question,
            )
            if reply is None:
                raise self._not_recorded(f"predictor {predictor!r} asked its model once more than in the record")
            if reply.messages_json != question:
                self._notes.append(f"{_asker(reply)} asked with another prompt than in the record")
            return reply

    def of_tool(self, tool: str, arguments: Mapping[str, Any]) -> ToolReply:
        """The reply to a call of a tool.

        Raises:
            NotRecorded: There is none left.
        """
        given = plain(dict(arguments))
        with self._lock:
            reply = _taken(self._tool_replies, lambda each: each.tool == tool, lambda each: each.arguments == given)
            if reply is None:
                raise self._not_recorded(f"the tool {tool!r} was called once more than in the record, with {given!r}")
            if reply.arguments != given:
                self._notes.append(f"the tool {tool!r} was called with {given!r}, not with {reply.arguments!r}")
            return reply

    def _not_recorded(self, what: str) -> NotRecorded:
        self._notes.append(what)
        return NotRecorded(what)


def _taken(replies: list[ReplyT], fits: Callable[[ReplyT], bool], is_same: Callable[[ReplyT], bool]) -> ReplyT | None:
    fitting = [reply for reply in replies if fits(reply)]
    if not fitting:
        return None
    reply = next((reply for reply in fitting if is_same(reply)), fitting[0])
    replies.remove(reply)
    return reply


@contextmanager
def playing(playback: Playback) -> Iterator[None]:
    """While the block runs, every call of a model or a tool through DSPy is answered from the record, in the process.

    Open runtimes in it, not around it, and set `playback.live` then: opening one asks a model of its own. One block at
    a time.
    """

    def execute(original: Callable[..., Any], lm: Any, call: Any) -> Any:
        if not playback.live:
            return original(lm, call)
        reply = playback.of_model(asking_predictor(), messages_json(_question(call)))
        _wait(reply)
        return _result(lm, call, reply)

    async def aexecute(_original: Callable[..., Any], lm: Any, call: Any) -> Any:
        reply = playback.of_model(asking_predictor(), messages_json(_question(call)))
        await _wait_async(reply)
        return _result(lm, call, reply)

    def call_tool(_original: Callable[..., Any], tool: dspy.Tool, **arguments: Any) -> Any:
        reply = playback.of_tool(tool.name, arguments)
        _wait(reply)
        return _returned(reply)

    async def acall_tool(_original: Callable[..., Any], tool: dspy.Tool, **arguments: Any) -> Any:
        reply = playback.of_tool(tool.name, arguments)
        await _wait_async(reply)
        return _returned(reply)

    with ExitStack() as stack:
        for owner, name, ours in (
            (execution, "execute", execute),
            (execution, "aexecute", aexecute),
            (dspy.Tool, "__call__", call_tool),
            (dspy.Tool, "acall", acall_tool),
        ):
            theirs = vars(owner)[name]
            stack.callback(setattr, owner, name, theirs)
            setattr(owner, name, _instead_of(theirs, ours))
        yield


def _instead_of(original: Callable[..., Any], ours: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(original)
    def call(*args: Any, **kwargs: Any) -> Any:
        return ours(original, *args, **kwargs)

    return call


def _question(call: Any) -> dict[str, Any]:
    return {"messages": call.messages, "prompt": call.prompt, "request": call.request}


def _wait(reply: LmReply | ToolReply) -> None:
    if reply.hangs:
        threading.Event().wait()
    time.sleep(reply.seconds)


async def _wait_async(reply: LmReply | ToolReply) -> None:
    if reply.hangs:
        await asyncio.Event().wait()
    await asyncio.sleep(reply.seconds)


def _result(lm: Any, call: Any, reply: LmReply) -> Any:
    """The reply as DSPy's own execution gives it."""
    if reply.failed is not None:
        raise error_of(reply.failed, lm.model)
    typed = () if call.request is None else (response_from_dict(reply.response),)
    return CallResult(
        responses=typed,
        outputs=attributes(list(reply.outputs)),
        usage=dict(reply.usage),
        cost=reply.cost_usd,
        raw=attributes(reply.response) if isinstance(reply.response, dict) else None,
        response_model=lm.model,
        cache_hit=reply.cache_hit,
    )


def _returned(reply: ToolReply) -> Any:
    if reply.failed is not None:
        raise error_of(reply.failed, "")
    return reply.result


def error_of(failed: Failed, model: str) -> Exception:
    """The exception that is meant, of its own type where that is loaded and can be made of a text."""
    module, _, name = failed.error_type.rpartition(".")
    cls: Any = getattr(sys.modules.get(module) if module else builtins, name, None)
    text = f"{failed.error_type}: {failed.message}"
    if not (isinstance(cls, type) and issubclass(cls, Exception)):
        return RecordedError(text)
    known: dict[str, Any] = {"status": failed.status or None, "retry_after": failed.retry_after, "model": model}
    try:
        if issubclass(cls, dspy.LMError):
            made: Exception = _make(cls, message=failed.message.removeprefix(f"[{model}] "), **known)
        else:
            made = _make(cls, failed.message)
    except TypeError:
        return RecordedError(text)
    return made


def _make(cls: Any, *args: Any, **keywords: Any) -> Exception:
    made: Exception = cls(*args, **keywords)
    return made


def _asker(reply: LmReply) -> str:
    return f"predictor {reply.predictor!r}" if reply.predictor else "the program's own code"


def _cut(reply: LmReply) -> str:
    end = reply.messages_json[-120:]
    return end if end == reply.messages_json else f"…{end}"
