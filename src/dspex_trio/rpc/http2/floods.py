"""Which frames of a peer something of ours explains, and how many of the others it may send.

Frames that carry nothing cost their sender next to nothing and us an answer, or at least a look. What a call or its
data brings about is free; the rest comes out of a bucket, and when that is empty the connection ends.
"""

from __future__ import annotations

from typing import Final

from h2.errors import ErrorCodes
from h2.exceptions import ProtocolError

from dspex_trio.rpc.http2.buckets import TokenBucket
from dspex_trio.rpc.http2.h2_control import (
    ACK,
    CONTINUATION,
    DATA,
    END_STREAM,
    PADDED,
    PING,
    RST_STREAM,
    SETTINGS,
    WINDOW_UPDATE,
)
from dspex_trio.rpc.http2.limits import Limits

# What a peer may send for free when data comes, and per so many bytes of it: it has to open both windows now and then,
# and some (Go's) do so for every few kilobytes that are read. GRPC's clients measure the round trip with a ping, too.
_UPDATES_PER_DATA: Final = 4
_BYTES_PER_UPDATE: Final = 1024
_MAX_CREDIT: Final = 4000
# What one SETTINGS counts for: it may change the window of every call. gRPC's clients do that as data arrives, too.
_SETTINGS_COST: Final = 10


class FloodControl:
    """Counts the frames of one peer.

    Args:
        limits: `control_burst` and `control_rate` are about what nothing explains.
    """

    __slots__ = ("_bucket", "_free_ping", "_free_resets", "_free_updates", "_unanswered")

    def __init__(self, limits: Limits) -> None:
        self._bucket = TokenBucket(limits.control_burst, limits.control_rate)
        self._free_updates = self._free_resets = 0
        self._free_ping = True
        self._unanswered = 0  # pings of ours

    def sent_headers(self) -> None:
        """Headers of ours explain a ping."""
        self._free_ping = True

    def sent_data(self, size: int) -> None:
        """Data of ours explains window updates too."""
        self._free_updates = min(self._free_updates + _UPDATES_PER_DATA + size // _BYTES_PER_UPDATE, _MAX_CREDIT)
        self._free_ping = True

    def sent_ping(self) -> None:
        """A ping of ours explains its answer."""
        self._unanswered += 1

    def call_began(self) -> None:
        """A call explains window updates, and that it may be reset after its end."""
        self._free_updates = min(self._free_updates + _UPDATES_PER_DATA, _MAX_CREDIT)
        self._free_resets = min(self._free_resets + 1, _MAX_CREDIT)

    def count(self, kind: int, flags: int, payload: bytes, now: float) -> None:
        """Let a frame through, or raise the ProtocolError that ends the connection."""
        cost = self._unexplained(kind, flags, payload)
        if cost and not self._bucket.take(now, cost):
            raise calm("too many frames that carry nothing")

    def _unexplained(self, kind: int, flags: int, payload: bytes) -> int:
        """How many tokens a frame costs."""
        cost = _SETTINGS_COST if kind == SETTINGS else 1
        if kind == DATA:
            padding = payload[0] + 1 if flags & PADDED and payload else 0
            return 0 if len(payload) > padding or flags & END_STREAM else cost
        if kind in {WINDOW_UPDATE, SETTINGS} and self._free_updates >= cost:
            self._free_updates -= cost
            return 0
        if kind == RST_STREAM and self._free_resets:
            self._free_resets -= 1
            return 0
        if kind == PING and flags & ACK and self._unanswered:
            self._unanswered -= 1
            return 0
        if kind == PING and not flags & ACK and self._free_ping:
            self._free_ping = False
            return 0
        return 0 if kind == CONTINUATION else cost  # a header block has limits of its own


def calm(message: str) -> ProtocolError:
    """An error that ends a connection with ENHANCE_YOUR_CALM."""
    error = ProtocolError(message)
    error.error_code = ErrorCodes.ENHANCE_YOUR_CALM
    return error
