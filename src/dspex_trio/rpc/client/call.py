"""One call on the client: its messages, its metadata, how it ended, and how it is given up."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Final

import trio

from dspex_trio.rpc.call_stream import CallStream
from dspex_trio.rpc.details import failed_call, received_error
from dspex_trio.rpc.http2.interface import ErrorCode
from dspex_trio.rpc.http2.messages import BadMessage, compressor, frame
from dspex_trio.rpc.metadata import NO_METADATA, Metadata
from dspex_trio.rpc.settings import Compression
from dspex_trio.rpc.status import RpcError, Status, StatusCode

if TYPE_CHECKING:
    from dspex_trio.rpc.client.connection import ClientConnection

_CANCELLED: Final = Status(StatusCode.CANCELLED, "the call was given up")
_TOO_LATE: Final = Status(StatusCode.DEADLINE_EXCEEDED, "the deadline was exceeded")


class ClientCall(CallStream):
    """A call that was begun on a connection.

    Args:
        connection: Where it runs.
        stream_id: Its HTTP/2 stream.
        compression: What requests are compressed with.
        max_request_size: The largest request in bytes.
        deadline: When the caller stops waiting, on Trio's clock.

    Attributes:
        initial_metadata: What the server sent first; None as long as it has not.
        trailing_metadata: What it sent last.
        status: How the call ended; None as long as it has not.
        unprocessed: Whether the server promises to have done nothing.
        again: Begins the same call anew, if that is possible.
    """

    def __init__(
        self,
        connection: ClientConnection,
        stream_id: int,
        compression: Compression | None,
        max_request_size: int,
        deadline: float,
    ) -> None:
        super().__init__(connection, stream_id)
        self.initial_metadata: Metadata | None = None
        self.trailing_metadata = NO_METADATA
        self.status: Status | None = None
        self.unprocessed = False
        self.again: Callable[[], Awaitable[ClientCall]] | None = None
        self._client = connection
        self._compress = compressor(compression) if compression else None
        self._max_request_size = max_request_size
        self._deadline = deadline
        self._sending: trio.Lock | None = None  # held while a message goes out in parts, for no other's to come between
        self._no_more = False

    def started(self, metadata: Metadata) -> None:
        """The response's headers came."""
        self.initial_metadata = metadata
        self._notify()

    def ended(self, status: Status, trailers: Metadata = NO_METADATA, *, unprocessed: bool = False) -> None:
        """The call is over; what was received may still be read."""
        self.status = status
        self.trailing_metadata = trailers
        self.unprocessed = unprocessed and self.initial_metadata is None
        self.end_input()
        self.window_opened()  # a sender that waits has to learn of it

    def error(self) -> RpcError | None:
        """What the call ended with, if it did and not with OK."""
        if self.status is None or self.status.code is StatusCode.OK:
            return None
        if self.status.code is StatusCode.CANCELLED and trio.current_time() >= self._deadline:
            # Some servers reset a stream at its deadline. Whose clock was faster is of no interest to the caller.
            return received_error(_TOO_LATE, self.trailing_metadata)
        return received_error(self.status, self.trailing_metadata)

    async def headers(self) -> Metadata:
        """The initial metadata, when it has come; nothing if the call ended without any.

        Raises:
            RpcError: The call failed before there was any.
        """
        while self.initial_metadata is None and self.status is None:
            await self.arrival()
        if self.initial_metadata is None and (error := self.error()) is not None:
            raise error
        return self.initial_metadata or NO_METADATA

    def send_headers(self) -> None:
        """Let the server know of the call although there is no request to send yet."""
        self._client.wake()

    async def send_message(self, data: bytes, *, end: bool = False, compress: bool = True, more: bool = False) -> None:
        """Send one request.

        Args:
            data: The request.
            end: Whether it is the last one.
            compress: Has an effect only if the call was begun with a compression.
            more: Whether other calls are begun together with this one, so that a packet for it alone would be a waste.

        Raises:
            RpcError: It is too large, or the call has ended.
        """
        if len(data) > self._max_request_size:
            text = f"the request has {len(data)} bytes, more than the limit of {self._max_request_size}"
            raise failed_call(StatusCode.RESOURCE_EXHAUSTED, text)
        if self._no_more:
            raise self.error() or failed_call(StatusCode.FAILED_PRECONDITION, "no more requests were to be sent")
        framed = frame(data, self._compress if compress else None)
        if not self._in_parts() and self.send_now(framed, end=end):
            if end and not more and self._client.engine.streams == 1:
                self._client.push()
            else:
                self._client.wake()
            return
        await self._send_in_turn(framed, end=end)

    def _in_parts(self) -> bool:
        return self._sending is not None and self._sending.locked()

    async def _send_in_turn(self, framed: bytes, *, end: bool) -> None:
        if self._sending is None:  # few calls ever need one
            self._sending = trio.Lock()
        try:
            async with self._sending:
                await self.send(framed, end=end)
        except trio.ClosedResourceError:
            raise self.error() or failed_call(StatusCode.FAILED_PRECONDITION, "the call is over") from None
        except trio.Cancelled:
            if self.torn:  # the server would take what comes next for the rest of it
                self._give_up()
            raise
        finally:
            if self._no_more and not self._in_parts():
                self.end_requests()

    def end_requests(self) -> None:
        """No more requests will be sent but those that wait to be; nothing happens if the call is over."""
        self._no_more = True
        if not self._in_parts() and self._client.engine.is_open(self.stream_id):
            self._client.engine.end_call(self.stream_id)
            self._client.wake()

    async def next_reply(self) -> bytes | None:
        """The next reply, or None at the end of a call that went well.

        Raises:
            RpcError: The call failed.
        """
        try:
            data = await self.receive()
        except BadMessage as error:
            self._give_up(error.status)
            raise received_error(error.status, self.trailing_metadata) from None
        if data is None and (failure := self.error()) is not None:
            raise failure
        return data

    async def only_reply(self) -> bytes:
        """The reply of a call that has exactly one.

        Raises:
            RpcError: The call failed, or there was none or more than one.
        """
        data = await self.next_reply()
        if data is None or await self.next_reply() is not None:
            raise failed_call(StatusCode.INTERNAL, "the server did not send exactly one reply")
        return data

    def close(self) -> None:
        """Give the call up, if it is not over: the server is told by RST_STREAM(CANCEL)."""
        self._give_up()
        self.again = None  # which knows this call: without a cycle it is gone at once
        self._client.forget(self)

    def _give_up(self, status: Status = _CANCELLED) -> None:
        if self.status is None:
            self.ended(status)
            self._client.engine.reset(self.stream_id, ErrorCode.CANCEL)
            self._client.share_slots()
            self._client.wake()
