"""Measure what a trial costs over the bare DSPy call: `just bench [--quick] [--json FILE]`.

Every subject is a process of its own that stays up; rounds go through all of them in turn, so that what else the
machine does falls on all alike. CPU is the subject's own process time: store, provider and client are not counted. Of
the two models over HTTP one is on DSPy's price list, as paid ones mostly are, and one is not, as local ones are not.
Prints a table, and the raw samples as JSON.
"""

from __future__ import annotations

import json
import os
import platform
import statistics
import sys
from collections.abc import Iterator
from dataclasses import asdict, replace
from importlib import metadata
from pathlib import Path
from typing import Any, Final

import click
import trio
from bench_measure import (
    Batch,
    Case,
    Effort,
    everything_running,
    measure_deadlines,
    measure_starts,
    measure_trials,
)
from bench_store import Sync, measure_syncs, verdicts
from bench_table import percentile, table

FULL: Final = Effort(rounds=15, seconds=90, trials=32, starts=7, failures=200, reads=60)
QUICK: Final = Effort(rounds=3, seconds=20, trials=16, starts=3, failures=40, reads=20)
SMOKE: Final = Effort(rounds=1, seconds=1, trials=2, starts=1, failures=8, reads=2, models=("http",))
WAYS: Final = {
    "bare": "bare DSPy call",
    "runtime": "runtime.run_trial",
    "server": "ExecuteProgram",
    "recorded": "and recorded",
}
RECORDED_AT_MOST: Final = 1.15
MODELS: Final = {"dummy": "DummyLM", "http": "HTTP", "listed": "HTTP, listed"}
PACKAGES: Final = ("dspex-trio", "dspy", "trio", "purerpc", "h2", "protobuf", "anyio", "pydantic")


async def measure(effort: Effort) -> dict[str, Any]:
    """Everything, one after the other; the raw samples."""
    starts = await measure_starts(effort, tell)
    async with everything_running(effort.models) as bench:
        trials = await measure_trials(bench, effort, tell)
    tell("a store that is 5 ms away")
    syncs = await measure_syncs(effort.reads)
    tell("deadlines")
    deadlines = await measure_deadlines(effort)
    return {
        "machine": {
            "cpus": os.cpu_count(),
            "platform": f"{platform.system()} {platform.release()} {platform.machine()}",
            "python": f"{platform.python_implementation()} {platform.python_version()}",
        },
        "versions": {name: metadata.version(name) for name in PACKAGES},
        "effort": asdict(effort),
        "trials": [
            {**asdict(case), "batches": [asdict(batch) for batch in batches]} for case, batches in trials.items()
        ],
        "syncs": [{**asdict(sync), "round_trips": sync.round_trips} for sync in syncs],
        "deadlines": deadlines,
        "starts": starts,
    }


def tell(what: str) -> None:
    """Progress, on standard error: standard output is for the results."""
    click.echo(what, err=True)


