"""One connection of a channel: its calls, how it comes up and how it goes."""

from __future__ import annotations

import math
from typing import Final

import trio

from dspex_trio.rpc.client.call import ClientCall
from dspex_trio.rpc.client.keepalive import keep_alive
from dspex_trio.rpc.details import failed_call
from dspex_trio.rpc.http2.events import (
    Event,
    GoawayReceived,
    MessageReceived,
    ResponseEnded,
    ResponseStarted,
    SettingsChanged,
    WindowOpened,
)
from dspex_trio.rpc.http2.interface import ClientEngine
from dspex_trio.rpc.metadata import Metadata
from dspex_trio.rpc.settings import ChannelSettings, Compression
from dspex_trio.rpc.status import Status, StatusCode
from dspex_trio.rpc.transport import Connection

_CLOSE_TIMEOUT: Final = 1.0
_LOST: Final = Status(StatusCode.UNAVAILABLE, "the connection was lost")
_TOO_MANY_PINGS: Final = b"too_many_pings"
_SILENT: Final = Status(StatusCode.UNAVAILABLE, "the server does not answer pings")


class ClientConnection(Connection[ClientEngine]):
    """One connection to a server.

    Args:
        stream: Any Trio stream, after TLS's handshake.
        engine: Its protocol.
        settings: Limits.
        keepalive_time: Instead of the settings'.

    Attributes:
        ready: Set when the server has spoken HTTP/2.
        retired: Set when no new calls can be made on it, for whatever reason.
        pinged_too_often: Whether the server said so.
    """

    def __init__(
        self, stream: trio.abc.Stream, engine: ClientEngine, settings: ChannelSettings, keepalive_time: float
    ) -> None:
        super().__init__(stream, engine, output_buffer=settings.output_buffer, close_timeout=_CLOSE_TIMEOUT)
        self.ready = trio.Event()
        self.retired = trio.Event()
        self.pinged_too_often = False
        self._settings = settings
        self._keepalive_time = keepalive_time
        self._calls: dict[int, ClientCall] = {}
        self._waiting = trio.lowlevel.ParkingLot()  # calls that wait until the server allows one more, in turn
        self._let_in = 0  # those of them that have a slot and did not have their turn to use it yet
        self._begun = trio.lowlevel.ParkingLot()  # keepalive, until a call begins
        self._reading = trio.CancelScope()
        self._why_lost = _LOST

    @property
    def accepting(self) -> bool:
        """Whether calls can be made."""
        return self.ready.is_set() and not self.retired.is_set()

    async def run(self) -> None:
        """Run until the server leaves or `abort`; every call has ended when this returns."""
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self.write)
                if self._keepalive_time < math.inf:
                    nursery.start_soon(self._keep_alive)
                try:
                    with self._reading:
                        await self.read()
                finally:
                    self._end_calls()
                    self.close()
                    nursery.cancel_scope.cancel()
        finally:
            # What the server may still be sending is of no interest, as every call has ended.
            self.engine.close()
            await trio.aclose_forcefully(self.stream)

    async def _keep_alive(self) -> None:
        settings = self._settings
        await keep_alive(
            self,
            self._keepalive_time,
            settings.keepalive_timeout,
            until_needed=self._until_needed,
            early=settings.max_pings_without_data,
        )
        self._why_lost = _SILENT
        self.abort()

    async def _until_needed(self) -> None:
        """Wait for a call, unless the server is to be pinged without one, too."""
        while not (self._calls or self._settings.keepalive_without_calls):
            await self._begun.park()
        await trio.lowlevel.checkpoint()

    def abort(self) -> None:
        """End it now."""
        self._reading.cancel()

    def on_broken(self) -> None:
        """The server cannot be written to; what it wrote may still be read."""
        self._retire()

    def _retire(self) -> None:
        self.retired.set()
        self.share_slots()
        if not self._calls:
            self._reading.cancel()

    def _end_calls(self) -> None:
        self.retired.set()
        self.share_slots()
        for call in tuple(self._calls.values()):
            if call.status is None:  # of the others all has come, though their users may not have read it yet
                call.ended(self._why_lost)
        self._calls.clear()

    async def start_call(
        self, path: str, metadata: Metadata, deadline: float, compression: Compression | None
    ) -> ClientCall | None:
        """Begin a call, when the server allows one more; None if the connection was retired before that.

        Its headers leave with its first message: `send_headers` sends them before that.
        """
        if metadata and not self.engine.takes_metadata(metadata):
            raise failed_call(StatusCode.RESOURCE_EXHAUSTED, "the metadata is larger than the server takes")
        if not self.retired.is_set() and (self._waiting or self._free_slots() <= 0):
            await self._waiting.park()
            self._let_in -= 1
        if self.retired.is_set():
            return None
        timeout = None if deadline == math.inf else deadline - trio.current_time()
        stream_id = self.engine.start_call(path, metadata, timeout=timeout, encoding=compression or "identity")
        call = ClientCall(self, stream_id, compression, self._settings.max_request_size, deadline)
        self._calls[stream_id] = call
        if len(self._calls) == 1:
            self._begun.unpark()
        if self.engine.exhausted:
            self._retire()
        return call

    def _free_slots(self) -> int:
        return self.engine.max_streams - self.engine.streams - self._let_in

    def share_slots(self) -> None:
        """Let in calls that wait for a slot, as far as there are any: all, when there is nothing left to wait for.

        Each has its slot from then on. Left to whoever comes first it went to the task whose call had just ended.
        """
        if not self._waiting:
            return
        count = len(self._waiting) if self.retired.is_set() else max(self._free_slots(), 0)
        self._let_in += len(self._waiting.unpark(count=count))

    def forget(self, call: ClientCall) -> None:
        """A call is over and its user has left it."""
        self._calls.pop(call.stream_id, None)
        if self.retired.is_set() and not self._calls:
            self._reading.cancel()

    def on_event(self, event: Event) -> None:
        """Act on one event."""
        match event:
            case SettingsChanged():
                self.ready.set()
                self.share_slots()
                self.window_grew()
            case WindowOpened(0):
                self.window_grew()
            case GoawayReceived(_, _, debug):
                self.pinged_too_often = debug == _TOO_MANY_PINGS
                self._retire()
            case ResponseEnded():
                self.share_slots()
                self._tell(event)
            case MessageReceived() | ResponseStarted() | WindowOpened():
                self._tell(event)
            case _:
                pass

    def _tell(self, event: MessageReceived | ResponseStarted | ResponseEnded | WindowOpened) -> None:
        call = self._calls.get(event.stream_id)
        if call is None:
            return
        match event:
            case MessageReceived(_, data, size):
                call.deliver(data, size)
            case ResponseStarted(_, head):
                call.started(head.metadata)
            case ResponseEnded(_, status, trailers, unprocessed):
                call.ended(status, trailers, unprocessed=unprocessed)
            case WindowOpened():
                call.window_opened()
