"""Limits, and that they are where they were set."""

import inspect
from dataclasses import fields as fields_of

import pytest
import trio
from hyperframe.frame import WindowUpdateFrame
from trio.testing import wait_all_tasks_blocked

from dspex_trio import rpc

from .generated.greeter_grpc import GreeterStub
from .generated.greeter_pb2 import HelloReply, HelloRequest
from .greeter import Greeter, greeting, serving
from .raw import fields, message, raw_client


async def test_a_request_of_exactly_the_limit_is_taken_and_one_more_byte_is_not():
    size = len(HelloRequest(body=bytes(1000)).SerializeToString())
    settings = rpc.ServerSettings(max_message_size=size)
    async with greeting(settings=settings) as stub:
        await stub.SayHello(HelloRequest(body=bytes(1000)))
        with pytest.raises(rpc.RpcError) as caught:
            await stub.SayHello(HelloRequest(body=bytes(1001)))
    assert caught.value.status is rpc.StatusCode.RESOURCE_EXHAUSTED
    assert f"{size + 1} bytes is larger than the limit of {size}" in caught.value.message


async def test_a_reply_over_the_servers_limit_is_not_sent():
    async with greeting(settings=rpc.ServerSettings(max_response_size=100)) as stub:
        with pytest.raises(rpc.RpcError) as caught:
            await stub.SayHello(HelloRequest(body=bytes(101)))
    assert caught.value.status is rpc.StatusCode.RESOURCE_EXHAUSTED


async def test_a_reply_over_the_channels_limit_is_not_taken_and_the_next_call_works():
    async with greeting(channel=rpc.ChannelSettings(max_message_size=100)) as stub:
        with pytest.raises(rpc.RpcError) as caught:
            await stub.SayHello(HelloRequest(body=bytes(101)))
        assert caught.value.status is rpc.StatusCode.RESOURCE_EXHAUSTED
        assert (await stub.SayHello(HelloRequest(name="a"))).text == "hello a"


async def test_a_request_over_the_channels_limit_is_not_sent():
    greeter = Greeter()
    async with greeting(greeter, channel=rpc.ChannelSettings(max_request_size=100)) as stub:
        with pytest.raises(rpc.RpcError) as caught:
            await stub.SayHello(HelloRequest(body=bytes(101)))
        assert caught.value.status is rpc.StatusCode.RESOURCE_EXHAUSTED
        await stub.SayHello(HelloRequest(name="a"))
    assert len(greeter.calls) == 1


async def test_headers_over_the_limit_fail_their_call_alone():
    settings = rpc.ServerSettings(max_header_list_size=1000)
    async with greeting(settings=settings) as stub:
        with pytest.raises(rpc.RpcError) as caught:
            await stub.SayHello(HelloRequest(), metadata={"x-large": "x" * 1000})
        assert caught.value.status is rpc.StatusCode.RESOURCE_EXHAUSTED
        await stub.SayHello(HelloRequest(), metadata={"x-small": "x" * 100})


async def test_request_metadata_of_more_than_the_server_takes_is_not_sent():
    """Sent, it would cost the call at best and the connection, with all other calls, at worst."""
    greeter = Greeter()
    async with greeting(greeter) as stub, trio.open_nursery() as nursery:
        nursery.start_soon(stub.SayHello, HelloRequest(name="wait"))
        await greeter.entered.wait()
        with pytest.raises(rpc.RpcError, match="larger than the server takes") as caught:
            await stub.SayHello(HelloRequest(), metadata={"x": "y" * 100_000})
        assert caught.value.status is rpc.StatusCode.RESOURCE_EXHAUSTED
        greeter.release.set()
    assert greeter.ended == ["released"]


class Verbose(Greeter):
    """Says more than clients take."""

    async def SayHello(self, request, call):
        match request.name:
            case "status":
                raise rpc.RpcError(rpc.StatusCode.ABORTED, "because " * 10_000)
            case "trailing":
                call.set_trailing_metadata({"x": "y" * 100_000})
            case "initial":
                call.set_initial_metadata({"x": "y" * 300_000})
            case "both":
                call.set_initial_metadata({"x": "y" * 300_000})
                raise rpc.RpcError(rpc.StatusCode.ABORTED, "because")
        return await super().SayHello(request, call)


