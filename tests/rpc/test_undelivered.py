"""Readers who do not take their replies: each costs its own call, and all of them together a bounded memory."""

import contextlib
import gc
import math
import weakref
from functools import partial

import pytest
import trio
from trio.testing import lockstep_stream_pair, wait_all_tasks_blocked

from dspex_trio import rpc
from dspex_trio.rpc.server.deadlines import DeadlineWatch
from dspex_trio.rpc.server.undelivered import Undelivered

from .generated.greeter_pb2 import HelloReply, HelloRequest
from .greeter import Greeter, serving
from .raw import RawClient, fields, message, raw_client

KIB = 2**10
WATCH = "/greeting.Greeter/Watch"
LARGE = HelloRequest(name="a", body=bytes(100 * KIB)).SerializeToString()  # more than a window of 64 KiB
EXHAUSTED = rpc.StatusCode.RESOURCE_EXHAUSTED


async def ask(client, stream_id, body=LARGE, **change):
    """Make a call whose reply does not fit the window, and do not open it."""
    whole = message(body)
    frames = [client.data(stream_id, whole[at : at + 2**14]) for at in range(0, len(whole), 2**14)]
    frames[-1].flags.add("END_STREAM")
    await client.send(client.headers(stream_id, fields(**change)), *frames)


@pytest.mark.parametrize("path", ["/greeting.Greeter/SayHello", WATCH])
async def test_a_reader_that_takes_nothing_is_ended_when_its_time_is_over_and_costs_nobody_else(virtual_clock, path):
    greeter = Greeter()
    settings = rpc.ServerSettings(undelivered_timeout=30)
    async with serving(greeter, settings=settings) as target, raw_client(target) as slow, raw_client(target) as other:
        await ask(slow, 1, path=path)
        reply = await slow.reply(1)
        assert trio.current_time() == pytest.approx(30)
        assert (reply.status, reply.ended) == (EXHAUSTED, True)
        assert "taken nothing for 30 s" in reply.trailers["grpc-message"].replace("%20", " ")
        assert await slow.works(3)
        assert await other.works(1)
        assert path != WATCH or greeter.ended == ["watch"]


async def test_a_reader_that_takes_a_little_now_and_then_gets_all_of_it(virtual_clock):
    settings = rpc.ServerSettings(undelivered_timeout=30)
    async with serving(Greeter(), settings=settings) as target, raw_client(target) as slow:
        await ask(slow, 1)
        for _ in range(8):
            await trio.sleep(25)
            await slow.send(slow.window(1, 5 * KIB))
        reply = await slow.reply(1)
    assert reply.status == 0
    assert len(reply.data) > 100 * KIB


async def test_beyond_the_bound_the_reply_goes_whose_reader_has_taken_nothing_for_longest(virtual_clock):
    """Forty clients that read nothing held 2.5 GB."""
    settings = rpc.ServerSettings(
        max_response_size=200 * KIB, max_undelivered_bytes=350 * KIB, undelivered_timeout=math.inf
    )
    async with serving(Greeter(), settings=settings) as target, contextlib.AsyncExitStack() as held:
        clients = [await held.enter_async_context(raw_client(target)) for _ in range(4)]
        for client in clients[:3]:
            await ask(client, 1)
            await wait_all_tasks_blocked()
            await trio.sleep(1)
        await clients[0].send(clients[0].window(1, KIB))
        await wait_all_tasks_blocked()
        await ask(clients[3], 1)
        ended = await clients[1].reply(1)
        assert ended.status == EXHAUSTED
        assert "bytes of replies wait" in ended.trailers["grpc-message"].replace("%20", " ")
        for client in (clients[0], clients[2], clients[3]):
            await client.send(client.window(1, 2**20))
            assert (await client.reply(1)).status == 0


async def test_what_an_ended_reader_had_waiting_is_freed_at_once(virtual_clock):
    class Reply:
        """A reply whose bytes can be followed."""

        def SerializeToString(self):
            return bytes(100 * KIB)

    kept = []

    class Large(Greeter):
        async def SayHello(self, request, call):
            reply = Reply()
            kept.append(weakref.ref(reply))
            return reply

    settings = rpc.ServerSettings(undelivered_timeout=30)
    async with serving(Large(), settings=settings) as target, raw_client(target) as slow:
        await slow.send(*slow.call(1))
        await wait_all_tasks_blocked()
        gc.collect()
        assert kept[0]() is None  # one copy of it waits, and not the message as well
        assert (await slow.reply(1)).status == EXHAUSTED


