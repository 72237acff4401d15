"""The spans of one trial: the trial's own, one for each stage, and one for each call of a language model or a tool."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any, Final

import trio
from opentelemetry import context, propagate, trace

from dspex_trio.model import (
    LmFinished,
    LmStarted,
    StageStarted,
    ToolFinished,
    ToolStarted,
    TrialEvent,
    TrialOutcome,
    TrialRequest,
    TrialSuccess,
    Watch,
)
from dspex_trio.model.errors import Stage
from dspex_trio.observing import correlation
from dspex_trio.observing.telemetry import current, gen_ai
from dspex_trio.observing.telemetry.instruments import QUEUED, RUNNING, Instruments, ending

MAX_OPEN: Final = 1_000
"""The most calls under way at once in one trial that get a span; the metrics count all of them."""

# What a failure's details say of how the program was stopped.
_STOPPED: Final = ("rung", "rung_ms", "stuck", "budget", "loop_late_ms")


@dataclass(frozen=True, slots=True)
class _Call:
    """A call that is under way: its span, and where it is current."""

    span: trace.Span
    place: current.Place | None


class TrialSpans:
    """The spans, and what is counted on the way; a `model.Watch` that tells whoever else watches.

    Args:
        tracer: Makes the spans.
        instruments: Count.
        request: The trial.
        content: Whether prompts, replies, arguments and results stand in the spans.
    """

    def __init__(self, tracer: trace.Tracer, instruments: Instruments, request: TrialRequest, *, content: bool) -> None:
        self._tracer = tracer
        self._instruments = instruments
        self._content = content
        self._next: Watch | None = request.watch
        self._key = request.key  # what contexts know it by: not this, which knows them
        self._clock = trio.lowlevel.current_clock()
        self._task = trio.lowlevel.current_task()
        self._loop = threading.get_ident()
        now = self._clock.current_time()
        self._arrived = now if request.arrived == -math.inf else request.arrived
        self._arrived_ns = time.time_ns() - round((now - self._arrived) * 1e9)
        self._lock = threading.Lock()
        self._calls: dict[int, _Call] = {}
        self._stage: trace.Span | None = None
        self._ended = False
        parent = current.found_in(request.metadata)
        self._span = tracer.start_span("trial", parent, attributes=_about(request), start_time=self._arrived_ns)
        self._context = current.of_trial(self._key, self._span, parent)
        self._place = current.enter(self._context)
        self._executing = self._context
        self._stage_place: current.Place | None = None
        self._state = QUEUED
        instruments.active.add(1, QUEUED)

    def carrier(self) -> dict[str, str]:
        """The context of the trial's span, as a request's metadata may carry it."""
        carrier: dict[str, str] = {}
        propagate.inject(carrier, self._context)
        return carrier

    def __call__(self, event: TrialEvent) -> None:
        """Something happens in the trial."""
        match event:
            case StageStarted(stage):
                self._enter(stage)
            case LmStarted():
                self._begin(event.call, _lm(event), trace.SpanKind.CLIENT)
            case LmFinished():
                self._instruments.lm_ended(event.lm_call, event.error_type)
                self._end(event.call, self._answered(event), event.error_type)
            case ToolStarted():
                self._begin(event.call, self._tool(event), trace.SpanKind.INTERNAL)
            case ToolFinished():
                self._end(event.call, self._returned(event), event.error_type)
            case _:
                pass
        if self._next is not None:
            self._next(event)

    # ---- stages: in the trial's task, or in that of a child process --------------------------------------------------

    def _enter(self, stage: Stage) -> None:
        if self._ended:
            return
        here = trio.lowlevel.current_task() is self._task  # else a child process is in that stage
        if here:
            current.leave(self._stage_place)
            self._stage_place = None
        now = self._now()
        if self._stage is not None:
            self._stage.end(now)
        if stage is not Stage.ADMISSION and self._state is QUEUED:
            self._count(RUNNING)
        self._stage = self._tracer.start_span(
            stage.name, self._context, attributes={"dspex.stage": stage.name}, start_time=now
        )
        found = current.of_trial(self._key, self._stage, self._context)
        if stage is Stage.EXECUTE:
            self._executing = found
        if here and stage is not Stage.ADMISSION:  # which may be followed by those of a child process
            self._stage_place = current.enter(found)

    def _count(self, state: dict[str, str] | None) -> None:
        self._instruments.active.add(-1, self._state)
        if state is not None:
            self._state = state
            self._instruments.active.add(1, state)

    # ---- calls: in any thread of the program's -----------------------------------------------------------------------

    def _begin(self, call: int, told: dict[str, Any], kind: trace.SpanKind) -> None:
        here = current.is_in(self._key) and threading.get_ident() != self._loop  # else a child process tells of it
        parent = context.get_current() if here else self._executing
        name = f"{told['gen_ai.operation.name']} {told.get('gen_ai.request.model') or told.get('gen_ai.tool.name')}"
        with self._lock:
            if self._ended or len(self._calls) >= MAX_OPEN:
                return
            span = self._tracer.start_span(name, parent, kind, told, start_time=self._now())
            place = current.enter(current.of_trial(self._key, span, parent)) if here else None
            self._calls[call] = _Call(span, place)

    def _end(self, call: int, told: dict[str, Any], error_type: str) -> None:
        with self._lock:
            if (found := self._calls.pop(call, None)) is None:
                return  # the trial was over first
        current.leave(found.place)
        found.span.set_attributes(told)
        if error_type:
            found.span.set_attribute("error.type", error_type)
            found.span.set_status(trace.StatusCode.ERROR)
        found.span.end(self._now())

    def _answered(self, event: LmFinished) -> dict[str, Any]:
        call = event.lm_call
        told = gen_ai.answered(call)
        if call.cache_hit:
            told["dspex.cache_hit"] = True
        elif call.cost_known:
            told["dspex.cost_usd"] = call.cost_usd
        return {**told, **gen_ai.content(call)} if self._content else told

    def _tool(self, event: ToolStarted) -> dict[str, Any]:
        told = {
            "gen_ai.operation.name": gen_ai.EXECUTE_TOOL,
            "gen_ai.tool.name": event.tool,
            "gen_ai.tool.type": "function",
        }
        return {**told, "gen_ai.tool.call.arguments": gen_ai.dumped(event.arguments)} if self._content else told

    def _returned(self, event: ToolFinished) -> dict[str, Any]:
        if not self._content or event.error_type:
            return {}
        return {"gen_ai.tool.call.result": gen_ai.dumped(event.result)}

    # ---- the end, in the trial's task --------------------------------------------------------------------------------

    def end(self, request: TrialRequest, outcome: TrialOutcome) -> None:
        """The trial has ended; what it left under way ends with it."""
        now_ns, now = self._now(), self._clock.current_time()
        with self._lock:
            self._ended = True
            left, self._calls = self._calls, {}
        how = ending(outcome)
        with ExitStack() as stack:
            stack.callback(self._span.end, now_ns)
            if self._stage is not None:
                stack.callback(self._stage.end, now_ns)
            current.leave(self._stage_place)
            current.leave(self._place)
            self._count(None)
            self._instruments.trial_ended(outcome)
            for call in left.values():
                call.span.set_attributes({"error.type": how.get("error.type", "_OTHER"), "dspex.unfinished": True})
                call.span.set_status(trace.StatusCode.ERROR, "the trial ended first")
                call.span.end(now_ns)
            self._span.set_attributes({**how, **_spent(outcome)})
            if now > request.deadline:
                self._span.set_attribute("dspex.late_ms", round((now - request.deadline) * 1e3, 3))
            if isinstance(outcome, TrialSuccess):
                return
            stopped = {f"dspex.{name}": outcome.details[name] for name in _STOPPED if name in outcome.details}
            self._span.set_attributes({"dspex.retryable": outcome.retryable, **stopped})
            self._span.set_status(trace.StatusCode.ERROR, f"{outcome.kind.name} in {outcome.stage.name}")
            if self._stage is not None:
                self._stage.set_attributes({**how, **stopped})
                self._stage.set_status(trace.StatusCode.ERROR, outcome.kind.name)

    def thread_ended(self, details: Mapping[str, str]) -> None:
        """The threads that were abandoned have ended: one more span says for how long they went on."""
        now = self._now()
        began = now - round(float(details.get("abandoned_ms", 0.0)) * 1e6)
        told = {f"dspex.{name}": details[name] for name in (*_STOPPED, "abandoned_ms") if name in details}
        span = self._tracer.start_span("abandoned", self._context, attributes=told, start_time=began)
        span.set_status(trace.StatusCode.ERROR, "the threads went on when the trial was over")
        span.end(now)

    def _now(self) -> int:
        """Nanoseconds since the epoch, on Trio's clock: in a test, virtual ones."""
        return self._arrived_ns + round((self._clock.current_time() - self._arrived) * 1e9)


