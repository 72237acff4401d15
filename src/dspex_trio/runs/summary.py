"""What a run came to, by configuration; and its results as a table for other tools."""

from __future__ import annotations

import csv
import re
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final, TypeVar

from dspex_trio.runs.plan import in_order
from dspex_trio.runs.results import Result
from dspex_trio.wire import encode_json, json_text

T = TypeVar("T")

_COLUMNS: Final = (
    "id",
    "kind",
    "score",
    "tries",
    "worker",
    "latency_ms",
    "prompt_tokens",
    "completion_tokens",
    "cost_usd",
    "cost_known",
    "error_message",
    "program",
    "model",
    "metric",
    "metric_error",
)
# What spreadsheets take for a formula begins with one of these; in East Asian ones also with their wide forms.
_FORMULAS: Final = ("=", "+", "-", "@", "\t", "\r", "\n", "\uff1d", "\uff0b", "\uff0d", "\uff20")
_NUMBER: Final = re.compile(r"[+-]?(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][+-]?[0-9]+)?", re.ASCII)
_LARGEST: Final = 2**63 - 1
"""The largest integer that a column of Parquet's holds."""
_LARGEST_IN_FLOAT: Final = 2**53
"""The largest up to which every integer is a float, too."""


@dataclass(frozen=True, slots=True)
class Line:
    """One configuration.

    Attributes:
        configuration: Variable → value; empty for trials without any.
        kinds: How its trials ended, with the counts.
        score: The mean of the scores that there are; None without any.
        p50_ms: Half of its trials took no longer.
        p99_ms: And 99 of 100 no longer than this.
        tokens: That they used.
        cost_usd: What is known of their cost.
        cost_known: Whether that is all.
        program: What it is called; two that are called alike have their digests behind it.
        lm: The language model, `model` and arguments; `model` names several where no operator's choice is known, and
            calls went to several. None where there was no call either.
        metric: Who scored them; None for nobody, empty where that is not known.
        metric_asked: How many the metric was asked about.
        metric_failed: And for how many it failed.
        metric_error: The first of its failures.
    """

    configuration: Mapping[str, Any]
    kinds: Mapping[str, int]
    score: float | None
    p50_ms: float
    p99_ms: float
    tokens: int
    cost_usd: float
    cost_known: bool
    program: str = ""
    lm: Mapping[str, Any] | None = None
    metric: str | None = None
    metric_asked: int = 0
    metric_failed: int = 0
    metric_error: str = ""

    @property
    def trials(self) -> int:
        """How many there are."""
        return sum(self.kinds.values())


def summarized(results: Iterable[Result]) -> list[Line]:
    """The configurations, the best scored first: variables, program, language model, and who scored them."""
    found = list(results)
    keys = list(_known_by_others([_configuration(result) for result in found]))
    together: dict[_Configuration, list[Result]] = {}
    for key, result in zip(keys, found, strict=True):
        together.setdefault(key, []).append(result)
    digests: dict[str, set[str]] = {}
    for key in together:
        digests.setdefault(key.program, set()).add(key.program_digest)
    lines = [_line(key, each, alike=len(digests[key.program]) > 1) for key, each in together.items()]
    return sorted(lines, key=lambda line: -1.0 if line.score is None else line.score, reverse=True)


@dataclass(frozen=True, slots=True)
class _Configuration:
    variables: bytes
    program: str
    program_digest: str
    lm: bytes | None
    metric: tuple[str, str] | None


def _configuration(result: Result) -> _Configuration:
    lm = _lm(result)
    return _Configuration(
        encode_json(in_order(result.get("variables") or {})),
        str(result.get("program", "")),
        str(result.get("program_digest", "")),
        None if lm is None else encode_json(in_order(lm)),
        (str(result.get("metric", "")), str(result.get("metric_digest", ""))) if "score" in result else None,
    )


def _lm(result: Result) -> Mapping[str, Any] | None:
    """That it was run with; those that its calls went to, where no choice is known."""
    if result.get("lm") is not None:
        lm: Mapping[str, Any] = result["lm"]
        return lm
    models = result.get("models")
    return {"model": ", ".join(map(str, models))} if models else None


def _known_by_others(keys: Sequence[_Configuration]) -> Iterator[_Configuration]:
    """A trial that failed before its first call, or has no score, stands with the others, if these are of one kind."""
    lms: dict[_Configuration, set[bytes]] = {}
    metrics: dict[_Configuration, set[tuple[str, str]]] = {}
    for key in keys:
        apart = replace(key, lm=None, metric=None)
        if key.lm is not None:
            lms.setdefault(apart, set()).add(key.lm)
        if key.metric is not None:
            metrics.setdefault(apart, set()).add(key.metric)
    for key in keys:
        apart = replace(key, lm=None, metric=None)
        yield replace(
            key, lm=key.lm or _only(lms.get(apart, set())), metric=key.metric or _only(metrics.get(apart, set()))
        )


def _only(values: Collection[T]) -> T | None:
    return next(iter(values)) if len(values) == 1 else None


