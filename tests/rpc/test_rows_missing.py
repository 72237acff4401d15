"""What purerpc's own server and client do not have at all, row by row; each of these fails on them (see test_rows)."""

import signal
import ssl
from contextlib import asynccontextmanager
from functools import partial

import pytest
import trio
import trustme

from dspex_trio import rpc

from .generated.greeter_grpc import GreeterStub
from .generated.greeter_pb2 import HelloReply, HelloRequest
from .greeter import Greeter, port_of
from .raw import RawServer, raw_client
from .test_rows import PATIENCE, SERVERS, hello, stock

STOCK_PATIENCE = 4  # until its process has begun, and made a call, and then some
CANCEL, UNAVAILABLE = 8, 14
SOON = 0.2  # seconds after which one side is to do something; nothing but that is waited for
REPLY = HelloReply(text="raw").SerializeToString()


@pytest.fixture(params=SERVERS)
def ours(request):
    """Whether it is the turn of our classes, and not of purerpc's."""
    return request.param == "ours"


def patience(ours):
    return trio.fail_after(PATIENCE if ours else STOCK_PATIENCE)


@asynccontextmanager
async def server(ours, certificate=None, **settings):
    """The port of a server, and what stops it."""
    if not ours:
        async with stock("stock_server", *([certificate] if certificate else [])) as process:
            yield int(await process.stdout.receive_some(20)), partial(process.send_signal, signal.SIGINT)
        return
    tls = rpc.server_tls(certificate, certificate) if certificate else None
    scope = trio.CancelScope()

    async def serve(task_status):
        with scope:
            await rpc.serve([Greeter()], settings=rpc.ServerSettings(**settings), tls=tls, task_status=task_status)

    async with trio.open_nursery() as nursery:
        yield port_of(await nursery.start(serve)), scope.cancel
        scope.cancel()


async def test_a_server_that_is_stopped_tells_the_calls_that_run(ours):
    """Stock: handlers swallow their cancellation, and Ctrl-C; connections stay open."""
    async with server(ours) as (port, stop), raw_client(port) as client:
        with patience(ours):
            await client.send(*client.call(1, hello("wait")))
            assert await client.works(3)
            stop()
            assert (await client.reply(1)).status == UNAVAILABLE
            await client.until_closed()


async def test_http2_is_agreed_on_by_tls(ours, tmp_path):
    """Stock: no ALPN, without which grpcio refuses a server."""
    authority = trustme.CA()
    authority.issue_cert("127.0.0.1").private_key_and_cert_chain_pem.write_to_path(tmp_path / "server.pem")
    context = ssl.create_default_context()
    authority.configure_trust(context)
    context.set_alpn_protocols(["h2"])
    async with server(ours, tmp_path / "server.pem") as (port, _):
        with patience(ours):
            async with await trio.open_ssl_over_tcp_stream("127.0.0.1", port, ssl_context=context) as stream:
                await stream.do_handshake()
                assert stream.selected_alpn_protocol() == "h2"


@pytest.mark.parametrize("words", [b"", b"PRI * HTTP/2.0"])
async def test_a_client_that_does_not_say_what_it_wants_is_closed(ours, words):
    """Stock: it may keep its connection for ever."""
    async with server(ours, handshake_timeout=SOON) as (port, _):
        with patience(ours):
            async with await trio.open_tcp_stream("127.0.0.1", port) as stream:
                await stream.send_all(words)
                while await stream.receive_some():
                    pass


async def test_a_client_that_answers_no_ping_is_given_up(ours):
    """Stock: nobody is pinged."""
    async with server(ours, keepalive_time=SOON, keepalive_timeout=SOON) as (port, _), raw_client(port) as client:
        client.answer_pings = False
        with patience(ours):
            await client.until_closed()


@pytest.mark.parametrize("limit", ["max_connection_idle", "max_connection_age"])
async def test_a_connection_ends_when_it_is_idle_or_old(ours, limit):
    """Stock: never."""
    async with server(ours, **{limit: SOON}) as (port, _), raw_client(port) as client:
        with patience(ours):
            await client.until_closed()
    assert client.goaways[0] == (2**31 - 1, 0)


async def test_handlers_send_metadata(ours):
    """Stock: it cannot be set."""
    async with server(ours) as (port, _), raw_client(port) as client:
        with patience(ours):
            await client.send(*client.call(1, hello("metadata")))
            reply = await client.reply(1)
    assert (reply.status, reply.trailers.get("first"), reply.trailers.get("last")) == (0, "1", "2")


@asynccontextmanager
async def client(ours, port, what):
    """A client that makes calls; yields a function that waits for the end of one, or for its process to have begun."""
    if not ours:
        async with stock("stock_client", port, what) as process:
            yield lambda: process.stdout.receive_some(100)
        return
    ends, ended = trio.open_memory_channel(2)

    async def calls():
        async with rpc.open_channel(f"127.0.0.1:{port}") as channel:
            for _ in range(2 if what == "again" else 1):
                with trio.move_on_after({"deadline": 5, "cancel": SOON}.get(what, float("inf"))):
                    try:
                        ends.send_nowait((await GreeterStub(channel).SayHello(HelloRequest())).text)
                    except rpc.RpcError as error:
                        ends.send_nowait(str(error))
            await trio.sleep_forever()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(calls)
        yield ended.receive
        nursery.cancel_scope.cancel()


@asynccontextmanager
async def raw_servers():
    """A port, and the connections to it, each as a RawServer that has said hello."""
    outgoing, incoming = trio.open_memory_channel(16)

    async def accept(stream):
        connection = RawServer(stream)
        await connection.begin()
        await outgoing.send(connection)
        await trio.sleep_forever()

    async with trio.open_nursery() as nursery:
        listeners = await nursery.start(partial(trio.serve_tcp, accept, 0, host="127.0.0.1"))
        yield port_of(listeners), incoming
        nursery.cancel_scope.cancel()


async def test_a_deadline_travels(ours):
    """Stock: there are none."""
    async with raw_servers() as (port, servers), client(ours, port, "deadline"):
        with patience(ours):
            connection = await servers.receive()
            assert "grpc-timeout" in await connection.request(1)


async def test_a_call_that_is_cancelled_is_reset(ours):
    """Stock: the server is not told."""
    async with raw_servers() as (port, servers), client(ours, port, "cancel"):
        with patience(ours):
            connection = await servers.receive()
            assert await connection.reset_of(1) == CANCEL


async def test_a_call_ends_with_its_connection(ours):
    """Stock: it hangs for ever."""
    async with raw_servers() as (port, servers), client(ours, port, "lost") as ended:
        with patience(ours):
            connection = await servers.receive()
            await connection.request(1)
            await connection.stream.aclose()
            assert await ended()


async def test_a_connection_that_was_lost_is_made_again(ours):
    """Stock: every later call hangs as well."""
    async with raw_servers() as (port, servers), client(ours, port, "again") as ended:
        with patience(ours):
            first = await servers.receive()
            await first.request(1)
            await first.stream.aclose()
            await ended()
            second = await servers.receive()
            await second.request(1)
            await second.answer(1, REPLY)
            assert await ended() == "raw"


@pytest.mark.skipif(len(SERVERS) == 1, reason="the stock client was not asked for")
async def test_the_stock_client_makes_an_ordinary_call():
    """Otherwise it would fail the tests above for no reason that matters."""
    async with raw_servers() as (port, servers), client(False, port, "lost") as ended:
        with patience(False):
            connection = await servers.receive()
            await connection.request(1)
            await connection.answer(1, REPLY)
            assert await ended() == b"ok\n"
