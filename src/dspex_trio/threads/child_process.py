"""One child process, seen from its parent: frames to it and from it, until it is gone."""

from __future__ import annotations

import contextvars
import math
import os
import signal
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from functools import partial
from typing import Final

import trio

from dspex_trio.threads.frames import (
    ANSWER,
    CALL,
    FAILURE,
    LOG,
    NUMBER,
    REPLY,
    REPORT,
    REQUEST,
    STOP,
    Frames,
    TooLarge,
    framed,
)

# How long a child whose socket closed may take to end by itself, and one that was killed to be gone, in seconds.
_FAREWELL: Final = 1.0
_PIECE: Final = 1 << 20
# A child may wait for so many of its calls at once.
_MAX_CALLS: Final = 256


class ChildLost(Exception):
    """The child ended before it answered; says how: an exit code, or a signal such as a crash or the OOM killer's."""


class ChildFailed(Exception):
    """The child's function raised; carries the traceback as text. The child goes on."""


class Exchange:
    """One request: what the child says until it has answered.

    Args:
        on_report: Told what the child reports.

    Attributes:
        done: Set once there is an answer, or will never be one.
    """

    def __init__(self, on_report: Callable[[bytes], None]) -> None:
        self.done = trio.Event()
        self.on_report = on_report
        self.on_call: Callable[[bytes], None] = lambda _data: None
        self._answer: bytes | Exception | None = None

    def end(self, answer: bytes | Exception) -> None:
        """That is it."""
        self._answer = answer
        self.done.set()

    def answer(self) -> bytes:
        """The answer, once it is done.

        Raises:
            ChildFailed, ChildLost: There is none.
        """
        assert self._answer is not None, "the exchange is under way"  # noqa: S101 - our own bug, never the user's
        if isinstance(self._answer, Exception):
            raise self._answer
        return self._answer

    @asynccontextmanager
    async def calls(
        self, child: ChildProcess, reply: Callable[[bytes], Awaitable[bytes]] | None
    ) -> AsyncIterator[None]:
        """Have `reply` reply to the child's calls while the block runs; those that are left then are cancelled."""
        if reply is None:
            yield
            return

        async def take(data: bytes) -> None:
            child.post(REPLY, data[: NUMBER.size] + await reply(data[NUMBER.size :]))

        context = contextvars.copy_context()  # whoever tells of a call is the child's reader, and not for this request

        async with trio.open_nursery() as nursery:

            def on_call(data: bytes) -> None:
                if len(nursery.child_tasks) >= _MAX_CALLS:
                    child.kill(f"it made more than {_MAX_CALLS} calls at once")
                else:
                    context.run(nursery.start_soon, take, data)

            self.on_call = on_call
            try:
                yield
            finally:
                self.on_call = lambda _data: None
                nursery.cancel_scope.cancel()


