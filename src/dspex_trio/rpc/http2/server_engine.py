"""The server's side of a connection: requests in, responses out, and an answer for every bad stream."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Final

import h2.events
from h2.errors import ErrorCodes

from dspex_trio.rpc.http2.buckets import TokenBucket
from dspex_trio.rpc.http2.engine import H2Engine, StreamState
from dspex_trio.rpc.http2.events import (
    Event,
    GoodbyeSaid,
    RequestEnded,
    RequestStarted,
    StreamFailed,
    StreamReset,
)
from dspex_trio.rpc.http2.floods import calm
from dspex_trio.rpc.http2.header_codec import Field, HeaderBlock
from dspex_trio.rpc.http2.headers import (
    MalformedHeaders,
    RawHeaders,
    RefusedRequest,
    RequestHead,
    check_fields,
    encode_metadata,
    encode_status,
    parse_request,
)
from dspex_trio.rpc.http2.limits import Limits
from dspex_trio.rpc.http2.messages import ACCEPT_ENCODING, ENCODINGS, MessageReader
from dspex_trio.rpc.metadata import NO_METADATA, Metadata
from dspex_trio.rpc.status import Status, StatusCode

_CONTENT_LENGTH: Final = re.compile(rb"[0-9]{1,18}")
_SHORT: Final = 200
_CONTENT_TYPE: Final = (b"content-type", b"application/grpc")
_ACCEPT_ENCODING: Final = (b"grpc-accept-encoding", ACCEPT_ENCODING.encode())
_INITIAL: Final = ((b":status", b"200"), _CONTENT_TYPE, _ACCEPT_ENCODING)


class H2ServerEngine(H2Engine):
    """The interface's ServerEngine."""

    def __init__(self, limits: Limits) -> None:
        super().__init__(client=False, limits=limits)
        self._resets = TokenBucket(limits.reset_burst, limits.reset_rate)
        self._batch = 0

    def receive(self, data: bytes, now: float) -> list[Event]:
        """As the interface says; a call that was begun and reset within these bytes is not reported at all."""
        self._batch += 1
        return super().receive(data, now)

    def send_initial(self, stream_id: int, metadata: Metadata = NO_METADATA, encoding: str = "identity") -> None:
        """Queue the response's headers."""
        state = self._streams[stream_id]
        fields: tuple[Field, ...] = _INITIAL
        if encoding != "identity":
            fields = (*fields, (b"grpc-encoding", encoding.encode()))
        self._h2.send_block(stream_id, self._block(fields, encode_metadata(metadata)))
        state.headers_sent = True

    def send_status(self, stream_id: int, status: Status, metadata: Metadata = NO_METADATA) -> None:
        """Queue the trailers, which end the response; if the client has not ended its request, it is told to stop."""
        self._send_status(self._streams[stream_id], status, metadata)

    def _send_status(
        self, state: StreamState, status: Status, metadata: Metadata = NO_METADATA, http_status: int = 200
    ) -> None:
        fields: tuple[Field, ...] = ()
        if not state.headers_sent:
            fields = ((b":status", str(http_status).encode()), _CONTENT_TYPE)
            if status.code is StatusCode.UNIMPLEMENTED:
                fields = (*fields, _ACCEPT_ENCODING)  # it may have been the encoding
        code, *details = encode_status(status)
        once = [*details, *encode_metadata(metadata)]
        if once and not self._takes(once, surely=status.code is not StatusCode.OK):
            # Sent as it is it would cost a client the call's status at least, and some their connection.
            code, *once = encode_status(_shortened(status))
        block = self._block((*fields, code), once)
        self._h2.send_block(state.stream_id, block, end_stream=True)
        self._floods.sent_headers()
        # The response is complete: if the client has not ended its request, the rest is of no use (RFC 9113, 8.1).
        self.reset(state.stream_id, ErrorCodes.NO_ERROR)

    def takes_status(self, status: Status, metadata: Metadata) -> bool:
        """Whether the client surely takes such trailers."""
        return self._takes([*encode_status(status), *encode_metadata(metadata)], surely=True)

    def refuse(self, stream_id: int) -> None:
        """Reject a call that nothing was done for: the client may safely try again (RFC 9113, 8.7)."""
        self.reset(stream_id, ErrorCodes.REFUSED_STREAM)

    def on_headers(self, stream_id: int, block: HeaderBlock, *, ended: bool) -> None:  # noqa: ARG002
        """A request began."""
        state = StreamState(stream_id, batch=self._batch)
        self._streams[stream_id] = state
        self._floods.call_began()
        try:
            head, state.content_length = block.parsed or self._parse(block)
        except MalformedHeaders:
            self.reset(stream_id, ErrorCodes.PROTOCOL_ERROR)
            return
        except RefusedRequest as error:
            self._send_status(state, error.status, http_status=error.http_status)
            return
        state.reader = MessageReader(head.encoding, self._limits.max_message_size)
        self._events.append(RequestStarted(stream_id, head))

    def _parse(self, headers: HeaderBlock) -> tuple[RequestHead, int | None]:
        if headers.oversized:
            text = f"the headers are larger than the limit of {self._limits.max_header_list_size} bytes"
            raise RefusedRequest(Status(StatusCode.RESOURCE_EXHAUSTED, text))
        content_length = _content_length(headers)
        head = parse_request(headers)
        if head.encoding != "identity" and head.encoding not in ENCODINGS:
            raise RefusedRequest(Status(StatusCode.UNIMPLEMENTED, f"unsupported grpc-encoding {head.encoding[:40]!r}"))
        headers.parsed = head, content_length
        return head, content_length

    def on_headers_lost(self, stream_id: int, *, began: bool) -> None:
        """Answer the one call; the others go on, but no more can be begun."""
        status = Status(
            StatusCode.RESOURCE_EXHAUSTED, f"the headers are far larger than {self._limits.max_header_list_size} bytes"
        )
        state = self._streams.get(stream_id)
        if began:
            state = self._streams[stream_id] = StreamState(stream_id, batch=self._batch)
            self._floods.call_began()
            self._send_status(state, status)
        elif state is not None:
            self._fail_stream(state, status)
        last = self.highest_peer_stream
        self.goaway(last, ErrorCodes.ENHANCE_YOUR_CALM, b"header block too large")
        self._events.append(GoodbyeSaid(last))

    def on_trailers(self, stream_id: int, block: HeaderBlock) -> None:
        """A client has no use for trailers; unless malformed they end the request, like an empty DATA frame."""
        try:
            check_fields(block)
        except MalformedHeaders:
            self._give_up(stream_id)
            return
        state = self._streams.get(stream_id)
        if state is not None and block.oversized:
            self._fail_stream(state, Status(StatusCode.RESOURCE_EXHAUSTED, "the trailers are too large"))

    def on_end(self, stream_id: int) -> None:
        """A request is complete."""
        state = self._streams.get(stream_id)
        if state is None:
            return
        if state.content_length:  # neither absent nor used up exactly
            self._give_up(stream_id)
            return
        state.remote_ended = True
        if state.reader is not None and state.reader.buffered:
            self._fail_stream(state, Status(StatusCode.INTERNAL, "the request ended within a message"))
            return
        self._events.append(RequestEnded(stream_id))

    def _give_up(self, stream_id: int) -> None:
        """Reset a stream whose request turned out to be malformed (RFC 9113, 8.1.1)."""
        self.reset(stream_id, ErrorCodes.PROTOCOL_ERROR)
        self._events.append(StreamFailed(stream_id, Status(StatusCode.INTERNAL, "malformed request")))

    def _fail_stream(self, state: StreamState, status: Status) -> None:
        self._send_status(state, status)
        self._events.append(StreamFailed(state.stream_id, status))

    def _stream_reset(self, event: Any) -> None:
        state = self._streams.get(event.stream_id)
        if state is not None and state.batch == self._batch:
            # Begun and given up in one breath: the cheapest way to keep a server busy. No handler is started for it.
            self._forget(state)
            stream_id = event.stream_id
            self._events[:] = [e for e in self._events if getattr(e, "stream_id", 0) != stream_id]
            if not self._resets.take(self._now):
                raise calm("too many streams begun and reset")
            return
        if state is None:  # it is over, but whoever answered it may want to know that its client has not had the answer
            self._events.append(StreamReset(event.stream_id, int(event.error_code)))
            return
        super()._stream_reset(event)

    dispatch: ClassVar[Mapping[type[Any], Any]] = {
        **H2Engine.dispatch,
        h2.events.StreamReset: _stream_reset,
    }


def _shortened(status: Status) -> Status:
    """What is said instead of a status that, with its metadata, is larger than the client takes."""
    if status.code is StatusCode.OK:
        return Status(StatusCode.RESOURCE_EXHAUSTED, "the trailing metadata is larger than the client takes")
    return Status(status.code, f"{status.message[:_SHORT]}… (the status is larger than the client takes)")


def _content_length(headers: RawHeaders) -> int | None:
    """The declared length of the body; raises MalformedHeaders (RFC 9113, 8.1.1)."""
    values: Sequence[bytes] = [value for name, value in headers if name == b"content-length"]
    if not values:
        return None
    if len(set(values)) > 1 or not _CONTENT_LENGTH.fullmatch(values[0]):
        raise MalformedHeaders("bad content-length")
    return int(values[0])
