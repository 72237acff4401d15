"""Runs the demo: a store, a worker and a provider as a newcomer would start them, and real trials between them."""

from __future__ import annotations

import json
import os
import shutil
import signal
import sys
import tempfile
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any, Final

import click
import trio

from dspex_trio import rpc
from dspex_trio.demo.children import DemoProcess, DemoProcessFailed, run_child
from dspex_trio.demo.provider import API_KEY, Provider
from dspex_trio.demo.report import progress_line, provider_lines, report
from dspex_trio.demo.results import CallFailed, ClientCancelled, Result
from dspex_trio.demo.trials import DEFAULT_FILE, InvalidTrials, Trial, TrialFile, read_trials
from dspex_trio.runtime.client import Client, open_client
from dspex_trio.tasks.signals import STATE_SIGNALS, EndSignals, Meaning, stacks, wanted_end_signals

LOCAL_MODEL: Final = "openai/demo-extractive"
AT_ONCE: Final = 8
"""Trials under way at the same time: as many as the worker runs, so that latencies are the trials' own."""
TRIAL_SECONDS: Final = 60.0
PATIENCE_SECONDS: Final = 10.0
REAL_MODEL_SECONDS: Final = 1.0
EXIT_OK, EXIT_UNEXPECTED, EXIT_UNUSABLE = 0, 1, 2


async def run_demo(
    *,
    lm: str | None = None,
    lm_args: Mapping[str, Any] | None = None,
    trials: Path | None = None,
    write: Callable[[str], None] = click.echo,
) -> int:
    """Run a file of trials end to end and show what became of them.

    Args:
        lm: A real language model, as `dspy.LM` takes it; without one, a small local model answers over HTTP.
        lm_args: Keywords for it.
        trials: The file; the demo's own by default.
        write: Takes every line of what is shown.

    Returns:
        The exit code: 0 when every trial ended as expected, 1 when one did not, 2 when the demo cannot run, and 128
        plus the signal's number after SIGINT, SIGTERM or SIGHUP. However it ends, its child processes are ended first.
    """
    try:
        file = read_trials(trials or DEFAULT_FILE)
    except (InvalidTrials, OSError) as error:
        write(f"{trials or DEFAULT_FILE}: {error}")
        return EXIT_UNUSABLE
    code = EXIT_UNEXPECTED
    running = trio.CancelScope()
    with trio.open_signal_receiver(*wanted_end_signals(), *STATE_SIGNALS) as signals:
        async with trio.open_nursery() as nursery:
            ended_by: list[int] = []
            nursery.start_soon(_end_on, signals, running, ended_by, write)
            try:
                with running:
                    code = await _with_everything_running(file, lm, lm_args or {}, write)
            except* DemoProcessFailed as failed:
                for each in _leaves(failed):
                    write(str(each))
                code = EXIT_UNUSABLE
            nursery.cancel_scope.cancel()
    return 128 + ended_by[0] if ended_by else code


async def _end_on(
    signals: AsyncIterator[int], running: trio.CancelScope, ended_by: list[int], write: Callable[[str], None]
) -> None:
    """End what runs on a first signal, and the process on a second one: children end with its end of their input."""
    came = EndSignals()
    async for number in signals:
        name = signal.Signals(number).name
        if number in STATE_SIGNALS:
            for thread, stack in stacks():
                write(f"{name}: the thread {thread!r} is at\n{stack}")
            continue
        match came.came(number, trio.current_time()):
            case Meaning.FIRST:
                ended_by.append(number)
                write(f"{name}: ending")
                running.cancel()
            case Meaning.SECOND:
                os._exit(128 + number)
            case Meaning.SAME:
                pass


def _leaves(error: BaseException) -> Iterator[BaseException]:
    if isinstance(error, BaseExceptionGroup):
        for each in error.exceptions:
            yield from _leaves(each)
    else:
        yield error


