"""The parts without I/O: messages, timeouts, statuses, metadata, limits of rates."""

import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dspex_trio import rpc
from dspex_trio.rpc.http2.buckets import TokenBucket
from dspex_trio.rpc.http2.client_engine import H2ClientEngine
from dspex_trio.rpc.http2.events import MessageReceived, RequestEnded, RequestStarted, ResponseEnded, StreamReset
from dspex_trio.rpc.http2.headers import RefusedRequest, encode_metadata, encode_status, format_timeout, parse_timeout
from dspex_trio.rpc.http2.messages import BadMessage, MessageReader, frame
from dspex_trio.rpc.http2.responses import BadResponse, parse_response, parse_trailers
from dspex_trio.rpc.http2.server_engine import H2ServerEngine
from dspex_trio.rpc.metadata import Metadata, outgoing
from dspex_trio.rpc.status import OK, Status, StatusCode

# The same examples each time, and no limit on the time that a busy machine takes for one.
unhurried = settings(derandomize=True, deadline=None)


def in_pieces(data, cuts):
    """The data, cut at some places."""
    edges = sorted({0, len(data), *(cut % (len(data) + 1) for cut in cuts)})
    return [data[a:b] for a, b in itertools.pairwise(edges)]


@unhurried
@given(
    messages=st.lists(st.binary(max_size=300), max_size=8),
    cuts=st.lists(st.integers(min_value=0, max_value=3000), max_size=12),
)
def test_messages_are_the_same_however_they_are_cut_and_every_byte_is_given_back(messages, cuts):
    """What the sender's window lost must come back to it, or the stream would stall."""
    reader = MessageReader("identity", 300)
    received, returned, sent = [], 0, 0
    for piece in in_pieces(b"".join(frame(one) for one in messages), cuts):
        sent += len(piece)
        for message, cost in reader.feed(piece):
            received.append(message)
            returned += cost
    assert received == messages
    assert returned == sent
    assert reader.buffered == 0


@unhurried
@given(cuts=st.lists(st.integers(min_value=0, max_value=3000), max_size=12))
def test_bytes_given_back_early_are_not_given_back_twice(cuts):
    reader = MessageReader("identity", 3000)
    data = frame(bytes(1000)) + frame(bytes(10))
    returned = 0
    for piece in in_pieces(data, cuts):
        returned += sum(cost for _, cost in reader.feed(piece))
        returned += reader.take_flow()
    assert returned == len(data)


def test_a_reader_knows_how_much_it_needs():
    reader = MessageReader("identity", 1000)
    assert reader.needed == 5
    reader.feed(frame(bytes(100))[:50])
    assert (reader.needed, reader.buffered) == (105, 50)


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (b"\2\0\0\0\0", rpc.StatusCode.INTERNAL),
        (b"\1\0\0\0\1x", rpc.StatusCode.INTERNAL),
        (b"\0\0\0\4\1", rpc.StatusCode.RESOURCE_EXHAUSTED),
        (b"\0\0\0\4\1" + bytes(1025), rpc.StatusCode.RESOURCE_EXHAUSTED),
    ],
)
def test_bad_messages_are_refused_as_soon_as_that_is_known(data, code):
    with pytest.raises(BadMessage) as caught:
        MessageReader("identity", 1024).feed(data)
    assert caught.value.status.code is code


@unhurried
@given(st.floats(min_value=0, max_value=1e12))
def test_a_formatted_timeout_never_promises_more_than_there_is_and_loses_little(seconds):
    text = format_timeout(seconds)
    assert len(text) <= 9
    back = parse_timeout(text)
    assert back <= seconds * (1 + 1e-12)
    assert seconds - back <= max(seconds * 1e-4, 1e-6) or seconds > 3e11


@pytest.mark.parametrize("text", ["", "1", "S", "1s", "-1S", "1.5S", " 1S", "1S ", "123456789S", "\uff11S", "1SS"])
def test_a_malformed_timeout_is_refused(text):
    with pytest.raises(RefusedRequest):
        parse_timeout(text)


