"""Gzip and deflate, both ways, with peers that nobody here wrote."""

import gzip
import tracemalloc
import zlib

import grpc
import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from dspex_trio import rpc
from dspex_trio.rpc.http2.messages import BadMessage, MessageReader, compressor, frame

from .generated.greeter_pb2 import HelloReply, HelloRequest
from .greeter import Greeter, greeting, serving, serving_tcp
from .raw import fields, message, raw_client
from .test_channel import raw_servers
from .test_grpcio import GrpcioGreeter, grpcio_client, in_thread, our_stub

LONG = bytes(5000)


def decoded(reply):
    """The flags and texts of a raw reply's messages."""
    data, found = reply.data, []
    while data:
        flag, size = data[0], int.from_bytes(data[1:5], "big")
        body, data = data[5 : 5 + size], data[5 + size :]
        found.append((flag, HelloReply.FromString(zlib.decompress(body, 47) if flag else body)))
    return found


@pytest.mark.parametrize("encoding", ["gzip", "deflate"])
async def test_requests_and_replies_are_compressed_for_those_who_can_read_them(encoding):
    packed = {"gzip": gzip.compress, "deflate": zlib.compress}[encoding](HelloRequest(body=LONG).SerializeToString())
    settings = rpc.ServerSettings(compression=encoding)
    async with serving(Greeter(), settings=settings) as connect, raw_client(connect) as client:
        headers = fields(grpc_encoding=encoding, grpc_accept_encoding=f"identity, {encoding}")
        await client.send(client.headers(1, headers), client.data(1, message(packed, flag=1), end=True))
        reply = await client.reply(1)
    assert reply.trailers["grpc-encoding"] == encoding
    assert decoded(reply) == [(1, HelloReply(text="hello ", body=LONG))]


async def test_replies_are_not_compressed_for_those_who_cannot_read_them():
    async with (
        serving(Greeter(), settings=rpc.ServerSettings(compression="gzip")) as connect,
        raw_client(connect) as client,
    ):
        await client.send(*client.call(1, HelloRequest(body=LONG).SerializeToString()))
        reply = await client.reply(1)
    assert "grpc-encoding" not in reply.trailers
    assert [flag for flag, _ in decoded(reply)] == [0]


async def test_what_a_caller_accepts_may_come_in_several_lines():
    settings = rpc.ServerSettings(compression="gzip")
    async with serving(Greeter(), settings=settings) as connect, raw_client(connect) as client:
        accepted = [("grpc-accept-encoding", "gzip"), ("grpc-accept-encoding", "deflate")]
        body = message(HelloRequest(name="a", body=LONG).SerializeToString())
        await client.send(client.headers(1, fields(add=accepted)), client.data(1, body, end=True))
        assert (await client.reply(1)).trailers["grpc-encoding"] == "gzip"


async def test_a_handler_may_choose_for_every_reply():
    class Choosing(Greeter):
        async def Watch(self, request, call):
            call.compression = "gzip"
            for compress in (False, True, False):
                call.compress = compress
                yield HelloReply(body=LONG)

    async with serving(Choosing()) as connect, raw_client(connect) as client:
        headers = fields("/greeting.Greeter/Watch", grpc_accept_encoding="gzip")
        await client.send(client.headers(1, headers), client.data(1, message(), end=True))
        reply = await client.reply(1)
    assert [flag for flag, _ in decoded(reply)] == [0, 1, 0]


async def test_an_encoding_that_is_not_known_is_unimplemented_and_says_what_is():
    async with serving(Greeter()) as connect, raw_client(connect) as client:
        await client.send(*client.call(1, grpc_encoding="snappy"))
        reply = await client.reply(1)
    assert (reply.status, reply.trailers["grpc-accept-encoding"]) == (12, "identity,gzip,deflate")


@pytest.mark.parametrize("encoding", ["gzip", "deflate"])
async def test_our_channel_compresses_requests_and_reads_compressed_replies(encoding):
    async with greeting(settings=rpc.ServerSettings(compression=encoding)) as stub:
        reply = await stub.SayHello(HelloRequest(body=LONG), compression=encoding)
    assert reply.body == LONG


@pytest.mark.parametrize("kind", [grpc.Compression.Gzip, grpc.Compression.Deflate])
async def test_a_grpcio_client_compresses_and_reads_compressed_replies(kind):
    settings = rpc.ServerSettings(compression="gzip")
    async with serving_tcp(Greeter(), settings=settings) as port, grpcio_client(port, compression=kind) as stub:
        reply = await in_thread(lambda: stub.SayHello(HelloRequest(body=LONG), timeout=20))
    assert reply.body == LONG


