"""From DSPy's history entries to our LM calls, and from a predictor's fields to plain values without secrets."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from operator import attrgetter
from typing import Any, Final

from dspex_trio.model import Cost, LmCall, Usage
from dspex_trio.model.values import plain
from dspex_trio.observing.redaction import redacted
from dspex_trio.programs.dspy.private import Response, response_to_dict
from dspex_trio.wire import json_text

# What providers and DSPy say of an answer that was broken off.
_CUT: Final = frozenset({"length", "max_tokens", "max_output_tokens", "content_filter"})
_counts: Final = attrgetter(*Usage.__slots__)


def lm_call(
    entry: Mapping[str, Any],
    *,
    billed: bool,
    lost: bool,
    began: float,
    ended: float,
    redact: Callable[[str], str] | None,
) -> LmCall:
    """The LM call that a history entry tells of.

    Args:
        entry: What DSPy recorded.
        billed: Whether the provider was asked; otherwise DSPy's cache answered, whose entry still has the old price.
        lost: Whether another reply, that may be billed, was given up for it.
        began: When it began, in milliseconds after the program.
        ended: When it ended.
        redact: Takes secrets out of messages and response; None leaves both out.
    """
    cost = entry.get("cost")
    return LmCall(
        model=str(entry.get("model") or ""),
        messages_json="" if redact is None else redact(messages_json(entry)),
        response_json="" if redact is None else redact(_json(_response(entry))),
        usage=usage_of(entry.get("usage")) if billed else Usage(),
        cost_usd=float(cost) if billed and cost is not None else 0.0,
        cost_known=not billed or (cost is not None and not lost),
        cache_hit=not billed,
        started_ms=began,
        latency_ms=ended - began,
    )


def unanswered(
    question: Mapping[str, Any],
    *,
    model: str,
    usage: Usage,
    free: bool,
    began: float,
    ended: float,
    redact: Callable[[str], str] | None,
) -> LmCall:
    """An LM call without an answer.

    Args:
        question: `prompt` or `messages`.
        model: The model that was asked.
        usage: What is known to be billed for it.
        free: Whether it is known to cost nothing.
        began: When it began, in milliseconds after the program.
        ended: When it ended, or was last seen.
        redact: Takes secrets out of the messages; None leaves them out.
    """
    return LmCall(
        model=model,
        messages_json="" if redact is None else redact(messages_json(question)),
        usage=usage,
        cost_known=free,
        started_ms=began,
        latency_ms=ended - began,
    )


def cut_by(entry: Mapping[str, Any]) -> str:
    """Why an answer is not whole: the `finish_reason` of one of its choices; empty where all of them are."""
    response = entry.get("response")
    several = response if isinstance(response, list | tuple) else [response]
    for each in several:
        details = _part(each, "incomplete_details")
        found = [_part(each, "finish_reason"), _part(details, "reason")]
        choices = _part(each, "choices")
        if isinstance(choices, list | tuple):
            found += [_part(choice, "finish_reason") for choice in choices]
        for reason in found:
            if isinstance(reason, str) and reason in _CUT:
                return str(reason)
    return ""


def usage_of(usage: Any) -> Usage:
    """A provider's token counts; what it does not count is zero."""
    prompt, completion = _count(usage, "prompt_tokens"), _count(usage, "completion_tokens")
    return Usage(
        prompt_tokens=prompt,
        completion_tokens=completion,
        total_tokens=_count(usage, "total_tokens") or prompt + completion,
        cached_tokens=_count(_part(usage, "prompt_tokens_details"), "cached_tokens"),
        reasoning_tokens=_count(_part(usage, "completion_tokens_details"), "reasoning_tokens"),
    )


def plus(cost: Cost, call: LmCall, *, answered: bool = True) -> Cost:
    """The cost with one more call."""
    return Cost(
        total_usd=cost.total_usd + call.cost_usd,
        known=cost.known and call.cost_known,
        usage=total([cost.usage, call.usage]),
        lm_calls=cost.lm_calls + answered,
        cache_hits=cost.cache_hits + call.cache_hit,
    )


def total(usages: list[Usage]) -> Usage:
    """All of them together."""
    return Usage(*map(sum, zip(*map(_counts, usages), strict=True)))


def plain_fields(fields: Mapping[str, Any], redact: Callable[[str], str]) -> dict[str, Any]:
    """Field → plain value without secrets; shares nothing mutable with `fields`."""
    return {name: redacted(plain(value), redact) for name, value in fields.items()}


def _part(value: Any, name: str) -> Any:
    return value.get(name) if isinstance(value, Mapping) else getattr(value, name, None)


def _count(usage: Any, name: str) -> int:
    value = _part(usage, name)
    return value if isinstance(value, int) and not isinstance(value, bool) and value > 0 else 0


def messages_json(entry: Mapping[str, Any]) -> str:
    """What was asked, as JSON text; of a history entry, or of what an LM is called with."""
    return _json(_messages(entry))


def _messages(entry: Mapping[str, Any]) -> Any:
    if entry.get("messages") is not None:
        return entry["messages"]
    if entry.get("prompt") is not None:
        return [{"role": "user", "content": entry["prompt"]}]
    return entry.get("request")


def _response(entry: Mapping[str, Any]) -> Any:
    return {"outputs": entry.get("outputs"), "response": entry.get("response")}


def _json(value: Any) -> str:
    try:  # the encoder's own C code, which asks for help only where something is no JSON
        return json.dumps(value, ensure_ascii=False, allow_nan=False, default=_encodable)
    except (TypeError, ValueError, RecursionError):
        try:
            return json.dumps(plain(value), ensure_ascii=False, default=_encodable)
        except ValueError:  # an integer of more digits than Python writes
            return json_text(plain(value))


def _encodable(value: object) -> object:
    if isinstance(value, bytes):
        return f"<{len(value)} bytes>"
    if isinstance(value, Response):
        return response_to_dict(value)  # several times faster than reading its fields one by one
    return plain(value)
