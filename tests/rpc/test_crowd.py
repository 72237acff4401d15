"""Connections that only hold a place lock nobody out."""

import contextlib
import resource
from dataclasses import dataclass, field
from functools import partial

import pytest
import trio
import trustme
from trio.testing import wait_all_tasks_blocked

from dspex_trio import rpc
from dspex_trio.rpc.generated.health_grpc import HealthStub
from dspex_trio.rpc.generated.health_pb2 import HealthCheckRequest
from dspex_trio.rpc.server.crowd import Crowd, fitting

from .generated.greeter_grpc import GreeterStub
from .generated.greeter_pb2 import HelloReply, HelloRequest
from .greeter import Greeter, port_of, serving, serving_tcp
from .raw import RawClient, fields, raw_client

TOKEN = "correct-horse"
SHOWN = {"authorization": f"Bearer {TOKEN}"}
WITH_TOKEN = [("authorization", f"Bearer {TOKEN}")]


@dataclass(eq=False)
class FakeGuest:
    heard_at: float = 0.0
    address: str | None = None
    known: bool = False
    left: list = field(default_factory=list)

    def evict(self):
        self.left.append("evicted")


def test_the_stranger_leaves_who_has_been_silent_for_the_longest_time():
    guests = [FakeGuest(3), FakeGuest(1), FakeGuest(2), FakeGuest(0, known=True)]
    crowd = Crowd(4, 4)
    assert all(crowd.let_in(one) for one in guests)
    for number in range(5):
        assert crowd.let_in(FakeGuest(10 + number))
    assert [one.left for one in guests] == [["evicted"], ["evicted"], ["evicted"], []]
    assert len(crowd) == 4


def test_nobody_who_is_known_leaves_for_a_stranger():
    crowd = Crowd(2, 2)
    guests = [FakeGuest(known=True), FakeGuest(known=True)]
    assert all(crowd.let_in(one) for one in guests)
    assert not crowd.let_in(FakeGuest(9))
    assert not any(one.left for one in guests)
    crowd.leave(guests[0])
    assert crowd.let_in(FakeGuest(9))


def test_an_address_that_has_as_many_connections_as_one_may_have_makes_room_itself():
    other, known = FakeGuest(0, "1.2.3.4"), FakeGuest(1, "::1", known=True)
    crowd = Crowd(10, 2)
    first, second = FakeGuest(2, "::1"), FakeGuest(3, "::1", known=True)
    assert all(crowd.let_in(one) for one in (other, known, first))
    assert crowd.let_in(second)
    assert first.left == ["evicted"]
    assert not crowd.let_in(FakeGuest(4, "::1"))
    assert not other.left
    assert crowd.let_in(FakeGuest(5, "1.2.3.4"))


def test_peers_without_an_address_are_not_taken_for_one():
    crowd = Crowd(10, 1)
    assert all(crowd.let_in(FakeGuest()) for _ in range(5))


def test_who_was_evicted_is_counted_no_more_when_its_connection_has_ended():
    crowd = Crowd(1, 1)
    first, second = FakeGuest(1, "::1"), FakeGuest(2, "::1")
    crowd.let_in(first)
    crowd.let_in(second)
    crowd.leave(first)
    assert len(crowd) == 1
    crowd.leave(second)
    crowd.leave(second)
    assert len(crowd) == 0
    assert crowd.let_in(FakeGuest(3, "::1"))


