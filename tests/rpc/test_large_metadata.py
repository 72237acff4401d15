"""More metadata than is taken costs its call alone; of a failure the code arrives, whatever is said about it."""

import grpc
import pytest
import trio
from hyperframe.frame import ContinuationFrame

from dspex_trio import rpc
from dspex_trio.rpc.details import fitted
from dspex_trio.rpc.generated import error_details_pb2, status_pb2
from dspex_trio.rpc.http2.engine import taken_for_sure
from dspex_trio.rpc.http2.header_codec import header_list_size
from dspex_trio.rpc.http2.headers import encode_metadata, encode_status
from dspex_trio.rpc.metadata import NO_METADATA, Metadata
from dspex_trio.rpc.status import Status

from .generated.greeter_pb2 import HelloRequest
from .greeter import Greeter, greeting, serving, serving_tcp
from .raw import fields, message, raw_client, raw_servers
from .test_grpcio import grpcio_client, in_thread

WAIT = HelloRequest(name="wait").SerializeToString()
ENHANCE_YOUR_CALM = 11
LARGE = [20_000, 64_000, 70_000, 100_000, 200_000]
FAR_TOO_LARGE = [300_000, 1_000_000, 3_000_000]


def in_frames(client, stream_id, size, *, piece):
    """The headers of a call with one large value, in as many frames as that takes."""
    first = client.headers(stream_id, fields(x_large="x" * size), end_headers=False)
    block, first.data = first.data[piece:], first.data[:piece]
    frames = [first]
    while block:
        more = ContinuationFrame(stream_id)
        more.data, block = block[:piece], block[piece:]
        frames.append(more)
    frames[-1].flags.add("END_HEADERS")
    return frames


@pytest.mark.parametrize("size", LARGE)
@pytest.mark.parametrize("piece", [2**20, 2**14])
async def test_headers_over_the_limit_fail_their_call_and_leave_the_connection_as_it_was(size, piece):
    greeter = Greeter()
    async with serving(greeter) as target, raw_client(target) as client:
        await client.send(*client.call(1, WAIT))
        await greeter.entered.wait()
        await client.send(*in_frames(client, 3, size, piece=piece))
        assert (await client.reply(3)).status == rpc.StatusCode.RESOURCE_EXHAUSTED
        # The client's encoder goes on with the table that the large block has left.
        assert await client.works(5)
        await client.send(*client.call(7, x_again="a"), *client.call(9, x_again="a"))
        assert (await client.reply(7)).status == (await client.reply(9)).status == 0
        greeter.release.set()
        assert (await client.reply(1)).status == 0
    assert not client.goaways


@pytest.mark.parametrize("size", FAR_TOO_LARGE)
@pytest.mark.parametrize("piece", [2**20, 2**14])
async def test_headers_far_over_the_limit_let_the_calls_go_on_that_have_begun(size, piece):
    """Nothing that comes after them can be decoded; what was begun before needs nothing of it."""
    greeter = Greeter()
    async with serving(greeter) as target, raw_client(target) as client:
        await client.send(*client.call(1, WAIT))
        collecting = client.headers(3, fields("/greeting.Greeter/Collect"))
        await client.send(collecting, client.data(3, message(HelloRequest(name="a").SerializeToString())))
        await greeter.entered.wait()
        await client.send(*in_frames(client, 5, size, piece=piece))
        assert (await client.reply(5)).status == rpc.StatusCode.RESOURCE_EXHAUSTED
        assert client.goaways == [(5, ENHANCE_YOUR_CALM)]
        # What crosses with the goodbye is dropped, data included, and is no reason to end the rest.
        await client.send(client.headers(7, fields()), client.data(7, message(bytes(100)), end=True), client.ping())
        await client.until(lambda: client.pongs)
        last = client.data(3, message(HelloRequest(name="b").SerializeToString()), end=True)
        await client.send(last)
        assert (await client.reply(3)).status == 0
        greeter.release.set()
        assert (await client.reply(1)).status == 0
        await client.until_closed()
    assert greeter.ended == ["collect", "released"]
    assert 7 not in client.replies
    assert len(client.goaways) == 1


async def test_a_drain_after_the_goodbye_takes_nothing_back():
    """A later GOAWAY must not name a higher stream (RFC 9113, 6.8)."""
    greeter, drain = Greeter(), rpc.Drain()
    async with serving(greeter, drain=drain) as target, raw_client(target) as client:
        await client.send(*client.call(1, WAIT))
        await greeter.entered.wait()
        await client.send(*in_frames(client, 3, 300_000, piece=2**20))
        await client.reply(3)
        drain.start()
        greeter.release.set()
        assert (await client.reply(1)).status == 0
        await client.until_closed()
    assert client.goaways == [(3, ENHANCE_YOUR_CALM)]


