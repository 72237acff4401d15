"""Measure what a call costs a server: `just bench-rpc [--quick] [--json FILE]`. Fails if a goal is missed.

dspex_trio.rpc against purerpc as it comes, grpclib and both of grpcio's servers, each in a process of its own that
stays up. CPU is what the server's own process used, all threads; the client's is not in it. Rounds go through all
servers in turn, and a ratio is the median over the rounds of ratios within one round, so that what else the machine
does falls on all alike. Everything stays on loopback.

The raw client is one connection in the manner of h2load: it costs next to nothing and sends no deadlines. The grpcio
client is what most users have, and sends one with every call; it uses more CPU than most servers, so calls a second say
little about them there. A server that allows fewer streams than are wanted at once (grpclib: 100) gets as many as it
allows. Some servers lose calls: how many is in the last column, and what they cost is in the price of the others.
"""

from __future__ import annotations

import json
import os
import platform
import statistics
import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from importlib import metadata
from typing import IO, Any, Final

import click
from bench_rpc_measure import CLIENTS, Batch, Case, Effort, Samples, measure
from bench_rpc_server import SERVERS, THREADS
from bench_rpc_shapes import SHAPES
from bench_table import percentile, table

FULL: Final = Effort(rounds=9, seconds=200)
QUICK: Final = Effort(rounds=3, seconds=90)
SMOKE: Final = Effort(rounds=1, seconds=60, calls=0.02, at_once=(16,))
OURS: Final = "dspex_trio"
STOCK: Final = "purerpc"
# With small unary calls, 16 at once, from the raw client.
GOALS: Final = {STOCK: 0.45, "grpc.aio": 0.75}
GOAL_AT_ONCE: Final = 16
PACKAGES: Final = ("dspex-trio", "trio", "purerpc", "h2", "hpack", "anyio", "protobuf", "grpclib", "grpcio")


def lines(samples: Samples) -> Iterator[str]:
    """The results as tables, one for each client and shape, and what became of the goals."""
    for client in dict.fromkeys(case.client for case in samples):
        for shape in SHAPES:
            yield f"{shape.name}, {client} client"
            rows = [
                row
                for case, batches in samples.items()
                if case.client == client and case.shape == shape
                for row in rows_of(case, batches)
            ]
            yield from table(
                ("server", "at once", "CPU µs/call", "quartiles", "x purerpc", "calls/s", "p50 ms", "p99 ms", "lost"),
                rows,
            )
            yield ""
    yield from goals(samples)


def rows_of(case: Case, batches: dict[str, list[Batch]]) -> Iterator[tuple[str, ...]]:
    """One case: each server's medians over the rounds; latencies are of all rounds together."""
    for name, everything in batches.items():
        own = [batch for batch in everything if batch.calls]
        lost = sum(batch.failed for batch in everything)
        if not own:
            yield (name, str(case.at_once), *"------", str(lost))
            continue
        cpu = [batch.cpu_us for batch in own]
        late = [latency / 1e3 for batch in own for latency in batch.latency_us]
        stock = ratios(everything, batches.get(STOCK, []))
        yield (
            name,
            str(case.at_once),
            f"{statistics.median(cpu):.0f}",
            f"{percentile(cpu, 25):.0f}-{percentile(cpu, 75):.0f}",
            f"{statistics.median(stock):.2f}" if stock else "-",
            f"{statistics.median(batch.calls / batch.wall_s for batch in own):.0f}",
            f"{percentile(late, 50):.2f}",
            f"{percentile(late, 99):.2f}",
            str(lost) if lost else "",
        )


def ratios(own: Sequence[Batch], other: Sequence[Batch]) -> list[float]:
    """CPU for a call, as a multiple of the other's in the same round, where both have one."""
    return [
        mine.cpu_us / theirs.cpu_us for mine, theirs in zip(own, other, strict=False) if mine.calls and theirs.calls
    ]