def test_more_connections_than_the_process_can_open_files_are_not_waited_for():
    """Beyond them none would be accepted, and none evicted."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (400, hard))
    try:
        assert (fitting(1000), fitting(10)) == (300, 10)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def guarded(**settings):
    return {"interceptors": [rpc.bearer_token(TOKEN)], "settings": rpc.ServerSettings(**settings)}


async def test_idle_connections_lock_nobody_out(virtual_clock):
    """A thousand that had sent no token kept every caller out for as long as they liked."""
    async with serving(Greeter(), **guarded(max_connections=3)) as target, contextlib.AsyncExitStack() as held:
        idle = []
        for _ in range(3):
            idle.append(await held.enter_async_context(raw_client(target)))
            await wait_all_tasks_blocked()
            await trio.sleep(1)
        async with rpc.open_channel(target) as channel:
            assert (await GreeterStub(channel).SayHello(HelloRequest(name="a"), metadata=SHOWN)).text == "hello a"
            await idle[0].until_closed()
            # Who is known stays, however many come.
            idle += [await held.enter_async_context(raw_client(target)) for _ in range(10)]
            await wait_all_tasks_blocked()
            assert (await GreeterStub(channel).SayHello(HelloRequest(name="b"), metadata=SHOWN)).text == "hello b"
        for one in idle[1:-3]:
            await one.until_closed()
            assert one.goaways


async def test_where_all_are_known_one_more_is_turned_away_and_that_is_logged_now_and_then(caplog, virtual_clock):
    async with serving(Greeter(), settings=rpc.ServerSettings(max_connections=1)) as target, raw_client(target) as one:
        assert await one.works(1)
        for pause in (0, 1, 1, 20):
            await trio.sleep(pause)
            stream = await target()
            await RawClient(stream).until_closed()
        assert await one.works(3)
    lines = [record.getMessage() for record in caplog.records if "turned away" in record.getMessage()]
    assert [line.partition(",")[0] for line in lines] == [
        "connections were turned away: 1",
        "connections were turned away: 3",
    ]


async def test_one_address_does_not_take_every_place():
    greeter = Greeter()
    settings = rpc.ServerSettings(max_connections_per_peer=2)
    async with (
        serving_tcp(greeter, settings=settings) as port,
        raw_client(port) as known,
        raw_client(port) as stranger,
    ):
        assert await known.works(1)
        async with raw_client(port) as third:
            await stranger.until_closed()
            assert await third.works(1)
            async with await trio.open_tcp_stream("127.0.0.1", port) as fourth:
                await RawClient(fourth).until_closed()
            assert await known.works(3)
            assert await third.works(3)


async def test_a_connection_that_is_still_in_its_tls_handshake_makes_room_too(tmp_path):
    authority = trustme.CA()
    certificate = authority.issue_cert("localhost")
    certificate.cert_chain_pems[0].write_to_path(tmp_path / "pem")
    certificate.private_key_pem.write_to_path(tmp_path / "key")
    authority.cert_pem.write_to_path(tmp_path / "ca")
    tls = rpc.server_tls(tmp_path / "pem", tmp_path / "key")
    settings = rpc.ServerSettings(max_connections=1)
    async with trio.open_nursery() as nursery:
        listeners = await nursery.start(partial(rpc.serve, [Greeter()], tls=tls, settings=settings))
        async with await trio.open_tcp_stream("127.0.0.1", port_of(listeners)) as silent:
            context = rpc.client_tls(ca=tmp_path / "ca")
            async with rpc.open_channel(f"localhost:{port_of(listeners)}", tls=context) as channel:
                assert (await GreeterStub(channel).SayHello(HelloRequest(name="a"))).text == "hello a"
            with contextlib.suppress(trio.BrokenResourceError):
                assert await silent.receive_some(1) == b""
        nursery.cancel_scope.cancel()


async def closes_after(client):
    began = trio.current_time()
    await client.until_closed()
    return trio.current_time() - began


async def test_a_connection_that_makes_no_call_in_time_is_closed_gracefully(virtual_clock):
    async with serving(Greeter(), settings=rpc.ServerSettings(first_call_timeout=30)) as target:
        async with raw_client(target) as idle, raw_client(target) as pinging:
            await trio.sleep(20)
            await pinging.send(pinging.ping())
            assert await closes_after(idle) == pytest.approx(10)
            await pinging.until_closed()
            assert trio.current_time() == pytest.approx(30)
        assert idle.goaways == pinging.goaways == [(2**31 - 1, 0), (0, 0)]


async def test_without_a_token_any_call_that_is_served_makes_a_connection_known(virtual_clock):
    settings = rpc.ServerSettings(first_call_timeout=30)
    async with (
        serving(Greeter(), settings=settings) as target,
        raw_client(target) as known,
        raw_client(target) as mistaken,
    ):
        assert await known.works(1)
        await mistaken.send(*mistaken.call(1, path="/no.such/Method"))
        assert (await mistaken.reply(1)).status == rpc.StatusCode.UNIMPLEMENTED
        assert await closes_after(mistaken) == pytest.approx(30)
        await trio.sleep(1000)
        assert await known.works(3)


async def test_with_a_token_only_a_call_that_carries_it_does(virtual_clock):
    """A health check needs none, and says nothing about who makes it."""
    health = rpc.Health()
    servicers = (Greeter(), health)
    check = "/grpc.health.v1.Health/Check"
    async with (
        serving(*servicers, **guarded(first_call_timeout=30)) as target,
        raw_client(target) as caller,
        raw_client(target) as prober,
        raw_client(target) as guesser,
        raw_client(target) as known_prober,
    ):
        await caller.send(caller.headers(1, fields(add=WITH_TOKEN)), caller.data(1, bytes(5), end=True))
        assert (await caller.reply(1)).status == 0
        await prober.send(*prober.call(1, path=check))
        assert (await prober.reply(1)).status == 0
        await guesser.send(guesser.headers(1, fields(authorization="Bearer wrong")), guesser.data(1, bytes(5)))
        assert (await guesser.reply(1)).status == rpc.StatusCode.UNAUTHENTICATED
        await known_prober.send(known_prober.headers(1, fields(check, add=WITH_TOKEN)))
        await known_prober.send(known_prober.data(1, bytes(5), end=True))
        assert (await known_prober.reply(1)).status == 0
        await prober.until_closed()
        await guesser.until_closed()
        assert trio.current_time() == pytest.approx(30)
        await trio.sleep(1000)
        await caller.send(caller.headers(5, fields(add=WITH_TOKEN)), caller.data(5, bytes(5), end=True))
        assert (await caller.reply(5)).status == 0
        assert not known_prober.goaways


async def test_a_stranger_who_watches_health_does_not_hold_its_place_by_that(virtual_clock):
    async with (
        serving(rpc.Health(), **guarded(first_call_timeout=30)) as target,
        rpc.open_channel(target) as channel,
        HealthStub(channel).Watch(HealthCheckRequest()) as states,
    ):
        await anext(states)
        with pytest.raises(rpc.RpcError) as caught:
            await anext(states)
    assert caught.value.status is rpc.StatusCode.UNAVAILABLE
    assert trio.current_time() == pytest.approx(31, abs=0.1)


@pytest.mark.parametrize("method", ["SayHello", "Collect"])
async def test_the_first_call_counts_from_its_beginning_however_long_it_takes(virtual_clock, method):
    class Slow(Greeter):
        def SayHello(self, request, call):
            return self.slowly()

        async def Collect(self, requests, call):
            return await self.slowly()

        async def slowly(self):
            await trio.sleep(1000)
            return HelloReply(text="slow")

    settings = rpc.ServerSettings(first_call_timeout=30)
    async with serving(Slow(), settings=settings) as target, raw_client(target) as client:
        begun = client.headers(1, fields(f"/greeting.Greeter/{method}"))
        await client.send(begun, client.data(1, bytes(5), end=method == "SayHello"))
        assert (await client.reply(1)).status == 0
        assert trio.current_time() == pytest.approx(1000)
