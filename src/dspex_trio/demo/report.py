"""How the demo's progress, table and totals read, in a terminal and in a log file."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from typing import Any, Final

import click

from dspex_trio.demo.provider import Provider
from dspex_trio.demo.results import Result, Totals, add_up
from dspex_trio.model import BoundVariable

HEADINGS: Final = ("", "trial", "program", "outcome", "kind", "stage", "latency", "tokens", "variables")
RIGHT_ALIGNED: Final = frozenset({"latency", "tokens"})
LONGEST_VALUE: Final = 24
NARROWEST: Final = 20


def progress_line(result: Result, done: int, total: int) -> str:
    """One trial that has just ended."""
    head = f"[{done:>{len(str(total))}}/{total}] {_mark(result)} {result.trial.id:<13}"
    kind = f"{result.kind} in {result.stage}" if result.stage else result.kind
    said = f"{kind or result.ending}: {result.says}"
    return f"{head} {_milliseconds(result.latency_ms):>9}  {_cut(said, 100)}"


def report(results: Sequence[Result], *, seconds: float, width: int | None) -> Iterator[str]:
    """The table, what was not as expected, and the totals. `width` limits the lines; None for a file."""
    yield from _table([_row(result) for result in results], width)
    failed = [result for result in results if result.kind]
    if failed:
        yield ""
        yield "What the failures say:"
        for result in failed:
            yield _cut(f"  {result.trial.id:<13} {result.says}", width)
    odd = [result for result in results if not result.as_expected]
    if odd:
        yield ""
        yield click.style("Not as expected:", fg="red")
        for result in odd:
            got = f"{result.kind} in {result.stage}: " if result.stage else ""
            yield f"  {result.trial.id:<13} wanted {result.wanted}, got {got}{result.says}"
    yield ""
    yield from _totals(add_up(results), seconds)


def provider_lines(provider: Provider) -> Iterator[str]:
    """What the local provider saw of it all."""
    asked = provider.asked
    temperatures = ", ".join(f"{value:g}" for value in sorted({each.temperature for each in asked}))
    limits = ", ".join(str(value) for value in sorted({each.max_tokens for each in asked if each.max_tokens}))
    yield f"provider   {len(asked)} requests over {provider.connections} connections"
    yield f"           {provider.closed_early} closed by the worker before the answer, {provider.owed} still owed"
    yield f"           saw temperature {temperatures}; max_tokens {limits}"


def _totals(totals: Totals, seconds: float) -> Iterator[str]:
    price = f"{totals.cost_usd:.4f} USD"
    if not totals.cost_known:
        price = "unknown" if not totals.cost_usd else f"at least {price}; some prices are unknown"
    yield f"trials     {totals.as_expected} of {totals.trials} ended as expected, in {seconds:.1f} s"
    yield f"answers    {totals.right} of {totals.answered} right"
    yield f"latency    p50 {_milliseconds(totals.p50_ms)}, p99 {_milliseconds(totals.p99_ms)}"
    tokens = f"{totals.prompt_tokens} prompt + {totals.completion_tokens} completion"
    yield f"tokens     {tokens} in {totals.lm_calls} model calls"
    yield f"cost       {price}"


def _row(result: Result) -> tuple[str, ...]:
    usage = result.cost.usage if result.cost is not None else None
    return (
        _mark(result),
        result.trial.id,
        str(result.trial.program.get("python_class", "")).rpartition(".")[2],
        result.ending,
        result.kind,
        result.stage,
        _milliseconds(result.latency_ms),
        f"{usage.prompt_tokens}+{usage.completion_tokens}" if usage is not None and usage.total_tokens else "",
        " ".join(sorted(_variable(bound) for bound in result.variables)),
    )


def _table(rows: Sequence[tuple[str, ...]], width: int | None) -> Iterator[str]:
    widths = [max(len(click.unstyle(row[column])) for row in (HEADINGS, *rows)) for column in range(len(HEADINGS))]
    if width is not None:
        taken = sum(widths[:-1]) + 2 * (len(widths) - 1)
        widths[-1] = max(NARROWEST, min(widths[-1], width - taken))
    yield ""
    yield _line(HEADINGS, widths)
    yield "  ".join("-" * size for size in widths)
    for row in rows:
        yield _line((*row[:-1], _cut(row[-1], widths[-1])), widths)


def _line(cells: Sequence[str], widths: Sequence[int]) -> str:
    padded = []
    for heading, cell, size in zip(HEADINGS, cells, widths, strict=True):
        space = " " * (size - len(click.unstyle(cell)))
        padded.append(space + cell if heading in RIGHT_ALIGNED else cell + space)
    return "  ".join(padded).rstrip()


def _mark(result: Result) -> str:
    return click.style("ok", fg="green") if result.as_expected else click.style("!!", fg="red", bold=True)


def _variable(bound: BoundVariable) -> str:
    return f"{bound.parameter}={_cut(_written(bound.value), LONGEST_VALUE)}" + ("*" if bound.from_default else "")


def _written(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, default=str)


def _milliseconds(value: float) -> str:
    return f"{value:.0f} ms"


def _cut(text: str, most: int | None) -> str:
    return text if most is None or len(text) <= most else text[: most - 1] + "…"
