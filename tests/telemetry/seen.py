"""What was told to OpenTelemetry's own exporters, in memory."""

from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import SpanProcessor, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

import dspex_trio as dspex


class _Begun(SpanProcessor):
    """Span → its place in the order in which they began, which in virtual time is no time of theirs."""

    def __init__(self):
        self.places = {}

    def on_start(self, span, parent_context=None):
        self.places[span.context.span_id] = len(self.places)


class Seen:
    """Providers that nobody else has, and what went to them."""

    def __init__(self, *, content=False):
        self._exporter = InMemorySpanExporter()
        self.tracer_provider = TracerProvider(shutdown_on_exit=False)
        self.tracer_provider.add_span_processor(SimpleSpanProcessor(self._exporter))
        self._begun = _Begun()
        self.tracer_provider.add_span_processor(self._begun)
        self._reader = InMemoryMetricReader()
        self.meter_provider = MeterProvider([self._reader], shutdown_on_exit=False)
        self.telemetry = dspex.Telemetry(self.tracer_provider, self.meter_provider, content)
        self.tracer = self.tracer_provider.get_tracer("a user's")

    @property
    def spans(self):
        """The spans that have ended, in the order in which they began."""
        return sorted(self._exporter.get_finished_spans(), key=lambda span: self._begun.places[span.context.span_id])

    def span(self, name):
        [found] = [span for span in self.spans if span.name == name]
        return found

    def paths(self):
        """Each span with those around it, outermost first: "trial/EXECUTE/chat m"."""
        by_id = {span.context.span_id: span for span in self.spans}

        def path(span):
            above = by_id.get(span.parent.span_id) if span.parent else None
            return f"{path(above)}/{span.name}" if above else span.name

        return [path(span) for span in self.spans]

    def points(self, name):
        """The data points of a metric."""
        data = self._reader.get_metrics_data()
        return [
            point
            for resource in (data.resource_metrics if data else ())
            for scope in resource.scope_metrics
            for metric in scope.metrics
            if metric.name == name
            for point in metric.data.data_points
        ]

    def values(self, name, *keys):
        """Of a metric: the attributes of these keys → the value, or the count of a histogram."""
        return {
            tuple(point.attributes.get(key) for key in keys): getattr(point, "count", None)
            if hasattr(point, "count")
            else point.value
            for point in self.points(name)
        }


def seconds(span):
    return round((span.end_time - span.start_time) / 1e9, 6)
