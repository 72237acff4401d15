"""Every shape of call, between our own server and channel in memory."""

import pytest
import trio

from dspex_trio import rpc

from .generated.greeter_pb2 import HelloRequest, Outer
from .greeter import Greeter, greeting


async def test_a_unary_call_is_answered():
    async with greeting() as stub:
        reply = await stub.SayHello(HelloRequest(name="ada"))
    assert reply.text == "hello ada"


async def test_a_server_streams_its_replies():
    async with greeting() as stub, stub.Watch(HelloRequest(name="n", times=3)) as replies:
        texts = [reply.text async for reply in replies]
    assert texts == ["n 0", "n 1", "n 2"]


async def test_a_client_streams_its_requests():
    async with greeting() as stub, stub.Collect() as call:
        for name in "abc":
            await call.send(HelloRequest(name=name))
        reply = await call.reply()
    assert reply.text == "a,b,c"


async def test_requests_and_replies_alternate():
    async with greeting() as stub, stub.Chat() as call:
        for name in "ab":
            await call.send(HelloRequest(name=name))
            assert (await anext(call)).text == f"hello {name}"
        call.done()
        assert [reply async for reply in call] == []


async def test_several_tasks_may_read_from_one_call():
    """Each reply goes to one of them; a task that had seen one, and then let the others have their turn, found none."""
    texts = []
    async with greeting() as stub, stub.Watch(HelloRequest(name="n", times=200)) as replies:

        async def read():
            texts.extend([reply.text async for reply in replies])

        async with trio.open_nursery() as nursery:
            for _ in range(3):
                nursery.start_soon(read)
    assert sorted(texts) == sorted(f"n {number}" for number in range(200))


async def test_several_tasks_may_send_on_one_call():
    """A request larger than the windows goes out in parts; those of another task came in between."""
    replies = []
    async with greeting() as stub, stub.Chat() as call, trio.open_nursery() as nursery:
        left = {"a", "b", "c"}

        async def send(name):
            for size in (400_000, 10, 400_000):
                await call.send(HelloRequest(name=name, body=name.encode() * size))
            left.remove(name)
            if not left:
                call.done()

        for name in tuple(left):
            nursery.start_soon(send, name)
        async for reply in call:
            assert reply.body == reply.text[-1:].encode() * len(reply.body)
            replies.append((reply.text, len(reply.body)))
    assert sorted(replies) == sorted((f"hello {name}", size) for name in "abc" for size in (400_000, 10, 400_000))


async def test_nested_types_optional_fields_and_python_keywords_are_generated_for():
    greeter = Greeter()
    async with greeting(greeter) as stub:
        await stub.Nested(Outer.Inner(name="deep"))
        assert (await stub.import_(HelloRequest())).text == "imported"
    assert greeter.seen == ["deep"]


async def test_a_message_larger_than_every_window_arrives():
    """Windows are a quarter of a megabyte: both sides have to let a message in before it is whole."""
    body = bytes(range(256)) * 2**14
    async with greeting() as stub:
        assert (await stub.SayHello(HelloRequest(name="big", body=body))).body == body


async def test_many_calls_share_a_connection():
    async with greeting() as stub:
        texts = set()

        async def call(number):
            texts.add((await stub.SayHello(HelloRequest(name=str(number)))).text)

        async with trio.open_nursery() as nursery:
            for number in range(100):
                nursery.start_soon(call, number)
    assert texts == {f"hello {number}" for number in range(100)}


async def test_a_status_raised_by_a_handler_reaches_the_caller():
    async with greeting() as stub:
        with pytest.raises(rpc.RpcError) as caught:
            await stub.SayHello(HelloRequest(name="fail"))
    assert (caught.value.status, caught.value.message) == (rpc.StatusCode.NOT_FOUND, "nobody of that name")
    assert caught.value.received


async def test_a_status_raised_half_way_comes_after_the_replies_that_were_sent():
    async with greeting() as stub, stub.Watch(HelloRequest(name="fail", times=2)) as replies:
        texts = [(await anext(replies)).text, (await anext(replies)).text]
        with pytest.raises(rpc.RpcError, match="half way"):
            await anext(replies)
    assert texts == ["fail 0", "fail 1"]


async def test_metadata_travels_both_ways():
    greeter = Greeter()
    async with (
        greeting(greeter) as stub,
        stub.SayHello.open(
            HelloRequest(name="metadata"), metadata=[("k", "v"), ("k", "w"), ("b-bin", b"\x01")]
        ) as call,
    ):
        first = await call.initial_metadata()
        await call.reply()
        last = call.trailing_metadata
    assert (first.get("first"), first.binary("raw-bin"), last.get("last")) == ("1", b"\x00\xff", "2")
    sent = greeter.calls[0].metadata
    assert (sent.get_all("k"), sent.binary("b-bin")) == (("v", "w"), b"\x01")


async def test_a_call_knows_its_method_its_peer_and_its_deadline(virtual_clock):
    greeter = Greeter()
    async with greeting(greeter) as stub:
        deadline = trio.current_time() + 5
        with trio.move_on_at(deadline):
            await stub.SayHello(HelloRequest())
        await stub.SayHello(HelloRequest())
    first, second = greeter.calls
    assert first.method == "/greeting.Greeter/SayHello"
    assert first.peer == "memory:"
    assert first.deadline == pytest.approx(deadline, abs=1e-3)
    assert first.deadline <= deadline
    assert second.deadline == float("inf")


async def test_an_unknown_method_is_unimplemented():
    async with greeting() as stub:
        stub.SayHello._path = "/greeting.Greeter/Nothing"
        with pytest.raises(rpc.RpcError) as caught:
            await stub.SayHello(HelloRequest())
    assert caught.value.status is rpc.StatusCode.UNIMPLEMENTED
