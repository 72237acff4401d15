"""What connections do by the clock: everything here is in virtual time."""

import math

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from dspex_trio import rpc

from .generated.greeter_grpc import GreeterStub
from .generated.greeter_pb2 import HelloReply, HelloRequest
from .greeter import Greeter, serving
from .raw import RawClient, fields, raw_client, raw_servers

WAIT = HelloRequest(name="wait").SerializeToString()


async def closed_after(client):
    began = trio.current_time()
    await client.until_closed()
    return trio.current_time() - began


async def test_a_client_that_says_nothing_is_closed(virtual_clock):
    """Stock purerpc waits for ever, with a task and a file descriptor each."""
    async with serving(Greeter()) as connect:
        stream = await connect()
        assert await closed_after(RawClient(stream)) == pytest.approx(10)


async def test_a_client_that_sends_half_a_preface_is_closed(virtual_clock):
    async with serving(Greeter()) as connect:
        stream = await connect()
        await stream.send_all(b"PRI * HTTP")
        assert await closed_after(RawClient(stream)) == pytest.approx(10)


async def test_a_client_that_speaks_http2_may_be_idle(virtual_clock):
    async with serving(Greeter()) as connect, raw_client(connect) as client:
        with trio.move_on_after(100_000):
            await client.until_closed()
        assert await client.works(1)


async def test_a_client_that_does_not_answer_pings_is_given_up_with_its_calls(virtual_clock):
    greeter = Greeter()
    settings = rpc.ServerSettings(keepalive_time=60, keepalive_timeout=20)
    async with serving(greeter, settings=settings) as connect, raw_client(connect) as client:
        client.answer_pings = False
        await client.send(*client.call(1, WAIT))
        assert await closed_after(client) == pytest.approx(80)
    assert greeter.ended == ["cancelled"]


async def test_a_client_that_answers_pings_stays(virtual_clock):
    settings = rpc.ServerSettings(keepalive_time=60, keepalive_timeout=20)
    async with serving(Greeter(), settings=settings) as connect, raw_client(connect) as client:
        with trio.move_on_after(1000):
            await client.until_closed()
        assert await client.works(1)


async def test_a_connection_without_calls_ends_gracefully_when_it_was_idle_too_long(virtual_clock):
    greeter = Greeter()
    settings = rpc.ServerSettings(max_connection_idle=300)
    async with serving(greeter, settings=settings) as connect, raw_client(connect) as client:
        await client.send(*client.call(1, WAIT))
        with trio.move_on_after(1000):
            await client.until_closed()
        greeter.release.set()
        assert (await client.reply(1)).status == 0
        assert await closed_after(client) == pytest.approx(300)
    assert client.goaways == [(2**31 - 1, 0), (1, 0)]


async def test_a_connection_ends_gracefully_at_its_age_and_its_calls_after_the_grace(virtual_clock):
    settings = rpc.ServerSettings(max_connection_age=600, max_connection_age_grace=60)
    async with serving(Greeter(), settings=settings) as connect, raw_client(connect) as client:
        await client.send(*client.call(1, WAIT))
        began = trio.current_time()
        await client.until(lambda: client.goaways)
        assert trio.current_time() - began == pytest.approx(600, rel=0.11)
        said = trio.current_time()
        assert (await client.reply(1)).status == 14
        assert trio.current_time() - said == pytest.approx(60, rel=0.05)


async def test_a_client_that_pings_too_often_while_idle_is_told_to_calm_down(virtual_clock):
    settings = rpc.ServerSettings(min_ping_interval=10)
    async with serving(Greeter(), settings=settings) as connect, raw_client(connect) as client:
        for pause in (20, 20, 1, 1, 1):
            await trio.sleep(pause)
            await client.send(client.ping())
        await client.until_closed()
    assert client.goaways[-1][1] == 11


async def test_a_client_that_pings_now_and_then_is_not(virtual_clock):
    settings = rpc.ServerSettings(min_ping_interval=10)
    async with serving(Greeter(), settings=settings) as connect, raw_client(connect) as client:
        for pause in (20, 1, 20, 1, 20, 1):
            await trio.sleep(pause)
            await client.send(client.ping())
        assert await client.works(1)


async def test_a_client_that_pings_when_replies_come_is_not_either(virtual_clock):
    """GRPC's clients measure the connection that way; three calls in a row cost them it."""
    settings = rpc.ServerSettings(min_ping_interval=300)
    async with serving(Greeter(), settings=settings) as connect, raw_client(connect) as client:
        for stream_id in range(1, 21, 2):
            assert await client.works(stream_id)
            await client.send(client.ping())
            await trio.sleep(1)
        assert await client.works(21)
    assert not client.goaways


