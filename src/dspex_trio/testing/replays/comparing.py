"""What is different between a recorded outcome and another one, for people."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any, Final

from dspex_trio.model import TrialOutcome, TrialSuccess
from dspex_trio.model.variable_types import show
from dspex_trio.observing.redaction import Redactor, redacted
from dspex_trio.testing.replays.recorded import failure_in, kind_in
from dspex_trio.wire import jsonable

_REDACT_SHAPES: Final = Redactor()
_FRAMES: Final = re.compile(r"(?<=Traceback \(most recent call last\):\n)(?:[ \t].*(?:\n|$))+")


def differences(record: Mapping[str, Any], outcome: TrialOutcome) -> Iterator[str]:
    """A line for each difference of kind, stage, exception and prediction; none where both came to the same."""
    then, now = _what(record), _what_now(outcome)
    if then != now:
        yield f"it ended as {_named(now)}; recorded is {_named(then)}"
        if not isinstance(outcome, TrialSuccess):
            yield f"  {outcome.error_type}: {outcome.error_message}"
    elif isinstance(outcome, TrialSuccess):
        yield from _fields(
            record["outcome"]["success"]["prediction"],
            redacted(jsonable(dict(outcome.prediction)), _REDACT_SHAPES),
        )


def _what(record: Mapping[str, Any]) -> tuple[str, ...]:
    """Kind, stage and exception."""
    failure = failure_in(record)
    if failure is None:
        return (kind_in(record),)
    return kind_in(record), str(failure["stage"]).removeprefix("STAGE_"), failure["error_type"]


def _what_now(outcome: TrialOutcome) -> tuple[str, ...]:
    if isinstance(outcome, TrialSuccess):
        return ("success",)
    return outcome.kind.name, outcome.stage.name, outcome.error_type


def _named(what: tuple[str, ...]) -> str:
    return what[0] if len(what) == 1 else f"{what[0]} in {what[1]} ({what[2]})"


def _fields(then: Mapping[str, Any], now: Mapping[str, Any], path: str = "prediction") -> Iterator[str]:
    for name in dict.fromkeys((*then, *now)):
        where = f"{path}.{name}"
        if name not in now:
            yield f"{where} is missing; recorded is {show(then[name])}"
        elif name not in then:
            yield f"{where} is {show(now[name])}; recorded is none"
        elif isinstance(then[name], dict) and isinstance(now[name], dict):
            yield from _fields(then[name], now[name], where)
        elif _comparable(then[name]) != _comparable(now[name]):
            yield f"{where} is {show(now[name])}; recorded is {show(then[name])}"


def _comparable(value: Any) -> Any:
    """A value without the frames of tracebacks in its texts, as ReAct tells its model of errors of tools."""
    match value:
        case str():
            return _FRAMES.sub("", value)
        case list():
            return [_comparable(item) for item in value]
        case dict():
            return {name: _comparable(item) for name, item in value.items()}
    return value