@pytest.mark.parametrize(
    ("name", "code", "text"),
    [
        ("status", rpc.StatusCode.ABORTED, "because because .*… .the status is larger than the client takes"),
        ("trailing", rpc.StatusCode.RESOURCE_EXHAUSTED, "the trailing metadata is larger than the client takes"),
        ("initial", rpc.StatusCode.RESOURCE_EXHAUSTED, "the initial metadata is larger than the client takes"),
        ("both", rpc.StatusCode.ABORTED, "because"),
    ],
)
async def test_a_handler_that_says_more_than_the_client_takes_costs_its_call_alone(name, code, text):
    """A client would end the connection for it, and all other calls with it."""
    greeter = Verbose()
    async with greeting(greeter) as stub, trio.open_nursery() as nursery:
        nursery.start_soon(stub.SayHello, HelloRequest(name="wait"))
        await greeter.entered.wait()
        with pytest.raises(rpc.RpcError, match=text) as caught:
            await stub.SayHello(HelloRequest(name=name))
        assert caught.value.status is code
        greeter.release.set()
    assert greeter.ended == ["released"]


async def test_headers_that_fill_the_buffer_are_written_before_the_reply_waits_for_room(virtual_clock):
    """They went into the buffer without anybody to write them, and the reply waited for ever."""
    settings = rpc.ServerSettings(output_buffer=1000)

    class Talkative(Greeter):
        async def SayHello(self, request, call):
            call.set_initial_metadata({"x": "y" * 5000})
            return HelloReply(text="hello")

    async with greeting(Talkative(), settings=settings) as stub:
        await stub.import_(HelloRequest())
        await wait_all_tasks_blocked()
        with trio.fail_after(60):
            assert (await stub.SayHello(HelloRequest())).text == "hello"


async def test_a_client_that_sends_byte_by_byte_is_served():
    """Frames, prefixes and headers may be cut anywhere."""
    async with serving(Greeter()) as connect, raw_client(connect) as client:
        for frame in client.call(1, HelloRequest(name="a").SerializeToString()):
            for byte in frame.serialize():
                await client.send(bytes([byte]))
                await wait_all_tasks_blocked()
        assert (await client.reply(1)).status == 0


async def test_a_slot_is_free_when_the_handler_has_ended_and_not_before():
    """A stream that its caller has reset costs nothing on the wire; its handler may still hold what it holds."""
    release = trio.Event()

    class Tidying(Greeter):
        async def SayHello(self, request, call):
            self.entered.set()
            try:
                await trio.sleep_forever()
            finally:
                with trio.CancelScope(shield=True):
                    await release.wait()

    greeter = Tidying()
    settings = rpc.ServerSettings(max_concurrent_calls=1)
    async with serving(greeter, settings=settings) as connect, raw_client(connect) as client:
        await client.send(*client.call(1))
        await greeter.entered.wait()
        await client.send(client.reset(1))
        await wait_all_tasks_blocked()
        await client.send(client.headers(3, fields("/greeting.Greeter/Chat")))
        assert (await client.reply(3)).reset == 7  # REFUSED_STREAM
        release.set()
        await wait_all_tasks_blocked()
        await client.send(
            client.headers(5, fields("/greeting.Greeter/Chat")),
            client.data(5, message(HelloRequest(name="a").SerializeToString()), end=True),
        )
        assert (await client.reply(5)).status == 0


async def test_a_channel_waits_for_a_slot_that_the_server_allows():
    greeter = Greeter()
    async with (
        greeting(greeter, settings=rpc.ServerSettings(max_concurrent_calls=2)) as stub,
        trio.open_nursery() as nursery,
    ):
        for _ in range(4):
            nursery.start_soon(stub.SayHello, HelloRequest(name="wait"))
        await wait_all_tasks_blocked()
        assert len(greeter.calls) == 2
        greeter.release.set()
    assert len(greeter.calls) == 4


async def test_calls_that_wait_for_a_slot_have_it_in_turn():
    """A task whose call ends took the slot for its next one: of five that shared a slot, two never made a call."""
    order = []
    async with (
        greeting(settings=rpc.ServerSettings(max_concurrent_calls=1)) as stub,
        trio.open_nursery() as nursery,
    ):

        async def calls(name):
            for _ in range(20):
                await stub.SayHello(HelloRequest())
                order.append(name)

        for name in range(5):
            nursery.start_soon(calls, name)
    assert order == order[:5] * 20
    assert sorted(order[:5]) == [0, 1, 2, 3, 4]


