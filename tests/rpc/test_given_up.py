"""Handlers that want to know whether their callers gave up: while they work, and after they have answered."""

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from dspex_trio import rpc

from .generated.greeter_grpc import GreeterServicer
from .generated.greeter_pb2 import HelloReply
from .greeter import serving
from .raw import raw_client

NO_ERROR = 0


class Asking(GreeterServicer):
    """Answers at once, or never; remembers when a caller gave up."""

    def __init__(self, *, answers=True):
        self.answers = answers
        self.given_up = []

    async def SayHello(self, request, call):
        call.on_given_up = lambda: self.given_up.append(trio.current_time())
        if not self.answers:
            await trio.sleep_forever()
        return HelloReply()


async def answered(client, stream_id=1):
    await client.send(*client.call(stream_id))
    return (await client.reply(stream_id)).status == 0


async def pong(client):
    """Everything that was sent has been acted on."""
    await client.send(client.ping())
    await client.until(lambda: client.pongs)


async def test_a_reset_while_the_handler_works_is_told_once(virtual_clock):
    servicer = Asking(answers=False)
    async with serving(servicer) as connect, raw_client(connect) as client:
        await client.send(*client.call(1, grpc_timeout="10S"))
        await trio.sleep(3)
        await client.send(client.reset(1))
        await wait_all_tasks_blocked()
        await trio.sleep(20)
    assert servicer.given_up == [3]


async def test_a_cancel_after_the_answer_is_told(virtual_clock):
    """The answer and the cancel have crossed: the caller's own timer fired before the answer was there."""
    servicer = Asking()
    async with serving(servicer) as connect, raw_client(connect) as client:
        assert await answered(client)
        await trio.sleep(2)
        await client.send(client.reset(1), client.reset(1))
        await pong(client)
        assert await client.works(3)
    assert servicer.given_up == [2]


async def test_another_reset_after_the_answer_is_not_told(virtual_clock):
    servicer = Asking()
    async with serving(servicer) as connect, raw_client(connect) as client:
        assert await answered(client)
        await client.send(client.reset(1, NO_ERROR))
        await pong(client)
    assert servicer.given_up == []


async def test_a_client_that_leaves_is_told_for_calls_that_go_on_and_for_no_other(virtual_clock):
    servicer = Asking()
    async with serving(servicer) as connect:
        async with raw_client(connect) as client:
            assert await answered(client)
            servicer.answers = False
            await client.send(*client.call(3))
            await trio.sleep(5)
        await wait_all_tasks_blocked()
        assert servicer.given_up == [5]


async def test_a_deadline_that_passes_before_the_handler_has_answered_is_told(virtual_clock):
    class Busy(Asking):
        async def SayHello(self, request, call):
            call.on_given_up = lambda: self.given_up.append(trio.current_time())
            with trio.CancelScope(shield=True):
                await trio.sleep(4)

    servicer = Busy()
    async with serving(servicer) as connect, raw_client(connect) as client:
        await client.send(*client.call(1, grpc_timeout="1S"))
        reply = await client.reply(1)
        assert (reply.status, reply.reset) == (rpc.StatusCode.DEADLINE_EXCEEDED, None)
        await trio.sleep(5)
    assert servicer.given_up == [pytest.approx(1)]


async def test_no_more_answers_are_remembered_than_calls_may_run(virtual_clock):
    servicer = Asking()
    settings = rpc.ServerSettings(max_concurrent_calls=2)
    async with serving(servicer, settings=settings) as connect, raw_client(connect) as client:
        for stream_id in (1, 3, 5):
            assert await answered(client, stream_id)
        await client.send(client.reset(1), client.reset(3), client.reset(5))
        await pong(client)
    assert len(servicer.given_up) == 2
