"""The channel: how it connects, spreads, waits, gives up and begins again."""

from contextlib import asynccontextmanager
from functools import partial

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from dspex_trio import rpc
from dspex_trio.rpc.client.endpoint import backoff
from dspex_trio.rpc.http2.headers import parse_timeout

from .generated.greeter_grpc import GreeterStub
from .generated.greeter_pb2 import HelloReply, HelloRequest
from .greeter import Greeter, greeting, serving
from .raw import message, raw_servers

REPLY = HelloReply(text="raw").SerializeToString()
CANCEL, REFUSED_STREAM = 8, 7


async def test_the_deadline_of_the_enclosing_scope_travels_and_promises_no_more_than_is_left(virtual_clock):
    async with raw_servers() as (stub, servers), trio.open_nursery() as nursery:

        async def call():
            with trio.move_on_after(100), trio.move_on_after(2.5):
                await stub.SayHello(HelloRequest())

        nursery.start_soon(call)
        server = await servers.receive()
        seconds = parse_timeout((await server.request(1))["grpc-timeout"])
        assert 2.49 < seconds <= 2.5
        assert await server.reset_of(1) == CANCEL


async def test_without_a_deadline_none_travels():
    async with raw_servers() as (stub, servers), trio.open_nursery() as nursery:
        nursery.start_soon(stub.SayHello, HelloRequest())
        server = await servers.receive()
        request = await server.request(1)
        assert "grpc-timeout" not in request
        assert (request[":path"], request["te"]) == ("/greeting.Greeter/SayHello", "trailers")
        await server.answer(1, REPLY)


async def test_one_can_wait_for_a_connection(virtual_clock):
    listener, connect = rpc.memory_link()
    refused = 3

    async def unsteady():
        nonlocal refused
        if refused:
            refused -= 1
            raise OSError("refused")
        return await connect()

    async with trio.open_nursery() as nursery, rpc.open_channel(unsteady) as channel:
        nursery.start_soon(partial(rpc.serve, [Greeter()], listeners=[listener]))
        await channel.connected()
        assert refused == 0
        assert channel.endpoints[0].connection.accepting
        nursery.cancel_scope.cancel()
    with trio.fail_after(1):
        await channel.connected()  # it is closed, and does not keep anybody


async def test_a_call_under_a_cancelled_scope_is_not_made():
    async with raw_servers() as (stub, servers):
        with trio.CancelScope() as scope:
            scope.cancel()
            await stub.SayHello(HelloRequest())
        assert scope.cancelled_caught
        await wait_all_tasks_blocked()
        assert servers.statistics().current_buffer_used == 0


async def test_leaving_a_stream_early_tells_the_server():
    async with raw_servers() as (stub, servers), trio.open_nursery() as nursery:

        async def leave():
            async with stub.Watch(HelloRequest()) as replies:
                await anext(replies)

        nursery.start_soon(leave)
        server = await servers.receive()
        await server.request(1)
        await server.send(
            server.headers(1, [(":status", "200"), ("content-type", "application/grpc")]),
            server.data(1, b"\0\0\0\0" + bytes([len(REPLY)]) + REPLY),
        )
        assert await server.reset_of(1) == CANCEL


@pytest.mark.parametrize("how", ["refused", "goaway"])
@pytest.mark.parametrize("shape", ["unary", "open", "stream"])
async def test_a_call_that_no_server_looked_at_is_begun_again(how, shape):
    """REFUSED_STREAM and a GOAWAY below the call's id both promise that (RFC 9113, 8.7)."""
    async with raw_servers() as (stub, servers), trio.open_nursery() as nursery:
        texts = []

        async def call():
            if shape == "unary":
                texts.append((await stub.SayHello(HelloRequest())).text)
            elif shape == "open":
                async with stub.SayHello.open(HelloRequest()) as one:
                    texts.append((await one.reply()).text)
            else:
                async with stub.Watch(HelloRequest()) as replies:
                    texts.extend([reply.text async for reply in replies])

        nursery.start_soon(call)
        first = await servers.receive()
        await first.request(1)
        if how == "refused":
            await first.send(first.reset(1, REFUSED_STREAM))
            await first.request(3)
            await first.answer(3, REPLY)
        else:
            await first.send(first.goaway(last=0))
            second = await servers.receive()
            await second.request(1)
            await second.answer(1, REPLY)
    assert texts == ["raw"]


