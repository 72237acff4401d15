"""Small frames that we act on without h2 must mean what they mean to h2."""

import struct

from h2.events import PingReceived
from h2.settings import SettingCodes
from hypothesis import given, settings
from hypothesis import strategies as st

from dspex_trio.rpc.http2.h2_frames import FramedH2Connection

from .raw import PREFACE, fields, message
from .raw import RawClient as Peer

WINDOW_UPDATE = 8


class Plain(FramedH2Connection):
    """One that leaves all of them to h2."""

    def take_control(self, kind, flags, stream_id, payload):
        return None


class Seen:
    """Notes h2's events; the headers and the data that the streams begin with are the same for all."""

    def __init__(self, seen):
        self.on_event = lambda event: seen.append(shown(event))
        self.on_frame = self.on_headers = self.on_data = self.on_end = lambda *_, **__: None


def frame(kind, payload, flags, stream_id):
    if kind == WINDOW_UPDATE and len(payload) == 4:
        payload = bytes([payload[0] & 0x7F]) + payload[1:]  # the reserved bit is not h2's strength, see below
    return struct.pack(">HBBBI", len(payload) >> 8, len(payload) & 0xFF, kind, flags, stream_id) + payload


# Streams that are open, ended by the client, over, and not begun; increments that are none, and too much.
streams = st.sampled_from((0, 1, 3, 5, 7, 8))
numbers = st.sampled_from((0, 1, 70_000, 2**31 - 70_000, 2**31 - 1, 2**32 - 1)).map(struct.Struct(">I").pack)
odd = st.binary(max_size=9)
kinds = st.sampled_from((3, 4, 6, 8))  # RST_STREAM, SETTINGS, PING, WINDOW_UPDATE
frames = st.one_of(
    st.builds(frame, kinds, odd, st.sampled_from((0, 1, 8)), streams),
    st.builds(frame, st.just(WINDOW_UPDATE), numbers, st.just(0), streams),
    st.builds(frame, st.just(3), numbers, st.just(0), st.sampled_from((1, 3, 5))),
    st.builds(frame, st.just(6), st.binary(min_size=8, max_size=8), st.sampled_from((0, 1)), st.just(0)),
    st.builds(frame, st.just(4), st.sampled_from((b"", struct.pack(">HI", 4, 5))), st.just(0), st.just(0)),
)


def connection(kind, seen):
    peer = Peer(None)
    served = kind(
        client=False,
        settings={SettingCodes.MAX_FRAME_SIZE: 2**14, SettingCodes.INITIAL_WINDOW_SIZE: 2**16},
        max_block=2**16,
        sink=Seen(seen),
    )
    served.initiate_connection()
    begin = [frame(4, b"", 0, 0)]
    for stream_id in (1, 3, 5):
        begin += [peer.headers(stream_id, fields()).serialize()]
        begin += [peer.data(stream_id, message(), end=stream_id > 1).serialize()]
    served.feed(PREFACE + b"".join(begin))
    served.send_block(5, peer.encoder.encode([(":status", "200")]), end_stream=True)
    return served


def shown(event):
    """What the engine looks at of an event: not at what came with a ping, its answer is on its way."""
    names = ("stream_id", "error_code") if isinstance(event, PingReceived) else ("stream_id", "error_code", "ping_data")
    return type(event).__name__, {
        name: getattr(event, name) for name in names if getattr(event, name, None) is not None
    }


def state(served):
    windows = {number: stream.outbound_flow_control_window for number, stream in served.streams.items()}
    states = {number: stream.state_machine.state for number, stream in served.streams.items()}
    failure = getattr(served.failure, "error_code", served.failure and type(served.failure))
    return served.outbound_flow_control_window, windows, states, failure


@settings(derandomize=True, deadline=None, max_examples=300)
@given(st.lists(frames, max_size=12))
def test_frames_acted_on_here_do_what_h2_would_have_done(sequence):
    """The claim that acting on them without h2 rests on: the same history, once with it and once without."""
    quick_events, plain_events = [], []
    quick, plain = connection(FramedH2Connection, quick_events), connection(Plain, plain_events)
    for one in sequence:
        quick.feed(one)
        plain.feed(one)
        assert quick.take_output() == plain.take_output()
        assert quick_events == plain_events
        assert state(quick) == state(plain)
        if plain.failure is not None:
            break


def test_the_reserved_bit_of_an_increment_is_ignored():
    """RFC 9113, 6.9; h2 takes it for a number that is too large."""
    served = connection(FramedH2Connection, [])
    before = served.outbound_flow_control_window
    served.feed(struct.pack(">HBBBII", 0, 4, WINDOW_UPDATE, 0, 0, 2**31 + 5))
    assert served.failure is None
    assert served.outbound_flow_control_window == before + 5
