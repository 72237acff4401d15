"""OpenTelemetry: spans and metrics of trials and their calls. `rpc.telemetry` knows calls, and nothing of trials.

Needs the `otel` extra, and nothing of it is imported before it is asked for: off means no cost.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any, Final

from dspex_trio.config import InvalidSettings, Settings

if TYPE_CHECKING:
    from dspex_trio.telemetry.providers import Telemetry

PACKAGES: Final = ("opentelemetry", "prometheus_client")


def process_telemetry(settings: Settings) -> Telemetry:
    """Spans and metrics that go to the providers of this process, whoever has set them.

    Raises:
        InvalidSettings: OpenTelemetry is not installed.
    """
    telemetry: Telemetry = needing("providers").Telemetry(content=settings.otel_content)
    return telemetry


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