def _line(key: _Configuration, results: Sequence[Result], *, alike: bool) -> Line:
    rows = [_row(result) for result in results]
    scores = [row["score"] for row in rows if row["score"] is not None]
    latencies = [row["latency_ms"] for row in rows]
    failures = [str(result["metric_error"]) for result in results if result.get("metric_error")]
    return Line(
        results[0].get("variables") or {},
        Counter(row["kind"] for row in rows),
        sum(scores) / len(scores) if scores else None,
        percentile(latencies, 50),
        percentile(latencies, 99),
        sum(row["prompt_tokens"] + row["completion_tokens"] for row in rows),
        sum(row["cost_usd"] for row in rows),
        all(row["cost_known"] for row in rows),
        program=f"{key.program}#{key.program_digest[:6]}" if alike else key.program,
        lm=next(filter(None, map(_lm, results)), None),
        metric=None if key.metric is None else key.metric[0],
        metric_asked=sum("score" in result and "success" in result["outcome"] for result in results),
        metric_failed=len(failures),
        metric_error=failures[0] if failures else "",
    )


def percentile(values: Iterable[float], percent: float) -> float:
    """The smallest value that `percent` of them do not exceed; 0 without any."""
    ordered = sorted(values)
    return ordered[max(0, -(-int(percent * len(ordered)) // 100) - 1)] if ordered else 0.0


def _row(result: Mapping[str, Any]) -> dict[str, Any]:
    outcome = result["outcome"]
    ended = outcome.get("success") or outcome["failure"]
    cost = ended.get("cost", {})
    usage = cost.get("usage", {})
    return {
        "id": result["id"],
        "kind": str(ended["kind"]).removeprefix("FAILURE_KIND_") if "failure" in outcome else "OK",
        "score": result.get("score"),
        "tries": result.get("tries", 1),
        "worker": result.get("worker", ""),
        "latency_ms": float(ended.get("timings", {}).get("total_ms", 0.0)),
        "prompt_tokens": usage.get("prompt_tokens", 0),
        "completion_tokens": usage.get("completion_tokens", 0),
        "cost_usd": cost.get("total_usd", 0.0),
        "cost_known": bool(cost.get("known", False)),
        "error_message": ended.get("error_message", ""),
        "program": result.get("program", ""),
        "model": (_lm(result) or {}).get("model", ""),
        "metric": result.get("metric", ""),
        "metric_error": result.get("metric_error", ""),
    }


def export(results: Iterable[Mapping[str, Any]], path: Path) -> None:
    """Write the results as a table: CSV, or Parquet where the name ends so and `dspex-trio[parquet]` is installed.

    The columns are those of a summary, then `variable.<name>`, `prediction.<field>` and `expected.<field>`; what is
    neither text nor a number is JSON. In CSV, text that a spreadsheet would take for a formula has a `'` before it.

    Raises:
        ModuleNotFoundError: Parquet was asked for without pyarrow.
        OSError: It cannot be written.
    """
    rows = [{**_row(result), **dict(_own_columns(result))} for result in results]
    names = list(dict.fromkeys((*_COLUMNS, *(name for row in rows for name in row))))
    if path.suffix == ".parquet":
        _write_parquet(rows, names, path)
        return
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, names)
        writer.writerow({name: _cell(name) for name in names})
        writer.writerows({name: _cell(value) for name, value in row.items()} for row in rows)


def _cell(value: Any) -> Any:
    """What spreadsheets show as it is: text that begins like a formula is marked as text, numbers in text stay.

    An integer may have more digits than Python's csv writes.
    """
    if type(value) is int:
        return json_text(value)
    if isinstance(value, str) and value.startswith(_FORMULAS) and _NUMBER.fullmatch(value) is None:
        return f"'{value}"
    return value


def _own_columns(result: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    prediction = (result["outcome"].get("success") or {}).get("prediction", {})
    for title, fields in (
        ("variable", result.get("variables") or {}),
        ("prediction", prediction),
        ("expected", result.get("expected") or {}),
    ):
        for name, value in fields.items():
            yield f"{title}.{name}", value if isinstance(value, str | int | float) else json_text(value)


def _write_parquet(rows: Sequence[Mapping[str, Any]], names: Sequence[str], path: Path) -> None:
    import pyarrow as pa  # noqa: PLC0415 - an extra
    from pyarrow import parquet  # noqa: PLC0415 - as above

    columns = {}
    for name in names:
        values = [row.get(name) for row in rows]
        columns[name] = of_one_type(values)
    parquet.write_table(pa.table(columns), path)


def of_one_type(values: Sequence[Any]) -> list[Any]:
    """Values of a column as Parquet takes them.

    Integers beside fractions are numbers where none is rounded; other mixtures are text.
    """
    types = {type(value) for value in values if value is not None}
    whole = [abs(value) for value in values if type(value) is int]
    if types == {int, float} and max(whole) <= _LARGEST_IN_FLOAT:
        return [None if value is None else float(value) for value in values]
    if len(types) > 1 or max(whole, default=0) > _LARGEST:
        return [value if value is None or isinstance(value, str) else json_text(value) for value in values]
    return list(values)
