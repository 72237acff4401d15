"""Where a trial's time went: its stages, predictors, LM calls and tool calls as bars on one line of time."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

from dspex_trio.observing.records.reading import Recorded
from dspex_trio.wire import json_text, read_json

Kind: TypeAlias = Literal["stage", "predictor", "lm", "tool"]


@dataclass(frozen=True, slots=True)
class Bar:
    """One thing that took time.

    Attributes:
        kind: What it is.
        depth: How deep it is nested, from 0.
        name: What it is called.
        start_ms: When it began, after the trial arrived.
        end_ms: When it ended, or the trial did.
        note: What else is to be said of it, in a few words.
        failed: Whether it failed or did not end by itself.
        parts: Heading → text, to be unfolded: prompts, replies, arguments, results.
    """

    kind: Kind
    depth: int
    name: str
    start_ms: float
    end_ms: float
    note: str = ""
    failed: bool = False
    parts: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True)
class Waterfall:
    """The bars of a trial.

    Attributes:
        bars: In the order in which they are shown.
        total_ms: The length of the line of time.
        deadline_ms: Where on it the deadline passed; None if the trial ended before.
    """

    bars: tuple[Bar, ...]
    total_ms: float
    deadline_ms: float | None


def waterfall(trial: Recorded) -> Waterfall:
    """The waterfall of a trial."""
    total = max(float(trial.result["timings"].get("total_ms", 0.0)), 0.001)
    died_in = str(trial.failure.get("stage", "")).removeprefix("STAGE_") if trial.failure is not None else ""
    bars: list[Bar] = []
    stages = _stages(trial, total)
    for name, start, end in stages:
        bars.append(Bar("stage", 0, name, start, end, failed=name == died_in))
        if name == "EXECUTE":
            bars += sorted(_executed(trial, start, total), key=lambda bar: (bar.start_ms, bar.depth))
    cut_off = trial.kind == "DEADLINE_EXCEEDED"
    given = trial.record.get("time_ms")
    return Waterfall(tuple(bars), total, min(float(given), total) if cut_off and given is not None else None)


def _stages(trial: Recorded, total: float) -> list[tuple[str, float, float]]:
    """Name, start and end of each stage that took place."""
    began = [
        (str(event["stage"]["stage"]).removeprefix("STAGE_"), float(event["at_ms"]))
        for event in trial.record.get("events", ())
        if "stage" in event
    ]
    ends = [at for _, at in began[1:]] + [total]
    return [(name, start, max(end, start)) for (name, start), end in zip(began, ends, strict=True)]


def _executed(trial: Recorded, begun: float, total: float) -> Iterator[Bar]:
    for entry in trial.result.get("trace") or trial.result.get("partial_trace") or ():
        calls: Sequence[Mapping[str, Any]] = entry.get("lm_calls", ())
        start, end = _span(entry, begun, total)
        unfinished = bool(calls) and not entry.get("outputs")
        name = entry.get("predictor") or entry.get("class_name") or "the program's own code"
        parts = tuple((field, _text(value)) for side in ("inputs", "outputs") for field, value in entry[side].items())
        yield Bar("predictor", 1, str(name), start, end, str(entry.get("class_name", "")), unfinished, parts)
        for call in calls:
            yield _lm_bar(call, begun, total)
    yield from _tools(trial, total)


def _lm_bar(call: Mapping[str, Any], begun: float, total: float) -> Bar:
    start, end = _span(call, begun, total)
    usage = call.get("usage", {})
    answered = bool(call.get("response_json")) or call.get("cache_hit") or usage.get("completion_tokens")
    said = [f"{usage.get('prompt_tokens', 0)}+{usage.get('completion_tokens', 0)} tokens"] if answered else []
    if call.get("cache_hit"):
        said = ["from the cache"]
    elif call.get("cost_known") and call.get("cost_usd"):
        said.append(f"${call['cost_usd']:.6f}")
    if not answered:
        said.append("no answer")
    parts = (*_messages(call.get("messages_json", "")), *_reply(call.get("response_json", "")))
    return Bar("lm", 2, str(call.get("model", "")), start, end, ", ".join(said), not answered, parts)


def _tools(trial: Recorded, total: float) -> Iterator[Bar]:
    started: dict[int, tuple[float, Mapping[str, Any]]] = {}
    for event in trial.record.get("events", ()):
        if "tool_started" in event:
            started[event["tool_started"]["call"]] = (float(event["at_ms"]), event["tool_started"])
        elif "tool_finished" in event:
            ended = event["tool_finished"]
            if (begun := started.pop(ended["call"], None)) is not None:
                yield _tool_bar(*begun, float(event["at_ms"]), ended)
    for at, tool in started.values():
        yield _tool_bar(at, tool, total, None)


def _tool_bar(start: float, tool: Mapping[str, Any], end: float, ended: Mapping[str, Any] | None) -> Bar:
    error = str(ended.get("error_type", "")) if ended is not None else "did not return"
    parts = tuple((name, _text(value)) for name, value in tool.get("arguments", {}).items())
    if ended is not None and not error:
        parts += (("result", _text(ended.get("result"))),)
    return Bar("tool", 2, str(tool["tool"]), start, end, error or "tool", bool(error), parts)


def _span(timed: Mapping[str, Any], begun: float, total: float) -> tuple[float, float]:
    start = min(begun + float(timed.get("started_ms", 0.0)), total)
    return start, min(start + float(timed.get("latency_ms", 0.0)), total)


def _messages(text: str) -> Iterator[tuple[str, str]]:
    try:
        messages = read_json(text) if text else []
    except ValueError:
        messages = text
    if not isinstance(messages, list):
        yield "prompt", _text(messages)
        return
    for message in messages:
        match message:
            case {"role": str(role), "content": content}:
                yield role, _text(content)
            case other:
                yield "message", _text(other)


def _reply(text: str) -> Iterator[tuple[str, str]]:
    if not text:
        return
    try:
        reply = read_json(text)
    except ValueError:
        reply = text
    match reply:
        case {"outputs": [*outputs]} if outputs:
            for output in outputs:
                yield "reply", _text(output["text"] if isinstance(output, dict) and "text" in output else output)
        case other:
            yield "reply", _text(other)


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json_text(value, indent=2)
