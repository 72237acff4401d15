"""h2's connection with what gRPC needs different, on h2 3.2 and on h2 4 alike; all use of h2's privates is here.

Why h2 directly and not purerpc's GRPCConnection around it: that class hard-codes h2's own header validation, settings
and windows, drops `grpc-*` trailers, and turns one bad stream into a dead connection; nothing of it would have been
left.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from typing import Any, Final

import h2.config
import h2.events
from h2.connection import AllowedStreamIDs, ConnectionInputs, H2Connection
from h2.errors import ErrorCodes
from h2.exceptions import FrameDataMissingError, FrameTooLargeError, NoSuchStreamError, ProtocolError, StreamClosedError
from h2.frame_buffer import FrameBuffer
from h2.settings import SettingCodes, Settings
from h2.stream import H2Stream, StreamClosedBy
from hpack.exceptions import HPACKError, OversizedHeaderListError
from hyperframe.frame import (
    ContinuationFrame,
    GoAwayFrame,
    HeadersFrame,
    RstStreamFrame,
    SettingsFrame,
)

from dspex_trio.rpc.http2.header_codec import BlockDecoder, BlockEncoder, HeaderBlock

# The most that h2 may believe; the real limit is kept by whoever runs the streams, with REFUSED_STREAM for the stream
# that is one too many. h2 would end the connection.
_UNLIMITED: Final = 2**31 - 1
_IS_H2_4: Final = hasattr(FrameBuffer(), "_data")
# Of a stream, for a peer that has not taken our settings yet (RFC 9113, 6.9.2).
_DEFAULT_WINDOW: Final = 65_535
# The first five bytes of a frame: its length in three of them, its type, its flags.
_HEAD: Final = struct.Struct(">BHBB")
_ACK: Final = 1
# Frames of one header block; h2 takes as many.
_MAX_PARTS: Final = 64


class HeaderBlockTooLarge(ProtocolError):  # type: ignore[misc] # h2 is untyped
    """A header block so large that decoding it is refused: without its HPACK state no other one can be decoded."""

    error_code = ErrorCodes.ENHANCE_YOUR_CALM


class _FrameBuffer(FrameBuffer):  # type: ignore[misc] # h2 is untyped
    """h2's, but a header block spread over CONTINUATION frames has a limit in bytes, not just in frames."""

    def __init__(self, *, server: bool, max_block: int) -> None:
        super().__init__(server=server)
        self._max_block = max_block

    def __next__(self) -> Any:
        """As h2's, but a frame that is too long is refused by its header; h2 keeps up to 16 MB of it first."""
        head = bytes((self._data if _IS_H2_4 else self.data)[:5])
        if len(head) == _HEAD.size:
            high, low, kind, flags = _HEAD.unpack(head)
            length = high << 16 | low
            if length > self.max_frame_size:
                raise FrameTooLargeError(f"a frame of {length} bytes, more than {self.max_frame_size}")
            if length and kind == SettingsFrame.type and flags & _ACK:
                raise FrameDataMissingError("an acknowledgement of SETTINGS with a payload")  # RFC 9113, 6.5
        return super().__next__()

    @property
    def within_block(self) -> bool:
        """Whether a header block has begun that has not ended."""
        return bool(self._headers_buffer)

    def drop_block(self) -> None:
        """Forget the header block that has begun."""
        self._headers_buffer: list[Any] = []

    def _update_header_buffer(self, frame: Any) -> Any:
        parts = self._headers_buffer
        if isinstance(frame, HeadersFrame | ContinuationFrame) and not (
            parts and frame.stream_id != parts[0].stream_id
        ):
            held = sum(len(part.data) for part in parts)
            if held + len(frame.data) > self._max_block or len(parts) >= _MAX_PARTS:
                raise HeaderBlockTooLarge("header block too large")
        return super()._update_header_buffer(frame)


