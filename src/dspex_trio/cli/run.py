"""`dspex-trio run`: the trials of a file, on workers or in this process."""

from __future__ import annotations

import json
import os
import shutil
import signal
import sys
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Final

import click
import trio

from dspex_trio.client import open_client
from dspex_trio.config import InvalidSettings, Settings
from dspex_trio.errors import WorkerStuck
from dspex_trio.observe import CannotRecord
from dspex_trio.programs import CannotLoad
from dspex_trio.redaction import printable
from dspex_trio.runs import (
    CannotKeep,
    Embedded,
    InvalidPlan,
    Line,
    Metric,
    Planned,
    Progress,
    Refused,
    Remote,
    Results,
    UnknownMetric,
    Worker,
    export,
    metric_named,
    open_results,
    read_plan,
    run_trials,
    summarized,
)
from dspex_trio.runs.summary import percentile
from dspex_trio.runtime import open_runtime
from dspex_trio.telemetry import open_exporters, open_metrics

EXIT_ALL_ENDED: Final = 0
EXIT_NOT_ALL: Final = 1
EXIT_INTERRUPTED: Final = 130
_CANNOT: Final = (
    InvalidPlan, InvalidSettings, CannotKeep, CannotLoad, CannotRecord, UnknownMetric, Refused, WorkerStuck,
)  # fmt: skip
# A line for a log, in seconds.
_LOG_EVERY: Final = 10.0
_SHOWN_EVERY: Final = 0.2


@dataclass(frozen=True, slots=True)
class Wanted:
    """What the command line says."""

    trials: Path
    results: Path
    program: Path | None
    sweep: tuple[str, ...]
    worker: tuple[str, ...]
    token: str | None
    concurrency: int
    timeout: float
    retries: int
    metric: str | None
    export: Path | None


def run(wanted: Wanted, settings: Settings) -> int:
    """Run what is wanted; the exit code."""
    sys.path.insert(0, "")  # as `python -m` has it: a metric or a program may lie beside the trials
    try:
        metric = None if wanted.metric is None else metric_named(wanted.metric)
        plan = _plan(wanted)
        with open_results(wanted.results) as results:
            kept = len(plan) - len(results.missing(plan))
            if kept:
                click.echo(f"{kept} of {len(plan)} trials have a result in {wanted.results} already", err=True)
            progress = trio.run(partial(_run, wanted, settings, plan, results, metric))
            ended = [results.by_id[trial.id] for trial in plan if trial.id in results.by_id]
    except* (*_CANNOT, OSError) as group:
        raise click.ClickException(str(_first(group))) from None
    for line in _summary(summarized(ended)):
        click.echo(line)
    if wanted.export is not None:
        _export(ended, wanted.export)
    return _verdict(plan, len(ended), progress, wanted.results)


async def _run(
    wanted: Wanted, settings: Settings, plan: Sequence[Planned], results: Results, metric: Metric | None
) -> Progress | None:
    """What it came to; None if it was interrupted."""
    view = _View()
    progress: Progress | None = None
    with trio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
        async with trio.open_nursery() as nursery:
            running = trio.CancelScope()
            nursery.start_soon(_end_on, signals, running)
            nursery.start_soon(view.show)
            with running:
                async with _open_workers(wanted, settings) as workers:
                    progress = await run_trials(
                        plan,
                        workers,
                        results,
                        concurrency=wanted.concurrency,
                        timeout=wanted.timeout,
                        retries=wanted.retries,
                        metric=metric,
                        on_progress=view.update,
                    )
            nursery.cancel_scope.cancel()
    view.end()
    return progress


def _plan(wanted: Wanted) -> list[Planned]:
    program = None if wanted.program is None else _program(wanted.program)
    sweep = dict(_swept(text) for text in wanted.sweep)
    with wanted.trials.open("rb") as lines:
        return read_plan(lines, program=program, sweep=sweep or None)


def _program(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_bytes())
    except (ValueError, RecursionError) as error:
        raise InvalidPlan(f"{path} is no JSON: {error}") from None
    if not isinstance(found, dict):
        raise InvalidPlan(f"{path} is no program: it holds no JSON object")
    return found


def _swept(text: str) -> tuple[str, list[Any]]:
    name, equals, values = text.partition("=")
    try:
        found = json.loads(f"[{values}]")
    except ValueError:
        found = values.split(",")
    if not equals or not found:
        raise InvalidPlan(f"--sweep {text!r} is not VARIABLE=VALUE,VALUE, such as temperature=0,0.5,1")
    return name, found


@asynccontextmanager
async def _open_workers(wanted: Wanted, settings: Settings) -> AsyncIterator[list[Worker]]:
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
            workers.append(Embedded(await stack.enter_async_context(open_runtime(given, telemetry=telemetry))))
        yield workers