async def test_a_call_with_many_requests_that_no_server_looked_at_is_unavailable():
    """They are not kept, so that it could be begun again; whoever made them may."""
    async with raw_servers() as (stub, servers), trio.open_nursery() as nursery:

        async def call():
            async with stub.Collect() as collect:
                await collect.send(HelloRequest(name="a"))
                with pytest.raises(rpc.RpcError) as caught:
                    await collect.reply()
                assert caught.value.status is rpc.StatusCode.UNAVAILABLE

        nursery.start_soon(call)
        server = await servers.receive()
        await server.request(1)
        await server.send(server.reset(1, REFUSED_STREAM))


async def test_a_call_that_is_always_refused_is_unavailable_in_the_end():
    async with raw_servers() as (stub, servers), trio.open_nursery() as nursery:

        async def call():
            with pytest.raises(rpc.RpcError) as caught:
                await stub.SayHello(HelloRequest())
            assert caught.value.status is rpc.StatusCode.UNAVAILABLE

        nursery.start_soon(call)
        server = await servers.receive()
        for stream_id in range(1, 17, 2):
            await server.request(stream_id)
            await server.send(server.reset(stream_id, REFUSED_STREAM))


async def test_a_call_that_may_have_been_processed_is_not_begun_again():
    async with raw_servers() as (stub, servers), trio.open_nursery() as nursery:

        async def call():
            with pytest.raises(rpc.RpcError, match="the connection was lost") as caught:
                await stub.SayHello(HelloRequest())
            assert caught.value.status is rpc.StatusCode.UNAVAILABLE

        nursery.start_soon(call)
        server = await servers.receive()
        await server.request(1)
        await server.stream.aclose()


async def test_a_response_that_came_whole_is_worth_as_much_when_the_connection_is_gone(virtual_clock):
    """Servers hang up after the last response of a drain; slow readers were told that it was lost."""
    async with raw_servers() as (stub, servers), trio.open_nursery() as nursery:
        texts = []

        async def read_slowly():
            async with stub.Watch(HelloRequest()) as replies:
                async for reply in replies:
                    texts.append(reply.text)
                    await trio.sleep(1)

        nursery.start_soon(read_slowly)
        server = await servers.receive()
        await server.request(1)
        await server.answer(1, REPLY, REPLY, REPLY)
        await server.stream.aclose()
    assert texts == ["raw"] * 3


async def test_after_a_goaway_running_calls_go_on_and_new_ones_go_elsewhere():
    async with raw_servers() as (stub, servers), trio.open_nursery() as nursery:
        texts = []

        async def call(name):
            texts.append((name, (await stub.SayHello(HelloRequest())).text))

        nursery.start_soon(call, "old")
        first = await servers.receive()
        await first.request(1)
        await first.send(first.goaway(last=2**31 - 1))
        await wait_all_tasks_blocked()
        nursery.start_soon(call, "new")
        second = await servers.receive()
        await second.request(1)
        await second.answer(1, REPLY)
        await wait_all_tasks_blocked()
        await first.answer(1, REPLY)
        await first.until_closed()  # by our channel, that has no more use for it
    assert texts == [("new", "raw"), ("old", "raw")]


async def test_a_server_that_is_pinged_too_often_for_its_taste_is_pinged_half_as_often(virtual_clock):
    """GRPC A8, on GOAWAY with ENHANCE_YOUR_CALM and "too_many_pings"."""
    settings = rpc.ServerSettings(min_ping_interval=50)
    channel = rpc.ChannelSettings(keepalive_time=30, keepalive_without_calls=True)
    async with serving(Greeter(), settings=settings) as connect, rpc.open_channel(connect, settings=channel) as opened:
        await GreeterStub(opened).SayHello(HelloRequest())
        await trio.sleep(1000)
        await GreeterStub(opened).SayHello(HelloRequest())
        connection = opened.endpoints[0].connection
        await trio.sleep(1000)
        assert opened.endpoints[0].connection is connection
        assert opened.endpoints[0]._keepalive_time == 60