async def test_a_slot_that_is_given_up_goes_to_the_next_in_turn(virtual_clock):
    """Whether its call is cancelled while it runs, while it waits, or when it has the slot and not yet its turn."""
    greeter = Greeter()
    settings = rpc.ServerSettings(max_concurrent_calls=1)
    scopes = {name: trio.CancelScope() for name in ("runs", "waits", "has it")}
    async with greeting(greeter, settings=settings) as stub:

        async def call(name):
            with scopes[name]:
                await stub.SayHello(HelloRequest(name="wait"))
            if name == "runs":
                scopes["has it"].cancel()

        with trio.fail_after(5):
            async with trio.open_nursery() as nursery:
                for name in scopes:
                    nursery.start_soon(call, name)
                    await wait_all_tasks_blocked()
                nursery.start_soon(stub.SayHello, HelloRequest(name="last"))
                await wait_all_tasks_blocked()
                scopes["waits"].cancel()
                scopes["runs"].cancel()
    assert all(scope.cancelled_caught for scope in scopes.values())


async def test_one_connection_too_many_is_closed(caplog):
    settings = rpc.ServerSettings(max_connections=1)
    async with serving(Greeter(), settings=settings) as connect:
        async with raw_client(connect) as first:
            assert await first.works(1)
            async with raw_client(connect) as second:
                await second.until_closed()
            assert await first.works(3)
        await wait_all_tasks_blocked()
        async with raw_client(connect) as third:
            assert await third.works(1)
    assert "turned away" in caplog.text


async def test_calls_whose_handlers_do_not_read_hold_a_bounded_number_of_bytes_and_stop_no_other():
    """Each may fill its stream's window, and no more; the connection's window is not theirs to keep."""
    release = trio.Event()

    class Deaf(Greeter):
        async def Collect(self, requests, call):
            await release.wait()
            return await super().Collect(requests, call)

    window = 65_536
    settings = rpc.ServerSettings(stream_window=window, connection_window=window)
    async with greeting(Deaf(), settings=settings) as stub, trio.open_nursery() as nursery:
        sent = [0] * 8

        async def upload(number):
            async with stub.Collect() as call:
                for _ in range(40):
                    await call.send(HelloRequest(name="x" * 8000))
                    sent[number] += 8000
                await call.reply()

        for number in range(8):
            nursery.start_soon(upload, number)
        await wait_all_tasks_blocked()
        assert all(window - 16_000 < one <= window for one in sent)
        assert (await stub.SayHello(HelloRequest(name="a"))).text == "hello a"
        release.set()
    assert sent == [320_000] * 8


async def test_padding_within_a_message_is_given_back_before_its_end():
    """A message in small pieces with much padding used up the window, and never ended."""
    async with serving(Greeter()) as connect, raw_client(connect) as client:
        body = message(HelloRequest(body=bytes(1100)).SerializeToString())

        def allowed():
            updates = [one for one in client.frames if isinstance(one, WindowUpdateFrame) and one.stream_id == 1]
            return rpc.ServerSettings().stream_window + sum(update.window_increment for update in updates)

        await client.send(client.headers(1, fields()))
        for number, byte in enumerate(body, start=1):
            with trio.fail_after(5):
                await client.until(lambda number=number: 257 * number <= allowed())
            await client.send(b"\0\1\1\0\x08\0\0\0\1\xff" + bytes([byte]) + bytes(255))
        await client.send(client.data(1, end=True))
        assert (await client.reply(1)).status == 0


async def test_a_client_that_does_not_know_our_window_yet_goes_by_the_default_one():
    """Many clients begin before they have seen our settings; with a small window they lost their connection for it."""
    settings = rpc.ServerSettings(stream_window=1024)
    async with serving(Greeter(), settings=settings) as connect, raw_client(connect) as client:
        body = message(HelloRequest(name="a").SerializeToString()) * 8_000
        chunks = [client.data(1, body[i : i + 16_000]) for i in range(0, len(body), 16_000)]
        await client.send(client.headers(1, fields("/greeting.Greeter/Collect")), *chunks, client.data(1, end=True))
        assert (await client.reply(1)).status == 0
        await client.send(b"\0\0\0\4\1\0\0\0\0")  # it has taken our settings, and has to keep to them now
        await client.send(client.headers(3, fields()), client.data(3, bytes(1025)))
        await client.until_closed()
    assert client.goaways[-1][1] == 3  # FLOW_CONTROL_ERROR


