"""Who has to wait when more is queued than a slow peer takes, and in which order they go on."""

from functools import partial

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from dspex_trio.rpc.call_stream import CallStream
from dspex_trio.rpc.transport import Connection

BUFFER = 100


class Wire(trio.abc.SendStream):
    """A stream whose peer takes one write whenever the test says so."""

    def __init__(self):
        self.writes = []
        self._taken = trio.Semaphore(0)

    async def send_all(self, data):
        self.writes.append(bytes(data))
        await self._taken.acquire()

    async def wait_send_all_might_not_block(self):
        raise NotImplementedError

    async def aclose(self):
        pass

    async def take(self):
        """Let the write go through that is under way, and everybody act on it."""
        self._taken.release()
        await wait_all_tasks_blocked()


class Queue:
    """An engine as senders see it: every stream is open, with a window of its own, and one for all."""

    def __init__(self):
        self._queued = bytearray()
        self.window = 10**9
        self.windows = {}
        self.closed = set()
        self.looks = 0

    @property
    def unsent(self):
        self.looks += 1
        return len(self._queued)

    def data_to_send(self):
        data, self._queued = self._queued, bytearray()
        return data

    def is_open(self, stream_id):
        return stream_id not in self.closed

    def sendable(self, stream_id):
        return min(self.windows.get(stream_id, 10**9), self.window)

    def send_data(self, stream_id, data, *, end):
        self._queued += data
        self.window -= len(data)
        if stream_id in self.windows:
            self.windows[stream_id] -= len(data)


class Line(Connection):
    def on_broken(self):
        pass


@pytest.fixture
async def line(nursery):
    connection = Line(Wire(), Queue(), output_buffer=BUFFER, close_timeout=1.0)
    nursery.start_soon(connection.write)
    await wait_all_tasks_blocked()
    yield connection
    connection._writing.shield = False
    nursery.cancel_scope.cancel()


async def fill(line, nursery):
    """One write under way, and more queued than the buffer holds."""
    for name in (b"a", b"b"):
        nursery.start_soon(CallStream(line, 0).send, name * (BUFFER + 1))
        await wait_all_tasks_blocked()
    assert line.stream.writes == [b"a" * (BUFFER + 1)]


async def test_senders_go_on_in_the_order_in_which_they_came(line, nursery):
    """A call must not starve behind calls that came later."""
    await fill(line, nursery)
    order = []

    async def sender(name):
        await CallStream(line, 1).send(name * BUFFER)
        order.append(name)

    for name in (b"c", b"d", b"e"):
        nursery.start_soon(sender, name)
        await wait_all_tasks_blocked()
    while order != [b"c", b"d", b"e"]:
        assert order == [b"c", b"d", b"e"][: len(order)]
        await line.stream.take()


async def test_a_write_wakes_only_those_whose_data_fits(line, nursery):
    """Waking all of a hundred senders for each write was most of the work of a busy connection."""
    await fill(line, nursery)
    for number in range(100):
        nursery.start_soon(CallStream(line, number).send, b"x" * BUFFER)
    await wait_all_tasks_blocked()
    line.engine.looks = 0
    for _ in range(10):
        await line.stream.take()
    assert line.engine.looks < 100


async def test_a_sender_that_has_nothing_to_send_after_all_lets_in_the_next(line, nursery):
    """Its stream was reset while it waited; nobody else's was."""
    await fill(line, nursery)
    sent = []

    async def sender(stream_id):
        try:
            await CallStream(line, stream_id).send(b"x" * BUFFER)
        except trio.ClosedResourceError:
            sent.append("closed")
        else:
            sent.append(stream_id)

    for stream_id in (1, 3, 5):
        nursery.start_soon(sender, stream_id)
        await wait_all_tasks_blocked()
    line.engine.closed = {1, 3}
    for _ in range(6):
        await line.stream.take()
    assert sent == ["closed", "closed", 5]


