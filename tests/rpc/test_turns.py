"""Whose turn it is: one connection's bytes and calls hold up no other connection."""

import pytest
import trio
from trio.testing import memory_stream_pair

from dspex_trio.rpc import transport
from dspex_trio.rpc.server import connection as server_connection
from dspex_trio.rpc.transport import Connection

from .greeter import Greeter, serving
from .raw import raw_client


class _SlowEngine:
    """Takes as long for each byte on the clock as it is told to."""

    def __init__(self, clock, seconds_a_byte):
        self.failed, self.unsent = False, 0
        self.taken = 0
        self._clock, self._seconds = clock, seconds_a_byte

    def receive(self, data, now):
        self._clock.jump(len(data) * self._seconds)
        self.taken += len(data)
        return []


async def _largest_turn(clock, seconds_a_byte, size):
    """How long a second task has waited at most while a connection acted on so many bytes; and in all."""
    ours, theirs = memory_stream_pair()
    engine = _SlowEngine(clock, seconds_a_byte)
    connection = Connection(ours, engine, output_buffer=1000, close_timeout=1)
    await theirs.send_all(bytes(size))
    await theirs.send_eof()
    begun = trio.current_time()
    waits = [0.0]
    async with trio.open_nursery() as nursery:
        nursery.start_soon(connection.read)
        while engine.taken < size:
            before = trio.current_time()
            await trio.lowlevel.checkpoint()
            waits.append(trio.current_time() - before)
    return max(waits), trio.current_time() - begun


async def test_costly_frames_of_one_connection_take_no_long_turn(virtual_clock):
    """Slices that were short enough one by one followed each other until the read was used up."""
    longest, total = await _largest_turn(virtual_clock, 1e-6, 50_000)
    assert total > 40 * longest
    assert longest < 3 * transport._FAIR_SHARE  # Trio changes the order of tasks, so that two turns may meet


async def test_cheap_bytes_are_acted_on_at_one_go(virtual_clock):
    """A large message has no use for turns: each would cost more than its bytes."""
    longest, total = await _largest_turn(virtual_clock, 1e-9, 60_000)
    assert longest == pytest.approx(total)


async def test_calls_that_are_reset_in_the_read_they_came_in_start_no_handler(virtual_clock):
    """A task that is started to be cancelled costs ten times the frames: that is what a rapid reset lives on."""
    greeter = Greeter()
    async with serving(greeter) as connect, raw_client(connect) as client:
        with trio.fail_after(5):
            streams = range(1, 161, 2)
            await client.send(
                *(part for stream in streams for part in (*client.call(stream, b"\n\x07forever"), client.reset(stream)))
            )
            assert await client.works(201)
    assert len(greeter.calls) == 1


async def test_handlers_start_a_few_at_a_time(virtual_clock):
    """A hundred calls in one packet are a hundred tasks: the other connections have their turns between them."""
    greeter = Greeter()
    async with serving(greeter) as connect, raw_client(connect) as client:
        with trio.fail_after(5):
            await client.send(*(part for stream in range(1, 201, 2) for part in client.call(stream, b"\n\x04wait")))
            at_once, seen = [], 0
            while seen < 100:
                await trio.lowlevel.checkpoint()
                at_once.append(len(greeter.calls) - seen)
                seen = len(greeter.calls)
            greeter.release.set()
    assert max(at_once) <= 2 * server_connection._CALLS_PER_TURN  # two turns may meet, as above