@asynccontextmanager
async def several(count, **settings):
    """A stub of a channel to several servers, and those servers' greeters and cancel scopes."""
    greeters, targets, scopes = [Greeter() for _ in range(count)], [], []
    async with trio.open_nursery() as nursery:
        for greeter in greeters:
            listener, connect = rpc.memory_link()
            targets.append(connect)
            scopes.append(await nursery.start(partial(_serve_in_scope, greeter, listener)))
        async with rpc.open_channel(targets, settings=rpc.ChannelSettings(**settings)) as channel:
            yield GreeterStub(channel), greeters, scopes
        nursery.cancel_scope.cancel()


@asynccontextmanager
async def serving_alone():
    """A server in a system task, so that no nursery of the test is around the block."""
    listener, connect = rpc.memory_link()
    scope = trio.CancelScope()

    async def run():
        with scope:
            await rpc.serve([Greeter()], listeners=[listener])

    trio.lowlevel.spawn_system_task(run)
    yield connect
    scope.cancel()


async def _serve_in_scope(greeter, listener, task_status):
    with trio.CancelScope() as scope:
        async with trio.open_nursery() as nursery:
            await nursery.start(partial(rpc.serve, [greeter], listeners=[listener]))
            task_status.started(scope)


async def test_calls_are_spread_over_several_servers_in_turn():
    async with several(3) as (stub, greeters, _):
        await stub.SayHello(HelloRequest())
        await wait_all_tasks_blocked()  # until all three are connected
        before = [len(greeter.calls) for greeter in greeters]
        for _ in range(30):
            await stub.SayHello(HelloRequest())
        assert [len(g.calls) - n for g, n in zip(greeters, before, strict=True)] == [10, 10, 10]


async def test_a_dead_server_gets_no_calls_and_fails_none():
    async with several(3) as (stub, greeters, scopes):
        await stub.SayHello(HelloRequest())
        await wait_all_tasks_blocked()
        scopes[0].cancel()
        await wait_all_tasks_blocked()
        calls = len(greeters[0].calls)
        for _ in range(20):
            await stub.SayHello(HelloRequest())
        assert len(greeters[0].calls) == calls
        assert len(greeters[1].calls) + len(greeters[2].calls) >= 20


async def test_when_all_servers_are_dead_the_error_names_them_all():
    async with rpc.open_channel(["127.0.0.1:1", "localhost:1"]) as channel:
        with pytest.raises(rpc.RpcError, match=r"127\.0\.0\.1:1: .*; localhost:1: ") as caught:
            await GreeterStub(channel).SayHello(HelloRequest())
    assert caught.value.status is rpc.StatusCode.UNAVAILABLE


class Failing:
    """A connector that fails a number of times and notes when it was asked."""

    def __init__(self, failures, connect):
        self._failures = failures
        self._connect = connect
        self.asked = []

    async def __call__(self):
        self.asked.append(trio.current_time())
        if len(self.asked) <= self._failures:
            raise ConnectionRefusedError("not yet")
        return await self._connect()


async def test_attempts_to_connect_come_less_and_less_often(virtual_clock):
    async with serving(Greeter()) as connect:
        failing = Failing(5, connect)
        settings = rpc.ChannelSettings(backoff_jitter=0.0, backoff_max=5.0)
        async with rpc.open_channel(failing, settings=settings) as channel:
            await GreeterStub(channel).SayHello(HelloRequest(), wait_for_ready=True)
    pauses = [b - a for a, b in zip(failing.asked, failing.asked[1:], strict=False)]
    assert pauses == pytest.approx([1.0, 1.6, 2.56, 4.096, 5.0])