async def _with_everything_running(
    file: TrialFile, lm: str | None, lm_args: Mapping[str, Any], write: Callable[[str], None]
) -> int:
    with tempfile.TemporaryDirectory(prefix="dspex-trio-demo-") as directory:
        async with trio.open_nursery() as nursery:
            provider: Provider | None = None
            if lm is None:
                provider = Provider()
                port = await nursery.start(provider.serve)
                lm, lm_args = LOCAL_MODEL, {"api_base": f"http://127.0.0.1:{port}/v1", "api_key": API_KEY}
                write(f"provider   http://127.0.0.1:{port}/v1, a small local model")

            async def start(name: str, arguments: list[str], environment: Mapping[str, str]) -> DemoProcess:
                run = partial(run_child, name, arguments, Path(directory), environment=environment)
                child: DemoProcess = await nursery.start(run)
                write(f"{name:<10} {child.address}, ready after {child.started_in:.1f} s (pid {child.pid})")
                return child

            store = await start("store", ["dspex_trio", "store", "--end-with-stdin"], {})
            serve = [
                "dspex_trio",
                "serve",
                "--end-with-stdin",
                "--store",
                store.address,
                "--load",
                "dspex_trio.demo.programs",
            ]
            # The model's arguments may hold a key; a process's environment is its own, its arguments everybody's.
            environment = {"DSPEX_TRIO_LM": lm, "DSPEX_TRIO_LM_ARGS": json.dumps(dict(lm_args))}
            worker = await start("worker", [*serve, "--max-trials", str(AT_ONCE)], environment)
            async with open_client(worker.address, store=store.address) as client:
                await register(client, file)
                code = await _DemoRun(client, provider, write).run(file.trials)
            nursery.cancel_scope.cancel()
    return code


async def register(client: Client, file: TrialFile) -> None:
    """Put every session and its variables into the store."""

    async def one(session_id: str) -> None:
        session = client.session(session_id)
        await session.initialize()
        for name, variable in file.sessions[session_id].items():
            await session.register(name, variable.type, variable.value, constraints=variable.constraints)

    async with trio.open_nursery() as nursery:
        for session_id in file.sessions:
            nursery.start_soon(one, session_id)


class _DemoRun:
    """The trials of one run, and what became of them."""

    def __init__(self, client: Client, provider: Provider | None, write: Callable[[str], None]) -> None:
        self._client = client
        self._provider = provider
        self._write = write
        self._results: dict[str, Result] = {}

    async def run(self, trials: Iterable[Trial]) -> int:
        """Run them all, show them, and give the exit code."""
        wanted = list(trials)
        room = trio.Semaphore(AT_ONCE)
        self._write(f"running    {len(wanted)} trials, {AT_ONCE} at a time\n")
        began = trio.current_time()
        async with trio.open_nursery() as nursery:
            for trial in wanted:  # in the file's order: a trial starts when the one before has its place
                await room.acquire()
                nursery.start_soon(self._one, trial, len(wanted), room)
        seconds = trio.current_time() - began
        results = [self._results[trial.id] for trial in wanted]
        code = EXIT_OK if all(result.as_expected for result in results) else EXIT_UNEXPECTED
        width = shutil.get_terminal_size().columns if sys.stdout.isatty() else None
        for line in report(results, seconds=seconds, width=width):
            self._write(line)
        if self._provider is not None:
            with trio.move_on_after(PATIENCE_SECONDS):
                await self._provider.wait_until(lambda provider: provider.owed == 0)
            for line in provider_lines(self._provider):
                self._write(line)
            if self._provider.owed:  # a trial has ended and its work goes on
                code = EXIT_UNEXPECTED
        return code

    async def _one(self, trial: Trial, total: int, room: trio.Semaphore) -> None:
        began = trio.current_time()
        outcome = await (self._cancelled(trial) if trial.client_cancels else self._executed(trial))
        waited = (trio.current_time() - began) * 1e3
        result = Result(trial, outcome, waited, answers_count=self._provider is not None)
        self._results[trial.id] = result
        self._write(progress_line(result, len(self._results), total))
        room.release()

    async def _executed(self, trial: Trial) -> Any:
        try:
            return await self._client.execute(
                trial.program,
                trial.inputs,
                session_id=trial.session,
                trial_id=trial.id,
                timeout=trial.timeout or TRIAL_SECONDS,
            )
        except rpc.RpcError as error:
            return CallFailed(str(error))

    async def _cancelled(self, trial: Trial) -> Any:
        """Execute the trial and go away while its program waits for the model."""
        outcome: Any = ClientCancelled()
        async with trio.open_nursery() as nursery:

            async def leave() -> None:
                await self._until_asked(trial)
                nursery.cancel_scope.cancel()

            nursery.start_soon(leave)
            outcome = await self._executed(trial)
            nursery.cancel_scope.cancel()
        return outcome

    async def _until_asked(self, trial: Trial) -> None:
        """Return once the model has the trial's question; of a real one, nobody knows, so after a second."""
        if self._provider is None:
            await trio.sleep(REAL_MODEL_SECONDS)
            return
        question = str(trial.inputs.get("question", ""))
        with trio.move_on_after(PATIENCE_SECONDS):
            await self._provider.wait_until(lambda seen: any(each.question == question for each in seen.asked))
