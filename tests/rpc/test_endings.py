"""How calls end before they are done: given up, too late, disconnected, shut down."""

import gc
from contextlib import contextmanager

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from dspex_trio import rpc

from .generated.greeter_grpc import GreeterStub
from .generated.greeter_pb2 import HelloRequest
from .greeter import Greeter, greeting, serving, serving_tcp
from .raw import fields, message, raw_client


async def test_a_call_that_its_caller_gives_up_is_cancelled_at_once():
    """RST_STREAM(CANCEL) is what the server must hear; it must not wait for anything else."""
    greeter = Greeter()
    async with greeting(greeter) as stub:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(stub.SayHello, HelloRequest(name="wait"))
            await greeter.entered.wait()
            nursery.cancel_scope.cancel()
        await greeter.ending()
    assert greeter.ended == ["cancelled"]


async def test_a_handler_that_waits_for_input_is_cancelled_when_the_caller_leaves():
    greeter = Greeter()
    async with greeting(greeter) as stub:
        async with stub.Chat():
            await greeter.entered.wait()
        await greeter.ending()
    assert greeter.ended == ["chat"]


async def test_a_handler_that_waits_for_a_window_is_cancelled_when_the_caller_leaves():
    greeter = Greeter()
    async with greeting(greeter) as stub:
        async with stub.Watch(HelloRequest(name="n", body=bytes(2**16))):
            await wait_all_tasks_blocked()
            sent = len(greeter.seen)
        await greeter.ending()
    assert 0 < sent < 40
    assert greeter.ended == ["watch"]


async def test_a_handler_is_cancelled_before_its_callers_deadline_and_the_status_arrives_in_time(virtual_clock):
    greeter = Greeter()
    async with greeting(greeter) as stub:
        deadline = trio.current_time() + 1
        with trio.fail_at(deadline), pytest.raises(rpc.RpcError) as caught:
            await stub.SayHello(HelloRequest(name="forever"))
        assert trio.current_time() < deadline
    assert caught.value.status is rpc.StatusCode.DEADLINE_EXCEEDED


async def test_a_handler_that_ignores_its_cancellation_does_not_keep_its_stream(virtual_clock):
    """At the deadline one RST_STREAM ends the stream; the slot is the handler's until its end."""
    release = trio.Event()

    class Stubborn(Greeter):
        async def SayHello(self, request, call):
            self.entered.set()
            with trio.CancelScope(shield=True):
                await release.wait()

    async with greeting(Stubborn(), settings=rpc.ServerSettings(max_concurrent_calls=1)) as stub:
        with trio.move_on_after(1) as scope:
            await stub.SayHello(HelloRequest())
        assert scope.cancelled_caught
        with trio.move_on_after(1), pytest.raises(rpc.RpcError) as caught:
            await stub.SayHello(HelloRequest())
        release.set()
    assert caught.value.status is rpc.StatusCode.UNAVAILABLE


async def test_a_bug_in_a_handler_is_unknown_and_tells_the_caller_nothing(caplog):
    async with greeting() as stub:
        with pytest.raises(rpc.RpcError) as caught:
            await stub.SayHello(HelloRequest(name="bug"))
        assert (await stub.SayHello(HelloRequest(name="ada"))).text == "hello ada"
    assert (caught.value.status, caught.value.message) == (rpc.StatusCode.UNKNOWN, "the handler failed")
    assert "a secret" in caplog.text


async def test_a_status_raised_within_a_nursery_of_the_handlers_is_still_that_status():
    class Grouping(Greeter):
        async def SayHello(self, request, call):
            async with trio.open_nursery():
                raise rpc.RpcError(rpc.StatusCode.ABORTED, "inside")

    async with greeting(Grouping()) as stub:
        with pytest.raises(rpc.RpcError, match="inside") as caught:
            await stub.SayHello(HelloRequest())
    assert caught.value.status is rpc.StatusCode.ABORTED


async def test_the_status_of_a_server_behind_us_is_not_passed_on_as_ours():
    """UNAUTHENTICATED from a backend is our misconfiguration, not the caller's."""
    async with greeting() as backend:

        class Front(Greeter):
            async def SayHello(self, request, call):
                return await backend.SayHello(HelloRequest(name="fail"))

        async with greeting(Front()) as stub:
            with pytest.raises(rpc.RpcError) as caught:
                await stub.SayHello(HelloRequest())
    assert caught.value.status is rpc.StatusCode.UNKNOWN


async def test_a_server_behind_us_that_is_not_there_is_our_trouble_and_stays_here():
    """Its address, and that there is such a server, is nothing for callers."""
    async with rpc.open_channel("127.0.0.1:1") as channel:

        class Front(Greeter):
            async def SayHello(self, request, call):
                return await GreeterStub(channel).SayHello(HelloRequest())

        async with greeting(Front()) as stub:
            with pytest.raises(rpc.RpcError, match="the handler failed") as caught:
                await stub.SayHello(HelloRequest())
    assert caught.value.status is rpc.StatusCode.UNKNOWN


async def test_a_disconnect_cancels_every_handler_of_the_connection():
    greeter = Greeter()
    async with serving(greeter) as target:
        async with rpc.open_channel(target) as channel, trio.open_nursery() as nursery:
            stub = GreeterStub(channel)
            for _ in range(3):
                nursery.start_soon(_failing, stub)
            await wait_all_tasks_blocked()
            nursery.cancel_scope.cancel()
        await greeter.ending(3)
    assert greeter.ended == ["cancelled"] * 3