async def test_an_ended_reader_has_not_given_up(virtual_clock):
    """Callers that give up around their deadlines enlarge the margin of all replies; this one is told nothing of it."""
    told, seen = [], []

    class Noting(Greeter):
        async def SayHello(self, request, call):
            call.on_given_up = lambda: told.append("given up")
            return HelloReply(body=request.body)

    async def watching(call, proceed):
        try:
            await proceed()
        except trio.Cancelled:
            seen.append(call.cancelled_as())
            raise

    settings = rpc.ServerSettings(undelivered_timeout=30)
    async with serving(Noting(), settings=settings, interceptors=[watching]) as target, raw_client(target) as slow:
        await ask(slow, 1)
        assert (await slow.reply(1)).status == EXHAUSTED
        await wait_all_tasks_blocked()
    assert (told, seen) == ([], [EXHAUSTED])


class Lockstep(trio.abc.Listener):
    """Accepts streams that take nothing but what their peer reads."""

    def __init__(self):
        self._outgoing, self._incoming = trio.open_memory_channel(10)

    async def accept(self):
        return await self._incoming.receive()

    async def aclose(self):
        await self._incoming.aclose()

    async def connect(self):
        ours, theirs = lockstep_stream_pair()
        await self._outgoing.send(theirs)
        return ours


@pytest.fixture
async def lockstep(nursery):
    listener = Lockstep()
    settings = rpc.ServerSettings(undelivered_timeout=30)
    await nursery.start(partial(rpc.serve, [Greeter()], listeners=[listener], settings=settings))
    yield listener
    nursery.cancel_scope.cancel()


async def test_a_connection_that_reads_nothing_at_all_is_closed(lockstep, virtual_clock):
    """What is queued for it is bounded by its output buffer; a thousand such buffers are memory all the same."""
    client = RawClient(await lockstep.connect())
    await client.begin()
    with pytest.raises(trio.BrokenResourceError):
        await closed(client)
    assert trio.current_time() == pytest.approx(30)


async def closed(client):
    """Send, and read nothing, until the other side is not there any more."""
    while True:
        await client.send(client.ping())
        await trio.sleep(1)


async def test_a_connection_that_reads_now_and_then_stays(lockstep, virtual_clock):
    client = RawClient(await lockstep.connect())
    await client.begin()
    for number in range(10):
        await client.send(client.ping(bytes([number] * 8)))
        await trio.sleep(20)
        await client.receive()
    await client.until(lambda: len(client.pongs) == 10)
    assert await client.works(1)


class FakeReader:
    def __init__(self, taken_at):
        self.taken_at = taken_at
        self.ended = []

    def end_unread(self, why):
        self.ended.append(why)


async def test_a_reader_is_looked_at_again_before_it_is_ended(virtual_clock):
    """Its connection may have written meanwhile, of which a call that waits in the line is not told."""
    undelivered = Undelivered(250, math.inf, DeadlineWatch())
    readers = [FakeReader(number) for number in range(3)]
    with contextlib.ExitStack() as waiting:
        for reader in readers[:2]:
            waiting.enter_context(undelivered.waiting(reader, 100))
        readers[0].taken_at = 10
        waiting.enter_context(undelivered.waiting(readers[2], 100))
        assert [len(reader.ended) for reader in readers] == [0, 1, 0]
        assert undelivered.size == 200
    assert undelivered.size == 0


async def test_a_reply_that_waits_alone_is_not_ended_for_its_size(virtual_clock):
    undelivered = Undelivered(100, math.inf, DeadlineWatch())
    reader = FakeReader(0)
    with undelivered.waiting(reader, 105):
        assert not reader.ended


@pytest.mark.parametrize(
    ("settings", "text"),
    [
        ({"undelivered_timeout": 0}, "undelivered_timeout must not be 0"),
        ({"max_undelivered_bytes": 2**20}, "max_undelivered_bytes must be at least max_response_size"),
    ],
)
def test_settings_with_which_no_large_reply_would_arrive_are_refused(settings, text):
    with pytest.raises(ValueError, match=text):
        rpc.ServerSettings(**settings)
