"""Stopping without losing a call."""

import math
from functools import partial

import pytest
import trio
import trustme
from trio.testing import wait_all_tasks_blocked

from dspex_trio import rpc

from .generated.greeter_grpc import GreeterStub
from .generated.greeter_pb2 import HelloRequest
from .greeter import Greeter, serving
from .raw import fields, message, raw_client


@pytest.fixture
def tls(tmp_path):
    certificate = trustme.CA().issue_cert("localhost")
    certificate.cert_chain_pems[0].write_to_path(tmp_path / "server.pem")
    certificate.private_key_pem.write_to_path(tmp_path / "server.key")
    return rpc.server_tls(tmp_path / "server.pem", tmp_path / "server.key")


class Draining:
    """A server that is being drained; `over` is set when `serve` has returned."""

    def __init__(self, greeter=None, **options):
        self.greeter = greeter or Greeter()
        self.drain = rpc.Drain()
        self.over = trio.Event()
        self.listener, self.connect = rpc.memory_link()
        self._options = options

    async def run(self, task_status):
        await rpc.serve(
            [self.greeter], listeners=[self.listener], drain=self.drain, task_status=task_status, **self._options
        )
        self.over.set()


async def test_a_drain_says_goodbye_twice_and_serves_what_crosses_with_the_first(nursery):
    """The first GOAWAY names no last stream; the second, a round trip later, names the last one that will be served."""
    server = Draining()
    await nursery.start(server.run)
    async with raw_client(server.connect) as client:
        client.answer_pings = False
        assert await client.works(1)
        server.drain.start()
        await client.until(lambda: client.goaways)
        assert client.goaways == [(2**31 - 1, 0)]
        # This call crossed with the first goodbye; the pong that tells the server we have heard it comes after.
        await client.send(*client.call(3))
        pong = client.ping(b"draining")
        pong.flags.add("ACK")
        await client.send(pong)
        assert (await client.reply(3)).status == 0
        await client.until_closed()
    assert client.goaways == [(2**31 - 1, 0), (3, 0)]
    await server.over.wait()


async def test_calls_that_run_are_waited_for(nursery):
    server = Draining()
    await nursery.start(server.run)
    async with raw_client(server.connect) as client:
        await client.send(*client.call(1, HelloRequest(name="wait").SerializeToString()))
        await server.greeter.entered.wait()
        server.drain.start()
        await client.until(lambda: len(client.goaways) == 2)
        await wait_all_tasks_blocked()
        assert not server.over.is_set()
        server.greeter.release.set()
        assert (await client.reply(1)).status == 0
        await client.until_closed()
    await server.over.wait()
    assert server.greeter.ended == ["released"]


async def test_calls_after_the_last_that_counts_are_refused(nursery):
    server = Draining()
    await nursery.start(server.run)
    async with raw_client(server.connect) as client:
        await client.send(*client.call(1, HelloRequest(name="wait").SerializeToString()))
        await server.greeter.entered.wait()
        server.drain.start()
        await client.until(lambda: len(client.goaways) == 2)
        await client.send(*client.call(3))
        assert (await client.reply(3)).reset == 7  # REFUSED_STREAM
        server.greeter.release.set()
        assert (await client.reply(1)).status == 0


async def test_when_the_grace_is_over_calls_are_unavailable(virtual_clock, nursery):
    server = Draining()
    await nursery.start(server.run)
    async with raw_client(server.connect) as client:
        await client.send(*client.call(1, HelloRequest(name="wait").SerializeToString()))
        await server.greeter.entered.wait()
        server.drain.start(grace=30)
        began = trio.current_time()
        assert (await client.reply(1)).status == 14
        assert trio.current_time() - began == pytest.approx(30)
        await client.until_closed()
    await server.over.wait()
    assert server.greeter.ended == ["cancelled"]


async def test_a_second_start_can_shorten_the_grace(virtual_clock, nursery):
    server = Draining()
    await nursery.start(server.run)
    async with raw_client(server.connect) as client:
        await client.send(*client.call(1, HelloRequest(name="wait").SerializeToString()))
        await server.greeter.entered.wait()
        server.drain.start(math.inf)
        await trio.sleep(100)
        server.drain.start(1)
        server.drain.start(1000)
        began = trio.current_time()
        assert (await client.reply(1)).status == 14
        assert trio.current_time() - began == pytest.approx(1)


