"""Kill a session store under load, start it again on its file, and hold every trial against what was written.

Run as `python tools/stress_store.py [--seconds 30] [--rate 100] [--kills 10] [--outage 0.2] [--trial-seconds 3]
[--slots N]`. Two variables are written together all the while, counting up; every trial reads both. Prints what was
counted as JSON and exits non-zero if a trial hung, saw a value older than the last one that was acknowledged before it
arrived or half of a write, or failed otherwise than as STORE_UNAVAILABLE and retryable.
"""

from __future__ import annotations

import argparse
import json
import signal
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import dspy
import trio
from bench_processes import until_ready

import dspex_trio as dspex
from dspex_trio.model.errors import StoreUnavailable, VariableInvalid

_SESSION: Final = "stress"
_NAMES: Final = ("count", "twin")
_HANG_SECONDS: Final = 5.0
"""A trial that has not ended so long after its deadline hangs."""


@dataclass(slots=True)
class Found:
    """What was seen.

    Attributes:
        succeeded: Trials that read both variables.
        failed: Failure kind → trials.
        not_retryable: Failures that do not say that another try may help.
        hung: Trials that did not end.
        wrong: What was read and should not have been.
        kills: How often the store was killed.
        writes: Acknowledged writes.
    """

    succeeded: int = 0
    failed: Counter[str] = field(default_factory=Counter)
    not_retryable: int = 0
    hung: int = 0
    wrong: list[str] = field(default_factory=list)
    kills: int = 0
    writes: int = 0

    def problems(self) -> list[str]:
        """What is against the promise; empty when it was kept."""
        others = {kind: count for kind, count in self.failed.items() if kind != "STORE_UNAVAILABLE"}
        said = {
            "trials hung": self.hung,
            "trials read what was not there": len(self.wrong),
            "failures are not retryable": self.not_retryable,
            f"trials failed otherwise: {others}": sum(others.values()),
        }
        return [f"{count} {what}" for what, count in said.items() if count]


@dataclass(frozen=True, slots=True)
class Load:
    """How hard to try.

    Attributes:
        seconds: For how long trials are started.
        rate: Trials a second.
        kills: How often the store is killed, evenly spread.
        outage: Seconds that it stays away before it is started again; its own start comes on top.
        trial_seconds: Each trial's deadline.
        slots: Trials that run at the same time. One that waits for its store holds its slot.
    """

    seconds: float
    rate: float
    kills: int
    outage: float
    trial_seconds: float
    slots: int


@dspex.register("stress.Reads")
class Reads(dspy.Module):  # type: ignore[misc] # mypy does not look into dspy
    """Returns what it was bound to, and what its session has while it runs."""

    def __init__(self) -> None:
        super().__init__()
        self.count = self.twin = 0

    def forward(self) -> dict[str, Any]:
        """Read once more."""
        now = self.session.get_many(_NAMES)
        return {"bound": [self.count, self.twin], "now": [now[name] for name in _NAMES]}


PROGRAM: Final = {"python_class": "stress.Reads", "config_space": {name: name for name in _NAMES}}


