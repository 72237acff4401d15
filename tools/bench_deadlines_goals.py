"""What `tools/bench_deadlines.py` must find, on a machine that does nothing else."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

from bench_table import percentile

MEGABYTE: Final = 1e6
# In milliseconds after the deadline, at the 99th percentile: the caller has its failure; the provider sees the close.
LATE_MS: Final = 5.0
CLOSE_MS: Final = 10.0
BESIDE_BURNERS_MS: Final = 50.0
# How long a trial of 10 ms may take after very many that timed out, in milliseconds.
NEXT_TRIAL_MS: Final = 20.0
# So much may the memory grow between a tenth of the timed-out trials and all of them, in bytes.
GROWTH: Final = 8 * MEGABYTE
# Sockets that the worker keeps in pools, whatever happens.
POOLED: Final = 2


@dataclass(frozen=True, slots=True)
class Goal:
    """Something that was promised.

    Attributes:
        what: For people.
        found: What was measured.
        met: Whether that is as good as promised.
    """

    what: str
    found: str
    met: bool


def goals(found: dict[str, Any]) -> Iterator[Goal]:
    """Each goal with what was found."""
    samples = [sample for scenario in found["scenarios"] for sample in scenario["samples"]]
    yield from _of_scenarios(found["scenarios"], samples)
    yield from _of_many(found["many"])
    burners = found["burners"]
    yield _at_most("late at the caller beside eight threads that compute, p99", burners["late_ms"], BESIDE_BURNERS_MS)
    yield _all_timed_out("trials beside them", burners["kinds"])


def _of_scenarios(scenarios: list[dict[str, Any]], samples: list[dict[str, Any]]) -> Iterator[Goal]:
    kinds: dict[str, int] = {}
    for sample in samples:
        kinds[sample["kind"]] = kinds.get(sample["kind"], 0) + 1
    yield _all_timed_out(f"trials of {len(scenarios)} scenarios", kinds)
    yield _at_most("late at the caller, p99", [each["late_ms"] for each in samples], LATE_MS)
    closes = [each["close_ms"] for each in samples if each["close_ms"] is not None]
    yield _at_most("the provider sees the close, p99", closes, CLOSE_MS)
    asked, closed = (sum(each[name] for each in samples) for name in ("asked", "closes"))
    yield Goal("connections closed", f"{closed} of {asked}", closed == asked)
    left = sum(each["left"]["busy_threads"] for each in scenarios)
    yield Goal("threads that run a program afterwards", str(left), left == 0)


def _of_many(many: dict[str, Any]) -> Iterator[Goal]:
    yield _all_timed_out("very many trials", many["kinds"])
    yield Goal("their connections closed", f"{many['closed']} of {many['asked']}", many["closed"] == many["asked"])
    before, first, last = many["before"], many["censuses"][0], many["censuses"][-1]
    yield Goal("threads that run a program after them", str(last["busy_threads"]), last["busy_threads"] == 0)
    if last["sockets"] is not None:
        more = last["sockets"] - before["sockets"]
        yield Goal("sockets more than before", str(more), more <= POOLED)
    if last["rss_bytes"] is not None:
        growth = last["rss_bytes"] - first["rss_bytes"]
        yield Goal("memory that it grew after the first tenth, MB", f"{growth / MEGABYTE:.1f}", growth <= GROWTH)
    taken = many["next_trial_ms"]
    yield Goal("the next trial of 10 ms takes, ms", f"{taken[0]:.1f}", taken[0] <= NEXT_TRIAL_MS)
    middle = percentile(taken, 50)
    yield Goal("so do those after it, p50, ms", f"{middle:.1f}", middle <= NEXT_TRIAL_MS)


def _at_most(what: str, values: list[float], limit: float) -> Goal:
    worst = percentile(values, 99)
    return Goal(f"{what}, ms (at most {limit:g})", f"{worst:+.1f}", worst <= limit)


def _all_timed_out(what: str, kinds: dict[str, int]) -> Goal:
    told = ", ".join(f"{count} {kind}" for kind, count in kinds.items())
    return Goal(f"{what} end as DEADLINE_EXCEEDED", told, kinds.keys() == {"DEADLINE_EXCEEDED"})