async def test_the_status_of_a_missed_deadline_is_written_before_it_and_nothing_after(virtual_clock):
    """The margin is a tenth of the time, at most five milliseconds."""
    async with serving(Greeter()) as connect, raw_client(connect) as client:
        began = trio.current_time()
        await client.send(*client.call(1, HelloRequest(name="forever").SerializeToString(), grpc_timeout="10m"))
        assert (await client.reply(1)).status == 4
        assert trio.current_time() - began == pytest.approx(0.009)
        await client.send(*client.call(3, HelloRequest(name="forever").SerializeToString(), grpc_timeout="10S"))
        assert (await client.reply(3)).status == 4
        assert trio.current_time() - began == pytest.approx(10.004, abs=1e-3)


async def test_at_a_deadline_a_status_is_written_and_nothing_after_it_whatever_the_handler_does(virtual_clock):
    """Some clients never reset a stream: its state must be freed all the same, and no late reply may confuse them."""
    tidied = trio.Event()

    class Late(Greeter):
        async def SayHello(self, request, call):
            try:
                await trio.sleep_forever()
            finally:
                with trio.CancelScope(shield=True):
                    await trio.sleep(5)
                    tidied.set()

    async with serving(Late()) as connect, raw_client(connect) as client:
        await client.send(*client.call(1, grpc_timeout="1S"))
        began = trio.current_time()
        reply = await client.reply(1)
        # A bare RST_STREAM(CANCEL) would be a cancellation to a caller whose timer is late.
        assert trio.current_time() - began == pytest.approx(1)
        assert (reply.status, reply.ended, reply.reset, reply.data) == (4, True, None, b"")
        frames = len([f for f in client.frames if f.stream_id == 1])
        with trio.move_on_after(100):
            await client.until_closed()
        assert tidied.is_set()
        assert len([f for f in client.frames if f.stream_id == 1]) == frames == 1


async def test_data_that_arrives_after_the_deadline_is_not_answered(virtual_clock):
    async with serving(Greeter()) as connect, raw_client(connect) as client:
        await client.send(
            client.headers(1, fields("/greeting.Greeter/Collect", grpc_timeout="1S")),
            client.data(1, b"\0\0\0\1\0" + bytes(10)),
        )
        assert (await client.reply(1)).status == 4
        await client.send(*(client.data(1, bytes(100)) for _ in range(20)))
        assert await client.works(3)
        assert [type(f).__name__ for f in client.frames if f.stream_id == 1] == ["HeadersFrame", "RstStreamFrame"]


@pytest.mark.parametrize("plain", [False, True])
async def test_a_reply_that_comes_too_late_is_not_sent_even_if_nobody_else_could_notice(virtual_clock, plain):
    """A handler that keeps the whole process busy keeps the task from running that would have reset the stream."""

    class Busy(Greeter):
        async def SayHello(self, request, call):
            return self.late()

        def late(self):
            virtual_clock.jump(2)
            return HelloReply(text="late")

    class PlainlyBusy(Busy):
        def SayHello(self, request, call):
            return self.late()

    async with serving(PlainlyBusy() if plain else Busy()) as connect, raw_client(connect) as client:
        await client.send(*client.call(1, grpc_timeout="1S"))
        reply = await client.reply(1)
        assert (reply.status, reply.data) == (4, b"")
        assert [type(f).__name__ for f in client.frames if f.stream_id == 1] == ["HeadersFrame"]


async def test_a_call_that_is_late_ends_with_a_status_even_if_its_client_has_more_to_send(virtual_clock):
    """It is then told to stop, without an error (RFC 9113, 8.1)."""

    class Late(Greeter):
        async def Collect(self, requests, call):
            with trio.CancelScope(shield=True):
                await trio.sleep(5)

    async with serving(Late()) as connect, raw_client(connect) as client:
        await client.send(client.headers(1, fields("/greeting.Greeter/Collect", grpc_timeout="1S")))
        assert await client.reset_of(1) == 0
        assert client.replies[1].status == 4
        assert [type(f).__name__ for f in client.frames if f.stream_id == 1] == ["HeadersFrame", "RstStreamFrame"]


async def test_a_call_whose_client_has_reset_it_gets_no_status_at_its_deadline(virtual_clock):
    greeter = Greeter()
    async with serving(greeter) as connect, raw_client(connect) as client:
        forever = HelloRequest(name="forever").SerializeToString()
        await client.send(*client.call(1, forever, grpc_timeout="1S"), client.reset(1))
        await client.send(*client.call(3, forever, grpc_timeout="1S"))
        await greeter.entered.wait()
        await client.send(client.reset(3))
        await trio.sleep(10)
        assert await client.works(5)
        assert not {1, 3} & set(client.replies)