@unhurried
@given(st.text())
def test_any_status_message_survives(text):
    headers = encode_status(Status(rpc.StatusCode.ABORTED, text))
    status, _ = parse_trailers([(b":status", b"200"), *headers], only=True)
    assert status.message == text.encode("utf-8", "replace").decode()
    value = dict(headers).get(b"grpc-message", b"")
    assert value.isascii()
    assert value == value.strip()


@unhurried
@given(st.lists(st.binary(max_size=50), max_size=5))
def test_binary_metadata_survives(values):
    metadata = outgoing([("x-bin", value) for value in values])
    _, back = parse_trailers([(b"grpc-status", b"0"), *encode_metadata(metadata)], only=False)
    assert back.binary_all("x-bin") == tuple(values)


def test_binary_metadata_may_come_joined_and_padded():
    _, back = parse_trailers([(b"grpc-status", b"0"), (b"x-bin", b"YQ==,YmI,Y2Nj")], only=False)
    assert back.binary_all("x-bin") == (b"a", b"bb", b"ccc")


def test_metadata_keeps_order_and_repetitions():
    metadata = Metadata([("a", "1"), ("b", "2"), ("a", "3"), ("c-bin", b"4")])
    assert metadata.get("a") == "1"
    assert metadata.get_all("a") == ("1", "3")
    assert metadata.binary("c-bin") == b"4"
    assert (metadata.get("c-bin"), metadata.binary("a"), metadata.get("z", "none")) == (None, None, "none")
    assert ("b" in metadata, "z" in metadata, len(metadata)) == (True, False, 4)
    assert metadata == Metadata(metadata.items())
    assert hash(metadata) == hash(Metadata(metadata.items()))


@pytest.mark.parametrize(
    ("http", "code"),
    [
        ("400", rpc.StatusCode.INTERNAL),
        ("401", rpc.StatusCode.UNAUTHENTICATED),
        ("403", rpc.StatusCode.PERMISSION_DENIED),
        ("404", rpc.StatusCode.UNIMPLEMENTED),
        ("429", rpc.StatusCode.UNAVAILABLE),
        ("503", rpc.StatusCode.UNAVAILABLE),
        ("500", rpc.StatusCode.UNKNOWN),
        ("teapot", rpc.StatusCode.UNKNOWN),
    ],
)
def test_a_http_status_is_translated(http, code):
    """Proxies answer so; the table is gRPC's."""
    for parse in (parse_response, lambda headers: parse_trailers(headers, only=True)):
        with pytest.raises(BadResponse) as caught:
            parse([(b":status", http.encode()), (b"content-type", b"text/html")])
        assert caught.value.status.code is code


def test_a_grpc_status_is_believed_whatever_http_says():
    status, _ = parse_trailers([(b":status", b"415"), (b"grpc-status", b"3")], only=True)
    assert status.code is rpc.StatusCode.INVALID_ARGUMENT


@pytest.mark.parametrize("value", [b"", b"x", b"-1", b"1.0"])
def test_a_grpc_status_that_is_none_is_unknown(value):
    with pytest.raises(BadResponse) as caught:
        parse_trailers([(b"grpc-status", value)], only=False)
    assert caught.value.status.code is rpc.StatusCode.UNKNOWN


def test_a_status_code_from_the_future_is_unknown():
    status, _ = parse_trailers([(b"grpc-status", b"99")], only=False)
    assert status.code is rpc.StatusCode.UNKNOWN


def test_a_bucket_gives_its_burst_and_then_its_rate():
    bucket = TokenBucket(3, 2.0)
    assert [bucket.take(10.0) for _ in range(4)] == [True, True, True, False]
    assert [bucket.take(10.4), bucket.take(10.5), bucket.take(10.6)] == [False, True, False]
    assert [bucket.take(1000.0) for _ in range(4)] == [True, True, True, False]


