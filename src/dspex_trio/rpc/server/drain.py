"""Stopping a server without losing a call."""

from __future__ import annotations

import math
from collections.abc import Callable

import trio


class Drain:
    """A server's way out: give it to `serve`, and `start` it once.

    Then, in this order: what was added with `before` is called (health turns NOT_SERVING); no more connections are
    accepted; every client is told GOAWAY and, a round trip later, which of its calls were the last that count; calls
    that are running go on until they end or the grace is over, when they get UNAVAILABLE; `serve` returns. A call that
    a client began before it heard of all that is served; one that it began later it may safely try elsewhere, and
    clients do.
    """

    def __init__(self) -> None:
        self._deadline: float | None = None
        self._before: list[Callable[[], None]] = []
        self._servers: list[Callable[[float], None]] = []

    @property
    def started(self) -> bool:
        """Whether `start` was called."""
        return self._deadline is not None

    def before(self, act: Callable[[], None]) -> None:
        """Call something first of all; several are called in the order in which they were added."""
        self._before.append(act)

    def start(self, grace: float = math.inf) -> None:
        """Begin; `grace` is in seconds. Called again it can only shorten the grace."""
        deadline = trio.current_time() + grace
        if self._deadline is None:
            for act in self._before:
                act()
        self._deadline = deadline if self._deadline is None else min(self._deadline, deadline)
        for drain in self._servers:
            drain(self._deadline)

    def attach(self, drain: Callable[[float], None]) -> None:
        """For servers: have this called with the end of the grace, at once if that is known already, and on changes."""
        self._servers.append(drain)
        if self._deadline is not None:
            drain(self._deadline)
