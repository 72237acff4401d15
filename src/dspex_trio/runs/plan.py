"""A file of trials, read: one JSON object a line. `docs/runs.md` describes it."""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from dspex_trio.model import Program, TrialOptions
from dspex_trio.model.errors import InvalidSpec
from dspex_trio.model.variable_types import show
from dspex_trio.runs.formats import looks_like
from dspex_trio.wire import encode_json, json_text, options_from_json, program_from_json, read_json

_KEYS: Final = frozenset(
    {"id", "program", "inputs", "expected", "session", "variables", "sweep", "timeout", "options", "metadata"}
)
_OF_A_TRIAL: Final = frozenset({"id", "inputs", "expected"})
_NO_OPTIONS: Final = TrialOptions()
_LONGEST_TIMEOUT: Final = 1e9  # seconds: thirty years
MAX_CONFIGURATIONS: Final = 100_000
"""The most that a sweep may multiply a trial to."""
_WANTED: Final = (
    "A file of trials is text in UTF-8 with one JSON object on each line, such as "
    '{"inputs": {"question": "What is 2+2?"}}'
)


class InvalidPlan(ValueError):
    """The file cannot be run; says in which line, and why."""


@dataclass(frozen=True, slots=True)
class Planned:
    """One trial that is to be run.

    Attributes:
        id: Its name, of which there is no other.
        program: What to run.
        inputs: Input field → value.
        expected: Output field → the value that a metric compares with; None for none.
        session: The session that it reads; empty where `variables` are given, or none is needed.
        variables: Session variables to make for it.
        timeout: Its time in seconds; None for the run's.
        options: What its outcome leaves out.
        metadata: Goes along with it.
        digest: Changes with whatever its outcome depends on, but for the language model of programs that name none.
        program_digest: Changes with the program alone.
        trial_digest: Changes with the rest of it: inputs, variables, session and options.
    """

    id: str
    program: Program
    inputs: Mapping[str, Any]
    expected: Mapping[str, Any] | None = None
    session: str = ""
    variables: Mapping[str, Any] = field(default_factory=dict)
    timeout: float | None = None
    options: TrialOptions = _NO_OPTIONS
    metadata: Mapping[str, str] = field(default_factory=dict)
    digest: str = ""
    program_digest: str = ""
    trial_digest: str = ""


def read_plan(
    lines: Iterable[str | bytes],
    *,
    program: Mapping[str, Any] | None = None,
    sweep: Mapping[str, Sequence[Any]] | None = None,
) -> list[Planned]:
    """The trials of a file.

    Args:
        lines: Of the file.
        program: For trials that name none, in its JSON form.
        sweep: Variable → values; every trial is run with every combination.

    Raises:
        InvalidPlan: A line is no trial, or two trials have one name.
    """
    defaults: dict[str, Any] = {"program": program, "sweep": sweep}
    found: dict[str, Planned] = {}
    rest = iter(lines)
    for number, line in enumerate(rest, 1):
        if not line.strip():
            continue
        try:
            given = _object(line, rest, first=not found)
            if not _OF_A_TRIAL & given.keys():  # what it says holds for the lines that follow
                defaults.update(given)
                continue
            for trial in _trials({**defaults, **given}, str(number)):
                if trial.id in found:
                    raise InvalidPlan(f"there is another trial {trial.id!r}")  # noqa: TRY301 - told with its line, below
                found[trial.id] = trial
        except (InvalidPlan, InvalidSpec) as error:
            raise InvalidPlan(f"line {number}: {error}") from None
    return list(found.values())


