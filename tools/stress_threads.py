"""Throw jobs at the thread room and cancel a third of them at random times; then time out jobs and see what is left.

Run as `python tools/stress_threads.py [--jobs 100000] [--timeouts 10000] [--concurrency 24]`. Prints what was counted
as JSON and exits non-zero if an interrupt reached a job that was not cancelled, a connection was broken under another
job, a queue's item was lost, or threads, sockets or memory were left behind. Takes minutes; no part of the tests.
"""

from __future__ import annotations

import argparse
import contextlib
import gc
import http.client
import json
import queue
import random
import resource
import socket
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import trio

from dspex_trio.threads import Job, Slots, Threads, open_threads, run_in_loop

dice: Final = random.Random()  # noqa: S311 - for chance, not for secrets
_ANSWER: Final = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


class Server:
    """Answers every request at once, but for those whose path is `/silent`."""

    def __init__(self) -> None:
        self.listener = socket.create_server(("127.0.0.1", 0), backlog=4096)
        self.port: int = self.listener.getsockname()[1]
        self.open = 0

    async def serve(self) -> None:
        listener = trio.SocketListener(trio.socket.from_stdlib_socket(self.listener))
        await trio.serve_listeners(self._connection, [listener])

    async def _connection(self, stream: trio.SocketStream) -> None:
        self.open += 1
        try:
            async with stream:
                data = b""
                while piece := await stream.receive_some(65536):
                    data += piece
                    while b"\r\n\r\n" in data:
                        head, _, data = data.partition(b"\r\n\r\n")
                        if not head.startswith(b"GET /silent"):
                            await stream.send_all(_ANSWER)
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            pass
        finally:
            self.open -= 1


