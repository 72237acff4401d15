"""Gzip and deflate, both ways, with peers that nobody here wrote."""

import gzip
import zlib

import grpc
import pytest

from dspex_trio import rpc
from dspex_trio.rpc.http2.messages import BadMessage, MessageReader, compressor, frame

from .generated.greeter_pb2 import HelloReply, HelloRequest
from .greeter import Greeter, greeting, serving, serving_tcp
from .raw import fields, message, raw_client
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


@pytest.mark.parametrize("encoding", ["gzip", "deflate"])
def test_what_was_compressed_is_read_again(encoding):
    framed = frame(LONG, compressor(encoding))
    assert MessageReader(encoding, 5000).feed(framed) == [(LONG, len(framed))]


@pytest.mark.parametrize("encoding", ["gzip", "deflate"])
def test_decompression_stops_at_the_limit(encoding):
    """What is inflated is never more than one byte over the limit, however small the bomb was."""
    framed = frame(bytes(10**7), compressor(encoding))
    with pytest.raises(BadMessage, match="larger than the limit of 100000"):
        MessageReader(encoding, 100_000).feed(framed)


def test_a_truncated_message_is_refused():
    packed = gzip.compress(LONG)[:-10]
    with pytest.raises(BadMessage, match="not complete"):
        MessageReader("gzip", 10_000).feed(message(packed, flag=1))


@pytest.mark.parametrize("more", [gzip.compress(b"more"), b"x"], ids=["a member", "a byte"])
def test_what_comes_after_the_end_of_a_compressed_message_is_not_dropped_in_silence(more):
    with pytest.raises(BadMessage, match="goes on after the end of its gzip"):
        MessageReader("gzip", 10_000).feed(message(gzip.compress(b"a") + more, flag=1))
