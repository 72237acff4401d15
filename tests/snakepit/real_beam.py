"""A pool of workers on a real BEAM, which reaches them with gun and answers them with cowboy: `just soak-beam`.

Those are the HTTP/2 stacks under Elixir's gRPC library. They, and jsx, come compiled with Debian's rabbitmq-server,
which need not run: `apt-get download rabbitmq-server && dpkg -x rabbitmq-server_*.deb DIR`, and its folder `plugins` as
BEAM_LIBS. Snakepit itself is not used: its packages come from hex.pm, and it wants a newer Elixir than Debian has.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from . import pool_programs
from .pool_worker import SCRIPT
from .waiting import alive, wait_until_gone

HERE: Final = Path(__file__).parent
PACKAGED: Final = "/usr/lib/rabbitmq/lib"
# Of each generation of snakepit, what a BEAM tells of one worker's life.
LINES: Final = {"0.13": 8, "0.4": 6}


def missing() -> str:
    """Why no BEAM can be had here; empty where one can."""
    if shutil.which("elixir") is None:
        return "no elixir here"
    return "" if libraries() else "no gun and cowboy here: BEAM_LIBS, or Debian's rabbitmq-server"


def libraries() -> str:
    """The folder that holds `gun-…/ebin` and its like."""
    given = os.environ.get("BEAM_LIBS", "")
    found = [Path(given)] if given else sorted(Path(PACKAGED).glob("rabbitmq_server-*/plugins"))
    return next((str(each) for each in found if list(each.glob("gun-*/ebin"))), "")


@contextmanager
def beam(mode: str, generation: str, **options: Any) -> Iterator[subprocess.Popen[str]]:
    """A BEAM whose standard output is lines of JSON; killed at the end if it still runs."""
    with tempfile.TemporaryDirectory() as directory:
        path = os.pathsep.join(filter(None, (str(HERE), os.environ.get("PYTHONPATH"))))
        options |= {
            "generation": generation,
            "command": [sys.executable, str(SCRIPT), "--load", "pool_programs", "--grace-seconds", "1"],
            "env": {"PYTHONPATH": path},
            "directory": directory,
        }
        process = subprocess.Popen(
            [shutil.which("elixir") or "elixir", HERE / "on_beam/main.exs", mode, json.dumps(options)],
            env={**os.environ, "BEAM_LIBS": libraries(), "LC_ALL": "C.UTF-8"},
            stdout=subprocess.PIPE,
            text=True,
        )
        assert process.stdout is not None
        with process.stdout:
            try:
                yield process
            finally:
                process.kill()
                process.wait()


def problems(found: dict[str, Any]) -> list[str]:
    """What a line of a soak tells that should not be."""
    wrong = [f"process {pid} is left" for pid in found.get("pids", ()) if alive(pid)]
    match found:
        case {"outcomes": outcomes}:
            wrong += [f"{count} times {what}" for what, count in outcomes.items() if what.startswith("WRONG")]
        case {"streamed": [*stages, "at_ms,response"]} if set(stages) == {"at_ms,stage"}:
            pass
        case {"telemetry": {"events": int(number)}} | {"heartbeats": {"missed": "", "answered": int(number)}} if number:
            pass
        case {"large": [12_000_000, 12_000_000], "through_elixir": 2_000_000} | {"abandoned": True}:
            pass
        # Under 0.4 the pool sees the end of `setsid` alone, not that of its worker, and not how.
        case {"crash": [0 | 9, "error"]} | {"closed": [int(), int(), int()]}:
            pass
        case {"stopped": 0, "last": "FAILURE_KIND_SHUTTING_DOWN" | "error"} | {"asked_of_elixir": _}:
            pass
        case _:
            wrong.append(f"unexpected: {found}")
    return wrong


def soak(generation: str, **options: Any) -> Iterator[dict[str, Any]]:
    """What a BEAM tells of a pool, a line at a time, with what is wrong in it; its end too."""
    told = 0
    with beam("soak", generation, **options) as process:
        assert process.stdout is not None
        for line in process.stdout:
            found = json.loads(line)
            told += 1
            yield {**found, "problems": problems(found)}
        wanted = LINES[generation] * options["workers"] + 1
        ended = process.wait()
    yield {"ended": ended, "problems": [] if told == wanted and ended == 0 else [f"{told} of {wanted} lines came"]}


def killed(generation: str) -> dict[str, Any]:
    """SIGKILL for a BEAM with three workers, one of them busy, and a process that a program left."""
    with beam("hold", generation, workers=3) as process:
        assert process.stdout is not None
        pids = json.loads(process.stdout.readline())["pids"]
        process.kill()
        process.wait()
    try:
        wait_until_gone(pids)
    except AssertionError:
        return {"killed": pids, "problems": [f"left: {[pid for pid in pids if alive(pid)]}"]}
    return {"killed": pids, "problems": []}


def everything(generation: str, options: dict[str, Any]) -> Iterator[dict[str, Any]]:
    yield from soak(generation, **options)
    yield killed(generation)


def main() -> int:
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--generation", choices=sorted(LINES), default="0.13", help="of snakepit")
    arguments.add_argument("--workers", type=int, default=2)
    arguments.add_argument("--calls", type=int, default=4000, help="trials of every outcome, over all workers")
    arguments.add_argument("--seconds", type=float, default=60.0, help="time of computing trials, over all kinds")
    given = arguments.parse_args()
    if why := missing():
        sys.stdout.write(f"not run: {why}\n")
        return 2
    burners = sorted(pool_programs.BURNERS)
    options = {
        "workers": given.workers,
        "calls": given.calls // given.workers,
        "heartbeat_ms": 2000,
        "burners": burners,
        "burn_seconds": given.seconds / len(burners),
    }
    wrong = 0
    for found in everything(given.generation, options):
        wrong += len(found["problems"])
        sys.stdout.write(json.dumps(found) + "\n")
        sys.stdout.flush()
    sys.stdout.write("ok\n" if not wrong else f"{wrong} problems\n")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