class StoreProcess:
    """`dspex-trio store` on a file, on the same port again and again."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._process: trio.Process | None = None
        self.port = 0
        self._starts = 0

    async def start(self) -> None:
        """Start it and wait until it answers."""
        self._starts += 1
        ready = self._directory / f"ready-{self._starts}"
        command = ["-m", "dspex_trio", "store", "--persist", str(self._directory / "store.db")]
        command += ["--port", str(self.port), "--ready-file", str(ready), "--log-level", "error"]
        self._process = await trio.lowlevel.open_process([sys.executable, *command], stdin=subprocess.DEVNULL)
        self.port = await until_ready(ready, self._process)

    async def kill(self) -> None:
        """End it without warning."""
        if self._process is not None:
            self._process.send_signal(signal.SIGKILL)
            await self._process.wait()


class Stress:
    """Trials, a writer and a killer around one store."""

    def __init__(self, load: Load, runtime: dspex.Runtime, store: StoreProcess) -> None:
        self.found = Found()
        self._load = load
        self._runtime = runtime
        self._store = store
        self._sent = self._acknowledged = 0

    async def run(self) -> Found:
        """All of it; returns when the last trial has ended."""
        async with trio.open_nursery() as others:
            others.start_soon(self._write)
            others.start_soon(self._kill)
            async with trio.open_nursery() as trials:
                began = trio.current_time()
                for number in range(int(self._load.seconds * self._load.rate)):
                    await trio.sleep_until(began + number / self._load.rate)
                    trials.start_soon(self._trial)
            others.cancel_scope.cancel()
        return self.found

    async def _write(self) -> None:
        session = self._runtime.session(_SESSION)
        while True:
            self._sent += 1
            try:
                await session.set_many(dict.fromkeys(_NAMES, self._sent))
            except StoreUnavailable:
                await trio.sleep(0.01)  # whether it was written is not known; the next one counts on
            except VariableInvalid as error:
                self.found.wrong.append(f"a write was refused: {error}")
                return
            else:
                self._acknowledged = self._sent
                self.found.writes += 1
                await trio.sleep(0.005)

    async def _kill(self) -> None:
        began = trio.current_time()
        for number in range(self._load.kills):
            await trio.sleep_until(began + self._load.seconds * (number + 0.5) / self._load.kills)
            await self._store.kill()
            self.found.kills += 1
            await trio.sleep(self._load.outage)
            await self._store.start()
        await trio.sleep_forever()

    async def _trial(self) -> None:
        at_least = self._acknowledged
        outcome: dspex.TrialOutcome | None = None
        with trio.move_on_after(self._load.trial_seconds + _HANG_SECONDS):
            with trio.move_on_after(self._load.trial_seconds):
                outcome = await self._runtime.run_trial(PROGRAM, {}, session=_SESSION)
            if outcome is None:
                self.found.failed["no outcome before the caller's own deadline"] += 1
                return
        match outcome:
            case None:
                self.found.hung += 1
            case dspex.TrialFailure():
                self.found.failed[outcome.kind.name] += 1
                self.found.not_retryable += not outcome.retryable
            case dspex.TrialSuccess():
                self.found.succeeded += 1
                self._judge(at_least, outcome.prediction)

    def _judge(self, at_least: int, prediction: Any) -> None:
        bound, now = prediction["bound"], prediction["now"]
        torn = bound[0] != bound[1] or now[0] != now[1]
        if torn or not at_least <= bound[0] <= now[0] <= self._sent:
            self.found.wrong.append(f"{bound} and {now} after {at_least} was acknowledged")


@asynccontextmanager
async def running_store() -> AsyncIterator[StoreProcess]:
    """A store in a directory of its own, killed with the block."""
    with tempfile.TemporaryDirectory(prefix="dspex-trio-stress-") as directory:
        store = StoreProcess(Path(directory))
        try:
            await store.start()
            yield store
        finally:
            with trio.CancelScope(shield=True, deadline=trio.current_time() + _HANG_SECONDS):
                await store.kill()


async def stress(load: Load) -> Found:
    """Run trials against a store that is killed and started again."""
    async with running_store() as store:
        settings = dspex.Settings(store=f"127.0.0.1:{store.port}", max_trials=load.slots, reply_margin_ms=300)
        async with dspex.open_runtime(settings) as runtime:
            session = runtime.session(_SESSION)
            await session.initialize()
            for name in _NAMES:
                await session.register(name, "integer", 0)
            await runtime.run_trial(PROGRAM, {}, session=session)  # the first one of a process takes longer
            return await Stress(load, runtime, store).run()


def main() -> None:
    """Run and report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=30)
    parser.add_argument("--rate", type=float, default=100)
    parser.add_argument("--kills", type=int, default=10)
    parser.add_argument("--outage", type=float, default=0.2)
    parser.add_argument("--trial-seconds", type=float, default=3)
    parser.add_argument("--slots", type=int, help="trials at the same time; enough for any outage unless given")
    given = parser.parse_args()
    slots = given.slots or int(given.rate * given.trial_seconds) + 8
    load = Load(given.seconds, given.rate, given.kills, given.outage, given.trial_seconds, slots)
    found = trio.run(stress, load)
    print(
        json.dumps(
            {
                "succeeded": found.succeeded,
                "failed": found.failed,
                "kills": found.kills,
                "writes": found.writes,
                "problems": found.problems(),
                "wrong": found.wrong[:10],
            }
        )
    )
    sys.exit(bool(found.problems()))


if __name__ == "__main__":
    main()
