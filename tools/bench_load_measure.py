"""What `tools/bench_load.py` measures: one worker, one provider and one client for each part, each its own process."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Final

import trio
from bench_load_client import Group, Load
from bench_load_processes import Usage, usage_by_role
from bench_processes import Subject, running, until_ready

TOOLS: Final = Path(__file__).parent
DEADLINE: Final = 2.0
ANSWER_SECONDS: Final = 1.0
HANG_EVERY: Final = 10
MOST_QUEUED: Final = 20_000
PREDICT: Final = {"python_class": "dspy.Predict", "signature": "question -> answer"}
CPU: Final = {"python_class": "bench.Cpu"}
BURNER: Final = {"python_class": "bench.Burner"}
HOLDER: Final = {"python_class": "bench.Holder"}
BURNERS: Final = 8
BESIDE: Final = 8
IN_SLOTS: Final = 64
CPU_LANES: Final = 8
WARM_UP: Final = 4
LONG: Final = 120.0
# Trial numbers of what runs beside the measured trials.
OTHERS: Final = 10_000_000
# A client is done so long after its time, in seconds; else the run fails.
CLIENT_SECONDS: Final = 60.0
# How long the last connections at the provider may take to close.
CLOSES_WITHIN: Final = 1.0


@dataclass(frozen=True, slots=True)
class Worker:
    """A worker that serves, and what it asks.

    Attributes:
        port: Where it listens.
        pid: Its process.
        provider: Whom its programs ask.
        provider_port: Where that listens.
    """

    port: int
    pid: int
    provider: Subject
    provider_port: int


def takes_executors() -> bool:
    """Whether the worker has the option `--executors`."""
    command = [sys.executable, "-m", "dspex_trio", "serve", "--help"]
    return "--executors" in subprocess.run(command, capture_output=True, text=True, check=True).stdout


@asynccontextmanager
async def open_worker(slots: int, executors: int | None, queue: int = MOST_QUEUED) -> AsyncIterator[Worker]:
    """Start both, and warm the worker up."""
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    command = [str(TOOLS / "bench_load_provider.py"), str(ANSWER_SECONDS)]
    with tempfile.TemporaryDirectory(prefix="dspex-trio-bench-") as directory:
        async with running(command, **pipes) as process:
            provider = Subject(process)
            provider_port = await provider.ready()
            ready = Path(directory) / "ready"
            async with running(
                _serve(ready, provider_port, slots, executors, queue), cwd=str(TOOLS), stderr=subprocess.DEVNULL
            ) as server:
                worker = Worker(await until_ready(ready, server), server.pid, provider, provider_port)
                warm = await load(worker, 0.0, Group("warm-up", WARM_UP, LONG, 0, PREDICT, first_trial=OTHERS))
                if ended := {each["outcome"] for each in warm["warm-up"]} - {"success"}:
                    raise RuntimeError(f"trials of the warm-up ended as {ended}")
                yield worker


def _serve(ready: Path, provider: int, slots: int, executors: int | None, queue: int) -> list[str]:
    command = ["-m", "dspex_trio", "serve", "--port", "0", "--ready-file", str(ready), "--log-level", "error"]
    command += ["--lm", "openai/load", "--lm-arg", f"api_base=http://127.0.0.1:{provider}/v1", "--lm-arg", "api_key=b"]
    command += ["--load", "bench_load_programs", "--max-trials", str(slots), "--max-queue", str(queue)]
    command += ["--no-memory-cache", "--grace-seconds", "0"]
    return command if executors is None else [*command, "--executors", str(executors)]


async def load(worker: Worker, seconds: float, *groups: Group) -> dict[str, list[dict[str, Any]]]:
    """Have a client make calls; the samples of each group."""
    command = [str(TOOLS / "bench_load_client.py"), Load(worker.port, seconds, list(groups)).to_json()]
    with trio.fail_after(seconds + sum(group.first for group in groups) + DEADLINE + CLIENT_SECONDS):
        found: dict[str, list[dict[str, Any]]] = await _answer_of(command)
        return found


async def _answer_of(command: list[str]) -> Any:
    done = await trio.run_process([sys.executable, *command], capture_stdout=True)
    return json.loads(done.stdout)


async def measure_level(lanes: int, seconds: float, executors: int | None) -> dict[str, Any]:
    """So many trials at once, of which one in ten hangs; then bare DSPy in as many threads."""
    async with open_worker(lanes, executors) as worker:
        before = usage_by_role(worker.pid)
        memory: dict[str, Usage] = {}
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_look_at, worker.pid, seconds * 0.8, memory)
            found = await load(worker, seconds, Group("load", lanes, DEADLINE, HANG_EVERY, PREDICT))
        after = usage_by_role(worker.pid)
        await trio.sleep(CLOSES_WITHIN)
        seen = await worker.provider.ask()
        command = [str(TOOLS / "bench_load_programs.py"), str(worker.provider_port), str(lanes), str(seconds / 2)]
        bare = await _answer_of(command)
    ended = max(sample["ended"] for sample in found["load"]) - min(sample["began"] for sample in found["load"])
    return {
        "at_once": lanes,
        "seconds": ended,
        "samples": found["load"],
        "cpu_s": {role: used.cpu_s - _cpu(before, role) for role, used in after.items()},
        "memory": {role: asdict(used) for role, used in memory.items()},
        "closes": seen["closes"],
        "still_open": seen["owed"],
        "bare": bare,
    }


def _cpu(before: dict[str, Usage], role: str) -> float:
    return before[role].cpu_s if role in before else 0.0


async def _look_at(pid: int, after: float, memory: dict[str, Usage]) -> None:
    await trio.sleep(after)
    memory |= usage_by_role(pid)


async def measure_queued(queued: int, seconds: float, executors: int | None) -> dict[str, Any]:
    """Lateness of trials that hang in all slots, one after the other: with an empty queue, and with a very long one."""
    found = {}
    for waiting in (0, queued):
        filling = 2 + waiting / 500
        measured = Group("measured", IN_SLOTS, filling + 1, 1, PREDICT, once=True, first=1)
        groups = [replace(measured, spread=max(seconds - 2, 0.0))]
        if waiting:
            groups.append(Group("waiting", waiting, 5 * LONG, 0, PREDICT, once=True, first_trial=OTHERS))
        async with open_worker(IN_SLOTS, executors) as worker:
            samples = await load(worker, filling + seconds, *groups)
        found["many" if waiting else "none"] = samples["measured"]
        found["waiting"] = samples.get("waiting", [])
    return {"queued": queued, **found}


async def measure_cpu_trials(seconds: float, executors: int | None) -> dict[str, Any]:
    """Trials a second of 20 ms of CPU each: with one executor and with two, where there are executors."""
    found = {}
    for count in (1, 2) if executors is not None else (None,):
        async with open_worker(CPU_LANES, count) as worker:
            samples = (await load(worker, seconds, Group("cpu", CPU_LANES, LONG, 0, CPU)))["cpu"]
        took = max(sample["ended"] for sample in samples) - min(sample["began"] for sample in samples)
        good = sum(sample["outcome"] == "success" for sample in samples)
        if not good:
            raise RuntimeError(f"trials that compute ended as {samples[0]['outcome']}")
        found[str(count or "none")] = good / took
    return found


async def measure_burners(seconds: float, executors: int | None) -> dict[str, Any]:
    """Lateness of trials that hang, beside eight that compute in Python, and beside one that holds the GIL for 3 s."""
    found = {}
    burning = Group("burning", BURNERS, LONG, 0, BURNER, once=True, first=1.0, first_trial=OTHERS)
    holding = Group("holding", 1, LONG, 0, HOLDER, first_trial=OTHERS)
    measured = Group("measured", BESIDE, DEADLINE, 1, PREDICT)
    for name, groups in {"burners": [burning, measured], "gil": [holding, measured]}.items():
        async with open_worker(BESIDE + BURNERS, executors) as worker:
            found[name] = (await load(worker, seconds, *groups))["measured"]
    return found
