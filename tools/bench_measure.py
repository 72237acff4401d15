"""What the benchmark measures: trials in rounds, lateness of deadlines, start-up."""

from __future__ import annotations

import compileall
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Final

import trio
from bench_processes import Subject, listening, running, subject, until_ready
from bench_subject import INPUTS, PATHS, VARIABLES, program, repeat

import dspex_trio as dspex

API_KEY: Final = "bench"
VARIABLE_COUNTS: Final = (0, 3, len(PATHS))
AT_ONCE: Final = (1, 8)
WAYS: Final = ("bare", "runtime", "server", "recorded")
SERVED: Final = frozenset({"server", "recorded"})
WARM_UP: Final = 5
AT_LEAST_ROUNDS: Final = 2
DEADLINE_SECONDS: Final = 0.25
# Records wait for others before they are written, which is to be counted all the same.
WRITTEN_SECONDS: Final = 0.4


@dataclass(frozen=True, slots=True)
class Effort:
    """How much to measure.

    Attributes:
        rounds: Rounds through all cases, at most.
        seconds: After so long, no round is begun; two are in any case.
        trials: Trials in a batch.
        starts: Processes started.
        failures: Trials that outlive their deadline.
        reads: Trials by which round trips to the store are counted.
        models: The language models, of `dummy`, `http` and `listed`.
    """

    rounds: int
    seconds: float
    trials: int
    starts: int
    failures: int
    reads: int
    models: tuple[str, ...] = ("dummy", "http", "listed")


@dataclass(frozen=True, slots=True)
class Case:
    """One way of running trials: which model, by which way, how many bound variables, how many at once."""

    lm: str
    way: str
    variables: int
    at_once: int


@dataclass(frozen=True, slots=True)
class Batch:
    """A batch of trials: CPU of the subject's process, and time on the wall, in seconds."""

    trials: int
    cpu_s: float
    wall_s: float


class Bench:
    """The processes that stay up through all rounds."""

    def __init__(self, subjects: dict[tuple[str, str], Subject], clients: dict[tuple[str, str], dspex.Client]) -> None:
        self._subjects = subjects
        self._clients = clients

    async def batch(self, case: Case, trials: int) -> Batch:
        """Run a batch."""
        found = self._subjects[case.lm, case.way]
        before = (await found.ask())["cpu_s"]
        if case.way in SERVED:
            one = execution(self._clients[case.lm, case.way], case.variables)
            wall = await repeat(one, trials, case.at_once)
            if case.way == "recorded":
                await trio.sleep(WRITTEN_SECONDS)
            after = (await found.ask())["cpu_s"]
        else:
            answer = await found.ask(trials=trials, at_once=case.at_once, variables=case.variables)
            wall, after = answer["wall_s"], answer["cpu_s"]
        return Batch(trials, after - before, wall)


def cases(models: Sequence[str]) -> list[Case]:
    """Every case, each bare one before those that are held against it."""
    return [
        Case(lm, way, variables, at_once)
        for lm in models
        for at_once in AT_ONCE
        for way in WAYS
        for variables in (VARIABLE_COUNTS if way in {"runtime", "server"} else (0,))
    ]


def execution(client: dspex.Client, variables: int) -> Callable[[], Any]:
    """One trial by gRPC."""
    options = dspex.TrialOptions(no_cache=True)
    return partial(client.execute, program(variables), INPUTS, session_id="bench", options=options)


@asynccontextmanager
async def everything_running(wanted: Sequence[str]) -> AsyncIterator[Bench]:
    """Provider, store, and for each model a bare script, a runtime, a server, and a server that records."""
    async with AsyncExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="dspex-trio-bench-")))
        provider = ["-m", "dspex_trio.demo.provider", "--api-key", API_KEY]
        port = await stack.enter_async_context(listening(directory, "provider", *provider))
        store = await stack.enter_async_context(listening(directory, "store", "-m", "dspex_trio", "store"))
        await register_variables(store)
        local = {"api_base": f"http://127.0.0.1:{port}/v1", "api_key": API_KEY}
        models: dict[str, dict[str, Any]] = {
            "dummy": {"lm": None, "lm_args": {}},
            "http": {"lm": "openai/demo-extractive", "lm_args": local},
            "listed": {"lm": "openai/demo-extractive", "lm_args": local, "listed": True},
        }
        subjects = {}
        for lm in wanted:
            for way in WAYS:
                options = {**models[lm], "store": f"127.0.0.1:{store}"}
                if way == "recorded":
                    options["record"] = str(directory / f"records-{lm}")
                started = subject("server" if way in SERVED else way, options)
                subjects[lm, way] = await stack.enter_async_context(started)
        ports = {key: await each.ready() for key, each in subjects.items()}
        clients = {
            key: await stack.enter_async_context(dspex.open_client(f"127.0.0.1:{port}"))
            for key, port in ports.items()
            if key[1] in SERVED
        }
        yield Bench(subjects, clients)


