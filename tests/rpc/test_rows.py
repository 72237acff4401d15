"""What purerpc's own server does not survive, row by row; each of these fails on it.

To see that, set DSPEX_TRIO_TEST_STOCK=1: the same tests then also run against purerpc's classes, and must fail there.
What purerpc's classes do not have at all is in test_rows_missing, and tested in depth elsewhere: shutdown in
test_endings, drains in test_drain, TLS in test_secure, UNIX sockets and streams in memory in test_places and greeter,
metadata in test_calls, time limits, keepalive, age and idle time in test_clock, the client in test_channel.
"""

import gzip
import os
import subprocess
import sys
from contextlib import asynccontextmanager, suppress
from functools import partial
from pathlib import Path

import pytest
import trio

from .generated.greeter_pb2 import HelloReply, HelloRequest
from .greeter import Greeter, serving_tcp
from .raw import Reply, fields, message, raw_client

PATIENCE = 20  # of ours, that never needs it
STOCK_PATIENCE = 2  # of the stock server, that hangs

SERVERS = ["ours"]
if os.environ.get("DSPEX_TRIO_TEST_STOCK"):
    SERVERS.append(pytest.param("stock", marks=pytest.mark.xfail(strict=True, reason="purerpc's own server")))


@asynccontextmanager
async def stock(module, *arguments):
    """A process that runs purerpc's own classes, which cannot be trusted to end, and its standard output."""
    root = Path(__file__).parent.parent.parent
    code = f"import runpy, sys; sys.path[:0] = ['src', 'tests']; runpy.run_module('rpc.{module}', run_name='__main__')"
    command = [sys.executable, "-c", code, *map(str, arguments)]
    async with trio.open_nursery() as nursery:
        process = await nursery.start(partial(trio.run_process, command, cwd=root, stdout=subprocess.PIPE, check=False))
        try:
            yield process
        finally:
            process.kill()


@asynccontextmanager
async def stock_server(*arguments):
    """The port of purerpc's own server."""
    async with stock("stock_server", *arguments) as process:
        yield int(await process.stdout.receive_some(20))


@pytest.fixture(params=SERVERS)
async def port(request):
    """The port of a server; the test has a time limit, since the stock server's usual answer is none at all."""
    ours = request.param == "ours"
    async with serving_tcp(Greeter()) if ours else stock_server() as port:
        with trio.fail_after(PATIENCE if ours else STOCK_PATIENCE):
            yield port


def hello(name="", **options):
    return HelloRequest(name=name, **options).SerializeToString()


def text(reply: Reply):
    return HelloReply.FromString(reply.data[5:]).text


async def endings(client, stream_id, count=1):
    """Ask, on another stream, which handlers have ended, once so many have."""
    await client.send(*client.call(stream_id, hello("endings", times=count)))
    return text(await client.reply(stream_id))


@pytest.mark.skipif(len(SERVERS) == 1, reason="the stock server was not asked for")
async def test_the_stock_server_serves_an_ordinary_call():
    """Otherwise it would fail the tests below for no reason that matters."""
    async with stock_server() as port, raw_client(port) as client:
        with trio.fail_after(STOCK_PATIENCE):
            await client.send(*client.call(1, hello("ada")))
            assert text(await client.reply(1)) == "hello ada"


async def test_a_broken_connection_is_told_so_and_closed(port):
    """Stock: the connection stays open, without a GOAWAY."""
    async with raw_client(port) as client:
        await client.send(client.data(1, b"for no stream"))
        await client.until_closed()
    assert client.goaways[-1][1] == 1  # PROTOCOL_ERROR


async def test_a_late_window_update_ends_no_connection(port):
    """Stock with h2 3.2: 2 to 7 per cent of an ordinary client's streams are lost to this."""
    async with raw_client(port) as client:
        for stream_id in (1, 3):
            assert await client.works(stream_id)
        await client.send(client.window(1, 10), client.reset(1))
        assert await client.works(5)


async def test_a_handler_is_cancelled_by_rst_stream(port):
    """Stock: ignored; a handler that waits for input hangs for ever."""
    async with raw_client(port) as client:
        await client.send(client.headers(1, fields("/greeting.Greeter/Chat")), client.data(1, message(hello("a"))))
        await client.until(lambda: 1 in client.replies and client.replies[1].data)
        await client.send(client.reset(1))
        assert await endings(client, 3) == "chat"


async def test_grpc_timeout_is_enforced(port):
    """Stock: parsed and never looked at."""
    async with raw_client(port) as client:
        await client.send(*client.call(1, hello("forever"), grpc_timeout="200m"))
        reply = await client.reply(1)
    assert reply.status == 4 or reply.reset == 8  # on a busy machine the margin may not be enough to say so in time


