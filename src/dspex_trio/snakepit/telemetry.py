"""Events about tool calls, for a pool that listens."""

from __future__ import annotations

import fnmatch
import random
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Final

import trio

from dspex_trio.observing import correlation
from dspex_trio.wire.generated import bridge_pb2

MAX_WAITING: Final = 1024
"""Events that wait for a listener; when there are more, new ones are dropped."""

START: Final = "tool.execution.start"
STOP: Final = "tool.execution.stop"
EXCEPTION: Final = "tool.execution.exception"
RESULT_SIZE: Final = "tool.result_size"
"""Of the names that snakepit takes from a worker, the ones that it sends; others would be dropped over there."""


class TelemetryListener:
    """One StreamTelemetry call: which events it wants, and those waiting to be sent."""

    def __init__(self) -> None:
        self._send, self.events = trio.open_memory_channel[bridge_pb2.TelemetryEvent](MAX_WAITING)
        self._enabled = True
        self._rate = 1.0
        self._sampled: tuple[str, ...] = ()
        self._allow: tuple[str, ...] = ()
        self._deny: tuple[str, ...] = ()

    def control(self, control: bridge_pb2.TelemetryControl) -> None:
        """Do as the pool says; a later message replaces an earlier one of its kind."""
        match control.WhichOneof("control"):
            case "toggle":
                self._enabled = control.toggle.enabled
            case "sampling":
                self._rate = control.sampling.sampling_rate
                self._sampled = tuple(control.sampling.event_patterns)
            case "filter":
                self._allow = tuple(control.filter.allow)
                self._deny = tuple(control.filter.deny)

    def tell(self, name: str, event: bridge_pb2.TelemetryEvent) -> None:
        """Keep an event for the listener, if it wants it and there is room."""
        if self._enabled and self._wanted(name):
            try:
                self._send.send_nowait(event)
            except (trio.WouldBlock, trio.ClosedResourceError):
                return  # there is no room, or nobody reads any more

    def end(self) -> None:
        """End the stream of events."""
        self._send.close()

    def _wanted(self, name: str) -> bool:
        if _matches(name, self._deny) or (self._allow and not _matches(name, self._allow)):
            return False
        sampled = not self._sampled or _matches(name, self._sampled)
        return not sampled or self._rate >= 1 or random.random() < self._rate  # noqa: S311


class ToolTelemetry:
    """Sends an event for every tool call to every listener."""

    def __init__(self) -> None:
        self._listeners: set[TelemetryListener] = set()

    @contextmanager
    def listening(self) -> Iterator[TelemetryListener]:
        """A listener, for as long as the block lasts."""
        listener = TelemetryListener()
        self._listeners.add(listener)
        try:
            yield listener
        finally:
            self._listeners.discard(listener)

    def end(self) -> None:
        """End every listener's stream: one that stays open would delay the worker's shutdown."""
        for listener in self._listeners:
            listener.end()

    def tell(self, name: str, measurements: Mapping[str, int], metadata: Mapping[str, str]) -> None:
        """Send an event that happens now to every listener."""
        if not self._listeners:
            return
        event = bridge_pb2.TelemetryEvent(
            event_parts=name.split("."),
            measurements={key: bridge_pb2.TelemetryValue(int_value=value) for key, value in measurements.items()},
            metadata=metadata,
            timestamp_ns=time.time_ns(),
            correlation_id=correlation.current(),
        )
        for listener in self._listeners:
            listener.tell(name, event)


def _matches(name: str, patterns: tuple[str, ...]) -> bool:
    return any(fnmatch.fnmatchcase(name, pattern) for pattern in patterns)
