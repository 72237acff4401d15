"""The file of trials: sessions with their variables, programs, and trials with what is expected of each.

One JSON object a line, of three kinds: `{"session": …, "variables": …}`, `{"program": …, "spec": …}` and
`{"trial": …, "program": …, "session": …, "inputs": …}`. A trial names sessions and programs that stand above it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from dspex_trio.model.errors import FailureKind, Stage

DEFAULT_FILE: Final = Path(__file__).with_name("trials.jsonl")
_ARTICLES: Final = re.compile(r"\b(?:a|an|the)\b")


class InvalidTrials(ValueError):
    """The file of trials cannot be used; the text names the line and what is wrong."""


class _JsonLine(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class SessionVariable(_JsonLine):
    """A variable to register: its type, first value and constraints, as the store takes them."""

    type: str
    value: Any
    constraints: dict[str, Any] = {}


class _Session(_JsonLine):
    session: str
    variables: dict[str, SessionVariable]


class _Program(_JsonLine):
    program: str
    spec: dict[str, Any]


class _Expectation(_JsonLine):
    kind: str = Field(pattern="^(" + "|".join(kind.name for kind in FailureKind) + ")$")
    stage: str | None = Field(None, pattern="^(" + "|".join(stage.name for stage in Stage) + ")$")


class _Trial(_JsonLine):
    trial: str
    program: str
    session: str = ""
    inputs: dict[str, Any]
    answers: list[str] = []
    exactly: bool = False
    timeout: float | None = Field(None, gt=0)
    client_cancels: bool = False
    expect: _Expectation | None = None


@dataclass(frozen=True, slots=True)
class Trial:
    """One trial and what is expected of it.

    Attributes:
        id: Its name.
        program: The program's specification, as JSON.
        session: The session it reads; empty for none.
        inputs: Input field → value.
        answers: The right answers; empty when any will do.
        exactly: Whether case and punctuation of the answer count.
        timeout: Seconds until its deadline; None for the demo's own.
        client_cancels: Whether the client goes away while the program waits for the model.
        kind: The failure that is expected; None for success.
        stage: The stage it is expected in; None for any.
    """

    id: str
    program: Mapping[str, Any]
    session: str
    inputs: Mapping[str, Any]
    answers: tuple[str, ...] = ()
    exactly: bool = False
    timeout: float | None = None
    client_cancels: bool = False
    kind: FailureKind | None = None
    stage: Stage | None = None

    def accepts(self, answer: Any) -> bool:
        """Whether the answer is right. Unless it must match exactly, case, punctuation and articles do not count."""
        said = ", ".join(map(str, answer)) if isinstance(answer, list) else str(answer)
        if not self.answers:
            return True
        return said in self.answers if self.exactly else _plain(said) in map(_plain, self.answers)


@dataclass(frozen=True, slots=True)
class TrialFile:
    """What a file holds: session → variable → how to register it; and the trials, in order."""

    sessions: Mapping[str, Mapping[str, SessionVariable]]
    trials: tuple[Trial, ...]


def read_trials(path: Path) -> TrialFile:
    """Read and check a file of trials; raises InvalidTrials naming the line, OSError when it cannot be read."""
    sessions: dict[str, Mapping[str, SessionVariable]] = {}
    programs: dict[str, Mapping[str, Any]] = {}
    trials: dict[str, Trial] = {}
    for number, line in _lines(path):
        match line:
            case _Session(session=name):
                _add(sessions, name, line.variables, f"line {number}: session")
            case _Program(program=name):
                _add(programs, name, line.spec, f"line {number}: program")
            case _Trial(trial=name):
                for known, wanted, what in ((programs, line.program, "program"), (sessions, line.session, "session")):
                    if wanted and wanted not in known:
                        raise InvalidTrials(
                            f"line {number}: there is no {what} {wanted!r} above; known: {', '.join(known)}"
                        )
                _add(trials, name, _trial(line, programs[line.program]), f"line {number}: trial")
    return TrialFile(sessions, tuple(trials.values()))


def _lines(path: Path) -> Iterator[tuple[int, _JsonLine]]:
    for number, text in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        if not text.strip():
            continue
        try:
            raw = json.loads(text)
        except ValueError as error:
            raise InvalidTrials(f"line {number}: is no JSON: {error}") from error
        kinds: dict[str, type[_JsonLine]] = {"trial": _Trial, "spec": _Program, "variables": _Session}
        model = next((model for key, model in kinds.items() if isinstance(raw, dict) and key in raw), None)
        if model is None:
            raise InvalidTrials(f"line {number}: is neither a session (variables), a program (spec) nor a trial")
        try:
            yield number, model.model_validate(raw)
        except ValidationError as error:
            problem = error.errors(include_url=False)[0]
            raise InvalidTrials(f"line {number}: {'.'.join(map(str, problem['loc']))}: {problem['msg']}") from None


def _add(known: dict[str, Any], name: str, value: Any, where: str) -> None:
    if name in known:
        raise InvalidTrials(f"{where} {name!r} is there twice")
    known[name] = value


def _trial(line: _Trial, program: Mapping[str, Any]) -> Trial:
    expected = line.expect
    return Trial(
        id=line.trial,
        program=program,
        session=line.session,
        inputs=line.inputs,
        answers=tuple(line.answers),
        exactly=line.exactly,
        timeout=line.timeout,
        client_cancels=line.client_cancels,
        kind=FailureKind[expected.kind] if expected is not None else None,
        stage=Stage[expected.stage] if expected is not None and expected.stage is not None else None,
    )


def _plain(text: str) -> str:
    words = re.sub(r"[^\w\s.]|\.(?!\d)|(?<!\d)\.", " ", text.lower().replace(",", ""))
    return " ".join(_ARTICLES.sub(" ", words).split())
