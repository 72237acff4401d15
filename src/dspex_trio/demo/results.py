"""What became of the demo's trials, held against what was expected."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from dspex_trio.demo.trials import Trial
from dspex_trio.model import BoundVariable, Cost, TrialFailure, TrialOutcome, TrialSuccess
from dspex_trio.model.errors import FailureKind

ANSWER: Final = "answer"
"""The output field that holds the answer."""


@dataclass(frozen=True, slots=True)
class ClientCancelled:
    """The client went away before there was an outcome."""


@dataclass(frozen=True, slots=True)
class CallFailed:
    """The call ended in a gRPC status instead of an outcome."""

    message: str


@dataclass(frozen=True, slots=True)
class Result:
    """A trial and what became of it.

    Attributes:
        trial: The trial.
        outcome: What the caller got.
        latency_ms: How long the caller waited.
        answers_count: Whether a wrong answer is not as expected; a real model may be wrong.
    """

    trial: Trial
    outcome: TrialOutcome | ClientCancelled | CallFailed
    latency_ms: float
    answers_count: bool = True

    @property
    def answer(self) -> Any:
        """The program's answer; None without one."""
        return self.outcome.prediction.get(ANSWER) if isinstance(self.outcome, TrialSuccess) else None

    @property
    def right(self) -> bool:
        """Whether the program answered, and rightly."""
        return isinstance(self.outcome, TrialSuccess) and self.trial.accepts(self.answer)

    @property
    def as_expected(self) -> bool:
        """Whether the trial ended as its line says."""
        match self.outcome:
            case TrialSuccess():
                return self.trial.kind is None and (self.right or not self.answers_count)
            case TrialFailure(kind=kind, stage=stage):
                return kind is self.trial.kind and self.trial.stage in (None, stage)
            case ClientCancelled():
                return self.trial.kind is FailureKind.CANCELLED
            case CallFailed():
                return False

    @property
    def ending(self) -> str:
        """How it ended, in a word: right, wrong, failed, cancelled or lost."""
        match self.outcome:
            case TrialSuccess():
                return "right" if self.right else "wrong"
            case TrialFailure():
                return "failed"
            case ClientCancelled():
                return "cancelled"
            case CallFailed():
                return "lost"

    @property
    def kind(self) -> str:
        """The failure's kind; empty without one."""
        match self.outcome:
            case TrialFailure(kind=kind):
                return kind.name
            case ClientCancelled():
                return FailureKind.CANCELLED.name
        return ""

    @property
    def stage(self) -> str:
        """The failure's stage; empty without one."""
        return self.outcome.stage.name if isinstance(self.outcome, TrialFailure) else ""

    @property
    def says(self) -> str:
        """The answer, or what the failure says, on one line."""
        match self.outcome:
            case TrialSuccess():
                return repr(self.answer)
            case TrialFailure(error_type=error_type, error_message=message):
                return " ".join(f"{error_type.rpartition('.')[2]}: {message}".split())
            case ClientCancelled():
                return "the client went away"
            case CallFailed(message=message):
                return message

    @property
    def wanted(self) -> str:
        """What was expected, for a trial that ended otherwise."""
        if self.trial.kind is None:
            return " or ".join(map(repr, self.trial.answers)) or "an answer"
        return self.trial.kind.name + (f" in {self.trial.stage.name}" if self.trial.stage is not None else "")

    @property
    def variables(self) -> tuple[BoundVariable, ...]:
        """The values that the parameters really had."""
        found = self.outcome.variables if isinstance(self.outcome, TrialSuccess | TrialFailure) else {}
        return tuple(found.values())

    @property
    def cost(self) -> Cost | None:
        """What it cost, as far as the caller learnt."""
        return self.outcome.cost if isinstance(self.outcome, TrialSuccess | TrialFailure) else None


@dataclass(frozen=True, slots=True)
class Totals:
    """The sums of a run.

    Attributes:
        trials: How many ended.
        as_expected: How many of them as their lines say.
        answered: How many gave an answer.
        right: How many of these were right.
        prompt_tokens: Tokens sent to the model.
        completion_tokens: Tokens it answered with.
        lm_calls: Calls of the model.
        cost_usd: The sum of the known prices, in US dollars.
        cost_known: Whether every call's price is known.
        p50_ms: The median of what callers waited, in milliseconds.
        p99_ms: The 99th percentile of it.
    """

    trials: int
    as_expected: int
    answered: int
    right: int
    prompt_tokens: int
    completion_tokens: int
    lm_calls: int
    cost_usd: float
    cost_known: bool
    p50_ms: float
    p99_ms: float


def add_up(results: Sequence[Result]) -> Totals:
    """Sum up a run."""
    costs = [result.cost for result in results if result.cost is not None]
    waited = [result.latency_ms for result in results]
    return Totals(
        trials=len(results),
        as_expected=sum(result.as_expected for result in results),
        answered=sum(isinstance(result.outcome, TrialSuccess) for result in results),
        right=sum(result.right for result in results),
        prompt_tokens=sum(cost.usage.prompt_tokens for cost in costs),
        completion_tokens=sum(cost.usage.completion_tokens for cost in costs),
        lm_calls=sum(cost.lm_calls for cost in costs),
        cost_usd=sum(cost.total_usd for cost in costs),
        cost_known=all(cost.known for cost in costs),
        p50_ms=percentile(waited, 50),
        p99_ms=percentile(waited, 99),
    )


def percentile(values: Sequence[float], percent: float) -> float:
    """The smallest value that at least `percent` of the values do not exceed; NaN of none."""
    ordered = sorted(values)
    return ordered[max(0, math.ceil(len(ordered) * percent / 100) - 1)] if ordered else math.nan
