"""A record as one HTML page that needs nothing else: bars on a line of time, prompts and replies to unfold."""

from __future__ import annotations

import html
from collections.abc import Iterator, Mapping
from typing import Any, Final

from dspex_trio.observing.records import words
from dspex_trio.observing.records.reading import Recorded
from dspex_trio.observing.records.waterfall import Bar, Waterfall, waterfall
from dspex_trio.observing.redaction import printable
from dspex_trio.wire import json_text

_STYLE: Final = """
:root { color-scheme: light dark; --ink: #1d2430; --dim: #667085; --line: #d8dde6; --paper: #fff; --card: #f6f7f9;
  --stage: #5b7fd6; --predictor: #2a9db0; --lm: #4c9f58; --tool: #a05bb5; --bad: #c93838; --good: #2f7d3b; }
@media (prefers-color-scheme: dark) { :root { --ink: #e4e8ef; --dim: #98a2b3; --line: #343b48; --paper: #14171c;
  --card: #1c2027; --stage: #6f92e8; --predictor: #3fb3c6; --lm: #5fb56c; --tool: #b877cc; --bad: #f06a6a;
  --good: #6cc47a; } }
* { box-sizing: border-box; }
body { margin: 0 auto; padding: 2rem 1.5rem; max-width: 76rem; background: var(--paper); color: var(--ink);
  font: 15px/1.5 system-ui, sans-serif; }
h1 { font-size: 1.35rem; margin: 0; } h2 { font-size: 1rem; margin: 2rem 0 .5rem; }
.dim { color: var(--dim); }
.good { color: var(--good); font-weight: 600; } .bad { color: var(--bad); font-weight: 600; }
pre { margin: .25rem 0 .75rem; padding: .6rem .8rem; background: var(--card); border: 1px solid var(--line);
  border-radius: 6px; overflow-x: auto; white-space: pre-wrap; overflow-wrap: anywhere; font: 13px/1.45 ui-monospace,
  monospace; }
.falls { border: 1px solid var(--line); border-radius: 8px; overflow: hidden; }
.row { border-top: 1px solid var(--line); } .row:first-child { border-top: 0; }
.head { display: grid; grid-template-columns: minmax(9rem, 17rem) 5.5rem 1fr minmax(5rem, 13rem); gap: .75rem;
  align-items: center; padding: .3rem .75rem; }
summary.head { cursor: pointer; list-style: none; } summary.head::-webkit-details-marker { display: none; }
summary .name::before { content: "▸ "; color: var(--dim); } details[open] > summary .name::before { content: "▾ "; }
.name { overflow: hidden; text-overflow: ellipsis; white-space: nowrap; } .ms { text-align: right;
  font-variant-numeric: tabular-nums; }
.track { position: relative; height: 1rem; } .bar { position: absolute; top: .15rem; height: .7rem; min-width: 2px;
  border-radius: 2px; }
.deadline { position: absolute; top: -.35rem; bottom: -.35rem; width: 2px; background: var(--bad); }
.stage { background: var(--stage); } .predictor { background: var(--predictor); } .lm { background: var(--lm); }
.tool { background: var(--tool); } .failed { background: repeating-linear-gradient(45deg, var(--bad) 0 5px,
  transparent 5px 8px); border: 1px solid var(--bad); }
.parts { padding: .25rem .75rem .5rem 1.75rem; } .parts h3 { font-size: .85rem; margin: .4rem 0 0; color: var(--dim); }
table { border-collapse: collapse; width: 100%; } th { text-align: left; font-weight: 600; width: 12rem; }
th, td { padding: .3rem .75rem .3rem 0; border-bottom: 1px solid var(--line); vertical-align: top; }
td { white-space: pre-wrap; overflow-wrap: anywhere; }
@media (max-width: 46rem) { .head { grid-template-columns: 1fr 5rem; } .track, .note { grid-column: 1 / -1; } }
"""


def _escape(text: str) -> str:
    """Text for a page: no markup in it, and nothing that turns or hides what stands around it."""
    return html.escape(printable(text, lines=True))


def page(trial: Recorded) -> str:
    """The page of one trial. Whatever the record holds is text in it, never markup."""
    return "\n".join(_page(trial))


