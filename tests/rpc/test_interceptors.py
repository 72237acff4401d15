"""Functions around calls."""

from contextlib import suppress

import pytest

from dspex_trio import rpc

from .generated.greeter_pb2 import HelloRequest
from .greeter import Greeter, greeting


async def unary(stub):
    await stub.SayHello(HelloRequest(name="n"))


async def replies(stub):
    async with stub.Watch(HelloRequest(name="n", times=2)) as call:
        assert len([reply async for reply in call]) == 2


async def requests(stub):
    async with stub.Collect() as call:
        await call.send(HelloRequest(name="n"))
        await call.reply()


async def both(stub):
    async with stub.Chat() as call:
        await call.send(HelloRequest(name="n"))
        call.done()
        assert len([reply async for reply in call]) == 1


@pytest.mark.parametrize("make", [unary, replies, requests, both])
async def test_an_interceptor_is_around_calls_of_every_shape_and_may_refuse_them(make):
    seen = []

    async def around(call, proceed):
        seen.append("begun")
        await proceed()
        seen.append("ended")

    async def refuse(call, proceed):
        raise rpc.RpcError(rpc.StatusCode.PERMISSION_DENIED, "not today")

    async with greeting(interceptors=[around]) as stub:
        await make(stub)
    assert seen == ["begun", "ended"]
    greeter = Greeter()
    async with greeting(greeter, interceptors=[refuse]) as stub:
        with pytest.raises(rpc.RpcError, match="not today"):
            await make(stub)
    assert greeter.calls == []


async def test_interceptors_run_around_one_another_and_around_the_replies():
    seen = []

    def named(name):
        async def around(call, proceed):
            seen.append(f"{name} in {call.method.rpartition('/')[2]}")
            await proceed()
            seen.append(f"{name} out")

        return around

    async with (
        greeting(interceptors=[named("a"), named("b")]) as stub,
        stub.Watch(HelloRequest(name="n", times=2)) as replies,
    ):
        assert [reply.text async for reply in replies] == ["n 0", "n 1"]
    assert seen == ["a in Watch", "b in Watch", "b out", "a out"]


async def test_an_interceptor_sees_what_the_handler_raises_and_may_change_it():
    async def translate(call, proceed):
        try:
            await proceed()
        except ZeroDivisionError as error:
            raise rpc.RpcError(rpc.StatusCode.OUT_OF_RANGE, "divided") from error

    async with greeting(interceptors=[translate]) as stub:
        with pytest.raises(rpc.RpcError, match="divided") as caught:
            await stub.SayHello(HelloRequest(name="bug"))
    assert caught.value.status is rpc.StatusCode.OUT_OF_RANGE


async def test_an_interceptor_may_add_metadata():
    async def stamp(call, proceed):
        call.set_initial_metadata({"served-by": "me"})
        await proceed()
        call.set_trailing_metadata({"took": "a while"})

    async with greeting(interceptors=[stamp]) as stub, stub.SayHello.open(HelloRequest()) as call:
        await call.reply()
        assert (await call.initial_metadata()).get("served-by") == "me"
        assert call.trailing_metadata.get("took") == "a while"


async def test_an_interceptor_that_keeps_an_error_to_itself_makes_no_success_of_it(caplog):
    """OK without the one reply that there has to be is an answer that no client understands."""

    async def swallow(call, proceed):
        with suppress(rpc.RpcError):
            await proceed()

    async with greeting(interceptors=[swallow]) as stub:
        with pytest.raises(rpc.RpcError, match="the handler failed") as caught:
            await stub.SayHello(HelloRequest(name="fail"))
        async with stub.Watch(HelloRequest(name="fail", times=2)) as replies:
            assert len([reply async for reply in replies]) == 2
    assert caught.value.status is rpc.StatusCode.UNKNOWN
    assert "ended without a reply" in caplog.text
