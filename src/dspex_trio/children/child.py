"""The child's side: a Trio loop in which one function answers requests, several at once, bytes for bytes.

Run as `python -m dspex_trio.children.child DESCRIPTOR PARENT MODULE:FUNCTION`, or forked by `warm`. The child never
outlives its parent: the kernel is asked to end it (Linux), and its loop sees the parent's end of the socket close.
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
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager, suppress
from itertools import count
from pathlib import Path
from typing import Any, Final, NoReturn, Protocol, TypeAlias

import trio

from dspex_trio.children.frames import (
    ANSWER,
    CALL,
    END,
    FAILURE,
    FREED,
    HELD,
    LOG,
    NOTE,
    NUMBER,
    PING,
    PONG,
    REPLY,
    REPORT,
    REQUEST,
    STOP,
    Frames,
    failure,
    framed,
)

_PR_SET_PDEATHSIG: Final = 1
_PIECE: Final = 1 << 20
# The child's OOM score: the kernel ends it before its parent when memory runs out (-1000 to 1000).
_OOM_SCORE: Final = "500"
# The child's niceness: the parent, which keeps the deadlines, runs first (0 to 19).
_NICENESS: Final = 5
# The exit code when the connection to the parent is gone while the parent may not be.
_CUT_OFF: Final = 70


class Request:
    """One request while it is answered.

    Args:
        parent: Where it came from.
        number: Of its exchange.
        data: What the parent sent.

    Attributes:
        number, data: As above.
        scope: What is to be answered in; cancelled when the parent says so. It is answered all the same.
    """

    def __init__(self, parent: Parent, number: int, data: bytes) -> None:
        self.data = data
        self.scope = trio.CancelScope()
        self.number = number
        self._parent = parent
        # Threads say that they have ended while the loop answers.
        self._lock = threading.Lock()
        self._answered = self._held = False
        self._freed = b""

    def report(self, data: bytes) -> None:
        """Report something to the parent before the answer, from any thread: it is not lost by a kill of this process.

        Blocks while the parent is behind.
        """
        self._parent.send(REPORT, self.number, data)

    async def call(self, data: bytes) -> bytes:
        """Ask the parent something; when cancelled, its reply is dropped."""
        return await self._parent.call(self.number, data)

    def hold(self) -> None:
        """Something of the request goes on after its answer, until `freed` is called."""
        with self._lock:
            self._held = True

    def freed(self, data: bytes = b"") -> None:
        """What went on has ended; the parent gets `data`, after the answer if that has not been sent yet."""
        with self._lock:
            if not self._answered:
                self._held, self._freed = False, data
                return
        self._parent.send(FREED, self.number, data)

    def answer(self, data: bytes) -> None:
        """Send the answer."""
        self._end(framed(ANSWER, self.number, data))

    def fail(self, error: BaseException) -> None:
        """Send what was raised in place of an answer."""
        self._end(framed(FAILURE, self.number, failure(error)))

    def _end(self, frame: bytes) -> None:
        with self._lock:
            self._answered = True
            # Said first: an answer whose end is read a moment later is not taken for one that left something running.
            more = (
                (framed(HELD, self.number, b"") + frame,)
                if self._held
                else (frame, framed(FREED, self.number, self._freed))
            )
            self._parent.write(b"".join(more))


Answer: TypeAlias = Callable[[Request], Awaitable[bytes]]
"""Answers a request; works inside `request.scope`, which the parent cancels, and answers all the same if it can."""


class Opening(Protocol):
    """The function of a child: opens what answers requests, with what the first request carries."""

    def __call__(self, data: bytes, parent: Parent) -> AbstractAsyncContextManager[tuple[Answer, bytes]]:
        """The block gets what answers requests, and the answer to the first one."""
        ...


class Parent:
    """The child's end of the connection.

    Args:
        connection: A blocking socket; it is not inherited by what the child forks.
    """

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        self._sending = threading.Lock()
        self._closed = False
        self.numbers = count()
        self._replies: dict[int, trio.MemorySendChannel[bytes]] = {}
        # One for opening; later requests start tasks of their own.
        self._opening, self._opened = trio.open_memory_channel[Request](1)
        self._requests: dict[int, Request] = {}
        self._start: Callable[[Request], None] | None = None
        self._ended = trio.CancelScope()
        os.register_at_fork(after_in_child=self._forget)

    def log(self, data: bytes) -> None:
        """Send the parent a line for its log, at any time and from any thread; blocks while the parent is behind."""
        self.send(LOG, 0, data)

    def note(self, data: bytes) -> None:
        """Send the parent a note that belongs to no exchange, from any thread; blocks as `log`."""
        self.send(NOTE, 0, data)

    async def call(self, exchange: int, data: bytes) -> bytes:
        """Ask the parent something in an exchange; when cancelled, its reply is dropped."""
        number = next(self.numbers)
        put, take = trio.open_memory_channel[bytes](1)
        self._replies[number] = put
        try:
            self.send(CALL, exchange, NUMBER.pack(number) + data)
            return await take.receive()
        finally:
            del self._replies[number]

    async def serve(self, opening: Opening) -> None:
        """Open with the first request, which is answered once that is done, then answer the others as they come.

        Returns when the parent says that it is to end, after what was opened has been closed.
        """
        first = await self._opened.receive()
        async with opening(first.data, self) as (answer, opened), trio.open_nursery() as nursery:

            async def respond(request: Request) -> None:
                try:
                    answered = await answer(request)
                except Exception as error:  # noqa: BLE001 - the parent logs it
                    request.fail(error)
                else:
                    request.answer(answered)
                finally:
                    del self._requests[request.number]

            self._start = lambda request: nursery.start_soon(respond, request)
            first.answer(opened)
            with self._ended:
                await trio.sleep_forever()
            nursery.cancel_scope.cancel()

    async def listen(self) -> NoReturn:
        """Take what the parent sends until it is gone; so is the child then."""
        frames = Frames(sys.maxsize)
        while True:
            await trio.lowlevel.wait_readable(self._connection)
            data = self._connection.recv(_PIECE, socket.MSG_DONTWAIT)
            if not data:  # the parent is gone, and no answer is needed
                os._exit(0)
            for kind, number, frame in frames.feed(data):
                self._take(kind, number, frame)

    def _take(self, kind: bytes, number: int, data: bytes) -> None:
        if kind == PING:
            self.send(PONG, 0, b"")
        elif kind == END:
            self._ended.cancel()
        elif kind == REQUEST:
            request = Request(self, number, data)
            if self._start is None:
                self._opening.send_nowait(request)
            else:
                self._requests[number] = request
                self._start(request)
        elif kind == STOP:
            if (stopped := self._requests.get(number)) is not None:
                stopped.scope.cancel()
        elif kind == REPLY:
            (call,) = NUMBER.unpack_from(data)
            if (waiting := self._replies.get(call)) is not None:
                waiting.send_nowait(data[NUMBER.size :])

    def send(self, kind: bytes, exchange: int, data: bytes) -> None:
        """Send a frame, from any thread; blocks while the parent is behind."""
        self.write(framed(kind, exchange, data))

    def write(self, frames: bytes) -> None:
        """Send frames, as `send` does."""
        if self._closed:
            return
        try:
            with self._sending:
                # Not the method that patches put in its place: this socket belongs to no job.
                _socket.socket.sendall(self._connection, frames)
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
    run_child(descriptor, target)


def run_child(descriptor: int, target: str) -> NoReturn:
    """Answer requests that come over a socket until the other end says that it is to end, or closes; does not return.

    Args:
        descriptor: The socket's.
        target: `module:name` of the function that opens what answers requests.
    """
    faulthandler.enable()
    if hasattr(faulthandler, "register"):  # also while C code holds the interpreter
        faulthandler.register(signal.SIGUSR1, all_threads=True)
    with suppress(OSError):
        os.nice(_NICENESS)
        Path("/proc/self/oom_score_adj").write_text(_OOM_SCORE, encoding="ascii")
    connection = socket.socket(fileno=descriptor)
    connection.set_inheritable(False)
    trio.run(_run, Parent(connection), target)
    os._exit(0)  # threads that programs have left do not keep it


async def _run(parent: Parent, target: str) -> None:
    async with trio.open_nursery() as nursery:
        nursery.start_soon(parent.listen)
        try:
            await parent.serve(function_named(target))
        except Exception as error:  # noqa: BLE001 - the parent raises it where somebody waits
            parent.send(FAILURE, 1, failure(error))  # the exchange of the opening
            os._exit(1)
        nursery.cancel_scope.cancel()


def function_named(target: str) -> Callable[..., Any]:
    """The module-level function that `module:name` names."""
    module, _, name = target.partition(":")
    found: Callable[..., Any] = getattr(importlib.import_module(module), name)
    return found


def has_children() -> bool:
    """Whether processes that this one started are there, running or not waited for."""
    try:
        os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    except ChildProcessError:
        return False
    return True


def end_with(parent: int, by: int = signal.SIGKILL) -> None:
    """Have the kernel send this process a signal when the process `parent`, which started it, ends (Linux)."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, by, 0, 0, 0)
    if os.getppid() != parent:  # it went before the kernel could be asked
        os._exit(0)


if __name__ == "__main__":
    # This file runs as __main__; what it imports imports it by its name, and both must be one module.
    sys.modules["dspex_trio.children.child"] = sys.modules["__main__"]
    main(int(sys.argv[1]), int(sys.argv[2]), sys.argv[3])