class Pair:
    """Two engines and the wire between them."""

    def __init__(self, **limits):
        self.server = H2ServerEngine(rpc.ServerSettings(**limits).limits())
        self.client = H2ClientEngine(rpc.ChannelSettings().limits(), authority="a", scheme="http", user_agent="t")
        self.now = 0.0
        self.pump()

    def pump(self):
        """Pass everything on until nothing is left; returns what the server and the client heard."""
        heard = [], []
        while self.server.unsent or self.client.unsent:
            heard[0].extend(self.server.receive(bytes(self.client.data_to_send()), self.now))
            heard[1].extend(self.client.receive(bytes(self.server.data_to_send()), self.now))
        return heard


def test_a_call_that_is_begun_and_given_up_at_once_is_not_even_reported():
    pair = Pair()
    stream = pair.client.start_call("/a/b")
    pair.client.send_data(stream, frame(b"x"), end=True)
    pair.client.reset(stream, 8)
    assert pair.pump() == ([], [])


def test_a_frame_of_thousands_of_messages_is_no_longer_turn_than_its_pieces():
    """Three thousand empty ones in a frame took 20 ms at once, however small the slices were that it came in."""
    pair = Pair()
    stream = pair.client.start_call("/a/b")
    pair.client.send_data(stream, frame(b"") * 3200, end=True)
    data = pair.client.data_to_send()
    heard = [pair.server.receive(bytes(data[at : at + 500]), pair.now) for at in range(0, len(data), 500)]
    assert max(map(len, heard)) <= 101
    assert sum(isinstance(event, MessageReceived) for events in heard for event in events) == 3200
    assert [event for events in heard for event in events][-1] == RequestEnded(stream)
    assert pair.server.failure is None


@unhurried
@given(
    messages=st.lists(st.binary(max_size=300), min_size=1, max_size=40),
    cuts=st.lists(st.integers(min_value=0, max_value=20_000), max_size=20),
)
def test_a_call_is_the_same_however_its_bytes_come(messages, cuts):
    pair = Pair()
    stream = pair.client.start_call("/a/b")
    pair.client.send_data(stream, b"".join(map(frame, messages)), end=True)
    data = bytes(pair.client.data_to_send())
    heard = [event for piece in in_pieces(data, cuts) for event in pair.server.receive(piece, pair.now)]
    told = [event for event in heard if isinstance(event, MessageReceived)]
    assert [event.data for event in told] == messages
    assert sum(event.size for event in told) == sum(map(len, map(frame, messages)))
    assert heard[-1] == RequestEnded(stream)


def test_a_reset_is_reported_once_the_call_was():
    pair = Pair()
    stream = pair.client.start_call("/a/b")
    started, _ = pair.pump()
    assert [type(event) for event in started] == [RequestStarted]
    pair.client.reset(stream, 8)
    assert pair.pump() == ([StreamReset(stream, 8)], [])


def test_a_goaway_ends_the_calls_above_its_last_id_as_not_processed_and_no_others():
    pair = Pair()
    first, second = pair.client.start_call("/a/b"), pair.client.start_call("/a/b")
    pair.pump()
    pair.server.goaway(first)
    _, heard = pair.pump()
    ended = [event for event in heard if isinstance(event, ResponseEnded)]
    assert [(event.stream_id, event.unprocessed) for event in ended] == [(second, True)]
    assert pair.client.exhausted
    pair.server.send_status(first, OK)
    _, heard = pair.pump()
    assert [event.status for event in heard if isinstance(event, ResponseEnded)] == [OK]


def crossing(answer, count=1500):
    """A client that has given up more calls at once than are remembered, and then hears what was under way for them."""
    pair = Pair(max_concurrent_calls=count)
    streams = [pair.client.start_call("/a/b") for _ in range(count)]
    pair.pump()
    for stream in streams:
        answer(pair.server, stream)
    late = bytes(pair.server.data_to_send())
    for stream in streams:
        pair.client.reset(stream, 8)
    pair.client.data_to_send()
    pair.client.receive(late, pair.now)
    return pair.client