def spread(values: Sequence[float]) -> str:
    """The median and the quartiles."""
    return f"{statistics.median(values):.2f} ({percentile(values, 25):.2f}-{percentile(values, 75):.2f})"


def goals(samples: Samples) -> Iterator[str]:
    """What we hold ourselves to, and whether we do."""
    for case, batches in samples.items():
        if case.shape == SHAPES[0] and case.at_once == GOAL_AT_ONCE and OURS in batches:
            for name in (name for name in GOALS if name in batches):
                found = ratios(batches[OURS], batches[name])
                if not found:
                    continue
                verdict = "no goal is set for this client"
                if case.client == "raw":
                    met = statistics.median(found) <= GOALS[name]
                    verdict = f"goal: at most {GOALS[name]}, {'met' if met else 'MISSED'}"
                what = f"{case.shape.name}, {case.at_once} at once, {case.client} client"
                yield f"{what}: {spread(found)} x {name} ({verdict})"
    worse = list(worse_than_stock(samples))
    yield f"dearer than {STOCK}: {'; '.join(worse) if worse else 'nowhere'}"


def worse_than_stock(samples: Samples) -> Iterator[str]:
    """The cases in which a call costs us more than purerpc as it comes."""
    for case, batches in samples.items():
        if OURS in batches and STOCK in batches:
            found = ratios(batches[OURS], batches[STOCK])
            if found and statistics.median(found) > 1:
                yield f"{case.shape.name}, {case.at_once} at once, {case.client} client: {spread(found)}"


def misses(samples: Samples) -> list[str]:
    """What was promised and not found."""
    return [line for line in goals(samples) if "MISSED" in line] + [
        f"dearer than {STOCK}: {case}" for case in worse_than_stock(samples)
    ]


def document(samples: Samples, effort: Effort, seed: int) -> dict[str, Any]:
    """Everything that was found, and how."""
    return {
        "machine": {
            "cpus": os.cpu_count(),
            "platform": f"{platform.system()} {platform.release()} {platform.machine()}",
            "python": f"{platform.python_implementation()} {platform.python_version()}",
        },
        "versions": {name: version(name) for name in PACKAGES},
        "effort": asdict(effort),
        "seed": seed,
        "grpc_server_threads": THREADS,
        "cases": [
            {**asdict(case), "servers": {name: [asdict(batch) for batch in own] for name, own in batches.items()}}
            for case, batches in samples.items()
        ],
    }


def version(name: str) -> str | None:
    """A package's version; None for what is not installed and was not measured."""
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


@click.command()
@click.option("--quick", is_flag=True, help="Fewer rounds: a minute or so instead of up to four.")
@click.option("--smoke", is_flag=True, help="As little as possible, to see that it runs; the figures mean nothing.")
@click.option("--server", "servers", multiple=True, type=click.Choice(list(SERVERS)), help="Only this one; repeatable.")
@click.option("--client", "clients", multiple=True, type=click.Choice(list(CLIENTS)), help="Only this one; repeatable.")
@click.option("--seed", default=1, show_default=True, help="For the order of the servers in each round.")
@click.option("--json", "file", type=click.File("w", encoding="utf-8"), help="Write the raw samples there; - to show.")
def main(
    *, quick: bool, smoke: bool, servers: tuple[str, ...], clients: tuple[str, ...], seed: int, file: IO[str] | None
) -> None:
    """Measure what a call costs a server."""
    effort = SMOKE if smoke else QUICK if quick else FULL
    samples = measure(servers or tuple(SERVERS), clients or tuple(CLIENTS), effort, seed, tell)
    for line in lines(samples):
        click.echo(line)
    if file is not None:
        json.dump(document(samples, effort, seed), file)
        file.write("\n")
    missed = [] if smoke else misses(samples)
    click.echo("ok" if not missed else f"{len(missed)} missed")
    if missed:
        sys.exit(1)


def tell(what: str) -> None:
    """Progress, on standard error: standard output is for the results."""
    click.echo(what, err=True)


if __name__ == "__main__":
    main()
