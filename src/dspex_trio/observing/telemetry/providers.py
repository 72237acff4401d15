"""`Telemetry`: whose spans and metrics they are, and what makes them: of trials, of calls that come and that go."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from opentelemetry import metrics, trace

from dspex_trio import rpc
from dspex_trio.model import TrialOutcome, TrialRequest, TrialSuccess
from dspex_trio.observing import correlation
from dspex_trio.observing.telemetry.instruments import SCOPE, Instruments
from dspex_trio.observing.telemetry.scrape import MetricsText
from dspex_trio.observing.telemetry.trial_spans import TrialSpans
from dspex_trio.rpc.client.stubs import Caller
from dspex_trio.rpc.ext.otel import Traced, server_telemetry
from dspex_trio.trials.observer import Observer


@dataclass(frozen=True, slots=True)
class Telemetry:
    """Where spans and metrics go. Nothing global is set, here or by whoever is given one.

    Attributes:
        tracer_provider: Whose spans; the process's own without one.
        meter_provider: Whose metrics; as above.
        content: Whether prompts, replies and what tools are given and return stand in spans.
        metrics_text: Makes what is served at `metrics_port`; None if that is a meter provider of its own.
    """

    tracer_provider: trace.TracerProvider | None = None
    meter_provider: metrics.MeterProvider | None = None
    content: bool = False
    metrics_text: MetricsText | None = None

    def trials(self) -> Observer:
        """An observer that makes the spans of trials, and measures them."""
        return _TrialTelemetry(self)

    def calls(self) -> rpc.Interceptor:
        """An interceptor for servers, which gives handlers the caller's context."""
        return server_telemetry(
            tracer_provider=self.tracer_provider, meter_provider=self.meter_provider, attributes=_correlated
        )

    def channel(self, channel: Caller) -> Caller:
        """For stubs, in place of a channel: the calls carry the context of where they are made."""
        return Traced(channel, tracer_provider=self.tracer_provider, meter_provider=self.meter_provider)


def _correlated(call: rpc.Call) -> Mapping[str, str]:
    with correlation.correlated(call.metadata.get(correlation.HEADER)):
        found = correlation.current()
    return {"dspex.correlation_id": found} if found else {}


class _TrialTelemetry(Observer):
    def __init__(self, telemetry: Telemetry) -> None:
        self._tracer = trace.get_tracer(SCOPE, tracer_provider=telemetry.tracer_provider)
        self._instruments = Instruments(telemetry.meter_provider)
        self._content = telemetry.content
        self._trials: dict[object, TrialSpans] = {}
        self._stuck = 0

    def begins(self, request: TrialRequest) -> TrialRequest:
        spans = self._trials[request.key] = TrialSpans(self._tracer, self._instruments, request, content=self._content)
        return replace(
            request,
            watch=spans,
            stream_output=request.watch is not None and request.stream_output,
            metadata={**request.metadata, **spans.carrier()},
        )

    def on_outcome(self, request: TrialRequest, outcome: TrialOutcome) -> None:
        spans = self._trials[request.key]
        spans.end(request, outcome)
        if isinstance(outcome, TrialSuccess) or outcome.details.get("stuck") != "true":
            del self._trials[request.key]

    def on_late_end(self, request: TrialRequest, details: Mapping[str, str]) -> None:
        if (spans := self._trials.pop(request.key, None)) is not None:
            spans.thread_ended(details)

    def on_stuck(self, trials: int) -> None:
        self._instruments.stuck.add(trials - self._stuck)
        self._stuck = trials

    def on_lateness(self, seconds: float) -> None:
        self._instruments.lateness.record(seconds)

    def on_records_dropped(self, records: int) -> None:
        self._instruments.dropped.add(records)
