"""What a run came to, by configuration; and its results as a table for other tools."""

from __future__ import annotations

import csv
import json
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

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
)
# What spreadsheets take for a formula begins with one of these; in East Asian ones also with their wide forms.
_FORMULAS: Final = ("=", "+", "-", "@", "\t", "\r", "\n", "\uff1d", "\uff0b", "\uff0d", "\uff20")
_NUMBER: Final = re.compile(r"[+-]?(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][+-]?[0-9]+)?", re.ASCII)
_LARGEST: Final = 2**63 - 1
"""The largest integer that a column of Parquet's holds."""


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
    """

    configuration: Mapping[str, Any]
    kinds: Mapping[str, int]
    score: float | None
    p50_ms: float
    p99_ms: float
    tokens: int
    cost_usd: float
    cost_known: bool

    @property
    def trials(self) -> int:
        """How many there are."""
        return sum(self.kinds.values())


def summarized(results: Iterable[Mapping[str, Any]]) -> list[Line]:
    """The configurations, the best scored first."""
    by_configuration: dict[str, list[Mapping[str, Any]]] = {}
    for result in results:
        key = json.dumps(result.get("variables", {}), sort_keys=True)
        by_configuration.setdefault(key, []).append(result)
    lines = [_line(json.loads(key), found) for key, found in by_configuration.items()]
    return sorted(lines, key=lambda line: -1.0 if line.score is None else line.score, reverse=True)


def _line(configuration: Mapping[str, Any], results: Sequence[Mapping[str, Any]]) -> Line:
    rows = [_row(result) for result in results]
    scores = [row["score"] for row in rows if row["score"] is not None]
    latencies = [row["latency_ms"] for row in rows]
    return Line(
        configuration,
        Counter(row["kind"] for row in rows),
        sum(scores) / len(scores) if scores else None,
        percentile(latencies, 50),
        percentile(latencies, 99),
        sum(row["prompt_tokens"] + row["completion_tokens"] for row in rows),
        sum(row["cost_usd"] for row in rows),
        all(row["cost_known"] for row in rows),
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
    """What spreadsheets show as it is: text that begins like a formula is marked as text, numbers in text stay."""
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
            plain = isinstance(value, str | int | float)
            yield f"{title}.{name}", value if plain else json.dumps(value, ensure_ascii=False)


def _write_parquet(rows: Sequence[Mapping[str, Any]], names: Sequence[str], path: Path) -> None:
    import pyarrow as pa  # noqa: PLC0415 - an extra
    from pyarrow import parquet  # noqa: PLC0415 - as above

    columns = {}
    for name in names:
        values = [row.get(name) for row in rows]
        columns[name] = of_one_type(values)
    parquet.write_table(pa.table(columns), path)


def of_one_type(values: Sequence[Any]) -> list[Any]:
    """Values of a column as Parquet takes them: integers beside fractions are numbers, other mixtures are text."""
    types = {type(value) for value in values if value is not None}
    if types == {int, float}:
        return [None if value is None else float(value) for value in values]
    if len(types) > 1 or any(type(value) is int and abs(value) > _LARGEST for value in values):
        return [value if value is None or isinstance(value, str) else json.dumps(value) for value in values]
    return list(values)
