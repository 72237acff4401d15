"""`dspex-trio run`: the trials of a file, on workers or in this process."""

from __future__ import annotations

import logging
import os
import shutil
import signal
import sys
from _thread import start_new_thread
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final

import click
import trio

from dspex_trio.cli.ending import log_stacks_on_signal, tell_stacks
from dspex_trio.cli.log.writer import Lines
from dspex_trio.cli.outputs import refuse_overwriting, refuse_unwritable
from dspex_trio.cli.run_report import progress_before, progress_line, summary
from dspex_trio.cli.serve import state_lines
from dspex_trio.model.errors import FailureKind, WorkerStuck
from dspex_trio.model.lm_arguments import SAMPLING
from dspex_trio.observing.records import CannotRecord
from dspex_trio.observing.telemetry import open_exporters, open_metrics
from dspex_trio.runs import (
    CannotKeep,
    Embedded,
    InvalidPlan,
    Metric,
    Planned,
    Remote,
    Results,
    RunProgress,
    UnknownMetric,
    Worker,
    WorkerRefused,
    compare,
    export,
    metric_named,
    of_plan,
    open_results,
    read_plan,
    run_trials,
    summarized,
)
from dspex_trio.runs.metrics import about, source_of
from dspex_trio.runtime.client import open_client
from dspex_trio.runtime.embedded import Runtime, open_runtime
from dspex_trio.runtime.loading import CannotLoad
from dspex_trio.runtime.settings import InvalidSettings, Settings
from dspex_trio.tasks.signals import STATE_SIGNALS, EndSignals, Meaning, wanted_end_signals
from dspex_trio.wire import read_json

logger: Final = logging.getLogger("dspex_trio")

EXIT_ALL_ENDED: Final = 0
EXIT_NOT_ALL: Final = 1
EXIT_INTERRUPTED: Final = 130
_CANNOT: Final = (
    InvalidPlan, InvalidSettings, CannotKeep, CannotLoad, CannotRecord, UnknownMetric, WorkerRefused, WorkerStuck,
)  # fmt: skip
# A line for a log, in seconds.
_LOG_EVERY: Final = 10.0
_SHOWN_EVERY: Final = 0.2
_MOST_TOLD: Final = 10
_NO_PARQUET: Final = "Parquet needs pyarrow: pip install 'dspex-trio[parquet]'"


@dataclass(frozen=True, slots=True)
class RunArguments:
    """The arguments and options of the command."""

    trials: Path
    results: Path
    program: Path | None
    sweep: tuple[str, ...]
    worker: tuple[str, ...]
    token: str | None
    concurrency: int
    timeout: float
    retries: int
    retry_failed: frozenset[FailureKind]
    metric: str | None
    metric_timeout: float
    export: Path | None
    config: Path | None


def run(wanted: RunArguments, settings: Settings, lines: Lines) -> int:
    """Run what is wanted, with its progress in `lines`; the exit code."""
    log_stacks_on_signal()
    sys.path.insert(0, "")  # as `python -m` has it: a metric or a program may lie beside the trials
    try:
        metric = None if wanted.metric is None else metric_named(wanted.metric)
        _check_outputs(wanted, settings, metric)
        plan = _plan(wanted)
        with open_results(wanted.results) as results:
            compared = partial(
                compare, plan, results, lm=_lm(wanted, settings), metric=None if metric is None else about(metric)
            )
            kept = compared(retry_failed=wanted.retry_failed)
            for line in progress_before(kept, plan, wanted.results, wanted.metric):
                click.echo(line, err=True)
            progress = trio.run(partial(_run, wanted, settings, plan, results, metric, lines=lines))
            after = compared()
            ended = list(of_plan(plan, results))
    except* (*_CANNOT, OSError) as group:
        raise click.ClickException(str(_first(group))) from None
    for line in summary(summarized(ended), ended):
        click.echo(line)
    if wanted.export is not None:
        _export(ended, wanted.export)
    if unscored := sum("score" not in result for _, result in after.stale):
        click.echo(f"{unscored} results are not scored yet; the same command scores them", err=True)
    left = len(plan) - len(after.results) if progress is None else len(kept.missing) - progress.ended.total()
    return _verdict(left, progress, wanted.results)