async def test_a_disconnect_cancels_handlers(port):
    """Stock: handlers, their tasks and the file descriptor stay."""
    async with raw_client(port) as client, raw_client(port) as other:
        await client.send(client.headers(1, fields("/greeting.Greeter/Chat")), client.data(1, message(hello("a"))))
        await client.until(lambda: 1 in client.replies and client.replies[1].data)
        await client.stream.aclose()
        assert await endings(other, 1) == "chat"


async def test_a_handlers_bug_is_unknown_and_says_nothing(port):
    """Stock: CANCELLED with the exception's text, secrets and all."""
    async with raw_client(port) as client:
        await client.send(*client.call(1, hello("bug")))
        reply = await client.reply(1)
    assert (reply.status, reply.trailers["grpc-message"]) == (2, "the handler failed")


async def test_a_gzip_request_is_understood(port):
    """Stock: decoded as zlib, which ends the connection."""
    async with raw_client(port) as client:
        body = message(gzip.compress(hello("ada")), flag=1)
        await client.send(client.headers(1, fields(grpc_encoding="gzip")), client.data(1, body, end=True))
        assert text(await client.reply(1)) == "hello ada"


async def test_a_bomb_is_not_inflated(port):
    """Stock: decompression has no limit."""
    async with raw_client(port) as client:
        body = message(gzip.compress(bytes(50 * 2**20)), flag=1)
        await client.send(client.headers(1, fields(grpc_encoding="gzip")), client.data(1, body, end=True))
        assert (await client.reply(1)).status == 8
        assert await client.works(3)


MALFORMED = {
    "no message": lambda c: [c.headers(1, fields(), end=True)],
    "two messages": lambda c: [c.headers(1, fields()), c.data(1, message() * 2, end=True)],
    "half a message": lambda c: [c.headers(1, fields()), c.data(1, message(b"abc")[:-1], end=True)],
    "half a prefix": lambda c: [c.headers(1, fields()), c.data(1, b"\0\0\0", end=True)],
    "not a protobuf": lambda c: [c.headers(1, fields()), c.data(1, message(b"\xff\xff\xff"), end=True)],
    "a bad flag": lambda c: [c.headers(1, fields()), c.data(1, message(flag=2), end=True)],
    "compressed without encoding": lambda c: [c.headers(1, fields()), c.data(1, message(b"a", flag=1), end=True)],
    "not gzip": lambda c: [c.headers(1, fields(grpc_encoding="gzip")), c.data(1, message(b"a", flag=1), end=True)],
    "unknown encoding": lambda c: c.call(1, grpc_encoding="snappy"),
    "oversize": lambda c: [c.headers(1, fields()), c.data(1, b"\0\x7f\xff\xff\xff")],
    "no te": lambda c: [c.headers(1, fields(drop=["te"])), c.data(1, message(), end=True)],
    "bad te": lambda c: c.call(1, te="gzip"),
    "no content-type": lambda c: [c.headers(1, fields(drop=["content-type"])), c.data(1, message(), end=True)],
    "json": lambda c: c.call(1, content_type="application/json"),
    "almost grpc": lambda c: c.call(1, content_type="application/grpcish"),
    "no slash": lambda c: c.call(1, path="greeting"),
    "no service": lambda c: c.call(1, path="/"),
    "no method": lambda c: c.call(1, path="/greeting.Greeter"),
    "an empty method": lambda c: c.call(1, path="/greeting.Greeter/"),
    "three parts": lambda c: c.call(1, path="/greeting.Greeter/SayHello/more"),
    "an unknown service": lambda c: c.call(1, path="/nobody.Here/SayHello"),
    "GET": lambda c: [c.headers(1, fields(**{":method": "GET"}), end=True)],
    "a timeout without unit": lambda c: c.call(1, grpc_timeout="5"),
    "a timeout without number": lambda c: c.call(1, grpc_timeout="S"),
    "a negative timeout": lambda c: c.call(1, grpc_timeout="-1S"),
    "a timeout of nine digits": lambda c: c.call(1, grpc_timeout="123456789S"),
    "an empty timeout": lambda c: c.call(1, grpc_timeout=""),
    "two timeouts": lambda c: [
        c.headers(1, fields(add=[("grpc-timeout", "1S"), ("grpc-timeout", "2S")])),
        c.data(1, message(), end=True),
    ],
    "bad base64": lambda c: c.call(1, x_bin="!!!"),
    "not text": lambda c: [c.headers(1, [*fields(), (b"x-text", b"\xff\xfe")]), c.data(1, message(), end=True)],
    "trailers that do not end it": lambda c: [
        c.headers(1, fields()),
        c.data(1, message()),
        c.headers(1, [("x-trailer", "1")]),
    ],
    "pseudo-headers in trailers": lambda c: [
        c.headers(1, fields()),
        c.data(1, message()),
        c.headers(1, [(":path", "/")], end=True),
    ],
    "an upper-case name": lambda c: c.call(1, **{"X-Upper": "1"}),
    "a connection header": lambda c: c.call(1, connection="close"),
    "an unknown pseudo-header": lambda c: [
        c.headers(1, [(":strange", "1"), *fields()]),
        c.data(1, message(), end=True),
    ],
    "a late pseudo-header": lambda c: [
        c.headers(1, [*fields(drop=[":path"]), (":path", "/greeting.Greeter/SayHello")]),
        c.data(1, message(), end=True),
    ],
    "no path": lambda c: [c.headers(1, fields(drop=[":path"])), c.data(1, message(), end=True)],
    "two methods": lambda c: [c.headers(1, [(":method", "POST"), *fields()]), c.data(1, message(), end=True)],
    "a wrong content-length": lambda c: c.call(1, content_length="1"),
    "a content-length that is none": lambda c: c.call(1, content_length="many"),
    "headers over the limit": lambda c: c.call(1, x_large="x" * 20_000),
}


