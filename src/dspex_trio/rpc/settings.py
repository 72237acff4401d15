"""Every limit and time of a server and of a channel, with safe defaults."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields
from typing import Any, Final, Literal, TypeAlias

from dspex_trio.rpc.client.target import is_authority
from dspex_trio.rpc.http2.limits import Limits

Compression: TypeAlias = Literal["gzip", "deflate"]

_KIB: Final = 2**10
_MIB: Final = 2**20
# RFC 9113, 6.5.2 and 6.9.1.
_FRAME_SIZES: Final = (2**14, 2**24 - 1)
_MAX_WINDOW: Final = 2**31 - 1


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerSettings:
    """Limits of a server. Sizes are in bytes, times in seconds, `math.inf` is never.

    Attributes:
        max_message_size: The largest request, on the wire and decompressed; above it the call is RESOURCE_EXHAUSTED.
        max_response_size: The largest reply; above it the call is RESOURCE_EXHAUSTED.
        max_header_list_size: The most request headers a call may have (counted as RFC 9113, 6.5.2 does); above it the
            call is RESOURCE_EXHAUSTED. Beyond sixteen times as much (256 KiB at the least) its connection takes no
            more calls either, and ends when those that have begun have ended.
        max_frame_size: The largest frame a client may send.
        stream_window: What a client may send on one call before a handler reads it.
        connection_window: What may be on its way from one client at once.
        max_buffered: The most unread request bytes of one connection; the call that exceeds it is RESOURCE_EXHAUSTED.
        output_buffer: How much a connection holds for a client that reads slowly before handlers have to wait.
        max_undelivered_bytes: The most bytes of replies that wait for their readers, of all connections together and
            beside the `output_buffer` of each; beyond, the call ends as RESOURCE_EXHAUSTED whose reader has taken
            nothing for the longest time. At least `max_response_size`.
        undelivered_timeout: Time after which a call is RESOURCE_EXHAUSTED whose reader takes nothing of a reply; a
            connection that takes nothing at all is closed then.
        max_concurrent_calls: Calls of one connection at once. A slot is free again when the call's handler has ended.
            One more is refused in a way that tells the client that it may try again.
        max_connections: Connections at once, or three quarters of the files that the process may have open, if that is
            less. For one more the stranger leaves that has been silent for the longest time: a stranger is a connection
            without a client certificate that has made no call yet that was let in (with a token: that carried it).
            Without strangers the new one is closed as soon as it is accepted.
        max_connections_per_peer: Of these, connections from one IP address; in the same way. UNIX sockets have none.
        first_call_timeout: For the first call that is let in; a stranger's connection is closed gracefully then.
        handshake_timeout: For TLS, and then again for the first bytes of HTTP/2.
        deadline_margin: How long before a caller's deadline its handler is cancelled, so that DEADLINE_EXCEEDED still
            arrives in time; never more than a tenth of the call's time (but a millisecond, if the call has two).
        close_timeout: For the last bytes of a connection that is being closed.
        keepalive_time: Idle time after which a client is pinged, and
        keepalive_timeout: the time it has to answer, or else the connection is closed (gRPC A9).
        min_ping_interval: The shortest time allowed between a client's pings while no calls are running; a client that
            pings faster three times is told ENHANCE_YOUR_CALM (gRPC A8). 0 allows any that the flood limit allows.
        max_connection_idle: Time without calls after which a connection is closed gracefully.
        max_connection_age: Age at which a connection is closed gracefully, give or take a tenth (gRPC A9), and
        max_connection_age_grace: the time its calls have to end then.
        reset_burst: Calls a client may begin and give up in one breath, and
        reset_rate: how many of them are forgiven a second; beyond, the connection ends with ENHANCE_YOUR_CALM.
        control_burst: Frames that carry nothing (pings, priorities, empty data, window updates beyond what data
            explains; settings, which count for ten) that are taken, and
        control_rate: how many of them are forgiven a second; beyond, the connection ends with ENHANCE_YOUR_CALM.
        compression: What replies are compressed with for clients that accept it, unless the handler says otherwise.
    """

    max_message_size: int = 16 * _MIB
    max_response_size: int = 64 * _MIB
    max_header_list_size: int = 16 * _KIB
    max_frame_size: int = _MIB
    stream_window: int = 256 * _KIB
    connection_window: int = 4 * _MIB
    max_buffered: int = 64 * _MIB
    output_buffer: int = 256 * _KIB
    max_undelivered_bytes: int = 256 * _MIB
    undelivered_timeout: float = 30.0
    max_concurrent_calls: int = 1000
    max_connections: int = 1000
    max_connections_per_peer: int = 500
    first_call_timeout: float = math.inf
    handshake_timeout: float = 10.0
    deadline_margin: float = 0.005
    close_timeout: float = 1.0
    keepalive_time: float = math.inf
    keepalive_timeout: float = 20.0
    min_ping_interval: float = 0.0
    max_connection_idle: float = math.inf
    max_connection_age: float = math.inf
    max_connection_age_grace: float = math.inf
    reset_burst: int = 100
    reset_rate: float = 500.0
    control_burst: int = 500
    control_rate: float = 50.0
    compression: Compression | None = None

    def __post_init__(self) -> None:
        _check(self)
        if not self.undelivered_timeout:
            raise ValueError("undelivered_timeout must not be 0")
        if self.max_undelivered_bytes < self.max_response_size:
            raise ValueError(
                f"max_undelivered_bytes must be at least max_response_size, {self.max_response_size}, "
                f"not {self.max_undelivered_bytes}"
            )

    def limits(self) -> Limits:
        """What the engine needs of them."""
        return _limits(self, self.max_concurrent_calls)


@dataclass(frozen=True, slots=True, kw_only=True)
class ChannelSettings:
    """Limits and habits of a channel. Sizes are in bytes, times in seconds, `math.inf` is never.

    Attributes:
        max_message_size: The largest reply, on the wire and decompressed; above it the call is RESOURCE_EXHAUSTED.
        max_request_size: The largest request; above it the call is RESOURCE_EXHAUSTED and nothing is sent.
        max_header_list_size: The most response headers or trailers; above it the call is RESOURCE_EXHAUSTED, and beyond
            sixteen times as much (256 KiB at the least) the connection ends.
        max_frame_size: The largest frame a server may send.
        stream_window: What a server may send on one call before it is read.
        connection_window: What may be on its way from one server at once.
        max_buffered: The most unread reply bytes of one connection; the call that exceeds it is RESOURCE_EXHAUSTED.
        output_buffer: How much a connection holds for a server that reads slowly before calls have to wait.
        connect_timeout: For one attempt to connect, TLS and the server's first bytes included.
        backoff_base: The wait after a first failed attempt to connect; each further one waits
        backoff_multiplier: times as long, up to
        backoff_max: at the most, give or take
        backoff_jitter: as a fraction of it (gRPC's connection backoff protocol).
        keepalive_time: Time without a byte from the server after which it is pinged, and
        keepalive_timeout: the time it has to answer, or else the connection is given up (gRPC A8).
        keepalive_without_calls: Whether to ping when no calls are running.
        max_pings_without_data: How often a server that answers nothing but pings is pinged before that is done every
            five minutes only. grpcio's servers end a connection at the fourth ping within five minutes without data.
        wait_for_ready: Whether calls wait for a connection, when all attempts fail, instead of ending with UNAVAILABLE.
        compression: What requests are compressed with, unless a call says otherwise.
        user_agent: What the channel calls itself.
        authority: What requests carry as `:authority`; None for the host and port of the target.
    """

    max_message_size: int = 64 * _MIB
    max_request_size: int = 64 * _MIB
    max_header_list_size: int = 16 * _KIB
    max_frame_size: int = _MIB
    stream_window: int = 256 * _KIB
    connection_window: int = 4 * _MIB
    max_buffered: int = 256 * _MIB
    output_buffer: int = 256 * _KIB
    connect_timeout: float = 20.0
    backoff_base: float = 1.0
    backoff_multiplier: float = 1.6
    backoff_max: float = 120.0
    backoff_jitter: float = 0.2
    keepalive_time: float = math.inf
    keepalive_timeout: float = 20.0
    keepalive_without_calls: bool = False
    max_pings_without_data: float = math.inf
    wait_for_ready: bool = False
    compression: Compression | None = None
    user_agent: str = "dspex-trio"
    authority: str | None = None

    def __post_init__(self) -> None:
        _check(self)
        if not (self.user_agent.isascii() and self.user_agent.isprintable()) or self.user_agent.strip() != (
            self.user_agent
        ):
            raise ValueError(f"user_agent must be printable ASCII without spaces around it, not {self.user_agent!r}")
        if self.authority is not None and not is_authority(self.authority):
            raise ValueError(
                f"authority must be printable ASCII without spaces, such as host:port, not {self.authority!r}"
            )

    def limits(self) -> Limits:
        """What the engine needs of them."""
        return _limits(self, max_concurrent_streams=0)


def _limits(settings: ServerSettings | ChannelSettings, max_concurrent_streams: int) -> Limits:
    """The limits of either side; those that a channel's user cannot set are a server's defaults."""
    values: dict[str, Any] = {field.name: field.default for field in fields(ServerSettings)}
    values |= {field.name: getattr(settings, field.name) for field in fields(settings)}
    values |= {"max_concurrent_streams": max_concurrent_streams}
    return Limits(**{field.name: values[field.name] for field in fields(Limits)})


def _check(settings: ServerSettings | ChannelSettings) -> None:
    """Raise ValueError that names the first setting which makes no sense."""
    for field in fields(settings):
        value = getattr(settings, field.name)
        if isinstance(value, int | float) and not isinstance(value, bool) and not value >= 0:
            raise ValueError(f"{field.name} must not be negative, not {value}")
    for name in ("output_buffer", "keepalive_time"):  # nothing would ever be sent, or pings without a pause
        if not getattr(settings, name):
            raise ValueError(f"{name} must not be 0")
    if not _FRAME_SIZES[0] <= settings.max_frame_size <= _FRAME_SIZES[1]:
        raise ValueError(f"max_frame_size must be between {_FRAME_SIZES[0]} and {_FRAME_SIZES[1]}")
    for name in ("stream_window", "connection_window"):
        if not _KIB <= getattr(settings, name) <= _MAX_WINDOW:
            raise ValueError(f"{name} must be between {_KIB} and {_MAX_WINDOW}")
    if settings.compression not in {None, "gzip", "deflate"}:
        raise ValueError(f"compression must be gzip, deflate or None, not {settings.compression!r}")
