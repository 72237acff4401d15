"""Flood the RPC server and measure what a well-behaved client notices: `just flood-rpc [--seconds N] [--json FILE]`.

Server, attacker and the well-behaved client are a process each. For each flood the client's latencies are taken before
it (quiet) and during it, one call after the other; the flood is survived if the 99th percentile stays within three
times the quiet one, every call is answered, and the server holds no more afterwards than before. Linux only.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

import trio
from flood_attacks import ATTACKS
from google.protobuf.wrappers_pb2 import BytesValue
from hostile_peer import Stats, Stub, stub, subject

WITHIN: Final = 3.0
# Differences below this are the machine's, not the server's.
FLOOR_MS: Final = 5.0
PAUSE: Final = 0.005  # between two calls of the well-behaved client
PATIENCE: Final = 30.0
# A thousand connections are some 30 KiB each, and the allocator keeps the room.
MAX_GROWTH: Final = 48 * 2**20
_ATTACKER: Final = Path(__file__).with_name("flood_attacks.py")


@dataclass(frozen=True, slots=True)
class Latency:
    """Of the well-behaved client's calls, in milliseconds."""

    calls: int
    p50: float
    p99: float
    most: float


@dataclass(frozen=True, slots=True)
class Row:
    """What one flood did."""

    flood: str
    quiet: Latency
    flooded: Latency
    before: Stats
    after: Stats
    peak_rss: int

    @property
    def survived(self) -> bool:
        """Whether nobody noticed and nothing was left."""
        return (
            self.flooded.p99 <= max(WITHIN * self.quiet.p99, FLOOR_MS)
            and self.after.running == 0
            and self.after.fds <= self.before.fds
            and self.after.tasks <= self.before.tasks
            and self.after.rss <= self.before.rss + MAX_GROWTH
            and self.after.errors == self.before.errors
        )


@asynccontextmanager
async def attacker(flood: str, port: int) -> AsyncIterator[None]:
    """Attack from a process of its own."""
    command = [sys.executable, str(_ATTACKER), flood, str(port)]
    process = await trio.lowlevel.open_process(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    if process.stdin is None or process.stdout is None:
        raise RuntimeError("the attacker was started with pipes")
    try:
        with trio.fail_after(PATIENCE):
            await process.stdout.receive_some()
        yield
        await process.stdin.aclose()
        with trio.move_on_after(PATIENCE):
            await process.wait()
    finally:
        if process.returncode is None:
            process.kill()


async def measure(good: Stub, seconds: float) -> list[float]:
    """Call one after the other for so long; returns how many milliseconds each took."""
    took: list[float] = []
    end = trio.current_time() + seconds
    while trio.current_time() < end:
        begun = time.perf_counter()
        with trio.fail_after(PATIENCE):
            await good.echo(BytesValue(value=b"x" * 100))
        took.append((time.perf_counter() - begun) * 1000)
        await trio.sleep(PAUSE)
    return took


def summary(took: Sequence[float]) -> Latency:
    """What is remembered of them."""
    ranked = sorted(took)
    return Latency(len(ranked), ranked[len(ranked) // 2], ranked[int(len(ranked) * 0.99)], ranked[-1])


async def flood(name: str, seconds: float, rounds: int) -> Row:
    """Measure one flood against a fresh server, by turns with quiet, so that both see the same machine."""
    quiet: list[float] = []
    flooded: list[float] = []
    peak = 0
    async with subject(handshake_timeout=3) as port, stub(port) as good:
        await measure(good, 0.2)
        before = await good.settled()
        for _ in range(rounds):
            quiet += await measure(good, seconds)
            async with attacker(name, port):
                flooded += await measure(good, seconds)
                peak = max(peak, (await good.stats()).rss)
            after = await good.settled(PATIENCE)
    return Row(name, summary(quiet), summary(flooded), before, after, peak)


def show(row: Row) -> None:
    """Print a line of the table."""
    print(
        f"{row.flood:22}{row.quiet.p50:8.2f}{row.quiet.p99:8.2f}{row.flooded.p50:10.2f}{row.flooded.p99:8.2f}"
        f"{row.flooded.p99 / row.quiet.p99:7.1f}{row.before.rss >> 20:9}{row.peak_rss >> 20:7}{row.after.rss >> 20:7}"
        f"  {'survived' if row.survived else 'FAILED: ' + str(row.after)}",
        flush=True,
    )


async def run(names: Sequence[str], seconds: float, rounds: int) -> list[Row]:
    """Run floods and print the table."""
    print(f"{'':22}{'quiet, ms':>16}{'flooded, ms':>18}{'':7}{'server, MiB':>23}")
    print(f"{'flood':22}{'p50':>8}{'p99':>8}{'p50':>10}{'p99':>8}{'ratio':>7}{'before':>9}{'during':>7}{'after':>7}")
    rows = []
    for name in names:
        rows.append(await flood(name, seconds, rounds))
        show(rows[-1])
    return rows


def main() -> None:
    """Read the arguments, run, and fail if a flood was noticed."""
    parser = argparse.ArgumentParser(description="Flood the RPC server; measure what a well-behaved client notices.")
    parser.add_argument("--rounds", type=int, default=6, help="of quiet and flood (default: %(default)s)")
    parser.add_argument("--seconds", type=float, default=1.0, help="for each half of a round (default: %(default)s)")
    parser.add_argument("--only", choices=ATTACKS, action="append", help="one flood; may be given more than once")
    parser.add_argument("--json", type=Path, metavar="FILE", help="where to write the figures")
    asked = parser.parse_args()
    rows = trio.run(run, asked.only or list(ATTACKS), asked.seconds, asked.rounds)
    if asked.json is not None:
        report = {
            "python": platform.python_version(),
            "cores": os.cpu_count(),
            "seconds": asked.seconds,
            "rounds": asked.rounds,
            "rows": [{**asdict(row), "survived": row.survived} for row in rows],
        }
        asked.json.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    if not all(row.survived for row in rows):
        sys.exit(1)


if __name__ == "__main__":
    main()
