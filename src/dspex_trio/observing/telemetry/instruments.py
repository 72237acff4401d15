"""What is measured of trials: counts, durations, tokens and cost, and the state of the process that runs them."""

from __future__ import annotations

from typing import Final

from opentelemetry import metrics

from dspex_trio.model import LmCall, TrialOutcome, TrialSuccess
from dspex_trio.model.errors import Stage
from dspex_trio.observing.telemetry import gen_ai

SCOPE: Final = "dspex_trio"
QUEUED: Final = {"dspex.trial.state": "queued"}
RUNNING: Final = {"dspex.trial.state": "running"}

# Seconds: from a cache hit to the longest trial that anybody waits for; and of a loop that should never be late.
_TRIALS: Final = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600)
_LATENESS: Final = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1)
# As the conventions give them.
_OPERATIONS: Final = (0.01, 0.02, 0.04, 0.08, 0.16, 0.32, 0.64, 1.28, 2.56, 5.12, 10.24, 20.48, 40.96, 81.92)
_TOKENS: Final = tuple(4.0**power for power in range(14))

_STAGES: Final = (
    (Stage.ADMISSION, "queued_ms"),
    (Stage.HYDRATE, "hydrate_ms"),
    (Stage.SYNC, "sync_ms"),
    (Stage.EXECUTE, "execute_ms"),
)


class Instruments:
    """The instruments, of one provider; any thread may record.

    Args:
        provider: Whose; the process's own without one.

    Attributes:
        active: Trials under way now, by state.
        stuck: Trials that are over and whose threads ignore that.
        lateness: How late the loop was for its timers.
        dropped: Records that were lost.
    """

    def __init__(self, provider: metrics.MeterProvider | None) -> None:
        meter = metrics.get_meter(SCOPE, meter_provider=provider)
        self._ended = meter.create_counter("dspex.trials", unit="{trial}", description="Trials that have ended.")
        self._duration = meter.create_histogram(
            "dspex.trial.duration",
            unit="s",
            description="From a trial's arrival to its outcome.",
            explicit_bucket_boundaries_advisory=_TRIALS,
        )
        self._stages = meter.create_histogram(
            "dspex.trial.stage.duration",
            unit="s",
            description="What trials spent in a stage.",
            explicit_bucket_boundaries_advisory=_TRIALS,
        )
        self._cost = meter.create_counter(
            "dspex.lm.cost", unit="{USD}", description="What is known of the cost of language models, in US dollars."
        )
        self._calls = meter.create_counter(
            "dspex.lm.calls", unit="{call}", description="Calls of language models, by what answered them."
        )
        self._operations = meter.create_histogram(
            "gen_ai.client.operation.duration",
            unit="s",
            description="GenAI operation duration.",
            explicit_bucket_boundaries_advisory=_OPERATIONS,
        )
        self._tokens = meter.create_histogram(
            "gen_ai.client.token.usage",
            unit="{token}",
            description="Number of input and output tokens used.",
            explicit_bucket_boundaries_advisory=_TOKENS,
        )
        self.active = meter.create_up_down_counter(
            "dspex.trial.active", unit="{trial}", description="Trials that wait for a slot, or run, now."
        )
        self.stuck = meter.create_up_down_counter(
            "dspex.trial.stuck", unit="{trial}", description="Trials that are over and whose threads ignore that, now."
        )
        self.lateness = meter.create_histogram(
            "dspex.loop.lateness",
            unit="s",
            description="How late the loop was for its timers, while trials ran.",
            explicit_bucket_boundaries_advisory=_LATENESS,
        )
        self.dropped = meter.create_counter(
            "dspex.records.dropped", unit="{record}", description="Trial records that were lost."
        )

    def trial_ended(self, outcome: TrialOutcome) -> None:
        """Count a trial and its time."""
        attributes = ending(outcome)
        timings = outcome.timings
        self._ended.add(1, attributes)
        self._duration.record(timings.total_ms / 1e3, attributes)
        reached = Stage.SERIALIZE if isinstance(outcome, TrialSuccess) else outcome.stage
        for stage, field in _STAGES:
            if stage <= reached:
                self._stages.record(getattr(timings, field) / 1e3, {"dspex.stage": stage.name})

    def lm_ended(self, call: LmCall, error_type: str) -> None:
        """Count a call of a language model: its time, tokens and cost, unless a cache answered."""
        asked = gen_ai.asked(call.model)
        by = "cache" if call.cache_hit else "nobody" if error_type else "provider"
        self._calls.add(1, {"gen_ai.request.model": asked["gen_ai.request.model"], "dspex.lm.answered_by": by})
        if call.cache_hit:
            return
        failed = {"error.type": error_type} if error_type else {}
        self._operations.record(call.latency_ms / 1e3, {**asked, **failed})
        for kind, tokens in (("input", call.usage.prompt_tokens), ("output", call.usage.completion_tokens)):
            if tokens:
                self._tokens.record(tokens, {**asked, "gen_ai.token.type": kind})
        if call.cost_usd:
            self._cost.add(call.cost_usd, {"gen_ai.request.model": asked["gen_ai.request.model"]})


def ending(outcome: TrialOutcome) -> dict[str, str]:
    """How a trial ended, for spans and metrics alike."""
    if isinstance(outcome, TrialSuccess):
        return {"dspex.outcome": "success"}
    return {
        "dspex.outcome": "cancelled" if outcome.kind.name == "CANCELLED" else "failure",
        "error.type": outcome.kind.name,
        "dspex.failure.stage": outcome.stage.name,
    }
