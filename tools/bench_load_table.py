"""The results of `tools/bench_load.py`: figures, tables, goals."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Final

from bench_deadlines_goals import MEGABYTE, Goal
from bench_load_measure import DEADLINE
from bench_table import percentile, table

ANSWERED: Final = 0.999
LATENCY: Final = 1.2
FRONT_CPU_MS: Final = 0.8
TWO_EXECUTORS: Final = 1.7
LATE_MS: Final = 2.0
# Queued requests may move the lateness by so much, in milliseconds at the 99th percentile.
MOVED_MS: Final = 5.0
STRUCTURED: Final = "DEADLINE_EXCEEDED"

Samples = Sequence[dict[str, Any]]


def hanging(samples: Samples) -> list[dict[str, Any]]:
    """Those that the provider never answers, as far as they ended."""
    return [each for each in samples if each["hangs"] and each["ended"] is not None]


def answered(samples: Samples) -> list[dict[str, Any]]:
    """Those of them whose caller got a structured failure before its own timer fired."""
    return [each for each in hanging(samples) if each["outcome"] == STRUCTURED and late_ms(each) <= 0]


def late_ms(sample: dict[str, Any]) -> float:
    """Milliseconds from the caller's deadline to what it was told; below zero it was told early."""
    return (sample["ended"] - sample["deadline"]) * 1e3  # type: ignore[no-any-return]


def good_ms(samples: Samples) -> list[float]:
    """Milliseconds that each success took."""
    return [(each["ended"] - each["began"]) * 1e3 for each in samples if each["outcome"] == "success"]


def kinds(samples: Samples) -> str:
    """How many ended in which way."""
    found: dict[str, int] = {}
    for each in samples:
        found[each["outcome"]] = found.get(each["outcome"], 0) + 1
    return ", ".join(f"{count} {kind}" for kind, count in sorted(found.items()))


def spread(values: Sequence[float], *, signed: bool = True) -> tuple[str, ...]:
    """Median, 99th percentile and maximum."""
    if not values:
        return ("-", "-", "-")
    figures = (percentile(values, 50), percentile(values, 99), max(values))
    return tuple(f"{value:+.1f}" if signed else f"{value:.0f}" for value in figures)


def lines(found: dict[str, Any]) -> Iterator[str]:
    """All tables, then the goals."""
    if levels := found.get("levels"):
        yield f"one in ten trials hangs past its deadline of {DEADLINE:g} s, the others take 1 s at the provider"
        headings = ("at once", "trials/s", "in time", "late p50", "p99", "max", "closes", "late p50", "max")
        yield from table(headings, [_deadline_row(each) for each in levels])
        yield "  in time: structured failures before the caller's timer, of hanging trials; late: milliseconds after it"
        yield "  closes: connections that the provider saw closed, of those that hung, and how late"
        yield ""
        headings = ("at once", "good p50 ms", "p99", "max", "bare p50 ms", "p99", "max", "CPU ms/trial", "RSS/PSS MB")
        yield from table(headings, [_cost_row(each) for each in levels])
        yield ""
        for each in levels:
            yield f"  {each['at_once']} at once: {kinds(each['samples'])}"
        yield ""
    beside = [(f"beside {name}", samples) for name, samples in found.get("burners", {}).items()]
    if queued := found.get("queued"):
        beside += [("nothing queued", queued["none"]), (f"{queued['queued']} queued", queued["many"])]
    if beside:
        rows = [
            (what, f"{len(answered(samples))}/{len(hanging(samples))}", *_lateness(samples), kinds(samples))
            for what, samples in beside
        ]
        yield from table(("trials", "in time", "late p50", "p99", "max", "ended"), rows)
        yield ""
    if queued:
        yield f"  of those queued: {kinds(queued['waiting'])}"
        yield ""
    for count, rate in found.get("cpu_trials", {}).items():
        yield f"trials of 20 ms of CPU, executors {count}: {rate:.1f} a second"
    for goal in goals(found):
        yield f"{'pass' if goal.met else 'FAIL'}  {goal.what}: {goal.found}"


def _lateness(samples: Samples) -> tuple[str, ...]:
    return spread([late_ms(each) for each in hanging(samples)])


def _deadline_row(level: dict[str, Any]) -> tuple[str, ...]:
    samples = level["samples"]
    due = {str(each["trial"]): each["deadline"] for each in hanging(samples)}
    closes = [(at - due[trial]) * 1e3 for trial, at in level["closes"].items() if trial in due]
    middle, _, most = spread(closes)
    return (
        str(level["at_once"]),
        f"{len(samples) / level['seconds']:.1f}",
        f"{len(answered(samples))}/{len(due)}",
        *_lateness(samples),
        f"{len(closes)}/{len(due)}",
        middle,
        most,
    )


def _cost_row(level: dict[str, Any]) -> tuple[str, ...]:
    bare = [seconds * 1e3 for seconds in level["bare"]["seconds"]]
    cpu = ", ".join(f"{role} {seconds * 1e3 / len(level['samples']):.1f}" for role, seconds in level["cpu_s"].items())
    memory = ", ".join(
        f"{role} {used['rss_bytes'] / MEGABYTE:.0f}/{used['pss_bytes'] / MEGABYTE:.0f}"
        for role, used in level["memory"].items()
    )
    good = good_ms(level["samples"])
    return (str(level["at_once"]), *spread(good, signed=False), *spread(bare, signed=False), cpu, memory)


def goals(found: dict[str, Any]) -> Iterator[Goal]:
    """What was promised, with what was found."""
    for level in found.get("levels", ()):
        yield from _of_level(level)
    for name, samples in found.get("burners", {}).items():
        yield from _at_most(f"late beside {name}, p99, ms", samples, LATE_MS)
    if queued := found.get("queued"):
        before, after = (
            percentile([late_ms(each) for each in hanging(queued[name])] or [0.0], 99) for name in ("none", "many")
        )
        text = f"{before:+.1f} -> {after:+.1f}"
        yield Goal(f"late behind {queued['queued']} queued, p99, ms", text, after <= max(before + MOVED_MS, 0.0))
    rates = found.get("cpu_trials", {})
    if "2" in rates:
        ratio = rates["2"] / rates["1"]
        yield Goal(f"two executors (at least {TWO_EXECUTORS} x one)", f"{ratio:.2f}", ratio >= TWO_EXECUTORS)


def _of_level(level: dict[str, Any]) -> Iterator[Goal]:
    at_once, samples = level["at_once"], level["samples"]
    hung, told = len(hanging(samples)), len(answered(samples))
    if hung:
        met = told >= hung * ANSWERED
        yield Goal(f"{at_once} at once: structured failures in time", f"{told} of {hung}", met)
    good, bare = good_ms(samples), [seconds * 1e3 for seconds in level["bare"]["seconds"]]
    if good and bare:
        ratio = percentile(good, 99) / percentile(bare, 99)
        yield Goal(f"{at_once} at once: good trials' p99 (at most {LATENCY} x bare)", f"{ratio:.2f}", ratio <= LATENCY)
    if "front" in level["cpu_s"]:
        cpu = level["cpu_s"]["front"] * 1e3 / len(samples)
        yield Goal(f"{at_once} at once: CPU of the front, ms a trial", f"{cpu:.2f}", cpu <= FRONT_CPU_MS)


def _at_most(what: str, samples: Samples, limit: float) -> Iterator[Goal]:
    late = [late_ms(each) for each in hanging(samples)]
    if late:
        worst = percentile(late, 99)
        yield Goal(f"{what} (at most {limit:g})", f"{worst:+.1f}", worst <= limit)
