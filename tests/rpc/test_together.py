"""Several calls by one task: each is told of as it ends, and no one of them holds up another."""

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from dspex_trio import rpc
from dspex_trio.rpc import Attached
from dspex_trio.rpc.client.stubs import CallOptions

from .generated.greeter_pb2 import HelloRequest
from .greeter import Greeter, greeting
from .raw import message
from .test_channel import CANCEL, REFUSED_STREAM, REPLY, raw_servers


class Heard(list):
    """What was told, in order."""

    def __call__(self, number, answer):
        self.append((number, answer.status.name if isinstance(answer, rpc.RpcError) else answer.text))


def named(*names):
    return [HelloRequest(name=name) for name in names]


async def test_each_call_is_told_of_by_its_number():
    heard = Heard()
    async with greeting(Greeter()) as stub:
        await stub.SayHello.each(named(*(f"{n}" for n in range(40))), heard)
        await stub.SayHello.each([], heard)
    assert sorted(heard) == [(n, f"hello {n}") for n in range(40)]


async def test_a_call_that_fails_ends_no_other():
    heard = Heard()
    async with greeting(Greeter()) as stub:
        await stub.SayHello.each(named("a", "fail", "c"), heard)
    assert sorted(heard) == [(0, "hello a"), (1, "NOT_FOUND"), (2, "hello c")]


async def test_a_call_that_takes_long_does_not_hold_up_what_is_told_of_the_others():
    greeter, heard = Greeter(), Heard()

    def answered(number, answer):
        heard(number, answer)
        if len(heard) == 2:
            greeter.release.set()

    async with greeting(greeter) as stub:
        await stub.SayHello.each(named("wait", "b", "c"), answered)
    assert heard == [(1, "hello b"), (2, "hello c"), (0, "hello wait")]


async def test_what_is_raised_by_who_is_told_ends_all():
    greeter = Greeter()

    def answered(_number, answer):
        raise answer

    async with greeting(greeter) as stub:
        with pytest.raises(rpc.RpcError, match="nobody of that name"):
            await stub.SayHello.each(named("wait", "fail", "wait"), answered)
        await greeter.ending(2)
    assert greeter.ended == ["cancelled", "cancelled"]


async def test_when_cancelled_the_server_is_told_of_all():
    greeter, heard = Greeter(), Heard()
    async with greeting(greeter) as stub, trio.open_nursery() as nursery:
        nursery.start_soon(stub.SayHello.each, named("forever", "a", "forever"), heard)
        await greeter.entered.wait()
        await wait_all_tasks_blocked()
        nursery.cancel_scope.cancel()
    assert heard == [(1, "hello a")]
    assert greeter.ended == ["cancelled", "cancelled"]


async def test_those_that_no_server_looked_at_are_begun_again_and_only_they():
    heard = Heard()
    async with raw_servers() as (stub, servers), trio.open_nursery() as nursery:
        nursery.start_soon(stub.SayHello.each, named("a", "b", "c"), heard)
        server = await servers.receive()
        await server.request(5)
        await server.send(server.reset(1, REFUSED_STREAM), server.reset(3, CANCEL))
        await server.answer(5, REPLY)
        await server.request(7)
        await server.answer(7, REPLY)
    assert heard == [(1, "CANCELLED"), (2, "raw"), (0, "raw")]


async def test_one_that_is_always_refused_is_unavailable_in_the_end():
    heard = Heard()
    async with raw_servers() as (stub, servers), trio.open_nursery() as nursery:
        nursery.start_soon(stub.SayHello.each, named("a"), heard)
        server = await servers.receive()
        for stream_id in range(1, 17, 2):
            await server.request(stream_id)
            await server.send(server.reset(stream_id, REFUSED_STREAM))
    assert heard == [(0, "UNAVAILABLE")]


@pytest.mark.parametrize("replies", [0, 2])
async def test_anything_but_one_reply_is_an_error_of_that_call(replies):
    heard = Heard()
    async with raw_servers() as (stub, servers), trio.open_nursery() as nursery:
        nursery.start_soon(stub.SayHello.each, named("a", "b"), heard)
        server = await servers.receive()
        await server.request(3)
        await server.answer(1, *[REPLY] * replies)
        await server.answer(3, REPLY)
    assert heard == [(0, "INTERNAL"), (1, "raw")]


async def test_a_second_reply_is_an_error_before_the_call_ends():
    """Who waits for the end of such a call might wait for ever."""
    heard = Heard()
    async with raw_servers() as (stub, servers), trio.open_nursery() as nursery:
        nursery.start_soon(stub.SayHello.each, named("a"), heard)
        server = await servers.receive()
        await server.request(1)
        body = b"\0\0\0\0" + bytes([len(REPLY)]) + REPLY
        head = server.headers(1, [(":status", "200"), ("content-type", "application/grpc")])
        await server.send(head, server.data(1, body), server.data(1, body))
        assert await server.reset_of(1) == CANCEL
    assert heard == [(0, "INTERNAL")]


async def test_a_reply_that_cannot_be_parsed_is_an_error_of_that_call():
    heard = Heard()
    async with raw_servers() as (stub, servers), trio.open_nursery() as nursery:
        nursery.start_soon(stub.SayHello.each, named("a"), heard)
        server = await servers.receive()
        await server.request(1)
        await server.answer(1, b"\xff")
    assert heard == [(0, "INTERNAL")]


async def test_a_reply_that_cannot_be_unpacked_is_an_error_of_that_call():
    heard = Heard()
    async with raw_servers() as (stub, servers), trio.open_nursery() as nursery:
        nursery.start_soon(stub.SayHello.each, named("a", "b"), heard)
        server = await servers.receive()
        await server.request(3)
        head = [(":status", "200"), ("content-type", "application/grpc"), ("grpc-encoding", "gzip")]
        await server.send(
            server.headers(1, head),
            server.data(1, message(b"no gzip", flag=1)),
            server.headers(1, [("grpc-status", "0")], end=True),
        )
        await server.answer(3, REPLY)
    assert sorted(heard) == [(0, "INTERNAL"), (1, "raw")]


async def test_a_request_that_is_too_large_gives_up_those_before_it():
    heard = Heard()
    async with raw_servers(max_request_size=10) as (stub, servers), trio.open_nursery() as nursery:

        async def call():
            with pytest.raises(rpc.RpcError, match="more than the limit of 10"):
                await stub.SayHello.each(named("a", "b" * 20), heard)

        nursery.start_soon(call)
        server = await servers.receive()
        assert await server.reset_of(1) == CANCEL
    assert heard == []


async def test_more_calls_than_the_server_allows_at_once_wait_their_turn():
    heard = Heard()
    settings = rpc.ServerSettings(max_concurrent_calls=3)
    async with greeting(Greeter(), settings=settings) as stub:
        await stub.SayHello.each(named(*(f"{n}" for n in range(20))), heard)
    assert sorted(heard) == [(n, f"hello {n}") for n in range(20)]


async def test_what_is_attached_travels_with_each_of_them():
    class Channel:
        async def call_each(self, path, requests, options, answered):
            for number, request in enumerate(requests):
                answered(number, request)
            carried.append((path, options.metadata.items()))

    carried, heard = [], []
    attached = Attached(Channel(), lambda: {"authorization": "Bearer x"})
    await attached.call_each("/a", [b"1", b"2"], CallOptions(), lambda *told: heard.append(told))
    assert carried == [("/a", (("authorization", "Bearer x"),))]
    assert heard == [(0, b"1"), (1, b"2")]
