"""Functions around calls."""

import pytest

from dspex_trio import rpc

from .generated.greeter_pb2 import HelloRequest
from .greeter import greeting


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