class GrpcH2Connection(H2Connection):  # type: ignore[misc] # h2 is untyped
    """An H2Connection for many short streams of which any may end badly.

    Differences from h2: header lists are not validated (the caller does, per stream); GOAWAY is an event and not the
    end; frames that cross with the end of their stream are ignored; streams are forgotten by `forget`, not by counting
    all of them for each new one; bytes are taken by `feed`, frame by frame.

    Args:
        client: Which side this is.
        settings: What to announce.
        max_block: The largest header block, encoded or decoded, in bytes.
    """

    # Remembered to tell late frames from wrong ones. h2 keeps 65,536, six megabytes on a connection of long life.
    MAX_CLOSED_STREAMS = 1024
    highest_inbound_stream_id: int
    highest_outbound_stream_id: int

    def __init__(
        self,
        *,
        client: bool,
        settings: Mapping[int, int],
        max_block: int,
    ) -> None:
        super().__init__(
            h2.config.H2Configuration(
                client_side=client,
                header_encoding=None,
                validate_inbound_headers=False,
                normalize_inbound_headers=False,
                validate_outbound_headers=False,
                normalize_outbound_headers=False,
            )
        )
        self.local_settings = Settings(client=client, initial_values=dict(settings))
        self.max_inbound_frame_size = settings[SettingCodes.MAX_FRAME_SIZE]
        self._client = client  # h2's own flag is a descriptor, and asked for with every frame
        self.encoder = BlockEncoder()
        self.decoder = BlockDecoder(max_block)
        self.decoder.max_header_list_size = settings.get(SettingCodes.MAX_HEADER_LIST_SIZE, max_block)
        self.max_block = max_block
        self.incoming_buffer = _FrameBuffer(server=not client, max_block=max_block)
        # A server hears from its client that our settings were taken; a client's were, when its first response comes.
        self._early_window = 0 if client else max(0, _DEFAULT_WINDOW - settings[SettingCodes.INITIAL_WINDOW_SIZE])
        self.clear_outbound_data_buffer()

    def initiate_connection(self) -> None:
        """Queue the preface and the settings."""
        super().initiate_connection()
        self.local_settings[SettingCodes.MAX_CONCURRENT_STREAMS] = _UNLIMITED
        self.local_settings.acknowledge()

    @property
    def open_inbound_streams(self) -> int:
        """Not counted here: see `forget`."""
        return 0

    @property
    def open_outbound_streams(self) -> int:
        """Not counted here: see `forget`."""
        return 0

    @property
    def unsent(self) -> int:
        """Bytes that wait to be fetched by `data_to_send`."""
        return len(self._data_to_send)

    def is_closed(self, stream_id: int) -> bool:
        """Whether both sides have closed a stream."""
        stream = self.streams.get(stream_id)
        return stream is None or bool(stream.closed)

    def forget(self, stream_id: int) -> None:
        """Drop the state of a stream that both sides have closed; late frames for it are still told from wrong ones."""
        stream = self.streams.get(stream_id)
        if stream is not None and stream.closed:
            del self.streams[stream_id]
            self._closed_streams[stream_id] = stream.closed_by

    def goaway(self, last_stream_id: int, error_code: int = 0, debug: bytes = b"") -> None:
        """Queue a GOAWAY and go on: h2's `close_connection` would forbid to finish what is in flight."""
        self._prepare_for_sending(
            [GoAwayFrame(0, last_stream_id=last_stream_id, error_code=error_code, additional_data=debug)]
        )

    def _begin_new_stream(self, stream_id: int, allowed_ids: Any) -> Any:
        """As h2's, which takes our window to be known before the peer can know it, and notes for a log who comes."""
        ours = stream_id % 2 == self._client  # clients' are odd
        highest = self.highest_outbound_stream_id if ours else self.highest_inbound_stream_id
        if stream_id <= highest or stream_id % 2 != allowed_ids:
            return super()._begin_new_stream(stream_id, allowed_ids)  # which refuses it
        windows = self.local_settings.initial_window_size, self.remote_settings.initial_window_size
        self.streams[stream_id] = stream = H2Stream(stream_id, self.config, *windows)
        stream.max_outbound_frame_size = self.max_outbound_frame_size
        if ours:
            self.highest_outbound_stream_id = stream_id
        else:
            self.highest_inbound_stream_id = stream_id
        if self._early_window:
            stream._inbound_window_manager.window_opened(self._early_window)  # noqa: SLF001 - h2's private
        return stream

    def _local_settings_acked(self) -> Any:
        """As h2's; from now on the peer keeps to our windows."""
        self._early_window = 0
        return super()._local_settings_acked()

    def _receive_headers_frame(self, frame: Any) -> tuple[list[Any], list[Any]]:
        """As h2's, without the count of streams, the checks of content-length and the end of all for a late trailer."""
        block = self.decode(frame.data)
        self.state_machine.process_input(ConnectionInputs.RECV_HEADERS)
        stream_id = frame.stream_id
        if self._crosses(stream_id):
            return [], []
        if "PRIORITY" in frame.flags and frame.depends_on == stream_id:
            raise ProtocolError(f"stream {stream_id} depends on itself")
        stream = self._stream_for_headers(stream_id)
        ended = "END_STREAM" in frame.flags
        if stream.state_machine.headers_received and not ended:
            # Trailers that do not end the stream are malformed (RFC 9113, 8.1): an error of the stream alone.
            event = h2.events.StreamReset.__new__(h2.events.StreamReset)  # h2 4 wants arguments that h2 3 does not take
            event.stream_id, event.error_code, event.remote_reset = stream_id, ErrorCodes.PROTOCOL_ERROR, False
            return stream.reset_stream(ErrorCodes.PROTOCOL_ERROR), [event]
        # h2 looks into the list for a content-length, over which it would end the connection, and for 1xx responses.
        shown = [field for field in block if field[0] == b":status"] if self.config.client_side else []
        frames, events = stream.receive_headers(shown, ended, None)
        events[0].headers = block
        return frames, events

    def decode(self, data: bytes) -> HeaderBlock:
        """Decode a header block, whatever becomes of its stream; raises ProtocolError."""
        if len(data) > self.max_block:
            raise HeaderBlockTooLarge("header block too large")
        try:
            block: HeaderBlock = self.decoder.decode(data)
        except OversizedHeaderListError as error:
            raise HeaderBlockTooLarge(str(error)) from error
        except (HPACKError, IndexError, TypeError, UnicodeDecodeError) as error:
            problem = ProtocolError(f"bad header block: {error}")
            problem.error_code = ErrorCodes.COMPRESSION_ERROR  # RFC 9113, 4.3
            raise problem from error
        return block

    def _stream_for_headers(self, stream_id: int) -> Any:
        if self.config.client_side:
            return self._get_stream_by_id(stream_id)
        return self._get_or_create_stream(stream_id, AllowedStreamIDs.ODD)

    def _receive_data_frame(self, frame: Any) -> tuple[list[Any], list[Any]]:
        """As h2's, but data that crosses with a reset of ours is not answered with more of them.

        Data before a response's headers is an event as well: h2 3 thinks nothing of it, h2 4 ends the connection.
        """
        stream = self.streams.get(frame.stream_id)
        if stream is not None and not stream.closed and self.awaits_headers(stream):
            self._inbound_flow_control_window_manager.window_consumed(frame.flow_controlled_length)
            event = h2.events.DataReceived.__new__(h2.events.DataReceived)
            event.stream_id, event.data = frame.stream_id, frame.data
            event.flow_controlled_length, event.stream_ended = frame.flow_controlled_length, None
            return [], [event]
        crossing = self._crosses(frame.stream_id)
        frames, events = super()._receive_data_frame(frame)
        if crossing:
            frames = [f for f in frames if not isinstance(f, RstStreamFrame)]
        return frames, events

    def awaits_headers(self, stream: Any) -> bool:
        """Whether it is a client's stream whose response has not begun."""
        return self._client and not stream.state_machine.headers_received

    def _receive_naked_continuation(self, _: Any) -> Any:
        """Whatever the stream's state, the connection's header compression is out of step now (RFC 9113, 6.10)."""
        raise ProtocolError("CONTINUATION without an open header block")

    def _receive_window_update_frame(self, frame: Any) -> tuple[list[Any], list[Any]]:
        """As h2's, but one for a finished stream is no error: h2 3.2 ends the connection (RFC 9113, 5.1 "closed")."""
        try:
            frames, events = super()._receive_window_update_frame(frame)
        except StreamClosedError:
            return [], []
        return frames, events

    def _receive_rst_stream_frame(self, frame: Any) -> tuple[list[Any], list[Any]]:
        """As h2's, but for a stream that never was it is an error (RFC 9113, 6.4), and for a finished one it is not."""
        try:
            self._get_stream_by_id(frame.stream_id)
        except StreamClosedError:
            event = h2.events.StreamReset.__new__(h2.events.StreamReset)  # h2 4 wants arguments that h2 3 does not take
            event.stream_id, event.error_code, event.remote_reset = frame.stream_id, frame.error_code, True
            return [], [event]
        except NoSuchStreamError:
            raise ProtocolError(f"RST_STREAM for the idle stream {frame.stream_id}") from None
        frames, events = super()._receive_rst_stream_frame(frame)
        return frames, events

    def _receive_goaway_frame(self, frame: Any) -> tuple[list[Any], list[Any]]:
        """An event only: to h2 any GOAWAY is the end, though streams up to its id go on (RFC 9113, 6.8)."""
        event = h2.events.ConnectionTerminated()
        event.error_code = frame.error_code
        event.last_stream_id = frame.last_stream_id
        event.additional_data = bytes(frame.additional_data or b"")
        return [], [event]

    def _crosses(self, stream_id: int) -> bool:
        """Whether what comes for a stream may have been sent before a reset of ours was known."""
        if self._stream_closed_by(stream_id) is StreamClosedBy.SEND_RST_STREAM:
            return True
        # A client may have begun it so many streams ago that nobody knows any more how it ended.
        known = stream_id in self.streams or stream_id in self._closed_streams
        ours = self._stream_id_is_outbound(stream_id) and stream_id <= self.highest_outbound_stream_id
        return self._client and ours and not known
