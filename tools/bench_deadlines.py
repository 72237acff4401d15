"""Measure what a deadline leaves running: `just bench-deadlines [--quick] [--count N] [--json FILE]`.

Caller and provider are this process, on one clock; the worker is another. Beside it, in the same run, stock DSPy with
`asyncio.timeout`. Prints tables, what was promised and whether it holds, and the raw samples as JSON; fails if
something does not. Seven minutes, on a machine that does nothing else.
"""

from __future__ import annotations

import json
import os
import platform
import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict, replace
from importlib import metadata
from pathlib import Path
from typing import Any, Final

import click
import trio
from bench_deadlines_goals import MEGABYTE, goals
from bench_deadlines_measure import (
    WAYS,
    Effort,
    measure_beside_burners,
    measure_many,
    measure_scenarios,
    measure_stock,
    open_bench,
)
from bench_table import percentile, table

FULL: Final = Effort(deadline=0.5, trials=10, seconds=8, count=10_000, beside_burners=60, next_trials=30)
QUICK: Final = Effort(deadline=0.25, trials=3, seconds=3, count=500, beside_burners=20, next_trials=10)
SMOKE: Final = Effort(deadline=0.2, trials=1, seconds=1, count=16, beside_burners=1, next_trials=1, scenarios=1)
PACKAGES: Final = ("dspex-trio", "dspy", "litellm", "openai", "httpx", "requests", "trio", "anyio", "purerpc", "h2")


async def measure(effort: Effort) -> dict[str, Any]:
    """Everything, one after the other; the raw samples."""
    load = os.getloadavg()
    async with open_bench() as bench:
        found = {
            "scenarios": await measure_scenarios(bench, effort, tell),
            "many": await measure_many(bench, effort, tell),
            "burners": await measure_beside_burners(bench, effort, tell),
            "stock": await measure_stock(bench, effort, tell),
        }
    return {
        "machine": {
            "cpus": os.cpu_count(),
            "load_before_and_after": [load, os.getloadavg()],
            "platform": f"{platform.system()} {platform.release()} {platform.machine()}",
            "python": f"{platform.python_implementation()} {platform.python_version()}",
        },
        "versions": {name: metadata.version(name) for name in PACKAGES},
        "effort": asdict(effort),
        **found,
    }


def tell(what: str) -> None:
    """Progress, on standard error: standard output is for the results."""
    click.echo(what, err=True)


def lines(found: dict[str, Any]) -> Iterator[str]:
    """The results as tables."""
    yield f"deadline {found['effort']['deadline']:g} s; milliseconds after it (below zero: before it)"
    yield from table(
        ("what", "trials", "late p50", "p99", "max", "close p50", "max", "slot p50", "max", "rungs", "left"),
        [scenario_row(each) for each in found["scenarios"]],
    )
    yield "  late: the caller has the failure; close: the provider sees its last connection closed;"
    yield "  slot: the next trial has the thread's slot; left: threads that still run a program"
    yield ""
    yield from many_lines(found["many"])
    yield ""
    burners = found["burners"]
    kinds = ", ".join(f"{count} {kind}" for kind, count in burners["kinds"].items())
    yield f"beside {burners['burners']} threads that compute: lateness {spread(burners['late_ms'])} ({kinds})"
    yield ""
    yield from table(
        ("with a timeout", "hanging calls", "late max", "threads left", "sockets left", "next 10 ms call"),
        [stock_row(each) for each in found["stock"]],
    )
    yield ""
    for goal in goals(found):
        yield f"{'pass' if goal.met else 'FAIL'}  {goal.what}: {goal.found}"
    machine = found["machine"]
    loads = ", ".join(f"{load[0]:.1f}" for load in machine["load_before_and_after"])
    yield f"machine: {machine['cpus']} CPUs (load {loads}), {machine['platform']}, {machine['python']}"


def scenario_row(found: dict[str, Any]) -> tuple[str, ...]:
    """A scenario. Connections that stayed open show as so many closed of so many."""
    samples = found["samples"]
    late, slot = ([each[name] for each in samples] for name in ("late_ms", "slot_ms"))
    closes = [each["close_ms"] for each in samples if each["close_ms"] is not None]
    closed, asked = (sum(each[name] for each in samples) for name in ("closes", "asked"))
    missing = f"{closed} of {asked}" if closed != asked else "-"
    whole = bool(closes) and closed == asked
    rungs = sorted({each["details"].get("rung", each["kind"]) for each in samples})
    return (
        found["what"],
        str(len(samples)),
        *(f"{value:+.1f}" for value in (percentile(late, 50), percentile(late, 99), max(late))),
        *((f"{percentile(closes, 50):+.1f}", f"{max(closes):+.1f}") if whole else (missing, missing)),
        *(f"{value:+.1f}" for value in (percentile(slot, 50), max(slot))),
        "/".join(rungs),
        str(found["left"]["busy_threads"]),
    )


def many_lines(many: dict[str, Any]) -> Iterator[str]:
    """What very many timed-out trials leave."""
    before, first, last = many["before"], many["censuses"][0], many["censuses"][-1]
    kinds = ", ".join(f"{count} {kind}" for kind, count in many["kinds"].items())
    yield f"{many['count']} timed-out trials of {many['deadline_s']:g} s, {many['at_once']} at once: {kinds}"
    yield f"  the provider saw {many['closed']} of {many['asked']} connections closed"
    yield f"  threads that run a program {before['busy_threads']} -> {last['busy_threads']}"
    yield f"  sockets {before['sockets']} -> {last['sockets']}"
    if last["rss_bytes"] is not None:
        yield "  memory, MB: " + " -> ".join(f"{each['rss_bytes'] / MEGABYTE:.1f}" for each in (before, first, last))
    yield f"  the next trials of 10 ms take {spread(many['next_trial_ms'])}"


def stock_row(found: dict[str, Any]) -> tuple[str, ...]:
    """Stock DSPy."""
    before, after = found["before"], found["after"]
    left = "?" if after["sockets"] is None else str(after["sockets"] - before["sockets"])
    waited = found["next_call_ms"]
    return (
        WAYS[found["way"]],
        str(len(found["lateness_ms"])),
        f"{max(found['lateness_ms']):+.1f}",
        str(after["busy_threads"] - before["busy_threads"]),
        left,
        f"over {found['waited_ms']:.0f}" if waited is None else f"{waited:.0f}",
    )


def spread(values: Sequence[float]) -> str:
    """Percentiles of milliseconds, in a line."""
    return f"p50 {percentile(values, 50):+.1f}, p99 {percentile(values, 99):+.1f}, max {max(values):+.1f} ms"


@click.command()
@click.option("--quick", is_flag=True, help="A shorter deadline and fewer trials.")
@click.option("--smoke", is_flag=True, help="As little as possible, to see that it runs; the figures mean nothing.")
@click.option("--count", type=click.IntRange(min=16), help="Timed-out trials after which to look at what is left.")
@click.option("--json", "file", type=click.Path(dir_okay=False, path_type=Path), help="Write the raw samples there.")
def main(*, quick: bool, smoke: bool, count: int | None, file: Path | None) -> None:
    """Measure what a deadline leaves running."""
    effort = SMOKE if smoke else QUICK if quick else FULL
    found = trio.run(measure, effort if count is None else replace(effort, count=count))
    for line in lines(found):
        click.echo(line)
    text = json.dumps(found)
    if file is None:
        click.echo(text)
    else:
        file.write_text(text + "\n", encoding="utf-8")
    if not smoke and not all(goal.met for goal in goals(found)):
        sys.exit(1)


if __name__ == "__main__":
    sys.exit(main())