def lines(found: dict[str, Any]) -> Iterator[str]:
    """The results as a table."""
    syncs = [Sync(**{name: each[name] for name in Sync.__slots__}) for each in found["syncs"]]
    batches = {
        Case(*(each[field] for field in ("lm", "way", "variables", "at_once"))): [
            Batch(**batch) for batch in each["batches"]
        ]
        for each in found["trials"]
    }
    yield from table(
        ("model", "way", "variables", "at once", "CPU ms/trial", "x bare", "half of them", "trials/s", "speed x bare"),
        [trial_row(case, batches) for case in batches],
    )
    yield ""
    yield from recording_verdicts(batches)
    yield ""
    yield from table(
        ("store 5 ms away", "variables", "store RPCs/trial", "sync p50 ms", "p99 ms", "round trips"),
        [
            (
                each.how,
                str(each.variables),
                f"{each.calls:.2f}",
                f"{percentile(each.sync_ms, 50):.1f}",
                f"{percentile(each.sync_ms, 99):.1f}",
                f"{each.round_trips:.2f}",
            )
            for each in syncs
        ],
    )
    yield ""
    yield from verdicts(syncs)
    late = found["deadlines"]["lateness_ms"]
    kinds = ", ".join(f"{count} {kind}" for kind, count in found["deadlines"]["kinds"].items())
    p50, p99, most = percentile(late, 50), percentile(late, 99), max(late)
    yield f"{len(late)} deadline failures, lateness: p50 {p50:+.1f} ms, p99 {p99:+.1f} ms, max {most:+.1f} ms"
    yield f"  ({kinds}; below zero is before the caller's own deadline)"
    for what, unit in (("", "s"), ("_cpu", "s of CPU")):
        pairs = [(start[f"import{what}_s"], start[f"ready{what}_s"]) for start in found["starts"]]
        dspy, ready = (statistics.median(each) for each in zip(*pairs, strict=True))
        ratio = statistics.median(mine / theirs for theirs, mine in pairs)
        yield f"start-up: worker ready after {ready:.2f} {unit}, `import dspy` alone {dspy:.2f} {unit}: {ratio:.2f} x"
    machine = found["machine"]
    yield f"machine: {machine['cpus']} CPUs, {machine['platform']}, {machine['python']}"


def recording_verdicts(batches: dict[Case, list[Batch]]) -> Iterator[str]:
    """What `--record` costs the process, its writing in the background included."""
    for case, recorded in batches.items():
        if case.way != "recorded":
            continue
        pairs = zip(recorded, batches[replace(case, way="server")], strict=True)
        ratio = statistics.median(mine.cpu_s / theirs.cpu_s for mine, theirs in pairs)
        verdict = "as it should be" if ratio <= RECORDED_AT_MOST else f"MORE than {RECORDED_AT_MOST}"
        told = f"recorded, {MODELS[case.lm]}, {case.at_once} at once: {ratio:.2f} x the CPU of an unrecorded trial"
        yield f"{told}: {verdict}"


def trial_row(case: Case, batches: dict[Case, list[Batch]]) -> tuple[str, ...]:
    """A case: medians over the rounds, and the middle half of the ratios, which are of the same round's bare call."""
    own, bare = batches[case], batches[Case(case.lm, "bare", 0, case.at_once)]
    cpu = [batch.cpu_s / batch.trials * 1e3 for batch in own]
    speed = [batch.trials / batch.wall_s for batch in own]
    cpu_ratio = [mine.cpu_s / theirs.cpu_s for mine, theirs in zip(own, bare, strict=True)]
    speed_ratio = [theirs.wall_s / mine.wall_s for mine, theirs in zip(own, bare, strict=True)]
    return (
        MODELS[case.lm],
        WAYS[case.way],
        str(case.variables) if case.way != "bare" else "",
        str(case.at_once),
        f"{statistics.median(cpu):.2f}",
        f"{statistics.median(cpu_ratio):.2f}",
        f"{percentile(cpu_ratio, 25):.2f}-{percentile(cpu_ratio, 75):.2f}",
        f"{statistics.median(speed):.0f}",
        f"{statistics.median(speed_ratio):.2f}",
    )


@click.command()
@click.option("--quick", is_flag=True, help="Fewer rounds: half a minute instead of two.")
@click.option("--smoke", is_flag=True, help="As little as possible, to see that it runs; the figures mean nothing.")
@click.option("--json", "file", type=click.Path(dir_okay=False, path_type=Path), help="Write the raw samples there.")
def main(*, quick: bool, smoke: bool, file: Path | None) -> None:
    """Measure what a trial costs over the bare DSPy call."""
    found = trio.run(measure, SMOKE if smoke else QUICK if quick else FULL)
    for line in lines(found):
        click.echo(line)
    text = json.dumps(found)
    if file is None:
        click.echo(text)
    else:
        file.write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main())
