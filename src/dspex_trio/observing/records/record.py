"""One trial as a JSON object that says all there is to know of it. `docs/records.md` is its schema."""

from __future__ import annotations

import datetime as dt
import math
import os
import platform
from collections.abc import Mapping, Sequence
from functools import cache
from importlib.metadata import version
from typing import Any, Final

from dspex_trio.model import LmFinished, ToolFinished, TrialEvent, TrialOptions, TrialOutcome, TrialRequest
from dspex_trio.model.values import plain
from dspex_trio.observing.redaction import Redactor, printable_json, redacted, secrets_in
from dspex_trio.wire import encode_json, encode_jsonable, event_to_json, jsonable, outcome_to_json, program_to_json

FORMAT: Final = "dspex_trio.trial/1"
"""What a reader looks at first. The number changes when a reader of the last one would be misled."""

ENDING_FORMAT: Final = "dspex_trio.thread/1"
"""The line of a thread that ended after its trial had been answered."""

_OPTIONS: Final = TrialOptions.__slots__


def record_of(
    request: TrialRequest,
    outcome: TrialOutcome,
    events: Sequence[tuple[float, TrialEvent]],
    *,
    ended_at: float,
    loop_late: float,
    lm: str,
    redact: Redactor,
) -> bytes:
    """The record of a trial as JSON, without secrets.

    Args:
        request: What was asked.
        outcome: What became of it.
        events: Its stages, its tools' calls, and its LM calls that failed, each with its milliseconds after arrival.
        ended_at: Seconds since the epoch.
        loop_late: How late the loop was meanwhile, at most, in seconds.
        lm: The language model of programs that name none; empty for none.
        redact: Takes secrets out of text.
    """
    seconds = request.deadline - request.arrived
    program = jsonable(plain(program_to_json(request.program)))
    record = {
        "format": FORMAT,
        "ended_at": _timestamp(ended_at),
        "worker": {**_worker(), "lm": lm},
        "trial_id": request.trial_id,
        "session_id": request.session_id,
        "metadata": dict(request.metadata),
        "time_ms": seconds * 1e3 if math.isfinite(seconds) else None,
        "program": program,
        "inputs": jsonable(plain(request.inputs)),
        "options": {name: getattr(request.options, name) for name in _OPTIONS},
        "loop_late_ms": round(loop_late * 1e3, 3),
        "outcome": outcome_to_json(outcome),
        "events": [_event(event, at_ms) for at_ms, event in events],
    }
    # A request may bring a key of its own, of any shape.
    redact = redact.with_secrets([*secrets_in(program), *secrets_in(request.metadata)])
    try:
        encoded = encode_jsonable(record)
    except TypeError:
        pass
    else:
        if redact.passes(encoded):
            return printable_json(encoded)
    return printable_json(encode_json(redacted(record, redact)))


def _event(event: TrialEvent, at_ms: float) -> dict[str, Any]:
    if isinstance(event, ToolFinished) and event.error_type:
        told = event_to_json(event, at_ms)
        told["tool_finished"]["error_message"] = event.error_message
        return told
    if not isinstance(event, LmFinished):
        return event_to_json(event, at_ms)
    # The call stands in the trace; here is why it failed.
    failed = {
        "call": event.call,
        "started_ms": event.lm_call.started_ms,
        "error_type": event.error_type,
        "error_message": event.error_message,
        "status": event.status,
        "retry_after": event.retry_after,
    }
    return {"lm_failed": failed, "at_ms": at_ms}


def ending_of(trial_id: str, details: Mapping[str, str], *, ended_at: float) -> bytes:
    """The record of a thread that ended after its trial had been answered, as JSON."""
    record = {"format": ENDING_FORMAT, "ended_at": _timestamp(ended_at), "trial_id": trial_id, "details": dict(details)}
    return printable_json(encode_json(record))


def _timestamp(seconds: float) -> str:
    return dt.datetime.fromtimestamp(seconds, dt.UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


@cache
def _versions() -> dict[str, Any]:
    return {
        "host": platform.node(),
        "python": platform.python_version(),
        "dspex_trio": version("dspex-trio"),
        "dspy": version("dspy"),
    }


def _worker() -> dict[str, Any]:
    return {**_versions(), "pid": os.getpid()}