async def register_variables(store: int) -> None:
    """Put the variables into the store's session."""
    async with dspex.open_client(f"127.0.0.1:{store}") as client:
        session = client.session("bench")
        await session.initialize()
        for path in PATHS:
            kind, value = VARIABLES[path.removeprefix("predict.")]
            await session.register(path.replace(".", "_"), kind, value)


async def measure_trials(bench: Bench, effort: Effort, tell: Callable[[str], None]) -> dict[Case, list[Batch]]:
    """Rounds through all cases, after a warm-up that does not count."""
    found: dict[Case, list[Batch]] = {case: [] for case in cases(effort.models)}
    for case in found:
        await bench.batch(case, WARM_UP)
    began = trio.current_time()
    for number in range(effort.rounds):
        if number >= AT_LEAST_ROUNDS and trio.current_time() - began > effort.seconds:
            tell(f"trials: {number} rounds have taken {effort.seconds:.0f} s, that must do")
            break
        tell(f"trials: round {number + 1} of {effort.rounds}")
        for case, batches in found.items():
            batches.append(await bench.batch(case, effort.trials))
    return found


async def measure_deadlines(effort: Effort) -> dict[str, Any]:
    """Trials that outlive their deadline: when the caller has the failure, against the deadline it asked for."""
    lateness: list[float] = []
    kinds: dict[str, int] = {}
    async with (
        subject("server", {"lm": None, "lm_args": {}, "store": "embedded"}) as server,
        dspex.open_client(f"127.0.0.1:{await server.ready()}") as client,
    ):
        await repeat(execution(client, 0), WARM_UP, 1)

        async def one() -> None:
            deadline = trio.current_time() + DEADLINE_SECONDS
            outcome = await client.execute(program(0, endless=True), INPUTS, timeout=DEADLINE_SECONDS)
            late = (trio.current_time() - deadline) * 1e3
            kind = outcome.kind.name if isinstance(outcome, dspex.TrialFailure) else "SUCCESS"
            kinds[kind] = kinds.get(kind, 0) + 1
            if kind == dspex.FailureKind.DEADLINE_EXCEEDED.name:
                lateness.append(late)

        for _ in range(effort.failures // AT_ONCE[-1]):
            async with trio.open_nursery() as nursery:
                for _ in range(AT_ONCE[-1]):
                    nursery.start_soon(one)
    return {"deadline_s": DEADLINE_SECONDS, "at_once": AT_ONCE[-1], "kinds": kinds, "lateness_ms": lateness}


async def measure_starts(effort: Effort, tell: Callable[[str], None]) -> list[dict[str, float]]:
    """Seconds on the wall and of CPU until a worker is ready, and of `import dspy`, in turn."""
    # As pip leaves a package that it installs, and as dspy is: an editable checkout may have no bytecode.
    compileall.compile_dir(str(Path(str(dspex.__file__)).parent), quiet=1)
    found = []
    quiet: dict[str, Any] = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    environment = {**os.environ, "LITELLM_LOCAL_MODEL_COST_MAP": "True"}
    with tempfile.TemporaryDirectory(prefix="dspex-trio-bench-") as directory:
        for number in range(effort.starts):
            tell(f"start-up: {number + 1} of {effort.starts}")
            began, cpu = time.perf_counter(), children_cpu()
            await trio.run_process([sys.executable, "-c", "import dspy"], env=environment, **quiet)
            import_s, import_cpu_s = time.perf_counter() - began, children_cpu() - cpu
            ready = Path(directory) / f"ready-{number}"
            command = ["-m", "dspex_trio", "serve", "--port", "0", "--ready-file", str(ready)]
            began, cpu = time.perf_counter(), children_cpu()
            async with running(command, env=environment, **quiet) as process:
                await until_ready(ready, process)
                ready_s = time.perf_counter() - began
                process.kill()  # at once: an orderly end would count as its start's CPU
                await process.wait()
            found.append(
                {
                    "import_s": import_s,
                    "import_cpu_s": import_cpu_s,
                    "ready_s": ready_s,
                    "ready_cpu_s": children_cpu() - cpu,
                }
            )
    return found


def children_cpu() -> float:
    """CPU seconds of all children that have ended."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime
