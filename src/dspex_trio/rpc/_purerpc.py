"""purerpc, imported so that it works beside h2 3 and h2 4 alike."""

from __future__ import annotations

import h2.events

if not hasattr(h2.events, "PingAcknowledged"):
    # h2 4 dropped the old name of PingAckReceived, which purerpc 0.8 still annotates with.
    h2.events.PingAcknowledged = h2.events.PingAckReceived

import purerpc
from purerpc.grpclib.exceptions import RpcFailedError
from purerpc.server import BoundRPCMethod

__all__ = ["BoundRPCMethod", "RpcFailedError", "purerpc"]