async def fails_alone(port, case):
    """Whether a malformed stream gets its answer and another one on its connection goes on."""
    async with raw_client(port) as client:
        await client.send(client.headers(99, fields("/greeting.Greeter/Chat")), client.data(99, message(hello("a"))))
        await client.until(lambda: 99 in client.replies and client.replies[99].data)
        frames = MALFORMED[case](client)
        for frame in frames:
            frame.stream_id = 101
        await client.send(*frames)
        bad = await client.reply(101)
        assert bad.status > 0 or bad.reset == 1
        await client.send(client.data(99, message(hello("b")), end=True))
        good = await client.reply(99)
        assert (good.status, good.data.count(b"hello")) == (0, 2)
        assert await client.works(103)


@pytest.mark.parametrize("case", MALFORMED)
async def test_a_malformed_stream_fails_alone(case):
    async with serving_tcp(Greeter()) as port:
        with trio.fail_after(PATIENCE):
            await fails_alone(port, case)


async def test_no_malformed_stream_ends_another(port):
    """Stock: 27 of 53 such cases kill every stream on the connection."""
    for case in MALFORMED:
        await fails_alone(port, case)


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux has a whole network of loopback addresses")
async def test_a_server_listens_where_it_was_told_to(port):
    """Stock: on all interfaces, always."""
    with pytest.raises(OSError, match="all attempts to connect"):
        async with await trio.open_tcp_stream("127.0.0.2", port):
            pass


async def test_client_trailers_end_a_request(port):
    """Stock: they kill the connection."""
    async with raw_client(port) as client:
        await client.send(
            client.headers(1, fields()),
            client.data(1, message(hello("ada"))),
            client.headers(1, [("x-trailer", "1")], end=True),
        )
        assert text(await client.reply(1)) == "hello ada"


async def test_an_oversize_message_is_resource_exhausted(port):
    """Stock: it kills the connection."""
    async with raw_client(port) as client:
        await client.send(client.headers(1, fields()), client.data(1, b"\0\x7f\xff\xff\xff"))
        assert (await client.reply(1)).status == 8
        assert await client.works(3)


async def test_a_reply_that_nobody_reads_is_not_buffered(port):
    """Stock: 300 MB are buffered, and other connections starve."""
    async with raw_client(port, settings={4: 2**31 - 1}, window=2**31 - 1 - 65535) as client, raw_client(port) as other:
        watch = hello("n", times=5000, body=bytes(60_000))
        await client.send(*client.call(1, watch, path="/greeting.Greeter/Watch"))
        for stream_id in range(1, 401, 2):
            assert await other.works(stream_id)
        await client.stream.aclose()
        assert "watch" in await endings(other, 1001)
        # The handler was stopped long before it had sent all: that it has ended is not because it was done.
        await other.send(*other.call(1003, hello("sent")))
        assert int(text(await other.reply(1003))) < 1000