async def test_a_client_that_does_not_answer_the_ping_delays_a_drain_by_a_second_at_most(virtual_clock, nursery):
    server = Draining()
    await nursery.start(server.run)
    async with raw_client(server.connect) as client:
        client.answer_pings = False
        began = trio.current_time()
        server.drain.start()
        await client.until_closed()
        assert trio.current_time() - began == pytest.approx(1, abs=0.1)


async def test_a_drain_that_begins_while_a_connection_is_being_closed_changes_nothing_for_it(virtual_clock, nursery):
    """There are no calls to say goodbye to, and nobody who could."""
    server = Draining()
    await nursery.start(server.run)
    async with raw_client(server.connect) as client:
        assert await client.works(1)
        await client.send(client.data(99, b"for no stream"))
        await client.until(lambda: client.goaways)
        server.drain.start()  # the server waits for our end of the connection
        await client.until_closed()
        await server.over.wait()
    assert client.goaways == [(1, 1)]
    assert trio.current_time() < 5


async def test_a_drain_waits_no_longer_for_a_handshake_than_for_calls(virtual_clock, nursery, tls):
    """A client that connects and is silent could hold up every restart."""
    server = Draining(tls=tls)
    await nursery.start(server.run)
    stream = await server.connect()
    await wait_all_tasks_blocked()
    server.drain.start(grace=0.5)
    await server.over.wait()
    assert trio.current_time() == pytest.approx(0.5)
    assert await stream.receive_some() == b""


async def test_health_turns_first_and_connections_are_not_accepted_any_more(nursery):
    server = Draining()
    seen = []
    server.drain.before(lambda: seen.append(server.drain.started))
    await nursery.start(server.run)
    server.drain.start()
    await server.over.wait()
    assert seen == [False]
    with pytest.raises(OSError, match="nobody listens"):
        await server.connect()


async def test_a_drain_that_was_started_before_the_server_ends_it_at_once(nursery):
    server = Draining()
    server.drain.start()
    nursery.start_soon(partial(nursery.start, server.run))
    await server.over.wait()


async def test_no_call_of_a_hammering_client_is_lost_when_servers_are_drained_in_turn():
    """The client's calls move to the other server; those that crossed with a goodbye are answered or begun again."""
    first, second = Draining(), Draining()
    done = 0
    async with trio.open_nursery() as nursery:
        await nursery.start(first.run)
        await nursery.start(second.run)
        async with rpc.open_channel([first.connect, second.connect]) as channel:
            stub = GreeterStub(channel)

            async def hammer():
                nonlocal done
                for _ in range(50):
                    await stub.SayHello(HelloRequest(name="x"))
                    done += 1
                    if done == 300:
                        first.drain.start()

            async with trio.open_nursery() as hammering:
                for _ in range(20):
                    hammering.start_soon(hammer)
                await first.over.wait()
        assert done == 1000
        assert 0 < len(first.greeter.calls) < 1000
        second.drain.start()


async def test_a_drained_connection_sends_the_rest_of_a_stream_before_it_closes(nursery):
    server = Draining()
    await nursery.start(server.run)
    async with raw_client(server.connect, settings={4: 2**31 - 1}) as client:
        watch = HelloRequest(name="n", times=40, body=bytes(60_000)).SerializeToString()
        await client.send(
            client.headers(1, fields("/greeting.Greeter/Watch")), client.data(1, message(watch), end=True)
        )
        await server.greeter.entered.wait()
        server.drain.start()
        reply = await client.reply(1)
    assert (reply.status, len(reply.data) > 40 * 60_000) == (0, True)


async def test_an_unstarted_drain_changes_nothing():
    drain = rpc.Drain()
    async with serving(Greeter(), drain=drain) as target, rpc.open_channel(target) as channel:
        assert (await GreeterStub(channel).SayHello(HelloRequest(name="a"))).text == "hello a"
    assert not drain.started
