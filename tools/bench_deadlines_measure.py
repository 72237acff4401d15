"""What `tools/bench_deadlines.py` measures: trials that outlive their deadline, seen by caller, provider and worker."""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import trio
from bench_processes import Subject, running

import dspex_trio as dspex
from dspex_trio.selftest.silent import ANSWERING, SILENT, SilentProvider

SUBJECT: Final = Path(__file__).with_name("bench_deadlines_subject.py")
QUESTION: Final = "question -> answer"
INPUTS: Final = {"question": "?"}
WAYS: Final = {
    "asyncify": "dspy.asyncify, asyncio",
    "asyncify_trio": "dspy.asyncify, Trio",
    "to_thread": "asyncio.to_thread",
}
ENGINES: Final = {"lm15": "DSPy's engine", "litellm": "litellm"}
MODULES: Final = ("Predict", "ChainOfThought", "ReAct", "BestOfN", "Refine", "Parallel", "ProgramOfThought")
BURNERS: Final = 8
MANY_AT_ONCE: Final = 32
MANY_DEADLINE_SECONDS: Final = 0.25
# How long a slot, and the provider's last connections, may take after the answer, in seconds.
GONE_WITHIN: Final = 3.0
WARM_UP_SECONDS: Final = 60.0


@dataclass(frozen=True, slots=True)
class Effort:
    """How much to measure.

    Attributes:
        deadline: Of each trial of a scenario, in seconds.
        trials: Trials of each scenario.
        seconds: After so long no further trial of a scenario is begun, but for the first.
        count: Timed-out trials after which to look at what is left.
        beside_burners: Trials beside threads that compute.
        next_trials: Trials of 10 ms after the timed-out ones.
        scenarios: How many of the scenarios.
    """

    deadline: float
    trials: int
    seconds: float
    count: int
    beside_burners: int
    next_trials: int
    scenarios: int = 99


@dataclass(frozen=True, slots=True)
class Scenario:
    """A program that outlives its deadline.

    Attributes:
        what: For people.
        program: In its JSON form.
        engine: DSPy's name of the engine that asks the provider.
    """

    what: str
    program: dict[str, Any]
    engine: str = "lm15"


def scenarios(port: int) -> list[Scenario]:
    """All of them: DSPy's modules, with each engine, streaming or not; tools; and what asks nobody."""

    def program(name: str, **dependencies: Any) -> dict[str, Any]:
        return {"python_class": f"bench.{name}", "dependencies": dependencies}

    url = f"http://127.0.0.1:{port}/"
    return [
        *(
            Scenario(
                f"{module}, {name}{', stream' if streaming else ''}",
                program("Asks", module=module, streaming=streaming),
                engine=engine,
            )
            for engine, name in ENGINES.items()
            for streaming in (False, True)
            for module in MODULES
        ),
        Scenario("a tool using requests", program("Requests", url=url)),
        Scenario("a tool using httpx", program("Httpx", url=url)),
        Scenario("ProgramOfThought, endless code", program("RunsCode")),
        Scenario("while True: try/except Exception", program("Stubborn")),
    ]


class Bench:
    """The provider that never answers, and ways to start what asks it."""

    def __init__(self, provider: SilentProvider, port: int) -> None:
        self.provider = provider
        self.port = port

    def _asking(self, engine: str) -> dict[str, Any]:
        arguments = {"api_base": f"http://127.0.0.1:{self.port}/v1", "api_key": "bench", "engine": engine}
        return {"lm": SILENT, "lm_args": arguments}

    @asynccontextmanager
    async def subject(self, way: str, engine: str = "lm15", **options: Any) -> AsyncIterator[Subject]:
        """A subject that has been started."""
        command = [str(SUBJECT), way, json.dumps({**self._asking(engine), **options})]
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL}
        async with running(command, **pipes) as process:
            yield Subject(process)

    @asynccontextmanager
    async def worker(self, engine: str = "lm15", **options: Any) -> AsyncIterator[tuple[Subject, dspex.Client]]:
        """A worker that has imported what it needs, and a client."""
        async with (
            self.subject("worker", engine, **options) as worker,
            dspex.open_client(f"127.0.0.1:{await worker.ready()}") as client,
        ):
            warm = {"python_class": "dspy.Predict", "signature": QUESTION, "lm": {"model": ANSWERING}}
            for _ in range(3):
                with trio.fail_after(WARM_UP_SECONDS):
                    succeeded(await client.execute(warm, INPUTS))
            yield worker, client

    async def closed_since(self, asked: int) -> list[float]:
        """When the connections of everything that was asked after number `asked` were closed."""

        def numbers(provider: SilentProvider) -> range:
            return range(asked + 1, provider.asked + 1)

        with trio.move_on_after(GONE_WITHIN):
            await self.provider.wait_until(lambda provider: all(n in provider.closes for n in numbers(provider)))
        return [self.provider.closes[n] for n in numbers(self.provider) if n in self.provider.closes]


@asynccontextmanager
async def open_bench() -> AsyncIterator[Bench]:
    """The provider is served in this process: caller and provider read one clock."""
    provider = SilentProvider()
    async with trio.open_nursery() as nursery:
        yield Bench(provider, await nursery.start(provider.serve))
        nursery.cancel_scope.cancel()


async def measure_scenarios(bench: Bench, effort: Effort, tell: Callable[[str], None]) -> list[dict[str, Any]]:
    """Each scenario's trials, one after the other, in a worker with one slot; then a trial that needs this slot."""
    found = []
    wanted = scenarios(bench.port)[: effort.scenarios]
    for engine in dict.fromkeys(each.engine for each in wanted):
        async with bench.worker(engine, max_trials=1) as (worker, client):
            for scenario in wanted:
                if scenario.engine == engine:
                    tell(f"{scenario.what}: {effort.trials} trials of {effort.deadline:g} s")
                    samples = await _samples(bench, client, scenario, effort)
                    left = await worker.ask(census=True)
                    found.append({"what": scenario.what, "samples": samples, "left": left})
    return found


