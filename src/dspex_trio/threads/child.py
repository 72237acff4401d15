"""The child's side of process isolation: a Trio loop in which one function answers requests, bytes for bytes.

Run as `python -m dspex_trio.threads.child DESCRIPTOR PARENT MODULE:FUNCTION` by `dspex_trio.threads.processes` alone.
The child never outlives its parent: the kernel is asked to end it (Linux), and its loop sees the parent's end of the
socket close.
"""

from __future__ import annotations

import _socket
import ctypes
import faulthandler
import importlib
import os
import signal
import socket
import sys
import threading
import traceback
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager, suppress
from itertools import count
from pathlib import Path
from typing import Final, NoReturn, TypeAlias

import trio

from dspex_trio.threads.fairness import keep_collections_short
from dspex_trio.threads.frames import ANSWER, CALL, FAILURE, LOG, NUMBER, REPLY, REPORT, REQUEST, STOP, Frames, framed
from dspex_trio.threads.process_state import put_back_what_programs_change
from dspex_trio.threads.subprocesses import stay_in_group

Answer: TypeAlias = Callable[[bytes, trio.CancelScope], Awaitable[bytes]]
"""Answers a request; works inside the scope, which the parent cancels, and answers all the same if it can."""

_PR_SET_PDEATHSIG: Final = 1
_PIECE: Final = 1 << 20
# What the kernel is told to end first when memory runs out: the child, not the worker (-1000 to 1000).
_OOM_SCORE: Final = "500"
# The exit code when the connection to the parent is gone while the parent may not be.
_CUT_OFF: Final = 70


class Parent:
    """The child's end of the connection.

    Args:
        connection: A blocking socket; it is not inherited by what the child forks.
    """

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        self._sending = threading.Lock()
        self._closed = False
        self._numbers = count()
        self._replies: dict[int, trio.MemorySendChannel[bytes]] = {}
        self._put, self._requests = trio.open_memory_channel[bytes](1)  # the parent waits for each answer
        self._scope = trio.CancelScope()
        os.register_at_fork(after_in_child=self._forget)

    def report(self, data: bytes) -> None:
        """Tell the parent something about the request that is being answered, from any thread: a kill does not lose it.

        Blocks while the parent is behind.
        """
        self._send(REPORT, data)

    def log(self, data: bytes) -> None:
        """Tell the parent something for its log, at any time and from any thread; blocks as `report`."""
        self._send(LOG, data)

    async def call(self, data: bytes) -> bytes:
        """Ask the parent something; when cancelled, its reply is dropped."""
        number = next(self._numbers)
        put, take = trio.open_memory_channel[bytes](1)
        self._replies[number] = put
        try:
            self._send(CALL, NUMBER.pack(number) + data)
            return await take.receive()
        finally:
            del self._replies[number]

    async def serve(self, opening: Callable[[bytes, Parent], AbstractAsyncContextManager[Answer]]) -> None:
        """Open with the first request, which is answered once that is done, then answer the others."""
        async with opening(await self._requests.receive(), self) as answer:
            self._send(ANSWER, b"")
            keep_collections_short()
            put_back_what_programs_change()
            stay_in_group()
            async for request in self._requests:
                self._scope = trio.CancelScope()
                try:
                    answered = await answer(request, self._scope)
                except Exception as error:  # noqa: BLE001 - the parent logs it
                    self._send(FAILURE, text_of(error))
                else:
                    self._send(ANSWER, answered)

    async def listen(self) -> NoReturn:
        """Take what the parent sends until it is gone; so is the child then."""
        frames = Frames(sys.maxsize)
        while True:
            await trio.lowlevel.wait_readable(self._connection)
            data = self._connection.recv(_PIECE, socket.MSG_DONTWAIT)
            if not data:  # the parent is gone, and nobody is left who could want an answer
                os._exit(0)
            for kind, frame in frames.feed(data):
                self._take(kind, frame)

    def _take(self, kind: bytes, data: bytes) -> None:
        if kind == REQUEST:
            self._put.send_nowait(data)
        elif kind == STOP:
            self._scope.cancel()
        elif kind == REPLY:
            (number,) = NUMBER.unpack_from(data)
            if (waiting := self._replies.get(number)) is not None:
                waiting.send_nowait(data[NUMBER.size :])

    def _send(self, kind: bytes, data: bytes) -> None:
        if self._closed:
            return
        try:
            with self._sending:
                # Not the method that `threads.sockets` puts in its place: this socket is none of a job's.
                _socket.socket.sendall(self._connection, framed(kind, data))
        except OSError:  # the parent is gone, or the program closed what is not its own
            os._exit(_CUT_OFF)

    def _forget(self) -> None:
        """A process that the program forked is no child of the parent, and must not keep its socket open."""
        self._closed = True
        with suppress(OSError):
            os.close(self._connection.fileno())


def main(descriptor: int, parent: int, target: str) -> None:
    """Answer requests until the parent is gone."""
    end_with(parent)
    faulthandler.enable()
    with suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text(_OOM_SCORE, encoding="ascii")
    connection = socket.socket(fileno=descriptor)
    connection.set_inheritable(False)
    trio.run(_run, Parent(connection), target)


async def _run(parent: Parent, target: str) -> None:
    async with trio.open_nursery() as nursery:
        nursery.start_soon(parent.listen)
        module, _, name = target.partition(":")
        try:
            await parent.serve(getattr(importlib.import_module(module), name))
        except Exception as error:  # noqa: BLE001 - the parent tells it to whoever waits
            parent._send(FAILURE, text_of(error))  # noqa: SLF001 - the other half of this class
            os._exit(1)


def text_of(error: BaseException) -> bytes:
    """An exception with its traceback."""
    return "".join(traceback.format_exception(error)).encode("utf-8", "replace")


def end_with(parent: int) -> None:
    """Have the kernel end this process when the process `parent`, which started it, ends (Linux)."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:  # it went before the kernel could be asked
        os._exit(0)


if __name__ == "__main__":
    # This file runs as __main__; what it imports imports it by its name, and both must be one module.
    sys.modules["dspex_trio.threads.child"] = sys.modules["__main__"]
    main(int(sys.argv[1]), int(sys.argv[2]), sys.argv[3])