async def test_headers_that_are_dropped_after_the_goodbye_are_counted():
    greeter = Greeter()
    settings = rpc.ServerSettings(control_burst=20, control_rate=0)
    async with serving(greeter, settings=settings) as target, raw_client(target) as client:
        await client.send(*client.call(1, WAIT))
        await greeter.entered.wait()
        await client.send(*in_frames(client, 3, 300_000, piece=2**20))
        await client.reply(3)
        await client.send(*(client.headers(number, fields(), end=True) for number in range(5, 105, 2)))
        await client.until_closed()
    assert client.goaways[-1] == (3, ENHANCE_YOUR_CALM)
    assert len(client.goaways) == 2
    assert greeter.ended == ["cancelled"]


async def test_large_trailers_of_a_request_fail_its_call_alone():
    greeter = Greeter()
    async with serving(greeter) as target, raw_client(target) as client:
        await client.send(client.headers(1, fields("/greeting.Greeter/Collect")))
        await client.send(client.headers(1, [("x-large", "x" * 100_000)], end=True))
        assert (await client.reply(1)).status == rpc.StatusCode.RESOURCE_EXHAUSTED
        await client.send(client.headers(3, fields("/greeting.Greeter/Collect")))
        await client.send(client.headers(3, [("x-large", "x" * 300_000)], end=True))
        assert (await client.reply(3)).status == rpc.StatusCode.RESOURCE_EXHAUSTED
        await client.until_closed()


@pytest.mark.parametrize("trailers", [False, True])
@pytest.mark.parametrize("size", LARGE)
async def test_a_reply_with_more_metadata_than_is_taken_fails_its_call_alone(size, trailers):
    async with raw_servers() as (stub, servers), trio.open_nursery() as nursery:
        results, ended = [], trio.Event()

        async def ask(name):
            try:
                results.append((name, (await stub.SayHello(HelloRequest(name=name))).text))
            except rpc.RpcError as error:
                results.append((name, error.status))
            ended.set()

        nursery.start_soon(ask, "first")
        server = await servers.receive()
        await server.request(1)
        nursery.start_soon(ask, "second")
        await server.request(3)
        large = [("x-large", "x" * size)]
        head = [(":status", "200"), ("content-type", "application/grpc")]
        await server.send(server.headers(1, [*head, *([] if trailers else large)]))
        if trailers:
            await server.send(server.headers(1, [("grpc-status", "0"), *large], end=True))
        await ended.wait()
        await server.answer(3, b"")
    assert results == [("first", rpc.StatusCode.RESOURCE_EXHAUSTED), ("second", "")]


@pytest.mark.parametrize("size", [100_000, 1_000_000])
async def test_large_metadata_of_a_grpcio_client_costs_it_that_call(size):
    """From 65 kB on, all other calls of the connection ended as UNAVAILABLE: behind a proxy, other people's."""
    greeter = Greeter()
    async with serving_tcp(greeter) as port, grpcio_client(port) as stub, trio.open_nursery() as nursery:
        texts = []

        def slow():
            texts.append(stub.SayHello(HelloRequest(name="wait"), timeout=30).text)

        def large():
            with pytest.raises(grpc.RpcError) as caught:
                stub.SayHello(HelloRequest(name="a"), timeout=30, metadata=[("x-large", "x" * size)])
            return caught.value.code()

        nursery.start_soon(in_thread, slow)
        await greeter.entered.wait()
        assert await in_thread(large) is grpc.StatusCode.RESOURCE_EXHAUSTED
        greeter.release.set()
    assert texts == ["hello wait"]


class Verbose(Greeter):
    """Fails with as much to say as it is asked for."""

    async def SayHello(self, request, call):
        kind, size, unit = request.name.split()
        said = unit * int(size)
        match kind:
            case "details":
                details = [error_details_pb2.DebugInfo(detail=said)]
                raise rpc.RpcError(rpc.StatusCode.INVALID_ARGUMENT, "short", details=details)
            case "trailing":
                raise rpc.RpcError(rpc.StatusCode.INVALID_ARGUMENT, "short", metadata={"x": said})
            case "initial":
                call.set_initial_metadata({"x": said})
                raise rpc.RpcError(rpc.StatusCode.INVALID_ARGUMENT, "short")
            case "all":
                details = [error_details_pb2.DebugInfo(detail=said)]
                raise rpc.RpcError(rpc.StatusCode.INVALID_ARGUMENT, said, details=details, metadata={"x": said})
        raise rpc.RpcError(rpc.StatusCode.INVALID_ARGUMENT, said)