class Pool:
    """Connections that jobs share one after another, as an HTTP library's pool does it."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._idle: queue.SimpleQueue[http.client.HTTPConnection] = queue.SimpleQueue()

    @contextlib.contextmanager
    def connection(self) -> Iterator[http.client.HTTPConnection]:
        try:
            connection = self._idle.get_nowait()
        except queue.Empty:
            connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=60)
        try:
            yield connection
        except BaseException:
            connection.close()
            raise
        self._idle.put(connection)

    def close(self) -> None:
        with contextlib.suppress(queue.Empty):
            while True:
                self._idle.get_nowait().close()


class Work:
    """The kinds of work that are mixed; each ends by itself within milliseconds, if it is let."""

    def __init__(self, pool: Pool, events: Counter[str]) -> None:
        self._pool = pool
        self._events = events
        self._channel: queue.Queue[int] = queue.Queue()
        self.kinds = [
            *(self.loop, self.loop, self.request, self.request),
            *(self.sleep, self.hand_over, self.helper, self.hop),
        ]

    def loop(self) -> None:
        for n in range(dice.randint(10, 3000)):
            with contextlib.suppress(Exception):
                json.loads(json.dumps({"n": n}))

    def request(self) -> None:
        for _ in range(dice.randint(1, 3)):
            with self._pool.connection() as connection:
                connection.request("GET", "/")
                if connection.getresponse().read() != b"ok":
                    self._events["another job's answer"] += 1

    def sleep(self) -> None:
        time.sleep(dice.uniform(0, 0.01))

    def hand_over(self) -> None:
        if dice.random() < 1 / 2:
            self._channel.put(1)
        else:
            with contextlib.suppress(queue.Empty):
                self._channel.get(timeout=0.01)

    def helper(self) -> None:
        thread = threading.Thread(target=json.dumps, args=({"a": 1},))
        thread.start()
        thread.join()

    def hop(self) -> None:
        run_in_loop(trio.sleep, dice.uniform(0, 0.003))


async def mixed(threads: Threads, pool: Pool, count: int, concurrency: int) -> dict[str, Any]:
    """Run `count` jobs, a third of them cancelled within ten milliseconds."""
    slots, events = Slots(concurrency), Counter[str]()
    kinds = Work(pool, events).kinds
    lateness: list[float] = []

    async def one(slot: Any) -> None:
        work, job = dice.choice(kinds), Job()
        seconds = dice.uniform(0, 0.01) if dice.random() < 1 / 3 else float("inf")
        try:
            with trio.move_on_after(seconds):
                await threads.run(work, job=job, slot=slot)
        except Exception as error:  # noqa: BLE001 - counted
            events[f"{work.__name__}: {error!r}"] += 1
        finally:
            slot.release()
        if details := job.details():
            events[f"rung {details['rung']}"] += 1
            lateness.append(float(details["rung_ms"]))
        else:
            events["ended"] += 1

    async with trio.open_nursery() as nursery:
        for _ in range(count):
            nursery.start_soon(one, await slots.acquire())
    while slots.free < concurrency:  # noqa: ASYNC110 - what still ends tells nobody but the slots
        await trio.sleep(0.01)
    lateness.sort()
    stray = {name: n for name, n in events.items() if not name.startswith(("rung ", "ended"))}
    return {
        "jobs": count,
        "events": dict(events),
        "stray": stray,
        "cancel to end, ms": {q: lateness[int(len(lateness) * f)] for q, f in (("p50", 0.5), ("p99", 0.99))},
    }


async def timeouts(threads: Threads, server: Server, count: int, concurrency: int) -> dict[str, Any]:
    """Time out `count` requests that are never answered, then look at what is left."""
    slots = Slots(concurrency)
    rungs: Counter[str] = Counter()

    def wait() -> None:
        connection = http.client.HTTPConnection("127.0.0.1", server.port)
        connection.request("GET", "/silent")
        connection.getresponse()

    async def one(slot: Any) -> None:
        job = Job()
        with trio.move_on_after(0.02):
            await threads.run(wait, job=job, slot=slot)
        slot.release()
        rungs[job.details().get("rung", "ended")] += 1

    memory = []
    most_descriptors = 0
    async with trio.open_nursery() as nursery:
        for n in range(count):
            nursery.start_soon(one, await slots.acquire())
            if n % (count // 10 or 1) == 0:
                memory.append(resident())
                most_descriptors = max(most_descriptors, descriptors())
    for _ in range(concurrency):
        await slots.acquire()
    began = time.perf_counter()
    await threads.run(time.sleep, 0.01, job=Job(), slot=Slots(1).acquire_nowait())
    next_job = time.perf_counter() - began
    return {
        "timeouts": count,
        "rungs": dict(rungs),
        "stuck": len(threads.stuck()),
        "next 10 ms job, ms": round(next_job * 1e3, 1),
        "most descriptors": most_descriptors,
        "memory, MiB": memory,
    }


def resident() -> int:
    """MiB."""
    return int(Path("/proc/self/statm").read_text("ascii").split()[1]) * resource.getpagesize() >> 20


def descriptors() -> int:
    """Open descriptors of this process."""
    return len(list(Path("/proc/self/fd").iterdir()))


async def main(arguments: argparse.Namespace) -> dict[str, Any]:
    """Both parts, and what is left after them."""
    dice.seed(arguments.seed)
    server = Server()
    pool = Pool(server.port)
    result: dict[str, Any] = {"before": {"threads": threading.active_count(), "descriptors": descriptors()}}
    async with trio.open_nursery() as nursery:
        nursery.start_soon(server.serve)
        late = Counter[str]()
        result["ended after their answer had left"] = late
        async with open_threads(
            patience=lambda _job: 0.02, on_late_end=lambda job: late.update([job.details()["rung"]])
        ) as threads:
            result["mixed"] = await mixed(threads, pool, arguments.jobs, arguments.concurrency)
            result["timed out"] = await timeouts(threads, server, arguments.timeouts, arguments.concurrency)
        pool.close()
        gc.collect()
        with trio.move_on_after(5):
            while server.open:  # noqa: ASYNC110 - the server's side sees the last closes
                await trio.sleep(0.01)
        result["connections left"] = server.open
        await trio.sleep(12)  # Trio's idle threads go after ten seconds
        result["after"] = {"threads": threading.active_count(), "descriptors": descriptors()}
        nursery.cancel_scope.cancel()
    return result


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--jobs", type=int, default=100_000)
    parser.add_argument("--timeouts", type=int, default=10_000)
    parser.add_argument("--concurrency", type=int, default=24)
    parser.add_argument("--seed", type=int, default=1)
    began = time.perf_counter()
    found = trio.run(main, parser.parse_args())
    found["seconds"] = round(time.perf_counter() - began, 1)
    print(json.dumps(found, indent=2))
    left = found["connections left"] or found["after"]["threads"] > found["before"]["threads"]
    left |= found["after"]["descriptors"] > found["before"]["descriptors"] + 1
    sys.exit(1 if found["mixed"]["stray"] or found["timed out"]["stuck"] or left else 0)
