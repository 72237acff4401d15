"""What both sides of a connection share: frames in and out, flow control, floods, pings, goodbyes."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Final

import h2.events
from h2.exceptions import ProtocolError
from h2.settings import SettingCodes

from dspex_trio.rpc.http2.events import (
    Event,
    GoawayReceived,
    MessageReceived,
    PingAnswered,
    PingReceived,
    SettingsChanged,
    StreamReset,
    WindowOpened,
)
from dspex_trio.rpc.http2.floods import FloodControl
from dspex_trio.rpc.http2.h2_frames import FramedH2Connection
from dspex_trio.rpc.http2.header_codec import Field, HeaderBlock, header_list_size, literal
from dspex_trio.rpc.http2.headers import encode_metadata
from dspex_trio.rpc.http2.interface import MAX_STREAM_ID
from dspex_trio.rpc.http2.limits import Limits
from dspex_trio.rpc.http2.messages import BadMessage, MessageReader
from dspex_trio.rpc.metadata import Metadata
from dspex_trio.rpc.status import Status, StatusCode

_DEFAULT_WINDOW: Final = 65_535  # of a connection, until it is enlarged (RFC 9113, 6.9.2)
# What an unread message costs besides its bytes: empty ones would be free otherwise.
_MESSAGE_OVERHEAD: Final = 100
# What the fields of the protocol itself take, about, of the header list that a peer allows.
_OWN_HEADERS: Final = 400
_C_CORES_SOFT: Final = 2**13
_C_CORES_HARD: Final = 2**14


def taken_for_sure(announced: int | None) -> int:
    """How large a header list a peer takes that has announced so much.

    What gRPC's C core announces is its hard limit: 16 KiB, or what it was told. From its soft limit on, 8 KiB or four
    fifths of the hard one, it refuses at random, the more often the larger they are.
    """
    if announced is None:
        return _C_CORES_SOFT
    return min(announced, _C_CORES_SOFT) if announced <= _C_CORES_HARD else announced * 4 // 5


@dataclass(slots=True)
class StreamState:
    """What the engine keeps of one call."""

    stream_id: int
    reader: MessageReader | None = None
    local_ended: bool = False
    remote_ended: bool = False
    headers_sent: bool = False
    content_length: int | None = None
    held: int = 0  # bytes of messages that no reader has taken
    owed: int = 0  # bytes released but not yet given back to the peer's window
    batch: int = 0  # the `receive` within which it began


class H2Engine(ABC):
    """The interface's Engine, over h2. Methods that send raise KeyError for streams that are over.

    Args:
        client: Which side this is.
        limits: Sizes and rates.
    """

    def __init__(self, *, client: bool, limits: Limits) -> None:
        settings = {
            SettingCodes.MAX_CONCURRENT_STREAMS: limits.max_concurrent_streams,
            SettingCodes.INITIAL_WINDOW_SIZE: limits.stream_window,
            SettingCodes.MAX_FRAME_SIZE: limits.max_frame_size,
            SettingCodes.MAX_HEADER_LIST_SIZE: limits.max_header_list_size,
        }
        if client:
            settings[SettingCodes.ENABLE_PUSH] = 0
        self._limits = limits
        self._h2 = FramedH2Connection(
            client=client,
            settings=settings,
            max_block=limits.max_header_block,
            sink=self,
        )
        self._streams: dict[int, StreamState] = {}
        self._events: list[Event] = []
        self._now = 0.0
        self._buffered = 0  # bytes of messages, whole and unfinished, that no reader has taken
        self._connection_owed = 0
        self._floods = FloodControl(limits)
        self._h2.initiate_connection()
        self._h2.increment_flow_control_window(max(limits.connection_window - _DEFAULT_WINDOW, 1))

    @property
    def unsent(self) -> int:
        """How many bytes wait in `data_to_send`."""
        return self._h2.unsent

    @property
    def failed(self) -> bool:
        """Whether the peer broke the connection's rules; nothing but what is queued may be sent then."""
        return self._h2.failure is not None

    @property
    def failure(self) -> Exception | None:
        """Why `failed`."""
        failure: Exception | None = self._h2.failure
        return failure

    @property
    def peer_is_at_fault(self) -> bool:
        """Whether it is h2's error, or one like it, rather than a surprise."""
        return isinstance(self.failure, ProtocolError)

    def data_to_send(self) -> bytearray:
        """Everything that is queued; it is the caller's now."""
        return self._h2.take_output()

    def receive(self, data: bytes, now: float) -> list[Event]:
        """Take bytes from the peer at a time (seconds of any monotonic clock) and report what they mean.

        After an error of the peer's `failed` is true; the events before it are still returned.
        """
        self._now = now
        events: list[Event] = []
        self._events = events
        self._h2.feed(data)
        return events

    def on_event(self, event: Any) -> None:
        """Act on an event of h2's."""
        handle = self.dispatch.get(type(event))
        if handle is not None:
            handle(self, event)

    def ping(self, data: bytes) -> None:
        """Queue a PING of eight bytes; a PingAnswered event carries them back."""
        self._floods.sent_ping()
        self._h2.ping(data)

    def goaway(self, last_stream_id: int = MAX_STREAM_ID, error_code: int = 0, debug: bytes = b"") -> None:
        """Tell the peer that streams above an id will not be served; those below go on."""
        self._h2.goaway(last_stream_id, error_code, debug)

    @property
    def highest_peer_stream(self) -> int:
        """The highest stream id that the peer has used."""
        return int(self._h2.highest_inbound_stream_id)

    def is_open(self, stream_id: int) -> bool:
        """Whether a stream can still be sent on."""
        state = self._streams.get(stream_id)
        return state is not None and not state.local_ended

    def put_back(self, data: bytearray) -> None:
        """Take back what came out of `data_to_send` and could not be sent."""
        self._h2.put_back(data)

    @property
    def window(self) -> int:
        """How many bytes of data the peer's window for the whole connection allows now."""
        return int(self._h2.outbound_flow_control_window)

    def sendable(self, stream_id: int) -> int:
        """How many bytes of data the peer's windows allow on a stream now."""
        return int(self._h2.local_flow_control_window(stream_id))

    def fits(self, stream_id: int, size: int) -> bool:
        """Whether a stream is open for so much data."""
        state = self._streams.get(stream_id)
        return state is not None and not state.local_ended and size <= self.sendable(stream_id)

    def send_data(self, stream_id: int, data: bytes | memoryview, *, end: bool = False) -> None:
        """Queue data, in as many frames as it takes; it must be `sendable`."""
        self._h2.send_payload(stream_id, data, end_stream=end)
        self._floods.sent_data(len(data))
        if end:
            self._ended_here(self._streams[stream_id])

    def takes_metadata(self, metadata: Metadata, *, surely: bool = False) -> bool:
        """Whether it is within what the peer has said that it takes, or what a peer that says so takes in any case."""
        return self._takes(encode_metadata(metadata), surely=surely)

    def _takes(self, headers: Iterable[Field], *, surely: bool = False) -> bool:
        limit = self._h2.remote_settings.max_header_list_size
        if surely:
            limit = taken_for_sure(limit)
        return limit is None or _OWN_HEADERS + header_list_size(headers) <= limit

    def reset(self, stream_id: int, error_code: int) -> None:
        """Queue RST_STREAM, unless both sides have closed the stream, and forget it."""
        state = self._streams.get(stream_id)
        if state is not None:
            if not self._h2.is_closed(stream_id):
                self._h2.reset_stream(stream_id, error_code)
            self._forget(state)

    def close(self) -> None:
        """Let go of all that is held, at once: half a message for each stream is a lot to leave to the collector."""
        self._streams.clear()
        self._events = []
        self._buffered = 0
        self._h2.let_go()

    def release(self, stream_id: int, length: int, size: int) -> bool:
        """A reader took a message of this length that cost so much of the window: let the peer send as much again."""
        state = self._streams.get(stream_id)
        if state is None:
            return False  # what a forgotten stream still held was taken off `_buffered` with it
        self._buffered -= length + _MESSAGE_OVERHEAD
        state.held -= length + _MESSAGE_OVERHEAD
        return self._give_back(state, size)

    def _give_back(self, state: StreamState, size: int) -> bool:
        state.owed += size
        if state.remote_ended or state.owed * 2 < self._limits.stream_window:
            return False
        self._h2.increment_flow_control_window(state.owed, state.stream_id)
        state.owed = 0
        return True

    def _ended_here(self, state: StreamState) -> None:
        state.local_ended = True
        if state.remote_ended:
            self._forget(state)

    def _forget(self, state: StreamState) -> None:
        self._buffered -= state.held + (state.reader.buffered if state.reader else 0)
        self._streams.pop(state.stream_id, None)
        self._h2.forget(state.stream_id)

    def on_data(self, stream_id: int, data: bytes, flow: int) -> None:
        """Data came."""
        # The connection's window is given back at once, so that a call whose handler is slow holds up no other; what is
        # held is bounded by the streams' windows and by `max_buffered`.
        self._connection_owed += flow
        if self._connection_owed * 2 >= self._limits.connection_window:
            self._h2.increment_flow_control_window(self._connection_owed)
            self._connection_owed = 0
        state = self._streams.get(stream_id)
        if state is None:
            return
        if state.reader is None:  # as it is for a client that awaits a response's headers
            self._fail_stream(state, Status(StatusCode.INTERNAL, "data came before the headers"))
            return
        if state.content_length is not None:
            state.content_length -= len(data)
        if flow > len(data):
            self._give_back(state, flow - len(data))  # padding: the message that it is in may be long in coming
        self._buffered -= state.reader.buffered
        try:
            messages = state.reader.feed(data)
        except BadMessage as error:
            self._buffered += state.reader.buffered  # which is taken off again as the stream is forgotten
            self._fail_stream(state, error.status)
            return
        self._buffered += state.reader.buffered
        for message, size in messages:
            state.held += len(message) + _MESSAGE_OVERHEAD
            self._buffered += len(message) + _MESSAGE_OVERHEAD
            self._events.append(MessageReceived(stream_id, message, size))
        if self._buffered > self._limits.max_buffered:
            self._fail_stream(state, Status(StatusCode.RESOURCE_EXHAUSTED, "too many unread bytes on this connection"))
        elif state.reader.needed * 2 > self._limits.stream_window:
            # A message that may not fit the window has to be let in before it can be taken as a whole.
            self._give_back(state, state.reader.take_flow())

    def _block(self, again: tuple[Field, ...], once: Iterable[Field] = ()) -> bytes:
        """A header block: of fields that come again and again, and of some that will not."""
        block: bytes = self._h2.encoder.encode_again(again)
        for name, value in once:
            block += literal(name, value)
        return block

    @abstractmethod
    def on_headers(self, stream_id: int, block: HeaderBlock, *, ended: bool) -> None:
        """A request or a response began."""

    @abstractmethod
    def on_trailers(self, stream_id: int, block: HeaderBlock) -> None:
        """Headers came after the data."""

    def on_headers_lost(self, stream_id: int, *, began: bool) -> None:
        """Headers came that cannot be decoded, nor can later ones. Servers alone: a client's connection has ended."""
        raise NotImplementedError

    @abstractmethod
    def on_end(self, stream_id: int) -> None:
        """The peer's half of a stream is over."""

    @abstractmethod
    def _fail_stream(self, state: StreamState, status: Status) -> None:
        """End a call that went wrong, and tell both sides."""

    def _data_received(self, event: Any) -> None:
        self.on_data(event.stream_id, event.data, event.flow_controlled_length)

    def _headers_received(self, event: Any) -> None:
        self.on_headers(event.stream_id, event.headers, ended=event.stream_ended is not None)

    def _trailers_received(self, event: Any) -> None:
        self.on_trailers(event.stream_id, event.headers)

    def _stream_ended(self, event: Any) -> None:
        self.on_end(event.stream_id)

    def _window_updated(self, event: Any) -> None:
        self._events.append(WindowOpened(event.stream_id))

    def _settings_changed(self, _: Any) -> None:
        self._events.append(SettingsChanged())

    def _ping_received(self, _: Any) -> None:
        self._events.append(PingReceived())

    def _ping_answered(self, event: Any) -> None:
        self._events.append(PingAnswered(bytes(event.ping_data)))

    def _goaway_received(self, event: Any) -> None:
        self._events.append(GoawayReceived(event.last_stream_id, event.error_code, event.additional_data))

    def _stream_reset(self, event: Any) -> None:
        state = self._streams.get(event.stream_id)
        if state is not None:
            self._forget(state)
            self._events.append(StreamReset(event.stream_id, int(event.error_code)))

    def on_frame(self, kind: int, flags: int, payload: bytes) -> None:
        """A frame will be acted on."""
        self._floods.count(kind, flags, payload, self._now)

    dispatch: ClassVar[Mapping[type[Any], Callable[[Any, Any], None]]] = {
        h2.events.RequestReceived: _headers_received,
        h2.events.ResponseReceived: _headers_received,
        h2.events.TrailersReceived: _trailers_received,
        h2.events.DataReceived: _data_received,
        h2.events.StreamEnded: _stream_ended,
        h2.events.WindowUpdated: _window_updated,
        h2.events.RemoteSettingsChanged: _settings_changed,
        h2.events.PingReceived: _ping_received,
        h2.events.PingAckReceived: _ping_answered,
        h2.events.ConnectionTerminated: _goaway_received,
        h2.events.StreamReset: _stream_reset,
    }