SIZES = [2_000, 7_000, 8_000, 8_192, 9_000, 12_000, 15_000, 15_500, 20_000, 200_000]


@pytest.mark.parametrize("unit", ["x", "ü", "%", "😈"])
async def test_the_code_of_a_failure_reaches_grpcio_however_much_is_said_about_it(unit):
    """Between 8 and 16 kB it refused trailers at random, with RESOURCE_EXHAUSTED in place of what had happened."""
    kinds = ["text", "details", "trailing", "initial", "all"] if unit == "x" else ["text", "details"]
    async with serving_tcp(Verbose()) as port, grpcio_client(port) as stub:

        def calls():
            found = {}
            for kind in kinds:
                for size in SIZES:
                    with pytest.raises(grpc.RpcError) as caught:
                        stub.SayHello(HelloRequest(name=f"{kind} {size} {unit}"), timeout=30)
                    found[kind, size] = caught.value
            return found

        found = await in_thread(calls)
    assert {error.code() for error in found.values()} == {grpc.StatusCode.INVALID_ARGUMENT}
    for (kind, size), error in found.items():
        if kind == "text":
            kept, _, note = error.details().partition("…")
            assert set(kept) == {unit}
            assert (len(kept) == size) == (note == "")
            assert len(kept) >= min(size, 500)
        details = dict(error.trailing_metadata()).get("grpc-status-details-bin")
        if details is not None:  # as grpcio-status demands
            rich = status_pb2.Status.FromString(details)
            assert (rich.code, rich.message) == (3, error.details())


def rich(text, detail):
    """A failure with one detail."""
    packed = status_pb2.Status(code=3, message=text)
    packed.details.add(type_url="x", value=detail)
    return Status(rpc.StatusCode.INVALID_ARGUMENT, text, packed.SerializeToString())


def within(room):
    return lambda status, metadata: header_list_size([*encode_status(status), *encode_metadata(metadata)]) <= room


SMALL = Metadata([("hint", "shorter")])
MUCH = Metadata([("hint", "x" * 9000)])


@pytest.mark.parametrize(
    ("status", "metadata", "with_details", "with_metadata"),
    [
        (rich("x" * 100_000, b"y" * 100), SMALL, True, True),
        (rich("x" * 2000, b"y" * 2000), MUCH, True, False),
        (rich("x" * 2000, b"y" * 9000), SMALL, False, True),
        (rich("x" * 2000, b"y" * 9000), MUCH, False, False),
        (rich("ü" * 100_000, b""), SMALL, True, True),
        (Status(rpc.StatusCode.ABORTED, "%" * 100_000), NO_METADATA, False, False),
    ],
)
def test_text_is_cut_first_and_then_metadata_is_left_out_or_details_are(status, metadata, with_details, with_metadata):
    cut, kept = fitted(status, metadata, within(7000))
    assert within(7000)(cut, kept)
    assert (bool(cut.details_bin), bool(kept)) == (with_details, with_metadata)
    assert cut.code is status.code
    text, _, note = cut.message.partition("…")
    assert status.message.startswith(text)
    assert note == " (the status is larger than the client takes)"
    if with_details:
        assert status_pb2.Status.FromString(cut.details_bin).message == cut.message
    if len(text) < len(status.message):  # not one character less than there is room for
        longer = Status(cut.code, status.message[: len(text) + 1] + "…" + note, cut.details_bin)
        assert not within(7000)(longer, kept) or with_details


def test_what_fits_is_left_as_it_is():
    status = rich("text", b"detail")
    assert fitted(status, SMALL, within(7000)) == (status, SMALL)


def test_where_nothing_fits_the_code_is_left():
    assert fitted(rich("text", b"detail"), SMALL, lambda *_: False) == (
        Status(rpc.StatusCode.INVALID_ARGUMENT),
        NO_METADATA,
    )


@pytest.mark.parametrize(
    ("announced", "sure"), [(None, 8192), (100, 100), (8192, 8192), (16384, 8192), (20480, 16384), (0, 0)]
)
def test_a_peer_takes_for_sure_what_is_within_its_soft_limit(announced, sure):
    assert taken_for_sure(announced) == sure


async def test_a_channel_that_takes_more_is_told_more():
    settings = rpc.ChannelSettings(max_header_list_size=200_000)
    async with greeting(Verbose(), channel=settings) as stub:
        with pytest.raises(rpc.RpcError) as caught:
            await stub.SayHello(HelloRequest(name="text 60000 x"))
    assert caught.value.message == "x" * 60_000