async def test_calls_that_do_not_wait_fail_at_once_while_the_channel_backs_off(virtual_clock):
    async with serving(Greeter()) as connect, rpc.open_channel(Failing(1, connect)) as channel:
        began = trio.current_time()
        for _ in range(3):
            with pytest.raises(rpc.RpcError, match="not yet"):
                await GreeterStub(channel).SayHello(HelloRequest())
        assert trio.current_time() == began
        await trio.sleep(2)
        assert (await GreeterStub(channel).SayHello(HelloRequest(name="a"))).text == "hello a"


async def test_a_call_that_fails_at_once_lets_the_others_have_their_turn(virtual_clock):
    """A loop that makes a call until one is served kept the channel from ever connecting."""
    turns = 0

    async def other():
        nonlocal turns
        while True:
            await trio.lowlevel.checkpoint()
            turns += 1

    async with rpc.open_channel(Failing(1000, None)) as channel, trio.open_nursery() as nursery:
        for number in range(10):
            with pytest.raises(rpc.RpcError, match="not yet"):
                await GreeterStub(channel).SayHello(HelloRequest())
            if number == 0:
                nursery.start_soon(other)
        assert turns >= 5
        nursery.cancel_scope.cancel()


async def test_calls_that_wait_are_bounded_by_their_own_deadline(virtual_clock):
    async with rpc.open_channel(Failing(1000, None), settings=rpc.ChannelSettings(wait_for_ready=True)) as channel:
        began = trio.current_time()
        with trio.move_on_after(77) as scope:
            await GreeterStub(channel).SayHello(HelloRequest())
        assert scope.cancelled_caught
        assert trio.current_time() - began == pytest.approx(77)


async def test_a_server_that_accepts_and_is_silent_counts_as_a_failure(virtual_clock):
    _listener, connect = rpc.memory_link()
    async with rpc.open_channel(connect, settings=rpc.ChannelSettings(connect_timeout=3)) as channel:
        with pytest.raises(rpc.RpcError, match="no answer within 3 seconds"):
            await GreeterStub(channel).SayHello(HelloRequest())


@pytest.mark.parametrize("words", [b"HTTP/1.1 400 Bad Request\r\n\r\n", b"220 smtp ready\r\n", b""])
async def test_a_server_that_speaks_something_else_counts_as_a_failure(words, virtual_clock):
    listener, connect = rpc.memory_link()

    async def speak(stream):
        await stream.send_all(words)
        await stream.aclose()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(trio.serve_listeners, speak, [listener])
        async with rpc.open_channel(connect) as channel:
            with pytest.raises(rpc.RpcError, match="before it spoke HTTP/2") as caught:
                await GreeterStub(channel).SayHello(HelloRequest())
        nursery.cancel_scope.cancel()
    assert caught.value.status is rpc.StatusCode.UNAVAILABLE


def test_the_jitter_stays_within_its_bounds():
    settings = rpc.ChannelSettings()
    assert [backoff(settings, 1, shake) for shake in (-1, 0, 1)] == pytest.approx([0.8, 1.0, 1.2])
    assert [backoff(settings, 10_000, shake) for shake in (-1, 0, 1)] == pytest.approx([96, 120, 144])


async def test_what_is_raised_within_a_channels_block_leaves_it_as_it_is():
    """And not in a group: that there is a nursery in it is nobody's business."""
    with pytest.raises(rpc.RpcError, match="nobody of that name"):
        async with serving_alone() as connect, rpc.open_channel(connect) as channel:
            await GreeterStub(channel).SayHello(HelloRequest(name="fail"))


async def test_a_closed_channel_ends_its_calls():
    async with trio.open_nursery() as nursery, greeting() as stub:

        async def call():
            with pytest.raises(rpc.RpcError) as caught:
                await stub.SayHello(HelloRequest(name="wait"))
            assert caught.value.status is rpc.StatusCode.UNAVAILABLE

        nursery.start_soon(call)
        await wait_all_tasks_blocked()


