"""Records in a terminal: a list of trials, and one of them as a waterfall."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Final

import click

from dspex_trio.observing.records import words
from dspex_trio.observing.records.reading import Recorded
from dspex_trio.observing.records.waterfall import Bar, Waterfall, waterfall
from dspex_trio.observing.redaction import printable
from dspex_trio.wire import json_text

_EIGHTHS: Final = " ▏▎▍▌▋▊▉█"
_COLOURS: Final = {"stage": "blue", "predictor": "cyan", "lm": "green", "tool": "magenta"}
_NARROWEST: Final = 16
_NUMBERS: Final = frozenset({4, 5})
"""Columns of the list that hold numbers."""
_PROGRAM_WIDTH: Final = 24
_NAME_WIDTH: Final = 34
_NOTE_WIDTH: Final = 26
_MOST_LINES: Final = 12
"""Of an error's message, on a terminal."""
_ROOM_IN_A_FILE: Final = 60
"""Columns of the bars where no terminal says how many there are."""


def listed(trials: Sequence[Recorded], *, width: int | None) -> Iterator[str]:
    """One line for each trial, and how they ended.

    `width` is that of a terminal, in which programs and messages are cut, and ids are not; without one nothing is.
    """
    rows = [_row(trial, width) for trial in trials]
    sizes = [max(len(row[column]) for row in rows) for column in range(len(rows[0]) - 1)] if rows else []
    for trial, row in zip(trials, rows, strict=True):
        cells = [
            cell.rjust(size) if i in _NUMBERS else cell.ljust(size)
            for i, (cell, size) in enumerate(zip(row, sizes, strict=False))
        ]
        before = "  ".join([*cells, ""])
        message = row[-1] if width is None else _cut(row[-1], max(width - len(before), _NARROWEST))
        line = f"{before}{message}".rstrip()
        yield line if trial.failure is None else click.style(line, fg="red")
    kinds: dict[str, int] = {}
    for trial in trials:
        kind = _one_line(trial.kind)
        kinds[kind] = kinds.get(kind, 0) + 1
    told = ", ".join(f"{count} {kind}" for kind, count in sorted(kinds.items(), key=lambda item: -item[1]))
    yield f"{len(trials)} trials" + (f": {told}" if told else "")


def _row(trial: Recorded, width: int | None) -> tuple[str, ...]:
    timings, cost = trial.result["timings"], trial.result.get("cost", {})
    tokens = cost.get("usage", {}).get("total_tokens", 0)
    says = "" if trial.failure is None else _one_line(str(trial.failure.get("error_message", "")))
    return (
        f"{trial.ended_at:%Y-%m-%d %H:%M:%S}",
        _one_line(trial.trial_id) or "-",
        _cut(_one_line(trial.program), None if width is None else _PROGRAM_WIDTH),
        _one_line(trial.kind),
        words.milliseconds(timings.get("total_ms", 0.0)),
        f"{tokens} tokens" if tokens else "",
        says,
    )


def shown(trial: Recorded, *, width: int | None) -> Iterator[str]:
    """One trial: what it was, how it ended, its waterfall, its variables and what came out.

    `width` is that of a terminal, to which texts are cut; without one nothing is.
    """
    record, result = trial.record, trial.result
    session = f" · session {_one_line(record['session_id'])}" if record.get("session_id") else ""
    title = f"{_one_line(trial.program)} · trial {_one_line(trial.trial_id) or '-'}{session}"
    yield click.style(title, bold=True)
    yield f"ended {trial.ended_at:%Y-%m-%d %H:%M:%S} UTC · {words.took(trial)}"
    yield from _ending(trial, width)
    yield ""
    yield from _bars(waterfall(trial), width)
    yield ""
    yield from _fields(
        "variables", {name: words.variable(each) for name, each in result.get("variables", {}).items()}, width
    )
    yield from _fields("inputs", record.get("inputs", {}), width)
    yield from _fields("outputs", result.get("prediction", {}), width)
    yield from _fields("cost", words.cost(result.get("cost", {})), width)


def _ending(trial: Recorded, width: int | None) -> Iterator[str]:
    failure = trial.failure
    if failure is None:
        yield click.style("OK", fg="green", bold=True)
        for warning in trial.result.get("warnings", ()):
            yield f"warning: {_one_line(warning)}"
        return
    said = _one_line(f"{trial.kind} in {words.stage(trial)}")
    yield click.style(said, fg="red", bold=True) + f" ({words.prospects(failure)})"
    lines = str(failure.get("error_message", "")).splitlines()
    for line in lines if width is None else lines[:_MOST_LINES]:
        yield _cut(f"  {printable(line)}", width)
    if width is not None and len(lines) > _MOST_LINES:
        yield f"  … {len(lines) - _MOST_LINES} more lines"
    if details := failure.get("details"):
        yield _cut("  " + ", ".join(_one_line(f"{name} {value}") for name, value in details.items()), width)
    for late in trial.late:
        told = ", ".join(_one_line(f"{name} {value}") for name, value in late.get("details", {}).items())
        yield _cut(f"  its thread ended later, at {_one_line(late.get('ended_at'))}: {told}", width)


def _bars(drawn: Waterfall, width: int | None) -> Iterator[str]:
    longest, note = (None, None) if width is None else (_NAME_WIDTH, _NOTE_WIDTH)
    names = [_cut("  " * bar.depth + _one_line(bar.name), longest) for bar in drawn.bars]
    left = max((len(name) for name in names), default=0)
    room = _ROOM_IN_A_FILE if width is None else max(width - left - 12 - _NOTE_WIDTH, _NARROWEST)
    for bar, name in zip(drawn.bars, names, strict=True):
        colour = "red" if bar.failed else _COLOURS[bar.kind]
        line = click.style(_bar(bar, drawn, room), fg=colour)
        took = words.milliseconds(bar.end_ms - bar.start_ms).rjust(9)
        yield f"{name.ljust(left)} {took} {line} {_cut(_one_line(bar.note), note)}".rstrip()
    if drawn.deadline_ms is not None:
        at = min(round(drawn.deadline_ms / drawn.total_ms * room), room - 1)
        text = f"deadline, {words.milliseconds(drawn.deadline_ms)}"
        mark = f"{text} ▲" if at > len(text) else f"▲ {text}"
        start = at - len(text) - 1 if at > len(text) else at
        yield " " * (left + 11 + max(start, 0)) + click.style(mark, fg="red")


def _bar(bar: Bar, drawn: Waterfall, room: int) -> str:
    """From its start to its end in eighths of a column; at least one eighth wide."""
    start, end = (min(at / drawn.total_ms, 1.0) * room for at in (bar.start_ms, bar.end_ms))
    first = min(int(start), room - 1)
    width = max(end - first, 0.125)
    full, rest = divmod(round(width * 8), 8)
    body = "█" * min(full, room - first) + (_EIGHTHS[rest] if rest and full + first < room else "")
    return (" " * first + body).ljust(room)


def _fields(title: str, fields: Any, width: int | None) -> Iterator[str]:
    if fields:
        yield click.style(title, bold=True)
    for name, value in fields.items():
        said = value if isinstance(value, str) else json_text(value)
        yield _cut(f"  {_one_line(name)}: {_one_line(said)}", width)


def _one_line(text: object) -> str:
    """What a program returned must not steer the reader's terminal."""
    return printable(" ".join(str(text).split()))


def _cut(text: str, most: int | None) -> str:
    return text if most is None or len(text) <= most else text[: most - 1] + "…"
