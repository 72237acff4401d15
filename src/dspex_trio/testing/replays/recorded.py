"""What a trial record knows of the calls that its program made: the replies of models and tools, as data."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from dspex_trio.wire import decode_json, encode_json, read_json

# A call that ended so was under way when its trial ended.
_ENDED: Final = "JobCancelled"
# What ends a trial from outside: calls that were under way have no answer.
_FROM_OUTSIDE: Final = frozenset({"DEADLINE_EXCEEDED", "CANCELLED"})


class CannotReplay(ValueError):
    """A record lacks what a replay needs; the text says what."""


@dataclass(frozen=True, slots=True)
class Failed:
    """Why a call failed.

    Attributes:
        error_type: The exception's type.
        message: Its text, as far as the record has it.
        status: The HTTP status; 0 for none.
        retry_after: Seconds after which it may be asked again; None for nothing said.
    """

    error_type: str
    message: str = ""
    status: int = 0
    retry_after: float | None = None


@dataclass(frozen=True, slots=True)
class LmReply:
    """What a model said to one call.

    Attributes:
        predictor: Who asked.
        model: Which model.
        messages_json: What was asked.
        outputs: What DSPy made of the reply: a text or an object for each choice.
        response: The reply itself, as JSON.
        usage: Its tokens, as providers tell them.
        cost_usd: What it cost; None if that is not known.
        cache_hit: Whether DSPy's cache answered.
        seconds: How long it took.
        failed: Why there was none; None if there was one.
        hangs: Whether it never came.
    """

    predictor: str
    model: str
    messages_json: str
    outputs: tuple[Any, ...] = ()
    response: Any = None
    usage: Mapping[str, Any] = field(default_factory=dict)
    cost_usd: float | None = None
    cache_hit: bool = False
    seconds: float = 0.0
    failed: Failed | None = None
    hangs: bool = False


@dataclass(frozen=True, slots=True)
class ToolReply:
    """What a tool returned to one call.

    Attributes:
        tool: Its name.
        arguments: What it was called with.
        result: What it returned.
        seconds: How long it took.
        failed: Why it did not; None if it did.
        hangs: Whether it never returned.
    """

    tool: str
    arguments: Mapping[str, Any]
    result: Any = None
    seconds: float = 0.0
    failed: Failed | None = None
    hangs: bool = False


def failure_in(record: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """The failure, if the trial ended in one."""
    found: Mapping[str, Any] | None = record["outcome"].get("failure")
    return found


def kind_in(record: Mapping[str, Any]) -> str:
    """`success`, or the kind of the failure."""
    failure = failure_in(record)
    return "success" if failure is None else str(failure["kind"]).removeprefix("FAILURE_KIND_")


def events_in(record: Mapping[str, Any], name: str) -> Iterator[Mapping[str, Any]]:
    """The events of that name, in their order."""
    for event in record.get("events", ()):
        if name in event:
            yield event[name]


def lm_replies(record: Mapping[str, Any]) -> list[LmReply]:
    """The model's replies, in the order in which they were asked for.

    Raises:
        CannotReplay: Of a call that failed nobody knows why, or the record has no replies because it was to have none.
    """
    _check_whole(record)
    failure = failure_in(record)
    trace = record["outcome"]["success"]["trace"] if failure is None else failure.get("partial_trace", ())
    calls = [(entry["predictor"], call) for entry in trace for call in entry["lm_calls"]]
    calls.sort(key=lambda each: float(each[1]["started_ms"]))
    reasons = _Reasons(record, events_in(record, "lm_failed"), unanswered=sum(not _answered(c) for _, c in calls))
    return [_lm_reply(predictor, call, reasons) for predictor, call in calls]


def tool_replies(record: Mapping[str, Any]) -> list[ToolReply]:
    """The tools' replies, in the order in which they were called.

    Raises:
        CannotReplay: The record has none, because it was to have none.
    """
    _check_whole(record)
    finished = {each["call"]: each for each in events_in(record, "tool_finished")}
    failure = failure_in(record)
    said = failure["error_message"] if failure is not None and kind_in(record) == "TOOL_ERROR" else ""
    replies = []
    for started in events_in(record, "tool_started"):
        ended = finished.get(started["call"])
        named = {"tool": str(started["tool"]), "arguments": started["arguments"]}
        if ended is None or ended["error_type"].endswith(_ENDED):
            replies.append(ToolReply(**named, hangs=True))
            continue
        failed = Failed(ended["error_type"], ended.get("error_message") or said) if ended["error_type"] else None
        # The record's JSON says bytes and the like as they are on the wire.
        result = decode_json(encode_json(ended["result"]))
        replies.append(ToolReply(**named, result=result, seconds=ended["latency_ms"] / 1e3, failed=failed))
    return replies


def _check_whole(record: Mapping[str, Any]) -> None:
    options = record.get("options", {})
    for option in ("omit_trace", "omit_prompts"):
        if options.get(option):
            raise CannotReplay(f"the trial was run with {option}, so its record has no replies to play back")
    failure = failure_in(record)
    result = record["outcome"]["success"] if failure is None else failure
    if result.get("trace_truncated") or result.get("details", {}).get("trace_truncated") == "true":
        raise CannotReplay("the trace in the record was cut, because there was too much of it")


def _answered(call: Mapping[str, Any]) -> bool:
    return bool(call["response_json"])


def _lm_reply(predictor: str, call: Mapping[str, Any], reasons: _Reasons) -> LmReply:
    seconds = float(call["latency_ms"]) / 1e3
    if not _answered(call):
        failed = reasons.of(call)
        return LmReply(
            predictor, call["model"], call["messages_json"], seconds=seconds, failed=failed, hangs=failed is None
        )
    said = read_json(call["response_json"])
    return LmReply(
        predictor,
        call["model"],
        call["messages_json"],
        outputs=tuple(said["outputs"]),
        response=said.get("response"),
        usage=_usage(call["usage"]),
        cost_usd=call["cost_usd"] if call["cost_known"] else None,
        cache_hit=call["cache_hit"],
        seconds=seconds,
    )


def _usage(counted: Mapping[str, int]) -> dict[str, Any]:
    """Tokens, as DSPy tells them."""
    if not any(counted.values()):
        return {}
    return {
        **{name: counted.get(name, 0) for name in ("prompt_tokens", "completion_tokens", "total_tokens")},
        "prompt_tokens_details": {"cached_tokens": counted.get("cached_tokens", 0)},
        "completion_tokens_details": {"reasoning_tokens": counted.get("reasoning_tokens", 0)},
    }


class _Reasons:
    """Why calls failed, by the time at which they began; each is told once."""

    def __init__(self, record: Mapping[str, Any], events: Iterable[Mapping[str, Any]], *, unanswered: int) -> None:
        self._kind = kind_in(record)
        self._failure = failure_in(record)
        self._known: dict[float, deque[Mapping[str, Any]]] = {}
        self._left = unanswered
        for event in events:
            self._known.setdefault(float(event["started_ms"]), deque()).append(event)

    def of(self, call: Mapping[str, Any]) -> Failed | None:
        """Why; None if it was still under way."""
        self._left -= 1
        if known := self._known.get(float(call["started_ms"])):
            event = known.popleft()
            if event["error_type"].endswith(_ENDED):
                return None
            return Failed(event["error_type"], event["error_message"], event["status"], event["retry_after"])
        if self._kind in _FROM_OUTSIDE:
            return None
        if self._failure is not None and self._kind == "LM_ERROR" and self._left == 0:
            after = self._failure.get("retry_after")
            seconds = None if after is None else float(after.removesuffix("s"))
            return Failed(self._failure["error_type"], self._failure["error_message"], retry_after=seconds)
        raise CannotReplay(
            f"a call of {call['model']!r} failed, and the record does not say why: it was written by a version before "
            "lm_failed, or has more events than are kept"
        )
