"""OpenTelemetry: spans and metrics of trials and their calls. `rpc.telemetry` knows calls, and nothing of trials.

Needs the `otel` extra, and nothing of it is imported before it is asked for: off means no cost.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from importlib import import_module
from typing import TYPE_CHECKING, Any, Final

import trio

from dspex_trio.runtime.settings import InvalidSettings, Settings

if TYPE_CHECKING:
    from dspex_trio.observing.telemetry.providers import Telemetry
    from dspex_trio.observing.telemetry.sdk import Exporting

PACKAGES: Final = ("opentelemetry", "prometheus_client")
NEVER_INTERRUPTED: Final = (
    "opentelemetry.context",
    "opentelemetry.sdk._shared_internal",
    "opentelemetry.sdk.metrics",
    "opentelemetry.sdk.trace",
)
"""What every thread of the process shares, and a program's own spans pass through: never interrupted in the middle."""

# How long the end of a process waits for its exporters, in seconds: no longer than what is left to it, and a moment.
_FAREWELL: Final = (0.1, 2.0)
# And that of a child, in seconds.
_LAST_OF_A_CHILD: Final = 0.25


def process_telemetry(settings: Settings) -> Telemetry:
    """Spans and metrics that go to the providers of this process, whoever has set them.

    Raises:
        InvalidSettings: OpenTelemetry is not installed.
    """
    telemetry: Telemetry = needing("providers").Telemetry(content=settings.otel_content)
    return telemetry


@asynccontextmanager
async def open_exporters(settings: Settings, seconds_left: Callable[[], float]) -> AsyncIterator[Telemetry | None]:
    """For a process of ours: exporters and providers as the settings and the `OTEL_*` variables say; None for none.

    What is left is sent at the end of the block, in two seconds at the most.

    Args:
        settings: What the operator chose.
        seconds_left: Asked at the end how long that may take.

    Raises:
        InvalidSettings: OpenTelemetry is not installed, or an exporter is not.
    """
    if not settings.otel and settings.metrics_port is None:
        yield None
        return
    exporting: Exporting = needing("sdk").exporters_of_process(settings)
    try:
        yield exporting.telemetry
    finally:
        least, most = _FAREWELL
        with trio.move_on_after(max(least, min(seconds_left(), most)), shield=True):
            await exporting.close()


@asynccontextmanager
async def open_metrics(settings: Settings, telemetry: Telemetry | None) -> AsyncIterator[Telemetry | None]:
    """Serve metrics at `settings.metrics_port`, if there is one, until the block ends; gives the telemetry to use.

    Args:
        settings: What the operator chose.
        telemetry: What there is. Where its metrics cannot be served, they go to a provider of their own instead.

    Raises:
        InvalidSettings: OpenTelemetry is not installed, or the port cannot be listened on.
    """
    if settings.metrics_port is None:
        yield telemetry
        return
    sdk, scrape = needing("sdk"), needing("scrape")
    closing: Exporting | None = None
    if telemetry is None or telemetry.metrics_text is None:
        closing = sdk.with_prometheus(telemetry or (process_telemetry(settings) if settings.otel else None))
        telemetry = closing.telemetry
    try:
        async with scrape.open_scraping(settings.metrics_host, settings.metrics_port, telemetry.metrics_text):
            yield telemetry
    finally:
        if closing is not None:
            with trio.move_on_after(_FAREWELL[0], shield=True):
                await closing.close()


@asynccontextmanager
async def export_as_child(settings: Settings) -> AsyncIterator[None]:
    """In a child process: export the spans of its programs, where the `OTEL_*` variables say where to.

    What is left is sent at the end of the block, in a moment at the most.

    Raises:
        InvalidSettings: OpenTelemetry is not installed.
    """
    if not settings.otel:
        yield
        return
    flush = needing("sdk").exporters_of_child()
    try:
        yield
    finally:
        with trio.move_on_after(_LAST_OF_A_CHILD, shield=True):
            await trio.to_thread.run_sync(flush, abandon_on_cancel=True)


@contextmanager
def continuing(metadata: Mapping[str, str]) -> Iterator[None]:
    """Do something as a part of the trace that a request's metadata tells of.

    Raises:
        InvalidSettings: OpenTelemetry is not installed.
    """
    current = needing("current")
    place = current.enter(current.found_in(metadata))
    try:
        yield
    finally:
        current.leave(place)


@contextmanager
def no_context(_metadata: Mapping[str, str]) -> Iterator[None]:
    """What `continuing` is where there are no traces."""
    yield


def needing(module: str) -> Any:
    """That module of this package, which needs OpenTelemetry.

    Raises:
        InvalidSettings: It is not installed.
    """
    try:
        return import_module(f"{__name__}.{module}")
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] not in PACKAGES:
            raise
        raise InvalidSettings(
            f"otel and metrics_port need OpenTelemetry ({error.name} is missing): pip install 'dspex-trio[otel]'"
        ) from None