async def test_a_closed_channel_ends_calls_that_wait_for_a_connection_and_takes_no_more():
    """There is nothing that they could wait for."""

    async def never():
        await trio.sleep_forever()

    async with trio.open_nursery() as nursery:
        async with rpc.open_channel(never) as channel:
            nursery.start_soon(closed, GreeterStub(channel))
            await wait_all_tasks_blocked()
        await closed(GreeterStub(channel))


async def closed(stub):
    with pytest.raises(rpc.RpcError, match="the channel is closed") as caught:
        await stub.SayHello(HelloRequest(), wait_for_ready=True)
    assert caught.value.status is rpc.StatusCode.UNAVAILABLE


ENDINGS = {
    "no status": ([("x", "y")], rpc.StatusCode.UNKNOWN),
    "a bad status": ([("grpc-status", "x")], rpc.StatusCode.UNKNOWN),
    "bad base64": ([("grpc-status", "0"), ("x-bin", "!")], rpc.StatusCode.INTERNAL),
    "a pseudo-header": ([(":status", "200"), ("grpc-status", "0")], rpc.StatusCode.INTERNAL),
    "two lines": ([("grpc-status", "0"), ("x", "1\r\ny: 2")], rpc.StatusCode.INTERNAL),
    "more than we take": ([("grpc-status", "0"), ("x", "y" * 20_000)], rpc.StatusCode.RESOURCE_EXHAUSTED),
}


@pytest.mark.parametrize("case", ENDINGS)
async def test_trailers_that_cannot_be_understood_end_the_call_alone(case):
    trailers, code = ENDINGS[case]
    async with raw_servers() as (stub, servers), trio.open_nursery() as nursery:

        async def call():
            with pytest.raises(rpc.RpcError) as caught:
                await stub.SayHello(HelloRequest())
            assert caught.value.status is code
            assert (await stub.SayHello(HelloRequest())).text == "raw"

        nursery.start_soon(call)
        server = await servers.receive()
        await server.request(1)
        await server.send(
            server.headers(1, [(":status", "200"), ("content-type", "application/grpc")]),
            server.headers(1, trailers, end=True),
        )
        await server.request(3)
        await server.answer(3, REPLY)


@pytest.mark.parametrize(
    ("code", "status"),
    [
        (0, rpc.StatusCode.INTERNAL),
        (2, rpc.StatusCode.INTERNAL),
        (8, rpc.StatusCode.CANCELLED),
        (11, rpc.StatusCode.RESOURCE_EXHAUSTED),
        (12, rpc.StatusCode.PERMISSION_DENIED),
    ],
)
async def test_a_reset_is_translated_as_grpc_has_it(code, status):
    async with raw_servers() as (stub, servers), trio.open_nursery() as nursery:

        async def call():
            with pytest.raises(rpc.RpcError) as caught:
                await stub.SayHello(HelloRequest())
            assert caught.value.status is status

        nursery.start_soon(call)
        server = await servers.receive()
        await server.request(1)
        await server.send(server.reset(1, code))


MALFORMED = {
    "no :status": [("content-type", "application/grpc")],
    "a pseudo-header of requests": [(":status", "200"), (":path", "/"), ("content-type", "application/grpc")],
    "a second :status": [(":status", "200"), (":status", "200"), ("content-type", "application/grpc")],
    ":status after a field": [("content-type", "application/grpc"), (":status", "200")],
    "an upper-case name": [(":status", "200"), ("content-type", "application/grpc"), ("X-Upper", "1")],
    "two lines": [(":status", "200"), ("content-type", "application/grpc"), ("x", "1\r\ny: 2")],
    "a field of a connection": [(":status", "200"), ("content-type", "application/grpc"), ("connection", "close")],
}


