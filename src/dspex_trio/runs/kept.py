"""What a file of results has of a plan already: what is left to run, what to score again, and what else it holds."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from dspex_trio.model.errors import FailureKind
from dspex_trio.runs.plan import Planned, in_order
from dspex_trio.runs.results import CannotKeep, Result, Results, standing
from dspex_trio.wire import encode_json


@dataclass(slots=True)
class Kept:
    """A plan, compared with a file of results.

    Attributes:
        missing: The trials that are to be run.
        results: Trial → its result, of those that have one of this program and language model.
        stale: Results that are to be scored again, each with its trial; also those of other configurations.
        reasons: Why, with the counts.
        failed: How many failures are kept; those that are run again do not count.
        retried: How many failures are run again.
        other_programs: How many trials are run although there are results of another program.
        other_models: Language models of which there are results, with the counts of trials that are run all the same.
        unknown_models: How many results are kept although their language model, or that of this run, is not known.
        unknown_metrics: How many scores are kept whose metric is unknown.
    """

    missing: list[Planned] = field(default_factory=list)
    results: dict[str, Result] = field(default_factory=dict)
    stale: list[tuple[Planned, Result]] = field(default_factory=list)
    reasons: Counter[str] = field(default_factory=Counter)
    failed: int = 0
    retried: int = 0
    other_programs: int = 0
    other_models: Counter[str] = field(default_factory=Counter)
    unknown_models: int = 0
    unknown_metrics: int = 0


def compare(
    plan: Sequence[Planned],
    results: Results,
    *,
    lm: Mapping[str, Any] | None = None,
    metric: Mapping[str, str] | None = None,
    retry_failed: Collection[FailureKind] = (),
) -> Kept:
    """What there is already.

    Args:
        plan: The trials.
        results: The file.
        lm: The language model of programs that name none, `model` and arguments; None if it is not known.
        metric: What results would say of the metric; None for no metric.
        retry_failed: Failures that are to be run again.

    Raises:
        CannotKeep: A trial of that name has a result, and was another trial.
    """
    kept = Kept()
    again = {f"FAILURE_KIND_{kind.name}" for kind in retry_failed}
    for trial in plan:
        there = results.of(trial.id)
        _check(trial, there, results)
        wanted = lm_of(trial, lm)
        found = standing(there, trial.digest, wanted)
        retried = found is not None and found["outcome"].get("failure", {}).get("kind") in again
        if found is None or retried:
            kept.missing.append(trial)
        if found is None:
            _count_others(kept, trial, there)
        else:
            kept.results[trial.id] = found
            kept.unknown_models += (found.get("lm") is None) != (wanted is None)
            kept.retried += retried
            kept.failed += "failure" in found["outcome"] and not retried
        for result in there:
            if retried and result is found:
                continue
            if (reason := _stale(trial, result, metric)) is not None:
                kept.stale.append((trial, result))
                kept.reasons[reason] += 1
            else:
                kept.unknown_metrics += "score" in result and "metric" not in result
    return kept


def lm_of(trial: Planned, lm: Mapping[str, Any] | None) -> Mapping[str, Any] | None:
    """The language model that a trial's program is given, of which `lm` is the one for programs that name none."""
    own = trial.program.lm
    if own is None or (lm is not None and lm["model"] == own.model):
        return lm
    return {"model": own.model}


def of_plan(plan: Sequence[Planned], results: Results) -> Iterator[Result]:
    """All results of the plan's trials, of whatever configuration."""
    for trial in plan:
        for result in results.of(trial.id):
            if result["digest"] == trial.digest:  # an older version said nothing of the program
                yield {"program": program_name(trial), "program_digest": trial.program_digest, **result}
            else:
                yield result


def program_name(trial: Planned) -> str:
    """What a program is called."""
    return trial.program.name or trial.program.python_class


def _check(trial: Planned, there: Sequence[Result], results: Results) -> None:
    for result in there:
        if result["digest"] != trial.digest and result.get("trial_digest") != trial.trial_digest:
            raise CannotKeep(
                f"{results.path} holds a result of trial {trial.id!r}, which was another one: its inputs, variables or "
                f"options have changed{'' if 'trial_digest' in result else ', or its program'}. Give the results "
                f"another file, or the trial another id"
            )


def _count_others(kept: Kept, trial: Planned, there: Sequence[Result]) -> None:
    if any(result["digest"] != trial.digest for result in there):
        kept.other_programs += 1
    for model in {result["lm"]["model"] for result in there if result["digest"] == trial.digest}:
        kept.other_models[model] += 1


def _stale(trial: Planned, result: Result, metric: Mapping[str, str] | None) -> str | None:
    """Why a result is to be scored again; None if it is not."""
    if encode_json(in_order(result.get("expected"))) != encode_json(in_order(trial.expected)):
        return "what is expected has changed"
    if metric is None or trial.expected is None:
        return None
    match result:
        case {"score": None}:
            return "the metric failed before"
        case {"score": _, "metric": str(before), "metric_digest": str(digest)}:
            changed = None if digest == metric["metric_digest"] else "the metric's file has changed"
            return changed if before == metric["metric"] else f"{before} scored them before"
        case {"score": _}:
            return "nobody knows which metric scored them"
    return "they had no score"
