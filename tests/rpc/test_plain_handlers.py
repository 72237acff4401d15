"""Handlers that are plain functions: asked in the connection's own turn, without a task, unless they have to wait."""

import math

import pytest
import trio
import trio.testing

from dspex_trio import rpc

from .generated.greeter_grpc import GreeterServicer
from .generated.greeter_pb2 import HelloReply, HelloRequest
from .greeter import greeting, serving
from .raw import fields, message, raw_client

LARGE = 20_000  # twenty windows of the client that asks for it


class Plain(GreeterServicer):
    """Greets at once, unless its name asks for something else."""

    def __init__(self):
        self.names = []
        self.ended = []
        self.waiting = trio.Event()
        self.release = trio.Event()

    def SayHello(self, request, call):
        self.names.append(request.name)
        match request.name:
            case "fail":
                call.set_trailing_metadata({"last": "1"})
                raise rpc.RpcError(rpc.StatusCode.NOT_FOUND, "nobody of that name")
            case "bug":
                raise ZeroDivisionError("a secret")
            case "nothing":
                return None
            case "wait":
                return self.wait()
            case "large":
                return HelloReply(body=bytes(LARGE))
            case "metadata":
                call.set_initial_metadata({"first": "1"})
                call.set_trailing_metadata({"last": "2"})
        return HelloReply(text=f"hello {request.name}")

    async def wait(self):
        self.waiting.set()
        try:
            await self.release.wait()
        except trio.Cancelled:
            self.ended.append("cancelled")
            raise
        return HelloReply(text="waited")


async def failure(stub, name):
    with pytest.raises(rpc.RpcError) as info:
        await stub.SayHello(HelloRequest(name=name))
    return info.value


class Births(trio.abc.Instrument):
    """Counts the tasks of handlers."""

    def __init__(self):
        self.born = 0

    def task_spawned(self, task):
        self.born += "_serve_call" in task.name


async def test_it_is_asked_where_its_request_is_read_and_starts_no_task():
    greeter, births = Plain(), Births()
    async with greeting(greeter) as stub:
        trio.lowlevel.add_instrument(births)
        for name in "abc":
            assert (await stub.SayHello(HelloRequest(name=name))).text == f"hello {name}"
        assert births.born == 0
        greeter.release.set()
        assert (await stub.SayHello(HelloRequest(name="wait"))).text == "waited"
        assert births.born == 1
        trio.lowlevel.remove_instrument(births)


async def test_what_it_raises_ends_its_call_and_no_other(caplog):
    async with greeting(Plain()) as stub:
        refused = await failure(stub, "fail")
        assert (refused.status, refused.message) == (rpc.StatusCode.NOT_FOUND, "nobody of that name")
        assert refused.metadata.get("last") == "1"
        for name in ("bug", "nothing"):
            broken = await failure(stub, name)
            assert (broken.status, broken.message) == (rpc.StatusCode.UNKNOWN, "the handler failed")
        assert (await stub.SayHello(HelloRequest(name="a"))).text == "hello a"
    assert [record.exc_info[0] for record in caplog.records] == [ZeroDivisionError, AttributeError]


async def test_metadata_goes_both_ways():
    async with greeting(Plain()) as stub, stub.SayHello.open(HelloRequest(name="metadata")) as call:
        assert (await call.reply()).text == "hello metadata"
        assert (await call.initial_metadata()).get("first") == "1"
        assert call.trailing_metadata.get("last") == "2"


async def test_a_reply_over_the_limit_is_an_error_of_its_call():
    async with greeting(Plain(), settings=rpc.ServerSettings(max_response_size=1000)) as stub:
        assert (await failure(stub, "large")).status is rpc.StatusCode.RESOURCE_EXHAUSTED


async def test_interceptors_are_around_it_too():
    seen = []

    async def around(call, proceed):
        await trio.lowlevel.checkpoint()
        seen.append("before")
        await proceed()
        seen.append("after")

    greeter = Plain()
    greeter.release.set()
    async with greeting(greeter, interceptors=[around]) as stub:
        assert (await stub.SayHello(HelloRequest(name="a"))).text == "hello a"
        assert (await stub.SayHello(HelloRequest(name="wait"))).text == "waited"
    assert seen == ["before", "after"] * 2


async def test_a_reply_larger_than_the_window_is_sent_as_the_window_opens():
    greeter = Plain()
    async with serving(greeter) as target, raw_client(target, settings={4: 1000}) as client:
        await client.send(*client.call(1, HelloRequest(name="large").SerializeToString()))
        await client.until(lambda: 1 in client.replies and len(client.replies[1].data) == 1000)
        await client.send(*client.call(3, HelloRequest(name="a").SerializeToString()))
        assert (await client.reply(3)).status == 0
        await client.send(client.window(1, LARGE))
        assert (await client.reply(1)).status == 0
    assert len(client.replies[1].data) > LARGE
    assert greeter.names == ["large", "a"], "it is asked once, however long its reply takes"


async def test_a_request_in_pieces_is_waited_for():
    async with serving(Plain()) as target, raw_client(target) as client:
        whole = message(HelloRequest(name="a").SerializeToString())
        await client.send(client.headers(1, fields()), client.data(1, whole[:3]))
        await trio.testing.wait_all_tasks_blocked()
        await client.send(client.data(1, whole[3:], end=True))
        assert (await client.reply(1)).status == 0


@pytest.mark.parametrize("messages", [0, 2])
async def test_exactly_one_request_is_expected(messages):
    greeter = Plain()
    async with serving(greeter) as target, raw_client(target) as client:
        body = message(HelloRequest(name="a").SerializeToString()) * messages
        await client.send(client.headers(1, fields()), client.data(1, body, end=True))
        assert (await client.reply(1)).status == rpc.StatusCode.UNIMPLEMENTED
    assert greeter.names == []


async def test_a_request_that_is_none_is_an_error_of_its_call():
    async with serving(Plain()) as target, raw_client(target) as client:
        await client.send(*client.call(1, b"\xff\xff"))
        assert (await client.reply(1)).status == rpc.StatusCode.INVALID_ARGUMENT
        broken = message(b"no gzip", flag=1)
        await client.send(client.headers(3, fields(grpc_encoding="gzip")), client.data(3, broken, end=True))
        assert (await client.reply(3)).status == rpc.StatusCode.INTERNAL


async def test_what_it_waits_for_ends_with_its_caller_and_with_its_deadline(virtual_clock):
    greeter = Plain()
    async with greeting(greeter) as stub:
        with trio.move_on_after(math.inf) as scope:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(stub.SayHello, HelloRequest(name="wait"))
                await greeter.waiting.wait()
                scope.cancel()
        await trio.testing.wait_all_tasks_blocked()
        assert greeter.ended == ["cancelled"]
        with trio.move_on_after(3):
            assert (await failure(stub, "wait")).status is rpc.StatusCode.DEADLINE_EXCEEDED
        await trio.sleep(1)
        assert greeter.ended == ["cancelled"] * 2