async def test_a_caller_that_waits_longer_than_it_says_gets_the_reply_until_then(virtual_clock):
    """Snakepit's pools wait twice the time; what they are told is what the deadline that they named has made of it."""
    seen = []

    class Slow(Greeter):
        async def SayHello(self, request, call):
            seen.append(call.deadline - trio.current_time())
            await trio.sleep(request.times)
            return HelloReply(text="late")

    def patience(call):
        return 2 if call.metadata.get("x-pool") else 1

    async with serving(Slow(), patience=patience) as connect, raw_client(connect) as client:
        slow, too_slow = (HelloRequest(times=times).SerializeToString() for times in (15, 25))
        await client.send(*client.call(1, slow, grpc_timeout="10S", x_pool="a"))
        await client.send(*client.call(3, too_slow, grpc_timeout="10S", x_pool="a"))
        await client.send(*client.call(5, slow, grpc_timeout="10S"))
        began = trio.current_time()
        assert (await client.reply(5)).status == 4
        assert trio.current_time() - began == pytest.approx(10, abs=0.01)
        assert (await client.reply(1)).status == 0
        assert trio.current_time() - began == pytest.approx(15)
        assert (await client.reply(3)).status == 4
        assert trio.current_time() - began == pytest.approx(20, abs=0.01)
    assert seen == pytest.approx([10, 10, 10])


async def test_a_timeout_of_nothing_is_already_past(virtual_clock):
    greeter = Greeter()
    async with serving(greeter) as connect, raw_client(connect) as client:
        await client.send(*client.call(1, grpc_timeout="0m"))
        reply = await client.reply(1)
    # Its request had not been read to its end.
    assert (reply.status, reply.ended, reply.reset) == (4, True, 0)


async def test_our_channel_gives_up_a_silent_server(virtual_clock):
    """Its calls end with UNAVAILABLE instead of waiting for a machine that is gone."""
    settings = rpc.ChannelSettings(keepalive_time=30, keepalive_timeout=10)
    listener, connect = rpc.memory_link()

    async def mute(stream, task_status=trio.TASK_STATUS_IGNORED):
        await stream.send_all(b"\0\0\0\4\0\0\0\0\0")  # empty SETTINGS, and never a word again
        await trio.sleep_forever()

    async with trio.open_nursery() as nursery:
        await nursery.start(trio.serve_listeners, mute, [listener])
        async with rpc.open_channel(connect, settings=settings) as channel:
            began = trio.current_time()
            with pytest.raises(rpc.RpcError) as caught:
                await GreeterStub(channel).SayHello(HelloRequest())
            assert trio.current_time() - began == pytest.approx(40, abs=0.1)
        nursery.cancel_scope.cancel()
    assert caught.value.status is rpc.StatusCode.UNAVAILABLE


async def test_our_channel_asks_a_server_that_was_silent_for_long_when_a_call_begins(virtual_clock):
    """Nobody has noticed that it is gone, as nobody called; the first one who does need not wait for the silence."""
    async with raw_servers(keepalive_time=30, keepalive_timeout=10) as (stub, servers):
        server = await answered(stub, servers)
        await trio.sleep(100)
        began = trio.current_time()
        with pytest.raises(rpc.RpcError) as caught:
            await stub.SayHello(HelloRequest())
        assert trio.current_time() - began == pytest.approx(10)
        assert server.pinged == []
    assert caught.value.status is rpc.StatusCode.UNAVAILABLE


async def test_our_channel_pings_seldom_a_server_that_answers_pings_alone(virtual_clock):
    """At the fourth ping within five minutes without data, grpcio's server ends the connection and all its calls."""
    settings = {"keepalive_time": 10, "keepalive_timeout": 5, "max_pings_without_data": 3}
    async with raw_servers(**settings) as (stub, servers), trio.open_nursery() as nursery:
        server = await answered(stub, servers)
        began = trio.current_time()
        nursery.start_soon(stub.SayHello, HelloRequest())
        nursery.start_soon(server.until_closed)
        await trio.sleep(1000)
        assert [at - began for at in server.pinged] == pytest.approx([10, 20, 30, 340, 650, 960], abs=0.1)
        server.pinged.clear()
        await server.send(server.headers(3, [(":status", "200"), ("content-type", "application/grpc")]))
        heard = trio.current_time()
        await trio.sleep(35)
        assert [at - heard for at in server.pinged] == pytest.approx([10, 20, 30], abs=0.1)
        nursery.cancel_scope.cancel()


async def answered(stub, servers):
    """The server on a new connection, after its first answer."""
    async with trio.open_nursery() as nursery:
        nursery.start_soon(stub.SayHello, HelloRequest())
        server = await servers.receive()
        await server.request(1)
        await server.answer(1, HelloReply().SerializeToString())
    return server


async def test_our_channel_does_not_ping_while_nobody_calls(virtual_clock):
    settings = rpc.ChannelSettings(keepalive_time=30, keepalive_timeout=10)
    async with (
        serving(Greeter(), settings=rpc.ServerSettings(min_ping_interval=math.inf)) as connect,
        rpc.open_channel(connect, settings=settings) as channel,
    ):
        stub = GreeterStub(channel)
        await stub.SayHello(HelloRequest())
        await trio.sleep(10_000)
        await wait_all_tasks_blocked()
        await stub.SayHello(HelloRequest())
        assert channel.endpoints[0].connection.heard_at == trio.current_time()
