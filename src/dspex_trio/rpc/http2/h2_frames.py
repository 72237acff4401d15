"""How an h2 connection reads and writes what calls consist of without an object for every frame.

Whole HEADERS and DATA frames without padding are cut out of the bytes and put together here; h2's state machines and
windows see every one of them. So are the small frames that come in floods (PING, WINDOW_UPDATE, RST_STREAM, SETTINGS
without settings): they cost us a tenth of what h2 takes for them. All other frames go the way that h2 has for them.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from typing import Any, Final, Protocol

from h2.connection import AllowedStreamIDs, ConnectionInputs, ConnectionState
from h2.errors import ErrorCodes
from h2.exceptions import FrameTooLargeError, ProtocolError
from h2.stream import StreamInputs
from hyperframe.exceptions import InvalidPaddingError

from dspex_trio.rpc.http2 import h2_streams
from dspex_trio.rpc.http2.h2_connection import HeaderBlockTooLarge
from dspex_trio.rpc.http2.h2_control import (
    CONTINUATION,
    DATA,
    END_STREAM,
    HEADERS,
    PADDED,
    ControlH2Connection,
)
from dspex_trio.rpc.http2.header_codec import HeaderBlock

_PREFACE_SIZE: Final = 24
_FRAME_HEADER: Final = struct.Struct(">HBBBI")
_HEADER_SIZE: Final = 9
_STREAM_ID_BITS: Final = 2**31 - 1
_END_HEADERS: Final = 0x04
_PRIORITY: Final = 0x20
# So much of a frame of data is not waited for the rest of.
_PART: Final = 64
# What is smaller than this costs its sender too little to be dropped without being counted.
_SMALL: Final = 1024


class Sink(Protocol):
    """Is told of what comes, each thing before the next one is looked at."""

    def on_frame(self, kind: int, flags: int, payload: bytes) -> None:
        """A frame that carries no headers and no plain data will be acted on; may raise ProtocolError to end it all."""
        ...

    def on_headers(self, stream_id: int, block: HeaderBlock, *, ended: bool) -> None:
        """A request or a response began, and may be over with that; `on_end` says so again."""
        ...

    def on_trailers(self, stream_id: int, block: HeaderBlock) -> None:
        """Headers after the data."""
        ...

    def on_headers_lost(self, stream_id: int, *, began: bool) -> None:
        """A client's headers, which began a stream or ended one, were too large to be decoded; so no later ones can be.

        Those are dropped from now on, and so is all that comes for streams that they would have begun.
        """
        ...

    def on_data(self, stream_id: int, data: bytes, flow: int) -> None:
        """Data that took so much of the windows."""
        ...

    def on_end(self, stream_id: int) -> None:
        """The peer's half of the stream is over."""
        ...

    def on_event(self, event: Any) -> None:
        """An event of h2's: all of the above too, of frames that were its to read."""
        ...


