"""Measure what a call that hangs costs here and elsewhere: `just bench-peers [--calls N] [--only NAME,…]`.

The same DSPy call, whose provider never answers, with the same time-out and as many slots, under each way to run it
that people use. Provider and peer are processes of their own. Each peer is installed into `.venv/peers-NAME` first; one
that cannot be is left out, and the reason stands below the table. About a minute each, and longer for more calls.
"""

from __future__ import annotations

import json
import os
import platform
import signal
import subprocess
import time
from contextlib import suppress
from dataclasses import asdict, dataclass
from importlib import metadata
from pathlib import Path
from typing import Any, Final

import click
import trio
from bench_load_processes import descendants, holdings, still_there
from bench_peers_install import API_BASE, PEERS, Peer, python_of
from bench_peers_table import lines
from bench_processes import Subject, running

TOOLS: Final = Path(__file__).parent
RESULTS: Final = Path("bench-results")
PACKAGES: Final = ("dspex-trio", "dspy", "grpcio")
# What a peer may take, beside the time-outs of its calls, in seconds.
PEER_SECONDS: Final = 60.0
END_SECONDS: Final = 3.0
LOOK_SECONDS: Final = 0.1
# After the last close, until what is left is looked at: some peers replace processes first.
SETTLE_SECONDS: Final = 2.0


@dataclass(frozen=True, slots=True)
class Effort:
    """How much to measure.

    Attributes:
        calls: Calls that hang, of each peer.
        slots: Of each peer, and calls at once.
        seconds: Each call's time-out.
        watch: So many seconds after its time-out nothing is awaited any more.
    """

    calls: int
    slots: int
    seconds: float
    watch: float


async def measure_peer(peer: Peer, python: str, effort: Effort) -> dict[str, Any]:
    """One peer; what it did until its time was over."""
    found: dict[str, Any] = {"name": peer.name, "what": peer.what}
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    async with running([str(TOOLS / "bench_load_provider.py"), "0"], **pipes) as process:
        provider = Subject(process)
        base = f"http://127.0.0.1:{await provider.ready()}/v1"
        environment = {**os.environ, API_BASE: base, "LITELLM_LOCAL_MODEL_COST_MAP": "True"}
        command = [python, str(TOOLS / "bench_peers_driver.py"), peer.name]
        command += [str(effort.slots), str(effort.seconds), str(effort.watch)]
        driver = await trio.lowlevel.open_process(
            command,
            cwd=TOOLS,
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
        )
        try:
            with trio.move_on_after(PEER_SECONDS + effort.seconds * effort.calls / effort.slots) as scope:
                await _measure(Subject(driver), driver.pid, provider, found, effort)
            if scope.cancelled_caught:
                found["reason"] = f"not done in {PEER_SECONDS:g} s beside the time-outs"
        except (RuntimeError, trio.BrokenResourceError):
            found["reason"] = f"it does not start, or ended before its time (exit code {driver.poll()})"
        finally:
            with trio.move_on_after(2 * END_SECONDS, shield=True):
                await _end(driver)
    return found


async def _measure(driver: Subject, pid: int, provider: Subject, found: dict[str, Any], effort: Effort) -> None:
    await driver.ready()
    found["before"] = asdict(holdings(pid))
    trials = list(range(1, effort.calls + 1))
    first = (await driver.ask(hang=trials[: effort.slots], recover=True))["samples"]
    rest = (await driver.ask(hang=trials[effort.slots :], recover=False))["samples"]
    samples = [{**each, "first": True} for each in first] + [{**each, "first": False} for each in rest]
    closes: dict[str, float] = {}
    end = max(each["began"] for each in samples) + effort.seconds + effort.watch
    while True:
        seen = await provider.ask()
        closes |= seen["closes"]
        found |= {"samples": samples, "closes": closes, "still_open": seen["owed"]}
        if time.monotonic() > end or not seen["owed"]:
            break
        await trio.sleep(LOOK_SECONDS)
    await trio.sleep(SETTLE_SECONDS)
    found["after"] = asdict(holdings(pid))
    found |= await driver.ask(good=effort.slots)


async def _end(driver: trio.Process) -> None:
    """End it and all that it started, whether it wants to or not."""
    started = descendants(driver.pid)
    if driver.stdin is not None:
        await driver.stdin.aclose()
    with trio.move_on_after(END_SECONDS):
        await driver.wait()
    started |= descendants(driver.pid)
    if driver.returncode is None:
        driver.kill()
    for pid in still_there(started):
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    await driver.wait()


async def measure(peers: list[Peer], effort: Effort) -> dict[str, Any]:
    """All peers, one after the other."""
    load = os.getloadavg()
    measured: list[dict[str, Any]] = []
    for peer in peers:
        click.echo(peer.what, err=True)
        try:
            python = await trio.to_thread.run_sync(python_of, peer)
        except RuntimeError as error:
            measured.append({"name": peer.name, "what": peer.what, "reason": str(error)})
            continue
        measured.append(await measure_peer(peer, python, effort))
    return {
        "machine": {
            "cpus": os.cpu_count(),
            "load_before_and_after": [load, os.getloadavg()],
            "platform": f"{platform.system()} {platform.release()} {platform.machine()}",
            "python": f"{platform.python_implementation()} {platform.python_version()}",
        },
        "versions": {
            **{name: metadata.version(name) for name in PACKAGES},
            **dict(package.split("==") for peer in peers for package in peer.packages),
        },
        **asdict(effort),
        "peers": measured,
    }


@click.command()
@click.option("--calls", default=20, show_default=True, type=click.IntRange(1, 10_000), help="Hanging calls to each.")
@click.option("--slots", default=4, show_default=True, type=click.IntRange(1, 64), help="Of each, and calls at once.")
@click.option("--seconds", default=2.0, show_default=True, type=click.FloatRange(0.1, 60), help="Each time-out.")
@click.option("--watch", default=10.0, show_default=True, type=click.FloatRange(0.1, 60), help="Later is never.")
@click.option("--only", default=",".join(each.name for each in PEERS), show_default=True, help="Which peers.")
@click.option("--json", "file", type=click.Path(dir_okay=False, path_type=Path), help="Write the raw samples there.")
def main(*, calls: int, slots: int, seconds: float, watch: float, only: str, file: Path | None) -> None:
    """Measure what a call that hangs costs here and elsewhere."""
    wanted = [each.strip() for each in only.split(",")]
    if unknown := set(wanted) - {each.name for each in PEERS}:
        raise click.UsageError(f"no such peer: {', '.join(sorted(unknown))}")
    peers = [each for each in PEERS if each.name in wanted]
    found = trio.run(measure, peers, Effort(calls, slots, seconds, watch))
    for line in lines(found):
        click.echo(line)
    machine = found["machine"]
    loads = ", ".join(f"{load[0]:.1f}" for load in machine["load_before_and_after"])
    click.echo(f"machine: {machine['cpus']} CPUs (load {loads}), {machine['platform']}, {machine['python']}")
    if file is None:
        RESULTS.mkdir(exist_ok=True)
        file = RESULTS / f"peers-{time.strftime('%Y%m%d-%H%M%S')}.json"
    file.write_text(json.dumps(found) + "\n", encoding="utf-8")
    click.echo(f"raw samples: {file}", err=True)


if __name__ == "__main__":
    main()
