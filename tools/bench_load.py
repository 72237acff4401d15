"""Measure a worker under load: `just bench-load [--levels 8,32,…] [--seconds S] [--executors N] [--json FILE]`.

Stock grpcio, provider and worker are a process each. Closed loops; one in ten trials hangs at the provider past its
deadline of two seconds, the others take one second there; bare DSPy in as many threads in the same run. Prints tables,
what was promised and whether it holds; the raw samples go to a JSON file. About `1.5 x SECONDS + 10` for each level.
"""

from __future__ import annotations

import json
import os
import platform
import sys
import time
from importlib import metadata
from pathlib import Path
from typing import Any, Final

import click
import trio
from bench_load_measure import (
    measure_burners,
    measure_cpu_trials,
    measure_level,
    measure_queued,
    takes_executors,
)
from bench_load_table import goals, lines

LEVELS: Final = "8,32,64,128,256,512"
RESULTS: Final = Path("bench-results")
PACKAGES: Final = ("dspex-trio", "dspy", "grpcio", "trio", "purerpc", "h2", "protobuf")


def tell(what: str) -> None:
    """Progress, on standard error: standard output is for the results."""
    click.echo(what, err=True)


async def measure(
    levels: list[int], seconds: float, executors: int | None, queued: int, *, cpu_trials: bool, burners: bool
) -> dict[str, Any]:
    """Everything that was asked for, one after the other; the raw samples."""
    load = os.getloadavg()
    found: dict[str, Any] = {"levels": []}
    for at_once in levels:
        tell(f"{at_once} at once")
        found["levels"].append(await measure_level(at_once, seconds, executors))
    if queued:
        tell(f"{queued} queued")
        found["queued"] = await measure_queued(queued, seconds, executors)
    if cpu_trials:
        tell("trials of 20 ms of CPU")
        found["cpu_trials"] = await measure_cpu_trials(seconds, executors)
    if burners:
        tell("beside trials that compute")
        found["burners"] = await measure_burners(seconds, executors)
    return {
        "machine": {
            "cpus": os.cpu_count(),
            "load_before_and_after": [load, os.getloadavg()],
            "platform": f"{platform.system()} {platform.release()} {platform.machine()}",
            "python": f"{platform.python_implementation()} {platform.python_version()}",
        },
        "versions": {name: metadata.version(name) for name in PACKAGES},
        "executors": executors,
        **found,
    }


@click.command()
@click.option(
    "--levels", default=LEVELS, show_default=True, help="Trials at once, separated by commas; empty for none."
)
@click.option("--seconds", default=20.0, show_default=True, type=click.FloatRange(0.1, 600), help="For each part.")
@click.option(
    "--executors", default=2, show_default=True, type=click.IntRange(1, 64), help="Where the worker has them."
)
@click.option("--queued", default=0, type=click.IntRange(0, 20_000), help="Lateness behind so many queued requests.")
@click.option("--cpu-trials", is_flag=True, help="Throughput of trials that compute, with one executor and with two.")
@click.option("--burners", is_flag=True, help="Lateness beside trials that compute, in Python and in C.")
@click.option("--json", "file", type=click.Path(dir_okay=False, path_type=Path), help="Write the raw samples there.")
def main(
    *, levels: str, seconds: float, executors: int, queued: int, cpu_trials: bool, burners: bool, file: Path | None
) -> None:
    """Measure a worker under load."""
    if not takes_executors():
        tell("this worker has no --executors: it is one process")
    chosen = executors if takes_executors() else None
    asked = [int(each) for each in levels.split(",") if each.strip()]
    found = trio.run(
        lambda: measure(asked, seconds, chosen, queued, cpu_trials=cpu_trials, burners=burners),
    )
    for line in lines(found):
        click.echo(line)
    machine = found["machine"]
    loads = ", ".join(f"{load[0]:.1f}" for load in machine["load_before_and_after"])
    click.echo(f"machine: {machine['cpus']} CPUs (load {loads}), {machine['platform']}, {machine['python']}")
    if file is None:
        RESULTS.mkdir(exist_ok=True)
        file = RESULTS / f"load-{time.strftime('%Y%m%d-%H%M%S')}.json"
    file.write_text(json.dumps(found) + "\n", encoding="utf-8")
    tell(f"raw samples: {file}")
    if not all(goal.met for goal in goals(found)):
        sys.exit(1)


if __name__ == "__main__":
    main()
