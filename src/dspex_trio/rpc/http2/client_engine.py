"""The client's side of a connection: requests out, responses in, a status for every way in which they can end."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, ClassVar, Final

import h2.events
from h2.errors import ErrorCodes

from dspex_trio.rpc.http2.engine import H2Engine, StreamState
from dspex_trio.rpc.http2.events import ResponseEnded, ResponseStarted
from dspex_trio.rpc.http2.header_codec import Field, HeaderBlock
from dspex_trio.rpc.http2.headers import ResponseHead, encode_metadata, format_timeout
from dspex_trio.rpc.http2.interface import MAX_STREAM_ID
from dspex_trio.rpc.http2.limits import Limits
from dspex_trio.rpc.http2.messages import ACCEPT_ENCODING, ENCODINGS, MessageReader
from dspex_trio.rpc.http2.responses import BadResponse, parse_response, parse_trailers
from dspex_trio.rpc.metadata import NO_METADATA, Metadata
from dspex_trio.rpc.status import Status, StatusCode

_PATH: Final = re.compile(r"/[\x21-\x7e]*")
# What a reset by the server means for the call ("HTTP2 Transport Mapping", "Errors"); everything else is INTERNAL.
_RESET_STATUS: Final[Mapping[int, StatusCode]] = {
    ErrorCodes.REFUSED_STREAM: StatusCode.UNAVAILABLE,
    ErrorCodes.CANCEL: StatusCode.CANCELLED,
    ErrorCodes.ENHANCE_YOUR_CALM: StatusCode.RESOURCE_EXHAUSTED,
    ErrorCodes.INADEQUATE_SECURITY: StatusCode.PERMISSION_DENIED,
}


class H2ClientEngine(H2Engine):
    """The interface's ClientEngine.

    Args:
        limits: Sizes and rates.
        authority: What requests carry as `:authority`.
        scheme: "http" or "https".
        user_agent: What requests carry as `user-agent`.
    """

    def __init__(self, limits: Limits, *, authority: str, scheme: str, user_agent: str) -> None:
        super().__init__(client=True, limits=limits)
        self._before_path: tuple[Field, ...] = ((b":method", b"POST"), (b":scheme", scheme.encode()))
        self._after_path: tuple[Field, ...] = (
            (b":authority", authority.encode()),
            (b"te", b"trailers"),
            (b"content-type", b"application/grpc"),
            (b"user-agent", user_agent.encode()),
            (b"grpc-accept-encoding", ACCEPT_ENCODING.encode()),
        )
        self._next_stream_id = 1
        self._last_allowed = MAX_STREAM_ID

    @property
    def streams(self) -> int:
        """How many calls are under way."""
        return len(self._streams)

    @property
    def max_streams(self) -> int:
        """How many calls the server allows at once."""
        return int(self._h2.remote_settings.max_concurrent_streams)

    @property
    def exhausted(self) -> bool:
        """Whether no more calls can be made: the server said goodbye, or the ids are used up."""
        return self._last_allowed < MAX_STREAM_ID or self._next_stream_id > MAX_STREAM_ID

    def start_call(
        self, path: str, metadata: Metadata = NO_METADATA, *, timeout: float | None = None, encoding: str = "identity"
    ) -> int:
        """Queue a request's headers and return its stream's id; `timeout` is in seconds from now.

        Raises:
            ValueError: The path cannot be sent.
        """
        if not _PATH.fullmatch(path):
            raise ValueError(f"a method's path is /package.Service/Method in printable ASCII, not {path[:200]!r}")
        stream_id = self._next_stream_id
        fields = (*self._before_path, (b":path", path.encode()), *self._after_path)
        if encoding != "identity":
            fields = (*fields, (b"grpc-encoding", encoding.encode()))
        once = encode_metadata(metadata)
        if timeout is not None:
            once.append((b"grpc-timeout", format_timeout(timeout).encode()))
        self._h2.send_block(stream_id, self._block(fields, once))
        self._next_stream_id += 2
        self._floods.sent_headers()
        self._floods.call_began()
        self._streams[stream_id] = StreamState(stream_id, headers_sent=True)
        return stream_id

    def end_call(self, stream_id: int) -> None:
        """Queue the end of a request's messages."""
        self.send_data(stream_id, b"", end=True)

    def on_headers(self, stream_id: int, block: HeaderBlock, *, ended: bool) -> None:
        """A response began, or is over with that."""
        state = self._streams.get(stream_id)
        if state is None:
            return
        if ended:
            self._read_trailers(state, block, only=True)
            return
        try:
            head = self._head(block)
        except BadResponse as error:
            self._fail_stream(state, error.status)
            return
        if head.encoding != "identity" and head.encoding not in ENCODINGS:
            self._fail_stream(state, Status(StatusCode.INTERNAL, f"unsupported grpc-encoding {head.encoding[:40]!r}"))
            return
        state.reader = MessageReader(head.encoding, self._limits.max_message_size)
        self._events.append(ResponseStarted(stream_id, head))

    def _head(self, block: HeaderBlock) -> ResponseHead:
        """What headers mean: the same block means the same each time that it comes."""
        if not isinstance(block.parsed, ResponseHead):
            self._check_size(block)
            block.parsed = parse_response(block)
        return block.parsed

    def _end(self, block: HeaderBlock, *, only: bool) -> tuple[Status, Metadata]:
        """Likewise of trailers, and of those that are all of a response."""
        if not isinstance(block.parsed, tuple) or block.parsed[0] is not only:
            self._check_size(block)
            block.parsed = (only, *parse_trailers(block, only=only))
        _, status, trailers = block.parsed
        return status, trailers

    def _check_size(self, block: HeaderBlock) -> None:
        if block.oversized:
            text = f"the response's headers are larger than the limit of {self._limits.max_header_list_size} bytes"
            raise BadResponse(Status(StatusCode.RESOURCE_EXHAUSTED, text))

    def on_trailers(self, stream_id: int, block: HeaderBlock) -> None:
        """A response is complete."""
        state = self._streams.get(stream_id)
        if state is not None:
            self._read_trailers(state, block, only=False)

    def _read_trailers(self, state: StreamState, block: HeaderBlock, *, only: bool) -> None:
        try:
            status, trailers = self._end(block, only=only)
        except BadResponse as error:
            status, trailers = error.status, NO_METADATA
        if status.code is StatusCode.OK and state.reader is not None and state.reader.buffered:
            status = Status(StatusCode.INTERNAL, "the response ended within a message")
        self._finish(state, status, trailers)

    def on_end(self, stream_id: int) -> None:
        """A response ended; without trailers, for those with trailers are forgotten by now."""
        state = self._streams.get(stream_id)
        if state is not None:
            self._finish(state, Status(StatusCode.UNKNOWN, "the server ended the stream without trailers"))

    def _finish(self, state: StreamState, status: Status, trailers: Metadata = NO_METADATA) -> None:
        """The response is complete: what is left of the request is of no use to anybody."""
        state.remote_ended = True
        self._events.append(ResponseEnded(state.stream_id, status, trailers))
        self.reset(state.stream_id, ErrorCodes.NO_ERROR)

    def _fail_stream(self, state: StreamState, status: Status) -> None:
        self._events.append(ResponseEnded(state.stream_id, status, NO_METADATA))
        self.reset(state.stream_id, ErrorCodes.CANCEL)

    def _stream_reset(self, event: Any) -> None:
        state = self._streams.get(event.stream_id)
        if state is None:
            return
        self._forget(state)
        code = int(event.error_code)
        status = Status(
            _RESET_STATUS.get(code, StatusCode.INTERNAL), f"the server reset the stream with HTTP/2 error {code}"
        )
        refused = code == ErrorCodes.REFUSED_STREAM
        self._events.append(ResponseEnded(event.stream_id, status, NO_METADATA, unprocessed=refused))

    def _goaway_received(self, event: Any) -> None:
        """Streams above the last id were not and will not be processed (RFC 9113, 6.8)."""
        self._last_allowed = min(self._last_allowed, event.last_stream_id)
        super()._goaway_received(event)
        status = Status(StatusCode.UNAVAILABLE, "the server is going away")
        for stream_id in [i for i in self._streams if i > event.last_stream_id]:
            self._events.append(ResponseEnded(stream_id, status, NO_METADATA, unprocessed=True))
            self.reset(stream_id, ErrorCodes.CANCEL)

    dispatch: ClassVar[Mapping[type[Any], Any]] = {
        **H2Engine.dispatch,
        h2.events.StreamReset: _stream_reset,
        h2.events.ConnectionTerminated: _goaway_received,
    }