async def test_a_sender_that_is_cancelled_while_it_waits_leaves_the_line(line, nursery):
    """Deadlines strike in the line too; those behind must not notice."""
    await fill(line, nursery)
    scope = trio.CancelScope()

    async def cancelled():
        with scope:
            await CallStream(line, 1).send(b"x" * BUFFER)

    done = trio.Event()

    async def last():
        await CallStream(line, 3).send(b"y" * BUFFER)
        done.set()

    nursery.start_soon(cancelled)
    await wait_all_tasks_blocked()
    nursery.start_soon(last)
    await wait_all_tasks_blocked()
    scope.cancel()
    for _ in range(6):
        await line.stream.take()
    assert done.is_set()
    assert b"x" not in b"".join(line.stream.writes)


async def test_a_large_message_does_not_fill_memory(line, nursery):
    """What waits to be written stays within the buffer, however much the peer's window allows."""
    nursery.start_soon(partial(CallStream(line, 1).send, b"x" * (50 * BUFFER)))
    await wait_all_tasks_blocked()
    for _ in range(60):
        assert line.engine.unsent <= 2 * BUFFER
        await line.stream.take()
    assert sum(map(len, line.stream.writes)) == 50 * BUFFER


class Caller(CallStream):
    """A call that counts how often it is told to go on."""

    woken = 0

    def window_opened(self):
        self.woken += 1
        super().window_opened()


async def waiting(line, nursery, count):
    """So many calls that wait for the connection's window, which is shut, and what they have sent."""
    line.engine.window = 0
    calls = [Caller(line, number) for number in range(count)]
    sent = []

    async def sender(call):
        await call.send(b"x" * 10)
        sent.append(call.stream_id)

    for call in calls:
        nursery.start_soon(sender, call)
        await wait_all_tasks_blocked()
    return calls, sent


async def open_window(line, size):
    """The peer lets us send so much more."""
    line.engine.window += size
    line.share_window()
    while True:
        await wait_all_tasks_blocked()
        if not line.engine.unsent and not line.stream._taken.statistics().tasks_waiting:
            return
        await line.stream.take()


async def test_a_window_that_is_enough_for_one_wakes_one(line, nursery):
    """To wake all of a thousand calls for thirteen bytes of a peer's would be its cheapest way to keep us busy."""
    calls, sent = await waiting(line, nursery, 100)
    await open_window(line, 10)
    assert sent == [0]
    assert sum(call.woken for call in calls) == 1


async def test_a_window_is_shared_until_it_is_used_up(line, nursery):
    """Whoever was woken and has sent lets the next one go on: none waits beside an open window."""
    calls, sent = await waiting(line, nursery, 100)
    await open_window(line, 505)
    assert sent == list(range(50))
    await open_window(line, 495)
    assert sorted(sent) == list(range(100))
    assert sum(call.woken for call in calls) < 250


async def test_a_call_whose_own_window_is_shut_does_not_hold_up_those_behind_it(line, nursery):
    _, sent = await waiting(line, nursery, 3)
    line.engine.windows[0] = 5
    await open_window(line, 100)
    assert sent == [1, 2]
    line.engine.windows[0] = 5
    await open_window(line, 1)
    assert sent == [1, 2, 0]


async def test_a_call_that_is_cancelled_as_the_window_opens_passes_it_on(line, nursery):
    line.engine.window = 0
    scope = trio.CancelScope()

    async def cancelled():
        with scope:
            await CallStream(line, 1).send(b"x" * 10)

    nursery.start_soon(cancelled)
    await wait_all_tasks_blocked()
    _, sent = await waiting(line, nursery, 1)
    scope.cancel()
    await open_window(line, 10)
    assert sent == [0]


async def test_a_call_whose_stream_is_over_is_told_so_when_the_window_opens(line, nursery):
    line.engine.window = 0
    told = trio.Event()

    async def sender():
        with pytest.raises(trio.ClosedResourceError):
            await CallStream(line, 1).send(b"x" * 10)
        told.set()

    nursery.start_soon(sender)
    await wait_all_tasks_blocked()
    line.engine.closed = {1}
    await open_window(line, 1)
    assert told.is_set()