def _lm(wanted: RunArguments, settings: Settings) -> dict[str, Any] | None:
    """The language model of programs that name none; what says where it is reached makes it no other one."""
    if wanted.worker or settings.lm is None:
        return None
    return {"model": settings.lm, **{name: value for name, value in settings.lm_args.items() if name in SAMPLING}}


def _check_outputs(wanted: RunArguments, settings: Settings, metric: Metric | None) -> None:
    """Refuse outputs that cannot be written, before the first trial costs anything."""
    loaded = () if wanted.worker else settings.load
    inputs = [
        ("TRIALS", wanted.trials),
        ("--program", wanted.program),
        ("--config", wanted.config),
        ("--metric", None if metric is None else source_of(metric)),
        *((f"--load {name}:", _source(name)) for name in loaded),
    ]
    refuse_overwriting("--results", wanted.results, inputs)
    refuse_overwriting("--export", wanted.export, [*inputs, ("--results", wanted.results)])
    refuse_unwritable("--export", wanted.export)
    if wanted.export is not None and wanted.export.suffix == ".parquet" and find_spec("pyarrow") is None:
        raise click.ClickException(_NO_PARQUET)


def _source(module: str) -> Path | None:
    try:
        found = find_spec(module)
    except (ImportError, ValueError):  # loading it will say what is wrong
        return None
    return None if found is None or found.origin is None else Path(found.origin)


async def _run(
    wanted: RunArguments,
    settings: Settings,
    plan: Sequence[Planned],
    results: Results,
    metric: Metric | None,
    *,
    lines: Lines,
) -> RunProgress | None:
    """The run's final progress; None if it was interrupted."""
    view = _View(lines)
    progress: RunProgress | None = None
    with trio.open_signal_receiver(*wanted_end_signals(), *STATE_SIGNALS) as signals:
        async with trio.open_nursery() as nursery:
            running = trio.CancelScope()
            nursery.start_soon(_end_on, signals, running, view, lines)
            nursery.start_soon(view.show)
            with running:
                async with _open_workers(wanted, settings, view) as workers:
                    progress = await run_trials(
                        plan,
                        workers,
                        results,
                        concurrency=wanted.concurrency,
                        timeout=wanted.timeout,
                        retries=wanted.retries,
                        metric=metric,
                        metric_seconds=wanted.metric_timeout,
                        lm=_lm(wanted, settings),
                        retry_failed=wanted.retry_failed,
                        on_progress=view.update,
                    )
            nursery.cancel_scope.cancel()
    view.end()
    lines.flush()
    return progress


def _plan(wanted: RunArguments) -> list[Planned]:
    program = None if wanted.program is None else _program(wanted.program)
    sweep = dict(_swept(text) for text in wanted.sweep)
    with wanted.trials.open("rb") as lines:
        try:
            return read_plan(lines, program=program, sweep=sweep or None)
        except InvalidPlan as error:
            raise InvalidPlan(f"{wanted.trials}, {error}") from None


def _program(path: Path) -> dict[str, Any]:
    try:
        found = read_json(path.read_bytes())
    except (ValueError, RecursionError) as error:
        raise InvalidPlan(f"{path} is no JSON: {error}") from None
    if not isinstance(found, dict):
        raise InvalidPlan(f"{path} is no program: it holds no JSON object")
    return found


def _swept(text: str) -> tuple[str, list[Any]]:
    name, equals, values = text.partition("=")
    try:
        found = read_json(f"[{values}]")
    except ValueError:
        found = values.split(",")
    if not equals or not found:
        raise InvalidPlan(f"--sweep {text!r} is not VARIABLE=VALUE,VALUE, such as temperature=0,0.5,1")
    return name, found