async def _end_on(signals: AsyncIterator[int], running: trio.CancelScope) -> None:
    async for _ in signals:
        if running.cancel_called:  # a metric may take for ever; what has been kept is the system's already
            os._exit(EXIT_INTERRUPTED)
        running.cancel()
        click.echo("interrupted: what has been answered is kept; once more ends at once", err=True)


class _View:
    """The progress: a line that changes on a terminal, now and then a line in a log."""

    def __init__(self) -> None:
        self._progress: Progress | None = None
        self._live = sys.stderr.isatty()

    def update(self, progress: Progress) -> None:
        self._progress = progress

    async def show(self) -> None:
        while True:
            await trio.sleep(_SHOWN_EVERY if self._live else _LOG_EVERY)
            self._write()

    def end(self) -> None:
        self._write(seconds=None)
        if self._live and self._progress is not None:
            click.echo(err=True)

    def _write(self, seconds: float | None = 0.0) -> None:
        if (progress := self._progress) is None:
            return
        if seconds is not None:
            seconds = trio.current_time() - progress.began
        line = progress_line(progress, seconds)
        if self._live:
            width = shutil.get_terminal_size().columns
            click.echo(f"\r{line[: width - 1].ljust(width - 1)}", err=True, nl=False)
        else:
            click.echo(line, err=True)


def progress_line(progress: Progress, seconds: float | None) -> str:
    """How far it has come; `seconds` since it began give the rate and the time that is left."""
    told = [f"{progress.done}/{progress.total}"]
    told += [f"{count} {kind}" for kind, count in progress.ended.most_common()]
    if progress.given_up:
        told.append(f"{len(progress.given_up)} not ended")
    if progress.latencies_ms:
        p50, p99 = (percentile(progress.latencies_ms, each) for each in (50, 99))
        told.append(f"p50 {p50:.0f} ms, p99 {p99:.0f} ms")
    if progress.tokens:
        told.append(f"{progress.tokens} tokens, ${progress.cost_usd:.4f}")
    if seconds and progress.done:
        rate = progress.done / seconds
        told.append(f"{rate:.1f}/s, {(progress.total - progress.done) / rate:.0f} s left")
    return " · ".join(told)


def _summary(lines: Sequence[Line]) -> Iterator[str]:
    headings = ("configuration", "trials", "OK", "score", "p50", "p99", "tokens", "cost")
    rows = [headings, *(_row(line) for line in lines)]
    sizes = [max(len(row[column]) for row in rows) for column in range(len(headings))]
    for row in rows:
        first, *rest = row
        cells = [cell.rjust(size) for cell, size in zip(rest, sizes[1:], strict=True)]
        yield "  ".join([first.ljust(sizes[0]), *cells])
    kinds: dict[str, int] = {}
    for line in lines:
        for kind, count in line.kinds.items():
            kinds[kind] = kinds.get(kind, 0) + count
    if failed := {kind: count for kind, count in kinds.items() if kind != "OK"}:
        yield "failures: " + ", ".join(f"{count} {printable(kind)}" for kind, count in sorted(failed.items()))


def _row(line: Line) -> tuple[str, ...]:
    values = {name: json.dumps(value, ensure_ascii=False) for name, value in line.configuration.items()}
    configuration = ", ".join(f"{name}={value}" for name, value in values.items())
    return (
        printable(configuration) or "(as given)",
        str(line.trials),
        str(line.kinds.get("OK", 0)),
        "-" if line.score is None else f"{line.score:.3f}",
        f"{line.p50_ms:.0f} ms",
        f"{line.p99_ms:.0f} ms",
        str(line.tokens),
        ("" if line.cost_known else "≥ ") + f"${line.cost_usd:.4f}",
    )


def _export(results: Sequence[Mapping[str, Any]], path: Path) -> None:
    try:
        export(results, path)
    except ModuleNotFoundError:
        raise click.ClickException("Parquet needs pyarrow: pip install 'dspex-trio[parquet]'") from None
    except OSError as error:
        raise click.ClickException(f"{path}: {error.strerror or error}") from None


def _verdict(plan: Sequence[Planned], ended: int, progress: Progress | None, results: Path) -> int:
    if progress is None:
        click.echo(f"interrupted: {len(plan) - ended} trials are left; the same command goes on with them", err=True)
        return EXIT_INTERRUPTED
    for trial_id, why in list(progress.given_up.items())[:10]:
        click.echo(printable(f"{trial_id} did not end: {why}"), err=True)
    if ended < len(plan):
        click.echo(f"{len(plan) - ended} trials did not end; the same command tries them again", err=True)
        return EXIT_NOT_ALL
    click.echo(f"results in {results}", err=True)
    return EXIT_ALL_ENDED


def _first(group: BaseExceptionGroup[BaseException]) -> BaseException:
    found: BaseException = group
    while isinstance(found, BaseExceptionGroup):
        found = found.exceptions[0]
    return found
