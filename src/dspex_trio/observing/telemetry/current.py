"""OpenTelemetry's context: which span is current where, set and taken back by who is told of beginnings and ends.

A trial tells of both, but not always in the same place: a stage of an isolated trial in another task, a call that an
abandoned thread makes after all is over. A context is taken back only where it still stands.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextvars import Token
from typing import Final, TypeAlias

from opentelemetry import context, propagate, trace

Place: TypeAlias = tuple[context.Context, Token[context.Context]]

_TRIAL: Final = context.create_key("dspex_trio.trial")


def found_in(metadata: Mapping[str, str]) -> context.Context:
    """The context here; if it has no trace, with the one that a request's metadata tells of."""
    here = context.get_current()
    if trace.get_current_span(here).get_span_context().is_valid:
        return here
    return propagate.extract(metadata, here)


def of_trial(key: int, span: trace.Span, parent: context.Context) -> context.Context:
    """The context in which that span of the trial with this key is current."""
    return trace.set_span_in_context(span, context.set_value(_TRIAL, key, parent))


def is_in(key: int) -> bool:
    """Whether the calling code runs in a context of that trial: its task, its threads, dspy.Parallel's for it."""
    return context.get_value(_TRIAL) is key


def enter(found: context.Context) -> Place:
    """Make it current; `leave` takes that back."""
    return found, context.attach(found)


def leave(place: Place | None) -> None:
    """Take it back, if it is current here."""
    if place is not None and context.get_current() is place[0]:
        context.detach(place[1])