async def test_an_upload_after_the_end_of_its_call_is_stopped(port):
    """Stock: up to 64 MB a stream are buffered, 1 GB a connection, and nobody is told to stop."""
    async with raw_client(port) as client:
        await client.send(
            client.headers(1, fields("/greeting.Greeter/Collect")), client.data(1, message(hello("enough")))
        )
        await client.until(lambda: 1 in client.replies and client.replies[1].reset is not None)
        reply = client.replies[1]
        assert (reply.status, reply.reset) == (0, 0)
        await client.send(*(client.data(1, bytes(16_000)) for _ in range(20)))
        assert await client.works(3)
        assert reply.reset == 0


async def test_a_goaway_of_the_client_ends_no_call_that_runs(port):
    """Stock: replies under way are lost, h2 takes any GOAWAY for the end."""
    async with raw_client(port) as client:
        await client.send(client.headers(1, fields("/greeting.Greeter/Chat")), client.data(1, message(hello("a"))))
        await client.until(lambda: 1 in client.replies and client.replies[1].data)
        await client.send(client.goaway(), client.data(1, message(hello("b")), end=True))
        reply = await client.reply(1)
    assert (reply.status, reply.data.count(b"hello")) == (0, 2)


FLOODS = {
    "rapid reset": lambda c, n: [f for i in range(n) for f in (*c.call(2 * i + 1, hello()), c.reset(2 * i + 1))],
    "ping": lambda c, n: [c.ping()] * n,
    "settings": lambda c, n: [b"\0\0\0\4\0\0\0\0\0"] * n,
    "settings that change something": lambda c, n: [b"\0\0\6\4\0\0\0\0\0\0\4\0\0\xff\xff"] * n,
    "answers to no ping": lambda c, n: [b"\0\0\x08\6\1\0\0\0\0" + bytes(8)] * n,
    "priority": lambda c, n: [b"\0\0\5\2\0\0\0\0\1\0\0\0\0\x10"] * n,
    "empty data": lambda c, n: [c.headers(1, fields("/greeting.Greeter/Collect")), *[c.data(1)] * n],
    "nothing but padding": lambda c, n: [
        c.headers(1, fields("/greeting.Greeter/Collect")),
        *[b"\0\0\2\0\x08\0\0\0\1\1\0"] * n,
    ],
    "window update": lambda c, n: [c.window(0, 1)] * n,
    "window update of a call": lambda c, n: [*c.call(1, hello("wait")), *[c.window(1, 1)] * n],
    "reset of nothing": lambda c, n: [*c.call(1), *[c.reset(1)] * n],
}


@pytest.mark.parametrize("flood", FLOODS)
async def test_a_flood_ends_its_connection(flood, port):
    """Stock: no limit to any of these."""
    async with raw_client(port) as client, trio.open_nursery() as nursery:
        client.answer_pings = False
        parts = FLOODS[flood](client, 4_000)
        flooding = b"".join(part if isinstance(part, bytes) else part.serialize() for part in parts)

        async def pour():
            with suppress(trio.BrokenResourceError, trio.ClosedResourceError):  # closed while at it, as it should be
                await client.stream.send_all(flooding)

        nursery.start_soon(pour)
        await client.until_closed()
        nursery.cancel_scope.cancel()
    assert client.goaways[-1][1] == 11  # ENHANCE_YOUR_CALM


async def test_a_header_block_without_end_ends_its_connection(port):
    """Stock: 64 CONTINUATION frames of 16 MB each are kept."""
    async with raw_client(port) as client:
        opening = client.headers(1, fields(), end_headers=False)
        await client.send(opening, *[b"\0\x3f\xff\x09\0\0\0\0\1" + bytes(0x3FFF)] * 20)
        await client.until_closed()
    assert client.goaways[-1][1] == 11


async def test_an_hpack_bomb_ends_its_connection(port):
    """A kilobyte of table references that means megabytes of headers. Stock: the connection is left open."""
    async with raw_client(port) as client:
        await client.send(*client.call(1, x_bomb="x" * 3000))
        block = client.encoder.encode(fields(x_bomb="x" * 3000))
        index = block[-1:]
        frame = client.headers(3, fields())
        frame.data = block + index * 2000
        await client.send(frame)
        await client.until_closed()
    assert client.goaways[-1][1] == 11


async def test_one_stream_too_many_is_refused_and_the_rest_goes_on(port):
    """Stock: 65,536 are allowed, and one more ends the connection."""
    async with raw_client(port) as client:
        streams = range(1, 2 * 1000 + 1, 2)
        await client.send(*(f for i in streams for f in client.call(i, hello("wait"))))
        await client.send(*client.call(2001))
        assert (await client.reply(2001)).reset == 7  # REFUSED_STREAM
        await client.send(client.reset(1))
        assert await client.works(2003) or await client.works(2005)
