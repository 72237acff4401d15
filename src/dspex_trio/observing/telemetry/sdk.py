"""Providers for a process of ours: exporters as the `OTEL_*` variables say, and the text that Prometheus reads.

Exporters have threads of their own. Nothing waits for them but the end of the process, and that for a bounded time.
"""

from __future__ import annotations

import logging
import os
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from importlib import metadata
from typing import Any, Final, cast

import trio
from opentelemetry import metrics, trace
from opentelemetry.exporter.prometheus import PrometheusMetricReader
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import MetricReader, PeriodicExportingMetricReader
from opentelemetry.sdk.resources import OTELResourceDetector, Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from prometheus_client import CollectorRegistry
from prometheus_client.exposition import choose_encoder

from dspex_trio.observing.telemetry.providers import Telemetry
from dspex_trio.observing.telemetry.scrape import MetricsText
from dspex_trio.runtime.settings import InvalidSettings, Settings

logger: Final = logging.getLogger(__name__)

_NONE: Final = "none"


@dataclass(frozen=True, slots=True)
class Exporting:
    """What a process exports with.

    Attributes:
        telemetry: Where its spans and metrics go.
        closing: What sends the rest, each of which may block.
    """

    telemetry: Telemetry
    closing: tuple[Callable[[], object], ...]

    async def close(self) -> None:
        """Send what is left. Whoever does not want to wait for a collector that hangs cancels this, and leaves it."""
        async with trio.open_nursery() as nursery:
            for close in self.closing:
                nursery.start_soon(_closed, close)


async def _closed(close: Callable[[], object]) -> None:
    try:
        await trio.to_thread.run_sync(close, limiter=trio.CapacityLimiter(1), abandon_on_cancel=True)
    except Exception as error:  # noqa: BLE001 - an exporter may raise anything; the process ends all the same
        logger.warning("what was left of spans or metrics is lost: %s", error)
    except trio.Cancelled:
        logger.warning("what was left of spans or metrics was not taken in time, and is lost")
        raise


def exporters_of_process(settings: Settings) -> Exporting:
    """Make the process's own providers, and set them, so that a program's own spans go where ours go.

    Providers that somebody has set before, as `opentelemetry-instrument` does, are kept and used.

    Raises:
        InvalidSettings: An exporter that is asked for is not installed.
    """
    theirs = not isinstance(trace.get_tracer_provider(), trace.ProxyTracerProvider)
    readers: list[MetricReader] = []
    tracer_provider: trace.TracerProvider = trace.NoOpTracerProvider()
    closing: list[Callable[[], object]] = []
    resource = _resource()
    if settings.otel and theirs:
        tracer_provider = trace.get_tracer_provider()
    elif settings.otel:
        tracer_provider, closing = _tracer_provider(resource)
        readers += [PeriodicExportingMetricReader(exporter) for exporter in _exporters("metrics")]
    text: MetricsText | None = None
    if settings.metrics_port is not None:
        reader, text = prometheus()
        readers.append(reader)
    meter_provider: metrics.MeterProvider | None = None
    if readers or not settings.otel:
        made = MeterProvider(readers, resource, shutdown_on_exit=False)
        closing.append(made.shutdown)
        meter_provider = made
    if settings.otel and not theirs:
        trace.set_tracer_provider(tracer_provider)
        metrics.set_meter_provider(meter_provider or metrics.NoOpMeterProvider())
    return Exporting(Telemetry(tracer_provider, meter_provider, settings.otel_content, text), tuple(closing))


def with_prometheus(telemetry: Telemetry | None) -> Exporting:
    """Telemetry whose metrics are there to be scraped, from a provider of their own; its spans stay where they go."""
    reader, text = prometheus()
    provider = MeterProvider([reader], _resource(), shutdown_on_exit=False)
    given = telemetry or Telemetry(trace.NoOpTracerProvider())
    return Exporting(replace(given, meter_provider=provider, metrics_text=text), (provider.shutdown,))


def exporters_of_child() -> Callable[[], object]:
    """Make a child process export the spans of its programs, where the `OTEL_*` variables that it inherits say so.

    Returns what sends the last of them, and may take a while. What a child that is killed has not sent yet is lost: it
    sends often.
    """
    says_where = ("OTEL_TRACES_EXPORTER", "OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT")
    if any(map(os.environ.get, says_where)):
        provider, _ = _tracer_provider(_resource(), delay_ms=500.0)
        trace.set_tracer_provider(provider)
        flush: Callable[[], object] = cast("TracerProvider", provider).force_flush
        return flush
    return lambda: None


def _tracer_provider(
    resource: Resource, delay_ms: float | None = None
) -> tuple[trace.TracerProvider, list[Callable[[], object]]]:
    provider = TracerProvider(resource=resource, shutdown_on_exit=False)
    for exporter in _exporters("traces"):
        provider.add_span_processor(BatchSpanProcessor(exporter, schedule_delay_millis=delay_ms))
    return provider, [provider.shutdown]


def prometheus() -> tuple[MetricReader, MetricsText]:
    """A reader for a meter provider, and what it gives to read; in a registry of its own, not in the process's."""
    registry = CollectorRegistry()

    def text(accept: str) -> tuple[str, bytes]:
        encode, kind = choose_encoder(accept)
        return kind, encode(registry)

    return PrometheusMetricReader(scope_info_enabled=False, registry=registry), text


def _resource() -> Resource:
    """Who sends this: `OTEL_SERVICE_NAME` and `OTEL_RESOURCE_ATTRIBUTES` over what is known anyway."""
    ours = {
        "service.name": "dspex-trio",
        "service.version": metadata.version("dspex-trio"),
        "service.instance.id": str(uuid.uuid4()),
    }
    return Resource.create({**ours, **OTELResourceDetector().detect().attributes})


def _exporters(signal: str) -> Iterator[Any]:
    """The exporters that `OTEL_TRACES_EXPORTER` or `OTEL_METRICS_EXPORTER` names; OTLP by default."""
    variable = f"OTEL_{signal.upper()}_EXPORTER"
    for name in (os.environ.get(variable) or "otlp").split(","):
        wanted = name.strip()
        if wanted == _NONE:
            continue
        if wanted == "otlp":
            protocol = os.environ.get(f"OTEL_EXPORTER_OTLP_{signal.upper()}_PROTOCOL") or os.environ.get(
                "OTEL_EXPORTER_OTLP_PROTOCOL"
            )
            wanted = "otlp_proto_grpc" if protocol == "grpc" else "otlp_proto_http"
        if wanted == "prometheus":
            raise InvalidSettings(f"{variable}: Prometheus is served at the setting metrics_port")
        found = list(metadata.entry_points(group=f"opentelemetry_{signal}_exporter", name=wanted))
        if not found:
            raise InvalidSettings(f"{variable}: no exporter {wanted!r} is installed")
        yield found[0].load()()
