"""What a connection does by the clock: keepalive pings, and a graceful end when it is idle or old.

The rules are gRPC's A8 (client-side keepalive) and A9 (server-side connection management).
"""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable
from typing import Protocol

import trio

from dspex_trio.rpc.settings import ServerSettings

KEEPALIVE_PING = b"are you?"
_AGE_JITTER = 0.1
_SELDOM = 310.0  # five minutes, by whichever clock


class Pinged(Protocol):
    """What keepalive needs of a connection."""

    @property
    def heard_at(self) -> float:
        """When the peer last sent something."""
        ...

    def send_ping(self, data: bytes) -> None:
        """Queue a ping."""
        ...

    async def hear(self) -> None:
        """Wait until the peer sends something."""
        ...


async def keep_alive(
    connection: Pinged,
    silence: float,
    patience: float,
    *,
    until_needed: Callable[[], Awaitable[None]] = trio.lowlevel.checkpoint,
    early: float = math.inf,
) -> None:
    """Ping a peer that has been silent for a while; return when it stays silent.

    Args:
        connection: The connection.
        silence: Seconds without a byte before a ping.
        patience: Seconds for the answer.
        until_needed: Waits until it matters that the peer is there.
        early: So many pings of a peer that answers nothing but pings are sent as `silence` says. Later ones come every
            five minutes, which is what gRPC's servers put up with (A8).
    """
    answered, left = -math.inf, early
    while True:
        await until_needed()
        if connection.heard_at != answered:
            left = early
        due = connection.heard_at + (silence if left > 0 else max(silence, _SELDOM))
        if trio.current_time() < due:
            if left > 0:
                await trio.sleep_until(due)  # whether something was heard meanwhile is seen then
            else:
                with trio.move_on_at(due):
                    await connection.hear()
            continue
        connection.send_ping(KEEPALIVE_PING)
        with trio.move_on_after(patience) as waiting:
            await connection.hear()
        if waiting.cancelled_caught:
            return
        answered, left = connection.heard_at, left - 1


class Aging(Protocol):
    """What idle time and age need of a connection."""

    @property
    def calls(self) -> int:
        """How many calls are running."""
        ...

    async def calls_changed(self) -> None:
        """Wait until the first call begins or the last one ends."""
        ...

    def drain(self, deadline: float) -> None:
        """End gracefully."""
        ...


async def end_when_idle(connection: Aging, idle: float) -> None:
    """Drain a connection that had no calls for so many seconds."""
    while True:
        if connection.calls:
            await connection.calls_changed()
            continue
        with trio.move_on_after(idle) as waiting:
            await connection.calls_changed()
        if waiting.cancelled_caught:
            connection.drain(math.inf)
            return


async def end_when_old(connection: Aging, settings: ServerSettings, shake: float) -> None:
    """Drain a connection at its age, `shake` (-1 to 1) of a tenth sooner or later, so that not all leave at once."""
    await trio.sleep(settings.max_connection_age * (1 + _AGE_JITTER * shake))
    connection.drain(trio.current_time() + settings.max_connection_age_grace)
