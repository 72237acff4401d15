"""All that the Trio side knows of HTTP/2: what it asks of an engine. Another engine than ours would stand behind this.

An engine is one connection without I/O and without time of its own: bytes from the peer go in by `receive`, which
returns events; bytes for the peer come out of `data_to_send`. It owns frames, header compression, both directions' flow
control, messages and their compression, and the limits of what a peer may cost; nothing in it waits. Methods that send
on a stream need it to be open: ask `is_open` first.
"""

from __future__ import annotations

import enum
from typing import Protocol

from dspex_trio.rpc.http2.events import Event
from dspex_trio.rpc.metadata import NO_METADATA, Metadata
from dspex_trio.rpc.status import Status

MAX_STREAM_ID = 2**31 - 1


class ErrorCode(enum.IntEnum):
    """The error codes of HTTP/2 that we have a use for (RFC 9113, 7)."""

    NO_ERROR = 0x0
    REFUSED_STREAM = 0x7
    CANCEL = 0x8
    ENHANCE_YOUR_CALM = 0xB


class Engine(Protocol):
    """What both sides of a connection have in common."""

    @property
    def unsent(self) -> int:
        """How many bytes wait in `data_to_send`."""
        ...

    @property
    def failed(self) -> bool:
        """Whether the connection cannot go on; nothing but what is queued may be sent then."""
        ...

    @property
    def failure(self) -> Exception | None:
        """Why `failed`."""
        ...

    @property
    def peer_is_at_fault(self) -> bool:
        """Whether the peer broke a rule, rather than we."""
        ...

    @property
    def window(self) -> int:
        """How many bytes of data the peer's window for the whole connection allows now."""
        ...

    def receive(self, data: bytes, now: float) -> list[Event]:
        """Take bytes from the peer at a time (seconds of any monotonic clock) and report what they mean.

        After an error of the peer's `failed` is true; the events before it are still returned.
        """
        ...

    def data_to_send(self) -> bytearray:
        """Everything that is queued; it is the caller's now."""
        ...

    def put_back(self, data: bytearray) -> None:
        """Take back what came out of `data_to_send` and could not be sent."""
        ...

    def ping(self, data: bytes) -> None:
        """Queue a PING of eight bytes; a PingAnswered event carries them back."""
        ...

    def goaway(self, last_stream_id: int = MAX_STREAM_ID, error_code: int = 0, debug: bytes = b"") -> None:
        """Tell the peer that streams above an id will not be served; those below go on."""
        ...

    def is_open(self, stream_id: int) -> bool:
        """Whether a stream can still be sent on."""
        ...

    def sendable(self, stream_id: int) -> int:
        """How many bytes of data the peer's windows allow on a stream now; may be negative."""
        ...

    def fits(self, stream_id: int, size: int) -> bool:
        """Whether a stream is open for so much data."""
        ...

    def send_data(self, stream_id: int, data: bytes | memoryview, *, end: bool = False) -> None:
        """Queue data, in as many frames as it takes; it must be `sendable`."""
        ...

    def release(self, stream_id: int, length: int, size: int) -> bool:
        """A reader took a message of this length that cost so much of the window: let the peer send as much again.

        Returns whether it is told so now; small messages are told of together.
        """
        ...

    def takes_metadata(self, metadata: Metadata, *, surely: bool = False) -> bool:
        """Whether it is within what the peer has said that it takes (RFC 9113, 6.5.2).

        `surely`: within what every peer that says so takes; some refuse at random what is near to it.
        """
        ...

    def reset(self, stream_id: int, error_code: int) -> None:
        """Queue RST_STREAM, unless both sides have closed the stream, and forget it."""
        ...

    def close(self) -> None:
        """The connection is over: let go of all that is held for it. Every stream is over too."""
        ...


class ServerEngine(Engine, Protocol):
    """One connection, as its server sees it. A request that cannot be served is answered here and never reported."""

    @property
    def highest_peer_stream(self) -> int:
        """The highest stream id that the client has used."""
        ...

    def send_initial(self, stream_id: int, metadata: Metadata = NO_METADATA, encoding: str = "identity") -> None:
        """Queue the response's headers."""
        ...

    def send_status(self, stream_id: int, status: Status, metadata: Metadata = NO_METADATA) -> None:
        """Queue the trailers, which end the response; if the client has not ended its request, it is told to stop."""
        ...

    def takes_status(self, status: Status, metadata: Metadata) -> bool:
        """Whether the client surely takes such trailers."""
        ...

    def refuse(self, stream_id: int) -> None:
        """Reject a call that nothing was done for: the client may safely try again (RFC 9113, 8.7)."""
        ...


class ClientEngine(Engine, Protocol):
    """One connection, as its client sees it. Each call ends with exactly one ResponseEnded, unless it is reset here."""

    @property
    def streams(self) -> int:
        """How many calls are under way."""
        ...

    @property
    def max_streams(self) -> int:
        """How many calls the server allows at once."""
        ...

    @property
    def exhausted(self) -> bool:
        """Whether no more calls can be made: the server said goodbye, or the ids are used up."""
        ...

    def start_call(
        self, path: str, metadata: Metadata = NO_METADATA, *, timeout: float | None = None, encoding: str = "identity"
    ) -> int:
        """Queue a request's headers and return its stream's id; `timeout` is in seconds from now.

        Raises:
            ValueError: The path cannot be sent.
        """
        ...

    def end_call(self, stream_id: int) -> None:
        """Queue the end of a request's messages."""
        ...
