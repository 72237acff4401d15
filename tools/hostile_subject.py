"""The server that the hostile-peer tools work on, in a process of its own: `hostile_subject.py '{"SETTING": VALUE}'`.

It says `{"port": …}` on standard output once it can answer, and ends with its standard input. The method Stats tells
what it holds: a leak shows there.
"""

from __future__ import annotations

import json
import logging
import os
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Final

import trio
from google.protobuf.wrappers_pb2 import BytesValue

from dspex_trio import rpc
from dspex_trio.rpc.server.service import STREAM_STREAM, STREAM_UNARY, UNARY_STREAM, UNARY_UNARY, Service

SERVICE: Final = "hostile.Hostile"
MOST_REPLIES: Final = 100_000
MOST_BYTES: Final = 2**20


class Counts(logging.Handler):
    """Handlers begun and ended, and errors in the log."""

    def __init__(self) -> None:
        super().__init__(logging.ERROR)
        self.begun = self.ended = self.errors = 0

    def emit(self, record: logging.LogRecord) -> None:
        """Count it; the root logger writes it out."""
        del record
        self.errors += 1

    @contextmanager
    def one(self) -> Iterator[None]:
        """A handler that runs; not an interceptor around it, behind which no handler is asked in place."""
        self.begun += 1
        try:
            yield
        finally:
            self.ended += 1

    def stats(self) -> dict[str, int]:
        """What the process holds now."""
        resident = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
        return {
            "running": self.begun - self.ended,
            "begun": self.begun,
            "errors": self.errors,
            "tasks": trio.lowlevel.current_statistics().tasks_living,
            "fds": len(os.listdir("/proc/self/fd")),  # noqa: PTH208 - names only
            "rss": resident * os.sysconf("SC_PAGE_SIZE"),
        }


class Hostile(rpc.Servicer):
    """One method of each shape, one that never returns, and Stats."""

    def __init__(self, counts: Counts) -> None:
        self._counts = counts

    @property
    def service(self) -> Service:
        """All methods take and give BytesValue."""
        service = Service(SERVICE)
        for handler, shape in (
            (self.Echo, UNARY_UNARY),
            (self.Stats, UNARY_UNARY),
            (self.Sleep, UNARY_UNARY),
            (self.Watch, UNARY_STREAM),
            (self.Collect, STREAM_UNARY),
            (self.Chat, STREAM_STREAM),
        ):
            service.add(handler.__name__, handler, shape, BytesValue, BytesValue)
        return service

    def Echo(self, request: BytesValue, _call: rpc.Call) -> BytesValue:  # noqa: N802
        """The request, in place."""
        with self._counts.one():
            return request

    async def Stats(self, _request: BytesValue, _call: rpc.Call) -> BytesValue:  # noqa: ASYNC124, N802 - a servicer
        """The counts as JSON."""
        return BytesValue(value=json.dumps(self._counts.stats()).encode())

    async def Sleep(self, _request: BytesValue, _call: rpc.Call) -> BytesValue:  # noqa: N802
        """Nothing, until cancelled."""
        with self._counts.one():
            await trio.sleep_forever()

    async def Watch(self, request: BytesValue, _call: rpc.Call) -> AsyncIterator[BytesValue]:  # noqa: N802
        """As many replies of as many bytes as the request says in two numbers."""
        numbers = [int(word) for word in request.value.split()[:2] if word.isdigit()]
        times, size = [*numbers, 3, 3][:2]
        self._counts.begun += 1
        try:
            for _ in range(min(times, MOST_REPLIES)):
                await trio.lowlevel.checkpoint()
                yield BytesValue(value=bytes(min(size, MOST_BYTES)))
        finally:
            self._counts.ended += 1

    async def Collect(self, requests: AsyncIterator[BytesValue], _call: rpc.Call) -> BytesValue:  # noqa: N802
        """How many bytes came; after "enough" the rest is not waited for."""
        size = 0
        with self._counts.one():
            async for request in requests:
                size += len(request.value)
                if request.value == b"enough":
                    break
        return BytesValue(value=str(size).encode())

    async def Chat(self, requests: AsyncIterator[BytesValue], _call: rpc.Call) -> AsyncIterator[BytesValue]:  # noqa: N802
        """Each request."""
        self._counts.begun += 1
        try:
            async for request in requests:
                yield request
        finally:
            self._counts.ended += 1


async def main() -> None:
    """Serve until standard input ends."""
    counts = Counts()
    logging.basicConfig(level=logging.ERROR, handlers=[logging.StreamHandler(), counts])
    settings = rpc.ServerSettings(**json.loads(sys.argv[1]))
    async with trio.open_nursery() as nursery:
        serve = partial(rpc.serve, [Hostile(counts)], settings=settings)
        listeners = await nursery.start(serve)
        print(json.dumps({"port": listeners[0].socket.getsockname()[1]}), flush=True)
        async with trio.lowlevel.FdStream(os.dup(sys.stdin.fileno())) as stdin:
            while await stdin.receive_some():
                pass
        nursery.cancel_scope.cancel()


if __name__ == "__main__":
    trio.run(main)