@pytest.mark.parametrize("only", [False, True])
@pytest.mark.parametrize("case", MALFORMED)
async def test_malformed_headers_of_a_response_fail_its_call_alone(case, only):
    """What HTTP/2 forbids reached the caller as metadata (RFC 9113, 8.2 and 8.3.2)."""
    async with raw_servers() as (stub, servers), trio.open_nursery() as nursery:

        async def call():
            with pytest.raises(rpc.RpcError, match="malformed response") as caught:
                await stub.SayHello(HelloRequest())
            assert caught.value.status is rpc.StatusCode.INTERNAL
            assert (await stub.SayHello(HelloRequest())).text == "raw"

        nursery.start_soon(call)
        server = await servers.receive()
        await server.request(1)
        status = [("grpc-status", "0")] if only else []
        await server.send(server.headers(1, [*MALFORMED[case], *status], end=only))
        await server.request(3)
        await server.answer(3, REPLY)


async def test_the_same_block_may_be_a_whole_response_and_no_trailers():
    """What a block means is remembered; whether it has a `:status` to have is another matter."""
    whole = [(":status", "200"), ("content-type", "application/grpc"), ("grpc-status", "5")]
    async with raw_servers() as (stub, servers), trio.open_nursery() as nursery:
        codes = []

        async def calls():
            for _ in range(4):
                with pytest.raises(rpc.RpcError) as caught:
                    await stub.SayHello(HelloRequest())
                codes.append(caught.value.status.name)

        nursery.start_soon(calls)
        server = await servers.receive()
        for stream_id in (1, 3, 5):
            await server.request(stream_id)
            await server.send(server.headers(stream_id, whole, end=True))
        await server.request(7)
        await server.send(server.headers(7, whole[:2]), server.headers(7, whole, end=True))
    assert codes == ["NOT_FOUND"] * 3 + ["INTERNAL"]


async def test_data_before_the_headers_is_an_error_and_no_reply_that_is_lost():
    async with raw_servers() as (stub, servers), trio.open_nursery() as nursery:

        async def call():
            async with stub.Watch(HelloRequest()) as replies:
                with pytest.raises(rpc.RpcError, match="before the headers") as caught:
                    await anext(replies)
                assert caught.value.status is rpc.StatusCode.INTERNAL

        nursery.start_soon(call)
        server = await servers.receive()
        await server.request(1)
        await server.send(server.data(1, message(REPLY)))
        await server.answer(1, REPLY)
        assert await server.reset_of(1) == CANCEL


async def test_initial_metadata_of_more_than_we_take_ends_its_call_alone():
    async with raw_servers() as (stub, servers), trio.open_nursery() as nursery:

        async def call():
            with pytest.raises(rpc.RpcError, match="larger than the limit of 16384 bytes") as caught:
                await stub.SayHello(HelloRequest())
            assert caught.value.status is rpc.StatusCode.RESOURCE_EXHAUSTED
            assert (await stub.SayHello(HelloRequest())).text == "raw"

        nursery.start_soon(call)
        server = await servers.receive()
        await server.request(1)
        headers = [(":status", "200"), ("content-type", "application/grpc"), ("x", "y" * 20_000)]
        await server.send(server.headers(1, headers))
        assert await server.reset_of(1) == CANCEL
        await server.request(3)
        await server.answer(3, REPLY)


async def test_a_server_that_answers_byte_by_byte_is_understood():
    """Frames, prefixes and headers may be cut anywhere."""
    async with raw_servers() as (stub, servers), trio.open_nursery() as nursery:

        async def call():
            assert (await stub.SayHello(HelloRequest())).text == "raw"

        nursery.start_soon(call)
        server = await servers.receive()
        await server.request(1)
        whole, server.stream = server.stream, Dribble(server.stream)
        await server.answer(1, REPLY)
        server.stream = whole


class Dribble:
    """A stream that sends byte by byte."""

    def __init__(self, stream):
        self._stream = stream

    async def send_all(self, data):
        for byte in data:
            await self._stream.send_all(bytes([byte]))
            await wait_all_tasks_blocked()


async def test_a_unary_call_needs_exactly_one_reply():
    async with raw_servers() as (stub, servers), trio.open_nursery() as nursery:

        async def call():
            for _ in range(2):
                with pytest.raises(rpc.RpcError, match="exactly one reply"):
                    await stub.SayHello(HelloRequest())

        nursery.start_soon(call)
        server = await servers.receive()
        for stream_id, bodies in ((1, []), (3, [REPLY, REPLY])):
            await server.request(stream_id)
            await server.answer(stream_id, *bodies)