async def test_our_channel_and_a_grpcio_server_compress_for_one_another():
    class Compressing(GrpcioGreeter):
        def SayHello(self, request, context):
            context.set_compression(grpc.Compression.Gzip)
            return HelloReply(body=request.body)

    async with our_stub(Compressing()) as stub:
        reply = await stub.SayHello(HelloRequest(body=LONG), compression="gzip")
    assert reply.body == LONG


def test_what_does_not_become_smaller_is_sent_as_it_is():
    """As gRPC's core does; the flag of each message tells."""
    assert frame(b"abc", compressor("gzip")) == message(b"abc")
    assert frame(LONG, compressor("gzip"))[0] == 1


def unpacked(encoding, limit, framed):
    """What a reader makes of one framed message."""
    ((found, cost),) = MessageReader(encoding, limit).feed(framed)
    assert (len(found), cost) == (len(framed) - 5, len(framed))
    return found.unpack()


def test_only_what_was_announced_is_decompressed():
    with pytest.raises(BadMessage, match="not valid deflate"):
        unpacked("deflate", 100, message(gzip.compress(b"ab", mtime=0), flag=1))


@pytest.mark.parametrize("encoding", ["gzip", "deflate"])
def test_what_was_compressed_is_read_again(encoding):
    assert unpacked(encoding, 5000, frame(LONG, compressor(encoding))) == LONG


@pytest.mark.parametrize("encoding", ["gzip", "deflate"])
def test_decompression_stops_at_the_limit(encoding):
    """What is inflated is never more than one byte over the limit, however small the bomb was."""
    framed = frame(bytes(10**7), compressor(encoding))
    with pytest.raises(BadMessage, match="larger than the limit of 100000"):
        unpacked(encoding, 100_000, framed)


def test_a_truncated_message_is_refused():
    packed = gzip.compress(LONG)[:-10]
    with pytest.raises(BadMessage, match="not complete"):
        unpacked("gzip", 10_000, message(packed, flag=1))


@pytest.mark.parametrize("more", [gzip.compress(b"more"), b"x"], ids=["a member", "a byte"])
def test_what_comes_after_the_end_of_a_compressed_message_is_not_dropped_in_silence(more):
    with pytest.raises(BadMessage, match="goes on after the end of its gzip"):
        unpacked("gzip", 10_000, message(gzip.compress(b"a") + more, flag=1))


@pytest.mark.parametrize("read", [False, True])
async def test_many_bombs_in_one_frame_are_not_all_inflated_at_once(read):
    """A quarter of a megabyte became one of gigabytes, read or not, before anybody counted."""
    release = trio.Event()

    class Collecting(Greeter):
        async def Collect(self, requests, call):
            self.entered.set()
            if not read:
                await release.wait()
            return HelloReply(text=str(len([request.name async for request in requests])))

    greeter = Collecting()
    bomb = message(gzip.compress(HelloRequest(body=bytes(4 * 2**20)).SerializeToString()), flag=1)
    async with serving(greeter) as connect, raw_client(connect) as client:
        tracemalloc.start()
        try:
            headers = fields("/greeting.Greeter/Collect", grpc_encoding="gzip")
            await client.send(client.headers(1, headers), client.data(1, bomb * 40))
            await greeter.entered.wait()
            await wait_all_tasks_blocked()
            peak = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
        release.set()
        await client.send(client.data(1, end=True))
        assert (await client.reply(1)).data[7:] == b"40"
    assert peak < 20 * 2**20


async def test_a_request_that_cannot_be_unpacked_ends_its_call_and_no_other():
    """It is unpacked as it is read: what came before it has been read by then."""
    greeter = Greeter()
    async with serving(greeter) as connect, raw_client(connect) as client:
        good = message(gzip.compress(HelloRequest(name="a").SerializeToString()), flag=1)
        headers = fields("/greeting.Greeter/Chat", grpc_encoding="gzip")
        await client.send(client.headers(1, headers), client.data(1, good + message(b"no gzip", flag=1), end=True))
        reply = await client.reply(1)
        assert (reply.status, reply.data.count(b"hello a")) == (13, 1)
        assert await client.works(3)


async def test_a_reply_that_cannot_be_unpacked_gives_its_call_up():
    async with raw_servers() as (stub, servers), trio.open_nursery() as nursery:

        async def call():
            async with stub.Watch(HelloRequest()) as replies:
                with pytest.raises(rpc.RpcError, match="not valid gzip") as caught:
                    await anext(replies)
                assert caught.value.status is rpc.StatusCode.INTERNAL
                with pytest.raises(rpc.RpcError, match="not valid gzip"):
                    await anext(replies)

        nursery.start_soon(call)
        server = await servers.receive()
        await server.request(1)
        head = [(":status", "200"), ("content-type", "application/grpc"), ("grpc-encoding", "gzip")]
        await server.send(server.headers(1, head), server.data(1, message(b"no gzip", flag=1)))
        assert await server.reset_of(1) == 8  # CANCEL