async def _failing(stub):
    with pytest.raises(rpc.RpcError):
        await stub.SayHello(HelloRequest(name="forever"))


async def test_the_calls_of_a_client_that_leaves_do_not_all_end_in_one_turn():
    """A thousand handlers that clean up at once would hold up everybody else for as long."""
    turn, ended = 0, []

    class Counted(Greeter):
        def end(self, how):
            ended.append(turn)
            super().end(how)

    async def count():
        nonlocal turn
        while True:
            turn += 1
            await trio.lowlevel.checkpoint()

    greeter = Counted()
    async with serving(greeter) as connect, trio.open_nursery() as nursery:
        async with raw_client(connect) as client:
            for number in range(200):
                await client.send(client.headers(2 * number + 1, fields("/greeting.Greeter/Chat")))
            await wait_all_tasks_blocked()
            nursery.start_soon(count)
        await greeter.ending(200)
        nursery.cancel_scope.cancel()
    assert max(ended.count(one) for one in ended) < 70


async def test_cancelling_the_server_gives_unavailable_to_calls_that_run(virtual_clock):
    greeter = Greeter()
    listener, connect = rpc.memory_link()
    async with rpc.open_channel(connect) as channel, trio.open_nursery() as nursery:
        scope = trio.CancelScope()

        async def serve(task_status):
            with scope:
                await rpc.serve([greeter], listeners=[listener], task_status=task_status)
            nursery.cancel_scope.deadline = trio.current_time() + 1

        await nursery.start(serve)

        async def call():
            with pytest.raises(rpc.RpcError) as caught:
                await GreeterStub(channel).SayHello(HelloRequest(name="wait"))
            assert caught.value.status is rpc.StatusCode.UNAVAILABLE
            assert caught.value.message == "the server is shutting down"
            greeter.seen.append("told")

        nursery.start_soon(call)
        await greeter.entered.wait()
        scope.cancel()
    assert greeter.seen == ["told"]


async def test_a_call_to_nobody_is_unavailable_and_says_where_nobody_was():
    async with rpc.open_channel("127.0.0.1:1") as channel:
        with pytest.raises(rpc.RpcError) as caught:
            await GreeterStub(channel).SayHello(HelloRequest())
    assert caught.value.status is rpc.StatusCode.UNAVAILABLE
    assert "127.0.0.1:1" in caught.value.message


async def test_a_restarted_server_is_found_by_calls_that_wait_for_it():
    settings = rpc.ChannelSettings(backoff_base=0.001, backoff_max=0.01)
    async with serving_tcp(Greeter()) as port, rpc.open_channel(f"127.0.0.1:{port}", settings=settings) as channel:
        stub = GreeterStub(channel)
        await stub.SayHello(HelloRequest(name="first"))
    async with rpc.open_channel(f"127.0.0.1:{port}", settings=settings) as channel:
        stub = GreeterStub(channel)
        with pytest.raises(rpc.RpcError):
            await stub.SayHello(HelloRequest())
        async with serving_tcp(Greeter(), port=port):
            with trio.fail_after(20):
                reply = await stub.SayHello(HelloRequest(name="again"), wait_for_ready=True)
            assert reply.text == "hello again"
        with pytest.raises(rpc.RpcError) as caught:
            await stub.SayHello(HelloRequest())
    assert caught.value.status is rpc.StatusCode.UNAVAILABLE


@contextmanager
def garbage():
    """The names of the types of what is left in cycles by the block, once it has ended."""
    left = set()
    gc.collect()
    gc.disable()
    try:
        yield left
        gc.set_debug(gc.DEBUG_SAVEALL)
        gc.collect()
        left.update(type(one).__name__ for one in gc.garbage)
    finally:
        gc.set_debug(0)
        gc.garbage.clear()
        gc.enable()


async def test_calls_leave_nothing_for_the_garbage_collector():
    """A cycle for every call would be collected in pauses, at thousands of calls a second many times a second."""

    async def calls(stub):
        for _ in range(50):
            await stub.SayHello(HelloRequest(name="a"))
            async with stub.Watch(HelloRequest(name="n", times=2)) as replies:
                assert len([reply async for reply in replies]) == 2

    async with greeting() as stub:
        await calls(stub)  # what is made once does not count
        with garbage() as left:
            await calls(stub)
    assert {"Call", "ServerCall", "ClientCall", "CancelScope"}.isdisjoint(left)


async def test_connections_leave_nothing_for_the_garbage_collector():
    """Half a message may be megabytes; a peer that sends one, leaves and comes back would fill memory until then."""

    async def come_and_go(target):
        async with rpc.open_channel(target) as channel:
            await GreeterStub(channel).SayHello(HelloRequest(name="a"))
        async with raw_client(target) as client:
            await client.send(client.headers(1, fields()), client.data(1, message(bytes(10_000))[:-1]))
            await wait_all_tasks_blocked()

    async with serving(Greeter()) as target:
        await come_and_go(target)
        await wait_all_tasks_blocked()
        with garbage() as left:
            await come_and_go(target)
            await wait_all_tasks_blocked()
    engines = {"H2ServerEngine", "H2ClientEngine", "FramedH2Connection", "StreamState", "MessageReader"}
    assert (engines | {"ServerConnection", "ClientConnection", "ServerCall", "bytearray"}) & left == set()