async def test_sending_to_a_call_that_has_ended_raises_its_status():
    async with greeting() as stub, stub.Chat() as call:
        await call.send(HelloRequest(name="fail"))
        with pytest.raises(rpc.RpcError, match="lost"):
            await anext(call)
        with pytest.raises(rpc.RpcError, match="lost"):
            await call.send(HelloRequest(name="more"))
        call.done()


async def test_a_sender_that_waits_for_a_window_learns_that_the_call_has_ended():
    async with greeting() as stub, stub.Collect() as call:
        await call.send(HelloRequest(name="enough"))

        async def send_on():
            for _ in range(100):
                await call.send(HelloRequest(name="x" * 100_000))

        with pytest.raises(rpc.RpcError) as caught:
            await send_on()
        assert caught.value.status is rpc.StatusCode.FAILED_PRECONDITION
        assert (await call.reply()).text == "enough"


async def test_a_call_of_which_half_a_request_was_sent_is_given_up(virtual_clock):
    """The server would take the next request for the rest of the one that was cancelled."""
    async with raw_servers() as (stub, servers), trio.open_nursery() as nursery:

        async def call():
            async with stub.Chat() as chat:
                with trio.move_on_after(1) as scope:
                    await chat.send(HelloRequest(body=bytes(100_000)))
                assert scope.cancelled_caught
                with pytest.raises(rpc.RpcError, match="given up") as caught:
                    await chat.send(HelloRequest(name="next"))
                assert caught.value.status is rpc.StatusCode.CANCELLED

        nursery.start_soon(call)
        server = await servers.receive()
        assert await server.reset_of(1) == CANCEL
        assert len(server.replies[1].data) == 65535


async def test_a_request_that_was_cancelled_before_any_of_it_was_sent_leaves_the_call_as_it_was(virtual_clock):
    async with raw_servers() as (stub, servers), trio.open_nursery() as nursery:

        async def call():
            async with stub.Chat() as chat:
                nursery.start_soon(chat.send, HelloRequest(name="first", body=bytes(100_000)))
                await wait_all_tasks_blocked()
                with trio.move_on_after(1) as scope:
                    await chat.send(HelloRequest(name="cancelled"))
                assert scope.cancelled_caught
                await chat.send(HelloRequest(name="last"))
                chat.done()
                await anext(chat)

        nursery.start_soon(call)
        server = await servers.receive()
        await server.request(1)
        await trio.sleep(2)
        await server.send(server.window(0, 10**6), server.window(1, 10**6))
        await server.until(lambda: server.replies[1].ended)
        data = server.replies[1].data
        assert b"first" in data
        assert data.endswith(message(HelloRequest(name="last").SerializeToString()))
        assert b"cancelled" not in data
        await server.answer(1, REPLY)


async def test_done_comes_after_the_requests_that_other_tasks_are_sending():
    async with raw_servers() as (stub, servers), trio.open_nursery() as nursery:

        async def call():
            async with stub.Collect() as collect:
                for name in ("a", "b"):
                    nursery.start_soon(collect.send, HelloRequest(name=name, body=bytes(100_000)))
                await wait_all_tasks_blocked()  # one waits for the server, the other for that one
                collect.done()
                with pytest.raises(rpc.RpcError, match="no more requests"):
                    await collect.send(HelloRequest(name="c"))
                await collect.reply()

        nursery.start_soon(call)
        server = await servers.receive()
        await server.request(1)
        await wait_all_tasks_blocked()
        await server.send(server.window(0, 10**6), server.window(1, 10**6))
        await server.until(lambda: server.replies[1].ended)
        both = [message(HelloRequest(name=name, body=bytes(100_000)).SerializeToString()) for name in ("a", "b")]
        assert server.replies[1].data in {both[0] + both[1], both[1] + both[0]}
        await server.answer(1, REPLY)
