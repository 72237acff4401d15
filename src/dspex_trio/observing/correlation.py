"""The correlation id of what is being done: from a caller's header into logs, records and the calls that follow."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Final

HEADER: Final = "x-snakepit-correlation-id"
METADATA_KEY: Final = "correlation_id"
"""Under which a request's own metadata carries it."""

MAX_CHARS: Final = 128

_current: Final[ContextVar[str]] = ContextVar("correlation_id", default="")


def current() -> str:
    """The id of what this task, or a thread that it started, is doing; empty for none."""
    return _current.get()


@contextmanager
def correlated(correlation_id: str | None) -> Iterator[None]:
    """Do something under an id, which is the caller's to choose: cut, and without what could forge a log or a header.

    None and the empty text leave the id as it is.
    """
    token = _current.set(_clean(correlation_id) if correlation_id else _current.get())
    try:
        yield
    finally:
        _current.reset(token)


def headers() -> tuple[tuple[str, str], ...]:
    """What a call made on behalf of this one carries."""
    return ((HEADER, correlation_id),) if (correlation_id := _current.get()) else ()


def noted(metadata: Mapping[str, str]) -> Mapping[str, str]:
    """A request's metadata with the id in it, if there is one and it holds none."""
    correlation_id = _current.get()
    return {METADATA_KEY: correlation_id, **metadata} if correlation_id else metadata


def _clean(text: str) -> str:
    return "".join(each if "!" <= each <= "~" else "?" for each in text[:MAX_CHARS])