def _object(line: str | bytes, following: Iterable[str | bytes], *, first: bool) -> dict[str, Any]:
    try:
        given = read_json(line)
    except (ValueError, RecursionError) as error:
        if (seems := looks_like(line, following, first=first)) is not None:
            raise InvalidPlan(f"this is no JSON object: it looks like {seems}. {_WANTED}") from None
        raise InvalidPlan(f"this is no JSON: {error}") from None
    if isinstance(given, list):
        raise InvalidPlan(f"this is no JSON object, but an array. {_WANTED}")
    if not isinstance(given, dict):
        raise InvalidPlan(f"this is no JSON object. {_WANTED}")
    if unknown := given.keys() - _KEYS:
        raise InvalidPlan(f"unknown key {min(unknown)!r}; known are {', '.join(sorted(_KEYS))}")
    return given


def _trials(given: Mapping[str, Any], number: str) -> Iterator[Planned]:
    if given.get("program") is None:
        raise InvalidPlan("there is no program: give it here, in a line before, or by --program")
    program = program_from_json(_mapping(given, "program"))
    swept = {name: _values(name, values) for name, values in _mapping(given, "sweep").items()}
    combinations = 1
    for values in swept.values():
        combinations *= len(values)
    if combinations > MAX_CONFIGURATIONS:
        raise InvalidPlan(f"the sweep has {combinations} combinations, more than {MAX_CONFIGURATIONS}")
    name = _name(given.get("id"), number)
    for combination in itertools.product(*swept.values()):
        chosen = dict(zip(swept, combination, strict=True))
        yield _planned(given, program, f"{name}[{_written(chosen)}]" if chosen else name, chosen)


def _planned(given: Mapping[str, Any], program: Program, name: str, chosen: Mapping[str, Any]) -> Planned:
    variables = {**_mapping(given, "variables"), **chosen}
    session = str(given.get("session") or "")
    if session and variables:
        raise InvalidPlan("a trial reads its session's variables or is given its own, not both")
    if any(value is None for value in variables.values()):
        raise InvalidPlan("a variable has a value; null is none")
    timeout = given.get("timeout")
    if timeout is not None and (
        isinstance(timeout, bool) or not isinstance(timeout, int | float) or not 0 < timeout <= _LONGEST_TIMEOUT
    ):
        raise InvalidPlan(f"timeout is in seconds, more than 0; got {show(timeout)}")
    expected = given.get("expected")
    if expected is not None and not isinstance(expected, dict):
        raise InvalidPlan("expected is an object, output field → value")
    inputs, metadata = _mapping(given, "inputs"), _mapping(given, "metadata")
    about = [inputs, variables, session, _mapping(given, "options")]
    return Planned(
        name,
        program,
        inputs,
        expected,
        session,
        variables,
        None if timeout is None else float(timeout),
        options_from_json(given.get("options")),
        {key: _text(value) for key, value in metadata.items()},
        _digest([given["program"], *about]),
        _digest(given["program"]),
        _digest(about),
    )


def _name(given: Any, number: str) -> str:
    match given:
        case None:
            return number
        case bool() | dict() | list():
            raise InvalidPlan(f"id is a text or a number; got {show(given)}")
    return _text(given)


def _text(value: Any) -> str:
    try:
        return str(value)
    except ValueError:  # an integer of more digits than Python writes
        return json_text(value)


def _digest(value: Any) -> str:
    return hashlib.sha256(encode_json(in_order(value))).hexdigest()[:16]


def in_order(value: Any) -> Any:
    """With the keys of objects sorted: their order says nothing."""
    match value:
        case dict():
            return {key: in_order(value[key]) for key in sorted(value)}
        case list():
            return [in_order(item) for item in value]
    return value


def _mapping(given: Mapping[str, Any], key: str) -> dict[str, Any]:
    value = given.get(key)
    if value is None:
        return {}
    if not isinstance(value, Mapping):
        raise InvalidPlan(f"{key} is an object; got {show(value)}")
    return dict(value)


def _values(name: str, values: Any) -> list[Any]:
    if not isinstance(values, list | tuple) or not values:
        raise InvalidPlan(f"sweep: {name!r} is swept over a list of values")
    return list(values)


def _written(chosen: Mapping[str, Any]) -> str:
    return ",".join(f"{name}={json_text(value)}" for name, value in chosen.items())
