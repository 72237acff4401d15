"""What a handler sees of its call besides the messages."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Final, Protocol

from dspex_trio.rpc.metadata import NO_METADATA, Metadata, MetadataLike, outgoing
from dspex_trio.rpc.settings import Compression
from dspex_trio.rpc.status import StatusCode

_C_CORE: Final = "grpc-c/"
_C_CORE_SLACK: Final = 0.03


class Responder(Protocol):
    """Where a call's initial metadata goes, and what is known of its caller."""

    async def send_initial(self) -> None:
        """Send the response's headers, unless they were sent."""
        ...

    def cancelled_as(self) -> StatusCode:
        """As `Call.cancelled_as`."""
        ...


class Call:
    """One call, as its handler sees it.

    The handler runs under a cancel scope that ends when the caller gives up or disconnects, a moment before the
    caller's deadline, and when a drain's patience is over.

    Attributes:
        method: "/package.Service/Method".
        metadata: What the caller sent along; its `user-agent` is in it.
        peer: Who called: "ipv4:127.0.0.1:4711", "ipv6:[::1]:4711", "unix:/run/worker.sock", "memory:".
        authority: Whom the caller meant to call, such as "worker:50051"; what it says, and empty if it does not.
        arrived: When its first bytes arrived, at the earliest, on Trio's clock; -inf for one that was made by hand.
        deadline: When the caller stops waiting, on Trio's clock; `math.inf` if it never does.
        peer_certificate: The client's certificate (DER) under mutual TLS.
        compression: What replies are compressed with; to be set before the first is sent. None if the caller would not
            understand it.
        compress: Whether the replies sent from now on are compressed.
        on_given_up: For a handler to set: called on the loop, once, when the caller gives the call up: it resets it, is
            gone, or its deadline passes before there is a status. Also after the handler has answered, as long as that
            is remembered: a caller that cancels then has not had the answer in time. It must not raise.
        anonymous: Set by interceptors that let a call in although it carries no credentials, which others have to: it
            does not make its connection a known one (see `ServerSettings.first_call_timeout`).
    """

    def __init__(
        self,
        method: str,
        *,
        metadata: Metadata = NO_METADATA,
        peer: str = "memory:",
        authority: str = "",
        arrived: float = -math.inf,
        deadline: float = math.inf,
        peer_certificate: bytes | None = None,
        accepts: tuple[str, ...] = (),
    ) -> None:
        self.method = method
        self.metadata = metadata
        self.peer = peer
        self.authority = authority
        self.arrived = arrived
        self.deadline = deadline
        self.peer_certificate = peer_certificate
        self.compress = True
        self.on_given_up: Callable[[], object] | None = None
        self.anonymous = False
        self._initial_metadata = self._trailing_metadata = NO_METADATA
        self._accepts = accepts
        self._compression: Compression | None = None
        self._responder: Responder | None = None

    @property
    def timer_slack(self) -> float:
        """By what part of the call's time the caller's own timer may fire before `deadline`.

        gRPC's C core, which the clients of Python, C++, Ruby and PHP are made of, saves header bytes: instead of a
        timeout it sends one that it has sent before and that is up to 3 % longer.
        """
        return _C_CORE_SLACK if _C_CORE in (self.metadata.get("user-agent") or "") else 0.0

    def respond_with(self, responder: Responder | None) -> None:
        """Say where initial metadata goes; a call that was made by hand, or is over, has nowhere to send it."""
        self._responder = responder

    def cancelled_as(self) -> StatusCode:
        """How the call ends if its handler is being cancelled, for interceptors that see the cancel go by.

        CANCELLED: the caller has given up or is gone. DEADLINE_EXCEEDED: its time is over. UNAVAILABLE: a drain's end.
        """
        return StatusCode.CANCELLED if self._responder is None else self._responder.cancelled_as()

    @property
    def compression(self) -> Compression | None:
        """What replies are compressed with."""
        return self._compression

    @compression.setter
    def compression(self, value: Compression | None) -> None:
        self._compression = value if value in self._accepts else None

    @property
    def initial_metadata(self) -> Metadata:
        """The metadata that goes out with the first reply."""
        return self._initial_metadata

    def set_initial_metadata(self, metadata: MetadataLike) -> None:
        """Choose the metadata that goes out with the first reply; raises ValueError if it cannot be sent."""
        self._initial_metadata = outgoing(metadata)

    @property
    def trailing_metadata(self) -> Metadata:
        """The metadata that goes out with the status."""
        return self._trailing_metadata

    def set_trailing_metadata(self, metadata: MetadataLike) -> None:
        """Choose the metadata that goes out with the status; raises ValueError if it cannot be sent."""
        self._trailing_metadata = outgoing(metadata)

    async def send_initial_metadata(self, metadata: MetadataLike = NO_METADATA) -> None:
        """Send the response's headers now instead of with the first reply.

        Raises:
            ValueError: The metadata cannot be sent.
        """
        if metadata:
            self.set_initial_metadata(metadata)
        if self._responder is not None:
            await self._responder.send_initial()