async def _samples(bench: Bench, client: dspex.Client, scenario: Scenario, effort: Effort) -> list[dict[str, Any]]:
    """A trial that does not count, then the samples."""
    end = trio.current_time() + effort.seconds
    samples = [await _sample(bench, client, scenario, effort.deadline)]
    while len(samples) <= effort.trials and (len(samples) == 1 or trio.current_time() < end):
        samples.append(await _sample(bench, client, scenario, effort.deadline))
    return samples[1:]


async def _sample(bench: Bench, client: dspex.Client, scenario: Scenario, seconds: float) -> dict[str, Any]:
    """One trial; milliseconds from its deadline."""
    asked = bench.provider.asked
    deadline = time.monotonic() + seconds
    outcome = await client.execute(scenario.program, INPUTS, timeout=seconds)
    answered = time.monotonic()
    with trio.fail_after(GONE_WITHIN):
        after = succeeded(await client.execute({"python_class": "bench.Sleep"}, INPUTS))
    closes = await bench.closed_since(asked)
    failure = outcome if isinstance(outcome, dspex.TrialFailure) else None
    return {
        "kind": failure.kind.name if failure else "SUCCESS",
        "details": dict(failure.details) if failure else {},
        "late_ms": (answered - deadline) * 1e3,
        "close_ms": (max(closes) - deadline) * 1e3 if closes else None,
        "closes": len(closes),
        "asked": bench.provider.asked - asked,
        "slot_ms": (answered - deadline) * 1e3 + after.timings.queued_ms,
    }


async def measure_many(bench: Bench, effort: Effort, tell: Callable[[str], None]) -> dict[str, Any]:
    """Very many timed-out trials, several at once; what is left of them, and how long the next trials take."""
    program = scenarios(bench.port)[0].program
    async with bench.worker(max_trials=MANY_AT_ONCE) as (worker, client):
        kinds: dict[str, int] = {}

        async def lane(times: int) -> None:
            for _ in range(times):
                outcome = await client.execute(program, INPUTS, timeout=MANY_DEADLINE_SECONDS)
                kind = outcome.kind.name if isinstance(outcome, dspex.TrialFailure) else "SUCCESS"
                kinds[kind] = kinds.get(kind, 0) + 1

        async def lanes(count: int) -> None:
            async with trio.open_nursery() as nursery:
                for number in range(MANY_AT_ONCE):
                    nursery.start_soon(lane, count // MANY_AT_ONCE + (number < count % MANY_AT_ONCE))

        asked = bench.provider.asked
        before = await worker.ask(census=True)
        censuses = []
        for tenth in range(10):
            done, to_do = (effort.count * each // 10 for each in (tenth, tenth + 1))
            tell(f"timed-out trials: {done} of {effort.count}")
            await lanes(to_do - done)
            censuses.append(await worker.ask(census=True))
        closes = await bench.closed_since(asked)
        next_ms = []
        for _ in range(effort.next_trials):
            began = time.monotonic()
            succeeded(await client.execute({"python_class": "bench.Sleep"}, INPUTS))
            next_ms.append((time.monotonic() - began) * 1e3)
        return {
            "count": sum(kinds.values()),
            "at_once": MANY_AT_ONCE,
            "deadline_s": MANY_DEADLINE_SECONDS,
            "kinds": kinds,
            "asked": bench.provider.asked - asked,
            "closed": len(closes),
            "before": before,
            "censuses": censuses,
            "next_trial_ms": next_ms,
        }


async def measure_beside_burners(bench: Bench, effort: Effort, tell: Callable[[str], None]) -> dict[str, Any]:
    """Lateness of trials that wait while eight others compute in Python without end."""
    tell(f"{effort.beside_burners} trials beside {BURNERS} that compute")
    late: list[float] = []
    kinds: dict[str, int] = {}
    async with (
        bench.worker(max_trials=BURNERS + 1) as (worker, client),
        trio.open_nursery() as nursery,
    ):
        for _ in range(BURNERS):
            nursery.start_soon(client.execute, {"python_class": "bench.Stubborn"}, INPUTS)
        for _ in range(effort.beside_burners):
            deadline = time.monotonic() + effort.deadline
            outcome = await client.execute(scenarios(bench.port)[0].program, INPUTS, timeout=effort.deadline)
            late.append((time.monotonic() - deadline) * 1e3)
            kind = outcome.kind.name if isinstance(outcome, dspex.TrialFailure) else "SUCCESS"
            kinds[kind] = kinds.get(kind, 0) + 1
        during = await worker.ask(census=True)
        nursery.cancel_scope.cancel()
    return {"burners": BURNERS, "busy_threads": during["busy_threads"], "kinds": kinds, "late_ms": late}


async def measure_stock(bench: Bench, effort: Effort, tell: Callable[[str], None]) -> list[dict[str, Any]]:
    """The first scenario as asyncio programs run DSPy."""
    found = []
    for way in WAYS:
        tell(f"stock: {way}")
        asked = bench.provider.asked
        async with bench.subject(way, deadline=effort.deadline) as stock:
            await stock.ready()
            answer = await stock.ask()
            found.append({"way": way, "asked": bench.provider.asked - asked, **answer})
    return found


def succeeded(outcome: dspex.TrialOutcome) -> dspex.TrialSuccess:
    """The success that it must be; raises RuntimeError for a failure."""
    match outcome:
        case dspex.TrialSuccess():
            return outcome
        case dspex.TrialFailure() as failure:
            raise RuntimeError(f"a trial of the benchmark failed: {failure}")
