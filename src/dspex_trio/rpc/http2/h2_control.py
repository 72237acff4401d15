"""The small frames that a connection lives on and that come in floods, acted on without an object for each.

h2 takes 30 µs and more for one of them, which is what makes a flood of them worth while; here it is about two. What is
wrong with a frame is still h2's to tell: only those with nothing wrong about them are acted on here.
"""

from __future__ import annotations

import struct
from typing import Any, Final

from h2.events import PingAckReceived, PingReceived, RemoteSettingsChanged, WindowUpdated
from h2.stream import StreamInputs

from dspex_trio.rpc.http2.h2_connection import GrpcH2Connection

DATA, HEADERS, RST_STREAM, SETTINGS, PING, WINDOW_UPDATE, CONTINUATION = 0, 1, 3, 4, 6, 8, 9
ACK: Final = 0x01
END_STREAM: Final = 0x01
PADDED: Final = 0x08

_NUMBER: Final = struct.Struct(">I")
_MAX_INCREMENT: Final = 2**31 - 1
_PING_SIZE: Final = 8
_PONG: Final = bytes((0, 0, _PING_SIZE, PING, ACK, 0, 0, 0, 0))
_SETTINGS_TAKEN: Final = bytes((0, 0, 0, SETTINGS, ACK, 0, 0, 0, 0))


def _event(kind: type[Any], **fields: Any) -> Any:
    """An event as h2 makes it; h2 4 wants arguments that h2 3 does not take."""
    event = object.__new__(kind)
    for name, value in fields.items():
        setattr(event, name, value)
    return event


_PINGED: Final = _event(PingReceived)
_SETTINGS_CHANGED: Final = _event(RemoteSettingsChanged)
_WINDOW_OPENED: Final = _event(WindowUpdated, stream_id=0)


class ControlH2Connection(GrpcH2Connection):
    """A connection that acts on PING, SETTINGS without settings, WINDOW_UPDATE and RST_STREAM by itself."""

    _data_to_send: bytearray

    def take_control(self, kind: int, flags: int, stream_id: int, payload: bytes) -> list[Any] | None:
        """Act on a frame and return what h2 would report; None if it is h2's to act on, and nothing was done."""
        if kind == PING and len(payload) == _PING_SIZE and not stream_id:
            if flags & ACK:
                return [_event(PingAckReceived, ping_data=payload)]
            self._data_to_send += _PONG + payload
            return [_PINGED]
        if kind == WINDOW_UPDATE and len(payload) == _NUMBER.size:
            return self._take_window_update(stream_id, _NUMBER.unpack(payload)[0] & _MAX_INCREMENT)
        if kind == SETTINGS and not payload and not flags & ACK and not stream_id:
            self._data_to_send += _SETTINGS_TAKEN
            return [_SETTINGS_CHANGED]
        if kind == RST_STREAM and len(payload) == _NUMBER.size and (stream := self.streams.get(stream_id)):
            events: list[Any] = stream.state_machine.process_input(StreamInputs.RECV_RST_STREAM)
            for event in events:  # none, if the stream was over
                event.error_code = _NUMBER.unpack(payload)[0]
            return events
        return None

    def _take_window_update(self, stream_id: int, increment: int) -> list[Any] | None:
        if not increment:
            return None
        if not stream_id:
            if self.outbound_flow_control_window + increment > _MAX_INCREMENT:
                return None
            self.outbound_flow_control_window += increment
            return [_WINDOW_OPENED]
        stream = self.streams.get(stream_id)
        if stream is None:
            return None
        frames, events = stream.receive_window_update(increment)
        self._prepare_for_sending(frames)
        found: list[Any] = events
        return found