async def test_a_connection_that_holds_too_many_unread_bytes_loses_the_call_that_is_too_much():
    release = trio.Event()

    class Deaf(Greeter):
        async def Collect(self, requests, call):
            await release.wait()
            return await super().Collect(requests, call)

    settings = rpc.ServerSettings(stream_window=65_536, max_buffered=200_000)
    body = message(bytes(60_000))
    async with serving(Deaf(), settings=settings) as connect, raw_client(connect) as client:
        for stream_id in (1, 3, 5, 7):
            await client.send(client.headers(stream_id, fields("/greeting.Greeter/Collect")))
            for start in range(0, len(body), 16_000):
                await client.send(client.data(stream_id, body[start : start + 16_000]))
        assert (await client.reply(7)).status == 8
        await client.send(client.reset(1), client.reset(3), client.reset(5))
        assert await client.works(9)


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        ({"max_message_size": -1}, "max_message_size must not be negative"),
        ({"handshake_timeout": float("nan")}, "handshake_timeout must not be negative"),
        ({"max_frame_size": 100}, "max_frame_size must be between"),
        ({"stream_window": 2**31}, "stream_window must be between"),
        ({"compression": "snappy"}, "compression must be"),
        ({"output_buffer": 0}, "output_buffer must not be 0"),
        ({"keepalive_time": 0}, "keepalive_time must not be 0"),
    ],
)
def test_settings_that_make_no_sense_are_refused_by_name(options, complaint):
    for settings in (rpc.ServerSettings, rpc.ChannelSettings):
        if options.keys() <= {one.name for one in fields_of(settings)}:
            with pytest.raises(ValueError, match=complaint):
                settings(**options)


@pytest.mark.parametrize("name", ["user_agent", "authority"])
def test_what_a_channel_calls_itself_must_fit_into_a_header(name):
    with pytest.raises(ValueError, match=f"{name} must be printable ASCII"):
        rpc.ChannelSettings(**{name: "me\r\nx: y"})


@pytest.mark.parametrize(
    ("metadata", "complaint"),
    [
        ({"Upper": "x"}, "lower case"),
        ({"": "x"}, "lower case"),
        ({"a b": "x"}, "lower case"),
        ({":path": "x"}, "lower case"),
        ({"grpc-timeout": "1S"}, "belongs to the protocol"),
        ({"te": "x"}, "belongs to the protocol"),
        ({"x-bin": "text"}, "must be bytes"),
        ({"x": b"bytes"}, "must be text"),
        ({"x": "line\nbreak"}, "printable ASCII"),
        ({"x": "ä"}, "printable ASCII"),
    ],
)
async def test_metadata_that_cannot_be_sent_is_refused(metadata, complaint):
    async with greeting() as stub:
        with pytest.raises(ValueError, match=complaint):
            await stub.SayHello(HelloRequest(), metadata=metadata)


@pytest.mark.parametrize("settings", [rpc.ServerSettings, rpc.ChannelSettings])
def test_every_setting_is_documented(settings):
    documented = inspect.getdoc(settings)
    missing = [one.name for one in fields_of(settings) if f"\n    {one.name}:" not in documented]
    assert missing == []


async def test_a_stub_needs_nothing_but_a_channel():
    async with serving(Greeter()) as target, rpc.open_channel(target) as channel:
        assert (await GreeterStub(channel).SayHello(HelloRequest(name="a"))).text == "hello a"


async def test_a_call_with_many_messages_lets_the_others_have_their_turn():
    """Neither a handler that never waits nor one that finds thousands of messages waiting may hold up everybody."""
    turns, most = 0, 0

    async def count():
        nonlocal turns
        while True:
            turns += 1
            await trio.lowlevel.checkpoint()

    class Endless(Greeter):
        async def Watch(self, request, call):
            nonlocal most
            before, run = turns, 0
            for _ in range(2000):
                yield HelloReply()
                run = run + 1 if turns == before else 0
                before, most = turns, max(most, run)

        async def Collect(self, requests, call):
            nonlocal most
            await self.release.wait()
            before, run = turns, 0
            async for _ in requests:
                run = run + 1 if turns == before else 0
                before, most = turns, max(most, run)
            return HelloReply()

    greeter = Endless()
    async with greeting(greeter) as stub, trio.open_nursery() as nursery:
        nursery.start_soon(count)
        async with stub.Watch(HelloRequest()) as replies:
            assert len([reply async for reply in replies]) == 2000
        async with stub.Collect() as call:
            for _ in range(2000):
                await call.send(HelloRequest())
            greeter.release.set()
            await call.reply()
        nursery.cancel_scope.cancel()
    assert most < 40
