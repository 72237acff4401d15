"""The events of a trial while it is under way."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from dspex_trio.model.errors import Stage
from dspex_trio.model.outcomes import LmCall


@dataclass(frozen=True, slots=True)
class StageStarted:
    """The trial has entered a stage."""

    stage: Stage


@dataclass(frozen=True, slots=True)
class LmStarted:
    """A language model is asked.

    Attributes:
        call: Counts the LM and tool calls of the trial, from 1; the event of its end carries the same number.
        predictor: Who asks: a dotted name inside the program; empty for the program's own code.
        model: What is asked.
        sampling: The numbers that it is asked for, such as `temperature` and `max_tokens`. Told in the worker alone: no
            event on the wire carries them.
    """

    call: int
    predictor: str
    model: str
    sampling: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class LmFinished:
    """A language model has answered, or failed: `error_type` then names the exception's type.

    Attributes:
        call: As in LmStarted.
        lm_call: The call.
        error_type: Why it failed; empty for one that was answered.
        error_message: What the provider, or DSPy, says of that. This and the rest stays in the worker: no
            event on the wire carries it.
        status: The HTTP status of the provider's answer; 0 for none.
        retry_after: Seconds after which it may be asked again, as it says; None for nothing said.
    """

    call: int
    lm_call: LmCall
    error_type: str = ""
    error_message: str = ""
    status: int = 0
    retry_after: float | None = None


@dataclass(frozen=True, slots=True)
class ToolStarted:
    """A tool is called, with arguments that are plain values without secrets."""

    call: int
    tool: str
    arguments: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class ToolFinished:
    """A tool has returned a plain value without secrets, or failed: `error_type` then names the exception's type.

    Attributes:
        call: As in ToolStarted.
        result: What it returned.
        error_type: Why it failed; empty for one that returned.
        latency_ms: How long it took.
        error_message: What the exception says, as far as it can be read without running code of the program's. No event
            on the wire carries it.
    """

    call: int
    result: Any
    error_type: str
    latency_ms: float
    error_message: str = ""


@dataclass(frozen=True, slots=True)
class OutputChunk:
    """Text of an output field, as the provider sends it.

    Attributes:
        predictor: Whose output: a dotted name inside the program.
        field: Which field of it; empty where the adapter does not let fields be told apart.
        text: What came.
        is_last: Whether the field is complete.
    """

    predictor: str
    field: str
    text: str
    is_last: bool


@dataclass(frozen=True, slots=True)
class EventsDropped:
    """So many events were left out here, since the reader was too slow for them."""

    count: int


TrialEvent: TypeAlias = StageStarted | LmStarted | LmFinished | ToolStarted | ToolFinished | OutputChunk | EventsDropped

Watch: TypeAlias = Callable[[TrialEvent], None]
"""Who wants to know: called in whatever thread the event happens, so it must neither block nor raise."""

EventCallback: TypeAlias = Callable[[TrialEvent, float], object]
"""A user's own: called on the loop with each event and its milliseconds after the trial arrived. It must not block; an
exception that it raises ends the trial and comes out."""


def characters(event: TrialEvent) -> int:
    """About how much of memory the event's text takes."""
    match event:
        case LmFinished(lm_call=call):
            return len(call.messages_json) + len(call.response_json)
        case OutputChunk(text=text):
            return len(text)
        case ToolStarted(arguments=value) | ToolFinished(result=value):
            return characters_in(value)
    return 0


def characters_in(value: Any) -> int:
    """The characters and bytes of all texts in a plain value."""
    count, pending = 0, [value]
    while pending:
        part = pending.pop()
        if isinstance(part, str | bytes):
            count += len(part)
        elif isinstance(part, dict):
            pending += part.keys()
            pending += part.values()
        elif isinstance(part, list | tuple):
            pending += part
    return count
