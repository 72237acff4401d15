"""The results of `tools/bench_peers.py` as a table."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Final

from bench_load_table import kinds
from bench_table import percentile, table

MEGABYTE: Final = 1 << 20
HEADINGS: Final = (
    "peer",
    "caller knows",
    "provider closed",
    "slot again",
    "threads",
    "sockets",
    "processes",
    "RSS MB",
    "slots",
)


def lines(found: dict[str, Any]) -> Iterator[str]:
    """The table, what its columns are, and the peers that are not in it."""
    watch = found["watch"]
    yield (
        f"{found['calls']} calls that the provider never answers, {found['slots']} at once, "
        f"each with a time-out of {found['seconds']:g} s"
    )
    measured = [each for each in found["peers"] if "samples" in each]
    yield from table(HEADINGS, [row(each, found["seconds"], found["slots"]) for each in measured])
    yield "  caller knows, provider closed, slot again: ms after the time-out, median / most; the slot by a good call"
    yield f"  never: not within {watch:g} s; threads to RSS: what is left then, more than before the calls"
    yield f"  slots: good calls that succeed at once then, of {found['slots']}"
    for each in measured:
        yield f"  {each['what']}: callers got {kinds(each['samples'])}"
    for each in found["peers"]:
        if "reason" in each:
            yield f"  {each['what']}: {each['reason']}"


def row(peer: dict[str, Any], seconds: float, slots: int) -> tuple[str, ...]:
    """One peer."""
    samples = peer["samples"]
    due = {str(each["trial"]): each["began"] + seconds for each in samples}
    told = [_ms(each["told"], due[str(each["trial"])]) for each in samples]
    closes = [_ms(at, due[trial]) for trial, at in peer["closes"].items()] + [None] * peer["still_open"]
    usable = [_ms(each["usable"], due[str(each["trial"])]) for each in samples if each["first"]]
    left = {name: peer["after"][name] - peer["before"][name] for name in peer["after"]} if "after" in peer else {}
    return (
        peer["what"],
        spread(told),
        spread(closes),
        spread(usable),
        *(f"{left[name]:+d}" if left else "-" for name in ("threads", "sockets", "processes")),
        f"{left['rss_bytes'] / MEGABYTE:+.0f}" if left else "-",
        f"{peer['succeeded']}/{slots}" if "succeeded" in peer else "-",
    )


def spread(values: Sequence[float | None]) -> str:
    """Median and maximum, in milliseconds; how many never came, if any."""
    there = [value for value in values if value is not None]
    missing = len(values) - len(there)
    if not there:
        return f"never ({missing} of {missing})" if missing else "-"
    text = f"{percentile(there, 50):+.0f} / {max(there):+.0f}"
    return f"{text}, never {missing} of {len(values)}" if missing else text


def _ms(at: float | None, due: float) -> float | None:
    return None if at is None else (at - due) * 1e3