def _about(request: TrialRequest) -> dict[str, Any]:
    seconds = request.deadline - request.arrived
    told = {
        "dspex.program": request.program.name or request.program.python_class,
        "dspex.program.class": request.program.python_class,
        "dspex.trial.id": request.trial_id,
        "dspex.session.id": request.session_id,
        "dspex.correlation_id": correlation.current() or request.metadata.get(correlation.METADATA_KEY, ""),
        "dspex.time_ms": round(seconds * 1e3, 3) if math.isfinite(seconds) else "",
    }
    return {name: value for name, value in told.items() if value != ""}


def _lm(event: LmStarted) -> dict[str, Any]:
    told = {**gen_ai.asked(event.model), **gen_ai.asked_for(event.sampling)}
    if event.predictor:
        told["dspex.predictor"] = event.predictor
    return told


def _spent(outcome: TrialOutcome) -> dict[str, Any]:
    cost = outcome.cost
    return {
        "dspex.lm_calls": cost.lm_calls,
        "dspex.cache_hits": cost.cache_hits,
        "dspex.cost_usd": cost.total_usd,
        "dspex.cost_known": cost.known,
        "gen_ai.usage.input_tokens": cost.usage.prompt_tokens,
        "gen_ai.usage.output_tokens": cost.usage.completion_tokens,
    }
