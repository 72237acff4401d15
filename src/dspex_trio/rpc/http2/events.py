"""What an engine reports about its peer."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

from dspex_trio.rpc.http2.headers import RequestHead, ResponseHead
from dspex_trio.rpc.http2.messages import Packed
from dspex_trio.rpc.metadata import Metadata
from dspex_trio.rpc.status import Status


@dataclass(slots=True)
class RequestStarted:
    """A client began a call."""

    stream_id: int
    head: RequestHead


@dataclass(slots=True)
class ResponseStarted:
    """A server sent its initial metadata."""

    stream_id: int
    head: ResponseHead


@dataclass(slots=True)
class MessageReceived:
    """One whole message; one that came compressed is still packed.

    `size` is what the sender's flow-control window is given back when the reader has taken the message: less than its
    length if it had to be let in piece by piece.
    """

    stream_id: int
    data: bytes | Packed
    size: int


@dataclass(slots=True)
class RequestEnded:
    """The client has sent all its messages."""

    stream_id: int


@dataclass(slots=True)
class ResponseEnded:
    """The call is over, whether the server said so or a reply could not be understood."""

    stream_id: int
    status: Status
    trailers: Metadata
    unprocessed: bool = False  # the server promises that it did nothing: the call may be tried again


@dataclass(slots=True)
class StreamFailed:
    """A request went wrong after it began; its caller has been told, its handler is of no more use."""

    stream_id: int
    status: Status


@dataclass(slots=True)
class StreamReset:
    """The peer gave the stream up (RST_STREAM)."""

    stream_id: int
    error_code: int


@dataclass(slots=True)
class WindowOpened:
    """More may be sent on a stream, or, with stream 0, perhaps on all of them."""

    stream_id: int


@dataclass(slots=True)
class SettingsChanged:
    """The peer's settings changed; windows and the number of streams may have grown."""


@dataclass(slots=True)
class PingReceived:
    """The peer pinged; the answer is queued."""


@dataclass(slots=True)
class PingAnswered:
    """The peer answered a ping of ours."""

    data: bytes


@dataclass(slots=True)
class GoawayReceived:
    """The peer takes no more streams above `last_stream_id`."""

    last_stream_id: int
    error_code: int
    debug: bytes


@dataclass(slots=True)
class GoodbyeSaid:
    """The client sent headers that cannot be decoded: it was told that no calls above `last_stream_id` are served."""

    last_stream_id: int


Event: TypeAlias = (
    RequestStarted
    | ResponseStarted
    | MessageReceived
    | RequestEnded
    | ResponseEnded
    | StreamFailed
    | StreamReset
    | WindowOpened
    | SettingsChanged
    | PingReceived
    | PingAnswered
    | GoawayReceived
    | GoodbyeSaid
)