def _page(trial: Recorded) -> Iterator[str]:
    record, result = trial.record, trial.result
    yield "<!doctype html>"
    yield '<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width">'
    yield f"<title>{_escape(trial.program)} {_escape(trial.trial_id)}</title><style>{_STYLE}</style></head><body>"
    yield f"<h1>{_escape(trial.program)}</h1>"
    yield f'<p class="dim">{_escape(_about(trial))}</p>'
    yield from _ending(trial)
    drawn = waterfall(trial)
    yield '<h2>Where the time went</h2><div class="falls">'
    for bar in drawn.bars:
        yield from _row(bar, drawn)
    yield "</div>"
    if drawn.deadline_ms is not None:
        at = words.milliseconds(drawn.deadline_ms)
        yield f'<p class="dim">The red line is the deadline, {at} after the trial arrived.</p>'
    variables = {name: words.variable(each) for name, each in result.get("variables", {}).items()}
    for title, fields in (
        ("Inputs", record.get("inputs", {})),
        ("Outputs", result.get("prediction", {})),
        ("Variables", variables),
        ("Cost", words.cost(result.get("cost", {}))),
        ("Details", {**result.get("details", {}), **record.get("metadata", {})}),
    ):
        yield from _table(title, fields)
    yield from _unfolded("Python traceback", result.get("traceback", ""))
    yield from _unfolded("Program", _json(record["program"]))
    yield "</body></html>"


def _about(trial: Recorded) -> str:
    record = trial.record
    worker = record.get("worker", {})
    told = [
        f"trial {trial.trial_id}" if trial.trial_id else "",
        f"session {record['session_id']}" if record.get("session_id") else "",
        f"ended {trial.ended_at:%Y-%m-%d %H:%M:%S} UTC",
        words.took(trial),
        f"on {worker['host']}" if worker.get("host") else "",
        f"DSPy {worker['dspy']}" if worker.get("dspy") else "",
    ]
    return " · ".join(each for each in told if each)


def _ending(trial: Recorded) -> Iterator[str]:
    failure = trial.failure
    if failure is None:
        yield '<p class="good">OK</p>'
        for warning in trial.result.get("warnings", ()):
            yield f"<p>Warning: {_escape(str(warning))}</p>"
        return
    said = _escape(f"{trial.kind} in {words.stage(trial)}")
    yield f'<p><span class="bad">{said}</span> <span class="dim">({words.prospects(failure)})</span></p>'
    yield f"<pre>{_escape(str(failure.get('error_message', '')))}</pre>"
    for late in trial.late:
        yield f"<p>Its thread ended later, at {_escape(str(late.get('ended_at')))}.</p>"


def _row(bar: Bar, drawn: Waterfall) -> Iterator[str]:
    left, width = (at / drawn.total_ms * 100 for at in (bar.start_ms, bar.end_ms - bar.start_ms))
    look = "failed" if bar.failed else bar.kind
    mark = ""
    if drawn.deadline_ms is not None:
        mark = f'<span class="deadline" style="left:{drawn.deadline_ms / drawn.total_ms * 100:.3f}%"></span>'
    head = (
        f'<span class="name" style="padding-left:{bar.depth * 1.1:.1f}rem">{_escape(bar.name)}</span>'
        f'<span class="ms">{words.milliseconds(bar.end_ms - bar.start_ms)}</span>'
        f'<span class="track"><span class="bar {look}" style="left:{left:.3f}%;width:{width:.3f}%"></span>{mark}</span>'
        f'<span class="note dim">{_escape(bar.note)}</span>'
    )
    if not bar.parts:
        yield f'<div class="row head">{head}</div>'
        return
    yield f'<details class="row"><summary class="head">{head}</summary><div class="parts">'
    for heading, text in bar.parts:
        yield f"<h3>{_escape(heading)}</h3><pre>{_escape(text)}</pre>"
    yield "</div></details>"


def _table(title: str, fields: Mapping[str, Any]) -> Iterator[str]:
    if not fields:
        return
    yield f"<h2>{title}</h2><table>"
    for name, value in fields.items():
        said = value if isinstance(value, str) else _json(value)
        yield f"<tr><th>{_escape(str(name))}</th><td>{_escape(said)}</td></tr>"
    yield "</table>"


def _unfolded(title: str, text: str) -> Iterator[str]:
    if text:
        yield f"<h2>{title}</h2><details><summary>show</summary><pre>{_escape(text)}</pre></details>"


def _json(value: Any) -> str:
    return json_text(value, indent=2)