class FramedH2Connection(ControlH2Connection):
    """A connection that takes bytes and events, and gives bytes.

    Args:
        client: Which side this is.
        settings: What to announce.
        max_block: The largest header block, encoded or decoded, in bytes.
        sink: Is told of what comes.
    """

    def __init__(
        self,
        *,
        client: bool,
        settings: Mapping[int, int],
        max_block: int,
        sink: Sink,
    ) -> None:
        super().__init__(client=client, settings=settings, max_block=max_block)
        self.failure: Exception | None = None
        self._begun = ConnectionState.CLIENT_OPEN if client else ConnectionState.SERVER_OPEN
        self._sink = sink
        self._preface_left = 0 if client else _PREFACE_SIZE
        self._headers_lost = False
        self._unread = bytearray()  # the beginning of a frame whose rest has not come

    def take_output(self) -> bytearray:
        """All bytes to send; they are the caller's now."""
        output = self._data_to_send
        self._data_to_send = bytearray()
        return output

    def put_back(self, data: bytearray) -> None:
        """Take back what `take_output` gave and could not be sent; it goes out first."""
        self._data_to_send[:0] = data

    def let_go(self) -> None:
        """Drop what is held, and the cycles that would leave the rest of it to the garbage collector."""
        self._data_to_send = bytearray()
        self._unread = bytearray()
        self.streams.clear()
        self._frame_dispatch_table.clear()
        del self._sink

    def send_block(self, stream_id: int, block: bytes, *, end_stream: bool = False) -> None:
        """Queue an encoded header block; a client opens the stream with it."""
        self._note_headers(ConnectionInputs.SEND_HEADERS)
        stream = self.streams.get(stream_id)
        if stream is None:
            stream = self._begin_new_stream(stream_id, AllowedStreamIDs(int(self._client)))
            h2_streams.request_sent(stream.state_machine)
        else:
            h2_streams.response_sent(stream.state_machine)
        if end_stream:
            h2_streams.end_sent(stream.state_machine)
        flags, kind, limit = (END_STREAM if end_stream else 0), HEADERS, self.max_outbound_frame_size
        while len(block) > limit:
            self._queue(kind, flags, stream_id, block[:limit])
            block, flags, kind = block[limit:], 0, CONTINUATION
        self._queue(kind, flags | _END_HEADERS, stream_id, block)

    def _note_headers(self, change: Any) -> None:
        """Tell the connection's state machine of headers: only the first ones change anything."""
        if self.state_machine.state is not self._begun:
            self.state_machine.process_input(change)

    def send_payload(self, stream_id: int, payload: bytes | memoryview, *, end_stream: bool = False) -> None:
        """Queue data, in as many frames as it takes; the peer's windows must have room for it."""
        stream = self.streams[stream_id]
        h2_streams.data_sent(stream.state_machine)
        if end_stream:
            h2_streams.end_sent(stream.state_machine)
        stream.outbound_flow_control_window -= len(payload)
        self.outbound_flow_control_window -= len(payload)
        limit = self.max_outbound_frame_size
        while len(payload) > limit:
            self._queue(DATA, 0, stream_id, payload[:limit])
            payload = payload[limit:]
        self._queue(DATA, END_STREAM if end_stream else 0, stream_id, payload)

    def _queue(self, kind: int, flags: int, stream_id: int, payload: bytes | memoryview) -> None:
        size = len(payload)
        output = self._data_to_send
        output += _FRAME_HEADER.pack(size >> 8, size & 0xFF, kind, flags, stream_id)
        output += payload

    def feed(self, data: bytes) -> None:
        """Act on bytes from the peer; on an error of its, a GOAWAY is queued, `failure` set and the rest dropped."""
        try:
            if self._preface_left:
                data = self._check_preface(data)
            self._cut(data)
        except InvalidPaddingError:  # h2 3 lets it through
            self._fail(ErrorCodes.PROTOCOL_ERROR, ProtocolError("padding longer than its frame"))
        except ProtocolError as error:
            self._fail(error.error_code, error)
        except Exception as error:  # noqa: BLE001 - hostile bytes; some errors of h2 and hyperframe escape them
            self._fail(ErrorCodes.PROTOCOL_ERROR, error)

    def _fail(self, error_code: int, error: Exception) -> None:
        self.failure = error
        self.goaway(self.highest_inbound_stream_id, error_code, str(error)[:100].encode("ascii", "replace"))

    def _check_preface(self, data: bytes) -> bytes:
        """Have h2 look at the client's first words; returns what comes after them."""
        words, rest = data[: self._preface_left], data[self._preface_left :]
        self._preface_left -= len(words)
        self.incoming_buffer.add_data(words)
        return rest

    def _cut(self, data: bytes) -> None:
        source: bytes | bytearray = data
        if self._unread:
            self._unread += data
            source = self._unread
        position, end = 0, len(source)
        while end - position >= _HEADER_SIZE:
            high, low, kind, flags, stream_id = _FRAME_HEADER.unpack_from(source, position)
            size = high << 8 | low
            if size > self.max_inbound_frame_size:
                raise FrameTooLargeError(f"a frame of {size} bytes, more than {self.max_inbound_frame_size}")
            body, after = position + _HEADER_SIZE, position + _HEADER_SIZE + size
            if after > end:
                if kind == DATA and self._take_part(flags, stream_id & _STREAM_ID_BITS, source[body:]):
                    rest = after - end
                    self._unread = bytearray(_FRAME_HEADER.pack(rest >> 8, rest & 0xFF, kind, flags, stream_id))
                    return
                break
            stream_id &= _STREAM_ID_BITS
            payload = bytes(source[body:after])
            if self._headers_lost and self._needs_headers(kind, stream_id):
                self._drop(kind, flags, stream_id, payload)
            elif not self._take(kind, flags, stream_id, payload):
                self._leave_to_h2(bytes(source[position:after]))
            position = after
        if source is data:
            self._unread += data[position:]
        else:
            del self._unread[:position]

    def _take_part(self, flags: int, stream_id: int, payload: bytes | bytearray) -> bool:
        """Act on the beginning of a frame of data, as if the rest were another one; False if it is to be waited for.

        It may hold thousands of messages, and whoever feeds us in small pieces wants a turn between them.
        """
        if len(payload) < _PART or flags & PADDED or self.incoming_buffer.within_block:
            return False
        stream = self.streams.get(stream_id)
        if not self._takes_data(stream):
            return False
        self._take_data(stream, bytes(payload), ended=False)
        return True

    def _takes_data(self, stream: Any) -> bool:
        return _receives(stream) and not self.awaits_headers(stream)

    def _leave_to_h2(self, frame: bytes) -> None:
        self.incoming_buffer.add_data(frame)
        self.incoming_buffer.max_frame_size = self.max_inbound_frame_size
        try:
            for parsed in self.incoming_buffer:
                self._report(self._receive_frame(parsed))
        except HeaderBlockTooLarge as error:
            self._lose_headers(_FRAME_HEADER.unpack_from(frame)[4] & _STREAM_ID_BITS, error)

    def _lose_headers(self, stream_id: int, error: HeaderBlockTooLarge) -> None:
        """Go on without header compression, which streams that have begun do not need of a client; a server's do."""
        if self._client or stream_id % 2 == 0:
            raise error
        self._headers_lost = True
        self.incoming_buffer.drop_block()
        self._note_headers(ConnectionInputs.RECV_HEADERS)
        began = stream_id > self.highest_inbound_stream_id
        if began:
            stream = self._begin_new_stream(stream_id, AllowedStreamIDs.ODD)
            h2_streams.request_received(stream.state_machine)
        self._sink.on_headers_lost(stream_id, began=began)

    def _needs_headers(self, kind: int, stream_id: int) -> bool:
        return kind in {HEADERS, CONTINUATION} or stream_id > self.highest_inbound_stream_id

    def _drop(self, kind: int, flags: int, stream_id: int, payload: bytes) -> None:
        """Forget a frame that only header compression could make sense of; small ones count as frames of no use."""
        if kind == DATA:
            self._inbound_flow_control_window_manager.window_consumed(len(payload))
            self._sink.on_data(stream_id, b"", len(payload))
        if len(payload) < _SMALL:
            self._sink.on_frame(HEADERS if kind == CONTINUATION else kind, flags, payload)

    def _report(self, events: list[Any]) -> None:
        for event in events:
            self._sink.on_event(event)

    def _take(self, kind: int, flags: int, stream_id: int, payload: bytes) -> bool:
        """Act on one frame if it is an ordinary one; False if it is not, and nothing was done but to count it."""
        if self.incoming_buffer.within_block:
            return False  # anything but a continuation is an error, which is h2's to tell
        stream = self.streams.get(stream_id)
        if kind == DATA and payload and not flags & PADDED and self._takes_data(stream):
            self._take_data(stream, payload, ended=bool(flags & END_STREAM))
            return True
        if kind == HEADERS:
            begins = not self._client and stream_id % 2 == 1 and stream_id > self.highest_inbound_stream_id
            # Trailers end their stream; those that do not are h2's to tell.
            answers = self._client and _receives(stream) and (bool(flags & END_STREAM) or self.awaits_headers(stream))
            if flags & (PADDED | _PRIORITY) or not flags & _END_HEADERS or not (begins or answers):
                return False
            self._take_headers(stream_id, stream, payload, ended=bool(flags & END_STREAM))
            return True
        self._sink.on_frame(kind, flags, payload)
        if kind == DATA and not payload and self._takes_data(stream):
            self._take_data(stream, payload, ended=bool(flags & END_STREAM))
            return True
        events = self.take_control(kind, flags, stream_id, payload)
        self._report(events or [])
        return events is not None

    def _take_data(self, stream: Any, payload: bytes, *, ended: bool) -> None:
        size = len(payload)
        # The connection's own state machine has nothing to add: where there is a stream, it is open.
        self._inbound_flow_control_window_manager.window_consumed(size)
        stream._inbound_window_manager.window_consumed(size)  # noqa: SLF001 - see h2_connection
        if ended:
            h2_streams.end_received(stream.state_machine)
        self._sink.on_data(stream.stream_id, payload, size)
        if ended:
            self._sink.on_end(stream.stream_id)

    def _take_headers(self, stream_id: int, stream: Any, block: bytes, *, ended: bool) -> None:
        try:
            fields = self.decode(block)
        except HeaderBlockTooLarge as error:
            self._lose_headers(stream_id, error)
            return
        self._note_headers(ConnectionInputs.RECV_HEADERS)
        trailers = False
        if stream is None:
            stream = self._begin_new_stream(stream_id, AllowedStreamIDs.ODD)
            h2_streams.request_received(stream.state_machine)
        elif fields and fields[0][0] == b":status" and fields[0][1][:1] == b"1":
            if ended:
                raise ProtocolError("an informational response ends the stream")
            stream.state_machine.process_input(StreamInputs.RECV_INFORMATIONAL_HEADERS)
            return
        else:
            trailers = h2_streams.response_received(stream.state_machine)
        if ended:
            h2_streams.end_received(stream.state_machine)
        if trailers:
            self._sink.on_trailers(stream_id, fields)
        else:
            self._sink.on_headers(stream_id, fields, ended=ended)
        if ended:
            self._sink.on_end(stream_id)


def _receives(stream: Any) -> bool:
    return stream is not None and h2_streams.receives(stream.state_machine)
