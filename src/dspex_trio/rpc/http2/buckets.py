"""Limits on what costs the receiver work and the sender nothing."""

from __future__ import annotations


class TokenBucket:
    """Allows `burst` at once and `rate` a second after that.

    Args:
        burst: The most tokens it holds; it starts full.
        rate: Tokens that come back each second.
    """

    __slots__ = ("_burst", "_last", "_rate", "_tokens")

    def __init__(self, burst: float, rate: float) -> None:
        self._burst = burst
        self._rate = rate
        self._tokens = burst
        self._last: float | None = None

    def take(self, now: float, cost: float = 1) -> bool:
        """Take so many tokens; False when there are not so many left."""
        if self._last is not None:
            self._tokens = min(self._burst, self._tokens + (now - self._last) * self._rate)
        self._last = now
        if self._tokens < cost:
            return False
        self._tokens -= cost
        return True
