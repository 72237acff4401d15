"""How a record's parts are said, in a terminal as on a page."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from dspex_trio.observing.records.reading import Recorded
from dspex_trio.wire import json_text

_SECOND_MS: Final = 1000


def milliseconds(value: float) -> str:
    """A length of time."""
    return f"{value:.1f} ms" if value < _SECOND_MS else f"{value / _SECOND_MS:.2f} s"


def took(trial: Recorded) -> str:
    """How long a trial took, and how long it might have."""
    total = milliseconds(trial.result["timings"].get("total_ms", 0.0))
    given = trial.record.get("time_ms")
    return total if given is None else f"{total} of {milliseconds(given)}"


def stage(trial: Recorded) -> str:
    """The stage in which a trial failed; empty for a success."""
    return str((trial.failure or {}).get("stage", "")).removeprefix("STAGE_")


def prospects(failure: Mapping[str, Any]) -> str:
    """Whether another try makes sense."""
    return "another try may help" if failure.get("retryable") else "another try would end the same way"


def variable(bound: Mapping[str, Any]) -> str:
    """A variable's value and where it came from."""
    origin = "the default" if bound.get("from_default") else f"{bound.get('variable')}, version {bound.get('version')}"
    return f"{json_text(bound.get('value'))} ({origin})"


def cost(cost: Mapping[str, Any]) -> dict[str, str]:
    """What a trial cost."""
    if not cost:
        return {}
    usage = cost.get("usage", {})
    price = f"${cost.get('total_usd', 0.0):.6f}"
    return {
        "price": price if cost.get("known") else f"at least {price}; the price of some calls is unknown",
        "tokens": f"{usage.get('prompt_tokens', 0)} prompt + {usage.get('completion_tokens', 0)} completion",
        "LM calls": f"{cost.get('lm_calls', 0)}, {cost.get('cache_hits', 0)} from the cache",
    }