class ChildProcess:
    """One child. Starting it takes the loop a millisecond or two.

    Attributes:
        gone: Set once it has ended and is buried, and everything that it wrote has been read.
        opened: Whether it could answer requests; for its owner.
        answers: How many requests it has answered; for its owner.
    """

    def __init__(
        self,
        function: str,
        environment: Mapping[str, str] | None,
        max_bytes: int,
        on_log: Callable[[bytes], None],
    ) -> None:
        self.gone = trio.Event()
        self.opened = False
        self.answers = 0
        self._frames = Frames(max_bytes)
        self._on_log = on_log
        self._exchange: Exchange | None = None
        self._lost_because = ""
        self._buried = trio.Event()
        # Not bounded, but what is in it is: one request, one stop, and a reply to each call.
        self._post, self._posted = trio.open_memory_channel[bytes](math.inf)
        ours, theirs = socket.socketpair()
        with theirs:
            # From this thread, which lives as long as the loop: on Linux the child's end is bound to the thread's.
            self._process = subprocess.Popen(  # noqa: S603 - this very interpreter and module
                [
                    *(sys.executable, "-P", "-m", "dspex_trio.threads.child"),
                    *(str(theirs.fileno()), str(os.getpid()), function),
                ],
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                stdout=2,  # the worker's own standard output may be read by whoever started it
                process_group=0,  # killed together with what the program started
                env=environment,
            )
        self._stream = trio.SocketStream(trio.socket.from_stdlib_socket(ours))

    def begin(self, request: bytes, exchange: Exchange) -> bool:
        """Send it a request, the first of which opens it; False if it is gone."""
        if self._buried.is_set():
            return False
        self._exchange = exchange
        self.post(REQUEST, request)
        return True

    def stop(self) -> None:
        """Tell it to end what it does."""
        self.post(STOP, b"")

    def post(self, kind: bytes, data: bytes) -> None:
        """Have something sent to it."""
        with suppress(trio.BrokenResourceError, trio.ClosedResourceError):  # it is gone
            self._post.send_nowait(framed(kind, data))

    def kill(self, because: str = "") -> None:
        """End it and the processes that it started; also when it has ended and these have not."""
        self._lost_because = self._lost_because or because
        if self._process.returncode is None:  # not buried yet, so that its number is still its own
            with suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)

    async def live(self) -> None:
        """Until it is gone; when cancelled, that is now."""
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._write)
                nursery.start_soon(self._bury)
                await self._read()
                with trio.move_on_after(_FAREWELL):
                    await self._buried.wait()
                self.kill()
                await self._buried.wait()
                nursery.cancel_scope.cancel()
        finally:
            self.kill()
            with trio.CancelScope(deadline=trio.current_time() + _FAREWELL, shield=True):
                await self._bury()
            self._stream.socket.close()
            self._posted.close()
            self.gone.set()
            if self._exchange is not None and not self._exchange.done.is_set():
                self._exchange.end(ChildLost(self._lost_because or exit_reason(self._process.returncode)))

    async def _bury(self) -> None:
        if self._process.returncode is None:
            await _until_exit(self._process.pid)
            self.kill()
            self._process.poll()
        self._buried.set()
        # What it wrote is still read, then comes the end, even if a process that it forked holds the socket.
        with suppress(OSError):
            self._stream.socket.shutdown(socket.SHUT_RDWR)

    async def _write(self) -> None:
        with suppress(trio.BrokenResourceError, trio.ClosedResourceError):  # it is gone
            async for frame in self._posted:
                await self._stream.send_all(frame)

    async def _read(self) -> None:
        """Take what it sends, to the end of it."""
        with suppress(trio.BrokenResourceError, trio.ClosedResourceError):  # it is gone
            while data := await self._stream.receive_some(_PIECE):
                try:
                    for kind, frame in self._frames.feed(data):
                        self._take(kind, frame)
                except TooLarge as error:
                    self.kill(str(error))
                    return
                except Exception as error:  # noqa: BLE001 - from whoever is told what it says
                    self.kill(not_understood(error))
                    return

    def _take(self, kind: bytes, data: bytes) -> None:
        exchange = self._exchange
        if kind == LOG:
            self._on_log(data)
        elif exchange is None or exchange.done.is_set():
            return  # a thread that a program left behind
        elif kind == ANSWER:
            exchange.end(data)
        elif kind == FAILURE:
            exchange.end(ChildFailed(data.decode("utf-8", "replace")))
        elif kind == REPORT:
            exchange.on_report(data)
        elif kind == CALL:
            exchange.on_call(data)


def not_understood(error: Exception) -> str:
    """Why a child is ended that says what nobody can read, as one does that wrote to its parent's descriptor."""
    return f"what it says cannot be understood: {type(error).__name__}: {error}"


async def _until_exit(pid: int) -> None:
    """Until the child has ended; it is not buried."""
    if sys.platform == "linux":
        descriptor = os.pidfd_open(pid)
        try:
            await trio.lowlevel.wait_readable(descriptor)
        finally:
            os.close(descriptor)
    else:
        wait = partial(os.waitid, os.P_PID, pid, os.WEXITED | os.WNOWAIT)
        await trio.to_thread.run_sync(wait, abandon_on_cancel=True, limiter=trio.CapacityLimiter(1))


def exit_reason(code: int | None) -> str:
    """How a process ended, in words."""
    if code is None:
        return "the process was killed and does not end"
    if code >= 0:
        return f"the process ended with exit code {code}"
    try:
        name = signal.Signals(-code).name
    except ValueError:
        name = f"signal {-code}"
    hint = ", most often sent by the kernel when memory runs out" if -code == signal.SIGKILL else ""
    return f"the process was ended by {name}{hint}"
