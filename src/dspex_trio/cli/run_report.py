"""What `dspex-trio run` prints: its progress, the results of earlier runs that it keeps, and its summary."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

from dspex_trio.observing.redaction import printable
from dspex_trio.runs import Kept, Line, Planned, RunProgress
from dspex_trio.runs.summary import percentile
from dspex_trio.wire import json_text

_LONGEST: Final = 300  # characters of somebody's message


def progress_line(progress: RunProgress, seconds: float | None) -> str:
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


def progress_before(kept: Kept, plan: Sequence[Planned], file: object, metric: str | None) -> Iterator[str]:
    """Lines about the results that the file holds already: how many are kept and how many are scored again."""
    if kept.results:
        yield f"{len(kept.results)} of {len(plan)} trials have a result in {file} already"
    if kept.failed:
        yield f"{kept.failed} of these are failures, which are kept; --retry-failed runs them again"
    if kept.retried:
        yield f"{kept.retried} of these are failures that are run again"
    if kept.other_programs:
        yield (
            f"{kept.other_programs} trials have results of another program: these are kept as another configuration, "
            f"and the trials are run"
        )
    for model, count in kept.other_models.items():
        yield (
            f"{count} trials have results of {model}, or of other arguments for it: these are kept as another "
            f"configuration, and the trials are run"
        )
    if kept.unknown_models:
        yield (
            f"{kept.unknown_models} results are kept although it is not known that they are of the same language "
            f"model: they, or the workers, do not say which it is"
        )
    if kept.unknown_metrics:
        yield f"{kept.unknown_metrics} scores are kept whose metric is unknown; --metric scores them again"
    for reason, count in kept.reasons.items():
        then = f"scored again by {metric}" if metric is not None else "not scored any more, for there is no --metric"
        yield f"{count} results are {then}: {reason}"


def summary(lines: Sequence[Line], results: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    """A table of the configurations, and what went wrong."""
    failed = any(line.metric_failed for line in lines)
    headings = ("configuration", "trials", "OK", "score", "p50", "p99", "tokens", "cost")
    rows = [headings, *(_row(line, label) for line, label in zip(lines, _labels(lines), strict=True))]
    if failed:
        counts = [f"{line.metric_failed} of {line.metric_asked}" for line in lines]
        rows = [(*row, cell) for row, cell in zip(rows, ["metric failed", *counts], strict=True)]
    sizes = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    for row in rows:
        first, *rest = row
        cells = [cell.rjust(size) for cell, size in zip(rest, sizes[1:], strict=True)]
        yield "  ".join([first.ljust(sizes[0]), *cells])
    yield from _failures(lines, results)
    if failed:
        asked, without = (sum(getattr(line, name) for line in lines) for name in ("metric_asked", "metric_failed"))
        first = next(line.metric_error for line in lines if line.metric_failed)
        yield printable(f"metric failed for {without} of {asked} trials: {_short(first)}")


def _failures(lines: Sequence[Line], results: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    kinds: Counter[str] = Counter()
    for line in lines:
        kinds.update({kind: count for kind, count in line.kinds.items() if kind != "OK"})
    if not kinds:
        return
    yield "failures: " + ", ".join(f"{count} {printable(kind)}" for kind, count in sorted(kinds.items()))
    firsts: dict[str, str] = {}
    for result in results:
        if (failure := result["outcome"].get("failure")) is not None:
            kind = str(failure.get("kind", "")).removeprefix("FAILURE_KIND_")
            firsts.setdefault(kind, f"{result['id']}: {_short(str(failure.get('error_message', '')))}")
    for kind, first in sorted(firsts.items()):
        yield printable(f"  {kind}, such as {first}")


def _row(line: Line, label: str) -> tuple[str, ...]:
    return (
        printable(label) or "(as given)",
        str(line.trials),
        str(line.kinds.get("OK", 0)),
        "-" if line.score is None else f"{line.score:.3f}",
        f"{line.p50_ms:.0f} ms",
        f"{line.p99_ms:.0f} ms",
        str(line.tokens),
        ("" if line.cost_known else "≥ ") + f"${line.cost_usd:.4f}",
    )


def _labels(lines: Sequence[Line]) -> Iterator[str]:
    """Variables, and of program, language model and metric what tells the lines apart."""
    programs = {line.program for line in lines}
    lms = {json_text(line.lm) for line in lines}
    metrics = {line.metric for line in lines}
    for line in lines:
        told = [f"{name}={json_text(value)}" for name, value in line.configuration.items()]
        if len(programs) > 1:
            told.append(f"program={line.program or '?'}")
        if len(lms) > 1:
            told += [f"{name}={_plain(value)}" for name, value in (line.lm or {"model": "?"}).items()]
        if len(metrics) > 1 and line.metric is not None:
            told.append(f"metric={line.metric or '?'}")
        yield ", ".join(told)


def _plain(value: Any) -> str:
    return value if isinstance(value, str) else json_text(value)


def _short(text: str) -> str:
    """On one line, without what would steer a terminal."""
    line = "".join(each if each.isprintable() else "?" for each in " ".join(text.split()))
    return line if len(line) <= _LONGEST else line[: _LONGEST - 1] + "…"