ANSWERS = {
    "trailers": lambda server, stream: server.send_status(stream, Status(StatusCode.UNAVAILABLE)),
    "headers": lambda server, stream: server.send_initial(stream),
    "data": lambda server, stream: [server.send_initial(stream), server.send_data(stream, frame(b""))],
    "resets": lambda server, stream: server.reset(stream, 8),
}


@pytest.mark.parametrize("answer", ANSWERS)
def test_what_crosses_with_any_number_of_resets_ends_no_connection(answer):
    """A thousand calls with one deadline all end at once, on both sides. The innocent ones were lost with them."""
    client = crossing(ANSWERS[answer])
    assert (client.failure, client.unsent) == (None, 0)


def test_a_server_may_refuse_any_number_of_calls():
    """It is a reset for each; a channel took a few hundred for a flood."""
    pair = Pair(max_concurrent_calls=3000)
    streams = [pair.client.start_call("/a/b") for _ in range(3000)]
    pair.pump()
    for stream in streams:
        pair.server.refuse(stream)
    _, heard = pair.pump()
    assert pair.client.failure is None
    assert [event.unprocessed for event in heard] == [True] * 3000


def test_a_reader_may_open_its_windows_for_every_few_kilobytes():
    """Go's do, and get large frames nevertheless; in the middle of a download it was taken for a flood."""
    pair = Pair()
    stream = pair.client.start_call("/a/b")
    pair.pump()
    pair.server.send_initial(stream)
    for _ in range(40):
        pair.server.send_data(stream, bytes(40_000))
        pair.pump()
        for _ in range(10):
            pair.client._h2.increment_flow_control_window(4000)
            pair.client._h2.increment_flow_control_window(4000, stream)
        pair.pump()
    assert pair.server.failure is None


@pytest.mark.parametrize("bad", [b"\2\0\0\0\0" + bytes(50_000), b"\0\x7f\0\0\0" + bytes(50_000)])
def test_bad_messages_do_not_make_room_for_more_unread_bytes_than_allowed(bad):
    """Each took more off the count than it had added; a few of them, and a connection might hold anything."""
    pair = Pair()
    for _ in range(3):
        stream = pair.client.start_call("/a/b")
        pair.client.send_data(stream, bad)
        pair.pump()
        assert pair.server._buffered == 0


def test_nothing_is_kept_of_calls_that_are_over():
    pair = Pair()
    for _ in range(1200):
        stream = pair.client.start_call("/a/b")
        pair.client.send_data(stream, frame(b"x"), end=True)
        pair.pump()
        pair.server.release(stream, 1, 6)
        pair.server.send_status(stream, OK)
        pair.pump()
    for engine in (pair.server, pair.client):
        assert (engine._streams, engine._h2.streams, engine._buffered) == ({}, {}, 0)
        assert len(engine._h2._closed_streams) <= 1024


@unhurried
@given(
    sizes=st.lists(st.integers(min_value=0, max_value=3000), min_size=1, max_size=20),
    take=st.lists(st.booleans(), min_size=1, max_size=10),
)
def test_flow_control_lets_everything_through_and_the_window_is_whole_again(sizes, take):
    """Whatever is sent and however slowly it is read: no stall, no overrun, nothing left over."""
    pair = Pair(stream_window=1024, connection_window=70_000)
    stream = pair.client.start_call("/a/b")
    rest = b"".join(frame(bytes(size)) for size in sizes)
    waiting, received = [], []
    for turn in range(100_000):
        size = min(pair.client.sendable(stream), len(rest))
        if size > 0:
            pair.client.send_data(stream, rest[:size], end=size == len(rest))
            rest = rest[size:]
        heard, _ = pair.pump()
        waiting += [event for event in heard if isinstance(event, MessageReceived)]
        if waiting and (take[turn % len(take)] or size <= 0):
            message = waiting.pop(0)
            received.append(len(message.data))
            pair.server.release(stream, len(message.data), message.size)
            pair.pump()
        if any(isinstance(event, RequestEnded) for event in heard):
            break
    received += [len(message.data) for message in waiting]
    assert received == sizes
    assert not pair.server.failed
