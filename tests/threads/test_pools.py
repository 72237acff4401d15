"""Jobs that are ended while they share a connection pool take nothing from it, and hit nobody else."""

import random
import sys
from functools import partial

import httpx
import pytest
import requests
import trio
from dspy._vendor.lm15.transports import _sync as lm15
from dspy._vendor.lm15.transports._types import TransportRequest
from requests.adapters import HTTPAdapter

from dspex_trio.threads import Job, Slots
from dspex_trio.threads.ladder.interrupt import is_interruptible

SIZE = 4
LANES = 6

# A library whose call is ended leaves its socket, shut down already, to the garbage collector.
pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")


class Server:
    """Answers `/echo/WORD` with the word; of `/half` it sends one half, and of anything else nothing."""

    async def serve(self, *, task_status=trio.TASK_STATUS_IGNORED):
        [listener] = await trio.open_tcp_listeners(0, host="127.0.0.1")
        task_status.started(listener.socket.getsockname()[1])
        await trio.serve_listeners(self._converse, [listener])

    async def _converse(self, stream):
        data = b""
        try:
            async with stream:
                while piece := await stream.receive_some(65536):
                    data += piece
                    while b"\r\n\r\n" in data:
                        head, _, data = data.partition(b"\r\n\r\n")
                        await stream.send_all(self._answer(head.split()[1]))
        except trio.BrokenResourceError:
            pass

    def _answer(self, path):
        if path == b"/half":
            return b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nnot all"
        if not path.startswith(b"/echo/"):
            return b""
        word = path.removeprefix(b"/echo/")
        return b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(word), word)


class Requests:
    """With as many connections as it likes, or waiting for one of a few."""

    def __init__(self, base, *, block):
        self.base = base
        self.session = requests.Session()
        self.session.mount("http://", HTTPAdapter(pool_maxsize=SIZE, pool_block=block))
        self.block = block

    def get(self, path):
        return self.session.get(self.base + path, timeout=60).text

    def whole(self):
        [pool] = self.session.adapters["http://"].poolmanager.pools._container.values()
        return not self.block or pool.pool.qsize() == SIZE

    def close(self):
        self.session.close()


class Httpx:
    """Connections are not kept: in a while httpcore 1.0 closes one under whoever just got it, with jobs or without."""

    def __init__(self, base):
        limits = httpx.Limits(max_connections=SIZE)
        self.client = httpx.Client(base_url=base, timeout=60, limits=limits, headers={"Connection": "close"})

    def get(self, path):
        return self.client.get(path).text

    def whole(self):
        return self.client._transport._pool._requests == []

    def close(self):
        self.client.close()


class Native:
    """What DSPy's own engine speaks HTTP with."""

    def __init__(self, base):
        self.base = base
        self.transport = lm15.StdlibTransport(max_connections=SIZE)

    def get(self, path):
        with self.transport.stream(TransportRequest("GET", self.base + path)) as response:
            return response.read().decode()

    def whole(self):
        pool = self.transport._pool
        return pool._slot._value == SIZE and not pool._in_use and not pool._lock.locked()

    def close(self):
        self.transport.close()


LIBRARIES = {
    "requests": partial(Requests, block=False),
    "requests, blocking": partial(Requests, block=True),
    "httpx": Httpx,
    "DSPy's own": Native,
}


class Lanes:
    """Jobs that ask for answers and jobs that are ended while they wait for one, at the same time."""

    def __init__(self, threads, client, seed):
        self.threads = threads
        self.client = client
        self.dice = random.Random(seed)
        self.slots = Slots(2 * LANES)
        self.hit = []
        self.ended = []

    async def neighbour(self, lane, times=30):
        def ask():
            words = [f"{lane}-{n}" for n in range(times)]
            assert [self.client.get(f"/echo/{word}") for word in words] == words

        try:
            await self._run(ask, Job())
        except Exception as error:  # noqa: BLE001 - that is what must not happen
            self.hit.append(error)

    async def victims(self, path):
        for _ in range(12):
            job = Job()
            with trio.CancelScope() as scope:
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(self._cancel, job, scope)
                    await self._run(partial(self.client.get, path), job)
            self.ended.append(job.details()["rung"])

    async def _cancel(self, job, scope):
        """Sooner or later, when it waits for something."""
        for _ in range(self.dice.randrange(40)):
            await trio.lowlevel.checkpoint()
        while not (job._sockets or job._parked):
            await trio.lowlevel.checkpoint()
        scope.cancel()

    async def _run(self, function, job):
        slot = await self.slots.acquire()
        try:
            await self.threads.run(function, job=job, slot=slot)
        finally:
            slot.release()


@pytest.mark.parametrize("library", LIBRARIES)
async def test_twelve_at_once_half_of_them_ended_and_no_neighbour_is_hit(library, threads, nursery):
    """Wherever they are ended: waiting for a connection, connecting, before the reply or in the middle of it."""
    port = await nursery.start(Server().serve)
    client = LIBRARIES[library](f"http://127.0.0.1:{port}")
    lanes = Lanes(threads, client, library)
    async with trio.open_nursery() as both:
        for lane in range(LANES):
            both.start_soon(lanes.neighbour, lane)
            both.start_soon(lanes.victims, "/silent" if lane % 2 else "/half")
    async with trio.open_nursery() as again:  # all of its connections can be had at once
        for lane in range(SIZE):
            again.start_soon(lanes.neighbour, lane, 5)
    assert lanes.hit == []
    # The last rung where the machine was too busy for a thread to notice the others.
    assert set(lanes.ended) <= {"wake", "check", "raise"}
    assert client.whole()
    client.close()
    nursery.cancel_scope.cancel()


@pytest.mark.parametrize("module", [requests, httpx, "httpcore", "urllib3.connectionpool"])
async def test_nothing_is_raised_into_a_librarys_pool(module, threads):
    """What it was about to lend or to take back would be lost to all."""
    file = (sys.modules[module] if isinstance(module, str) else module).__file__
    frames = []
    exec(compile("stop()", file, "exec"), {"stop": lambda: frames.append(sys._getframe(1))})  # noqa: S102 - ours
    assert not is_interruptible(frames[0])