@asynccontextmanager
async def _open_workers(wanted: RunArguments, settings: Settings, view: _View) -> AsyncIterator[list[Worker]]:
    async with AsyncExitStack() as stack:
        exporters = await stack.enter_async_context(open_exporters(settings, lambda: settings.grace_seconds))
        telemetry = await stack.enter_async_context(open_metrics(settings, exporters))
        workers: list[Worker] = [
            Remote(
                target,
                await stack.enter_async_context(open_client(target, token=wanted.token, telemetry=telemetry)),
            )
            for target in wanted.worker
        ]
        if not workers:
            given = settings.model_copy(update={"max_trials": wanted.concurrency})
            runtime = await stack.enter_async_context(open_runtime(given, telemetry=telemetry))
            view.watch(runtime)
            workers.append(Embedded(runtime))
        yield workers


async def _end_on(signals: AsyncIterator[int], running: trio.CancelScope, view: _View, lines: Lines) -> None:
    came = EndSignals()
    async for number in signals:
        if number in STATE_SIGNALS:
            start_new_thread(tell_stacks, (signal.Signals(number).name,))
            view.tell_state(signal.Signals(number).name)
            continue
        match came.came(number, trio.current_time()):
            case Meaning.FIRST:
                running.cancel()
                lines.put(b"interrupted: what has been answered is kept; once more ends at once\n")
            case Meaning.SECOND:  # a metric may take for ever; what has been kept is the system's already
                lines.flush()
                os._exit(EXIT_INTERRUPTED)
            case Meaning.SAME:
                pass


class _View:
    """The progress: a line that changes on a terminal, now and then a line in a log."""

    def __init__(self, lines: Lines) -> None:
        self._lines = lines
        self._under_way: Callable[[], Iterable[str]] = tuple
        self._progress: RunProgress | None = None
        self._live = sys.stderr.isatty()

    def update(self, progress: RunProgress) -> None:
        self._progress = progress

    def watch(self, runtime: Runtime) -> None:
        """Include this runtime's running trials in what SIGUSR1 logs."""
        self._under_way = partial(state_lines, runtime)

    def tell_state(self, why: str) -> None:
        """Log how far it has come, and what is under way in this process."""
        progress = "nothing yet" if self._progress is None else progress_line(self._progress, None)
        logger.warning("%s: %s; under way here: %s", why, progress, "; ".join(self._under_way()) or "nothing")

    async def show(self) -> None:
        while True:
            await trio.sleep(_SHOWN_EVERY if self._live else _LOG_EVERY)
            self._write()

    def end(self) -> None:
        self._write(seconds=None)
        if self._live and self._progress is not None:
            self._lines.put(b"\n")

    def _write(self, seconds: float | None = 0.0) -> None:
        if (progress := self._progress) is None:
            return
        if seconds is not None:
            seconds = trio.current_time() - progress.began
        line = progress_line(progress, seconds)
        if self._live:
            width = shutil.get_terminal_size().columns
            self._lines.put(f"\r{line[: width - 1].ljust(width - 1)}".encode())
        else:
            self._lines.put(f"{line}\n".encode())


def _export(results: Sequence[Mapping[str, Any]], path: Path) -> None:
    try:
        export(results, path)
    except ModuleNotFoundError:
        raise click.ClickException(_NO_PARQUET) from None
    except OSError as error:
        raise click.ClickException(f"{path}: {error.strerror or error}") from None


def _verdict(left: int, progress: RunProgress | None, results: Path) -> int:
    if progress is None:
        click.echo(f"interrupted: {left} trials are left; the same command goes on with them", err=True)
        return EXIT_INTERRUPTED
    for trial_id, why in list(progress.given_up.items())[:_MOST_TOLD]:
        click.echo(f"{trial_id} did not end: {why}", err=True)
    if (more := len(progress.given_up) - _MOST_TOLD) > 0:
        click.echo(f"and {more} more", err=True)
    if left:
        click.echo(f"{left} trials did not end; the same command tries them again", err=True)
        return EXIT_NOT_ALL
    click.echo(f"results in {results}", err=True)
    return EXIT_ALL_ENDED


def _first(group: BaseExceptionGroup[BaseException]) -> BaseException:
    found: BaseException = group
    while isinstance(found, BaseExceptionGroup):
        found = found.exceptions[0]
    return found
