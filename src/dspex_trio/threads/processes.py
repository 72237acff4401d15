"""Process isolation, the rung that always works: warm children that answer requests and are killed on cancellation.

Own code instead of a library, because of what may travel: trio-parallel and anyio.to_process unpickle what a child
sends, and a child runs programs. Here it is bytes for bytes, through one module-level function of the child.
"""

from __future__ import annotations

import math
import os
import signal
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager, suppress
from functools import partial
from typing import Final

import trio

from dspex_trio.threads.background import open_background
from dspex_trio.threads.frames import ANSWER, FAILURE, HEADER, READY, REPORT, REQUEST, framed
from dspex_trio.threads.job import Job

# How long a child whose socket closed may take to end by itself, and one that was killed to be gone, in seconds.
_FAREWELL: Final = 1.0
# Between attempts to start a child that does not come up, in seconds.
_FIRST_RETRY: Final = 0.1
_LAST_RETRY: Final = 10.0
_PIECE: Final = 1 << 20


class ChildLost(Exception):
    """The child ended before it answered; says how: an exit code, or a signal such as a crash or the OOM killer's."""


class ChildFailed(Exception):
    """The child's function raised; carries the traceback as text. The child goes on."""


@asynccontextmanager
async def open_processes(
    function: str,
    *,
    count: int,
    warm_up: bytes | None = None,
    environment: Mapping[str, str] | None = None,
    max_bytes: int = 64 << 20,
) -> AsyncIterator[Processes]:
    """Warm child processes, replaced when they end. On leaving they are killed.

    Args:
        function: `module:name` of a module-level function, bytes → bytes, that answers the requests in the child.
        count: How many children; as many requests are answered at once.
        warm_up: A first request for each child; it is ready when it has answered it.
        environment: Of the children; this process's own by default.
        max_bytes: The largest answer or report; a child that sends more is killed.
    """
    processes = Processes(function, warm_up, environment, max_bytes)
    try:
        async with open_background() as nursery:
            for _ in range(count):
                nursery.start_soon(processes._keep)  # noqa: SLF001 - the other half of this class
            yield processes
    finally:
        processes._put.close()  # noqa: SLF001 - as above


class Processes:
    """Warm children; made by `open_processes`."""

    def __init__(
        self, function: str, warm_up: bytes | None, environment: Mapping[str, str] | None, max_bytes: int
    ) -> None:
        self._function = function
        self._warm_up = warm_up
        self._environment = environment
        self._max_bytes = max_bytes
        self._put, self._take = trio.open_memory_channel[_Child | ChildLost](math.inf)  # one entry per child at most

    async def run(
        self, request: bytes, *, job: Job | None = None, on_report: Callable[[bytes], None] = lambda _data: None
    ) -> bytes:
        """The answer of a child to `request`; waits for one that is free.

        When cancelled, the child and the processes that it started are killed, and the cancel goes on when they are
        gone; `job`, if given, then tells so (rung `kill`).

        Args:
            request: What the child's function gets.
            job: Whose details are to tell how the work was stopped.
            on_report: Told what the child reports on the way (`dspex_trio.threads.child.report`).

        Raises:
            ChildLost: The child ended before it answered, or none can be started.
            ChildFailed: The child's function raised.
        """
        child = await self._child_given(request)
        try:
            answer = await child.receive(ANSWER, on_report)
        except ChildFailed:
            self._free(child)
            raise
        except ChildLost:
            raise
        except BaseException:  # Cancelled, or Trio's KeyboardInterrupt
            if job is not None:
                job.cancel()
            child.kill()
            with trio.CancelScope(deadline=trio.current_time() + _FAREWELL, shield=True):
                await child.gone.wait()
                if job is not None:
                    job.ended(None, rung="kill")
            raise
        self._free(child)
        return answer

    async def _child_given(self, request: bytes) -> _Child:
        while True:
            child = await self._free_child()
            try:
                if await child.send(request):
                    return child
            except BaseException:  # it has half a request
                child.kill()
                raise

    def _free(self, child: _Child) -> None:
        with suppress(trio.ClosedResourceError):
            self._put.send_nowait(child)

    async def _free_child(self) -> _Child:
        while True:
            try:
                child = await self._take.receive()
            except trio.EndOfChannel:
                raise ChildLost("the child processes have been closed") from None
            if isinstance(child, ChildLost):
                raise child
            if not child.gone.is_set():
                child.served = True
                return child

    async def _keep(self) -> None:
        """Have a child, and another one when it is gone."""
        pause = _FIRST_RETRY
        while True:
            child = _Child(self._function, self._environment, self._max_bytes)
            await self._live(child)
            if child.served:
                pause = _FIRST_RETRY
            else:
                await trio.sleep(pause)
                pause = min(pause * 2, _LAST_RETRY)

    async def _live(self, child: _Child) -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(child.live)
            try:
                await child.prepare(self._warm_up)
            except (ChildLost, ChildFailed) as error:
                child.kill()
                for _ in range(self._take.statistics().tasks_waiting_receive):
                    self._put.send_nowait(ChildLost(f"no child process can be started: {error}"))
            else:
                self._put.send_nowait(child)


class _Child:
    """One child process. Starting it takes the loop a millisecond or two."""

    def __init__(self, function: str, environment: Mapping[str, str] | None, max_bytes: int) -> None:
        self.gone = trio.Event()
        self.served = False
        self._max_bytes = max_bytes
        self._lost_because = ""
        self._buffer = bytearray()
        self._used = False
        ours, theirs = socket.socketpair()
        with theirs:
            # From this thread, which lives as long as the loop: on Linux the child's end is bound to the thread's.
            self._process = subprocess.Popen(  # noqa: S603 - this very interpreter and module
                [
                    sys.executable,
                    *("-m", "dspex_trio.threads.child"),
                    *(str(theirs.fileno()), str(os.getpid()), function),
                ],
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                stdout=2,  # the worker's own standard output may be read by whoever started it
                process_group=0,  # killed together with what the program started
                env=environment,
            )
        self._stream = trio.SocketStream(trio.socket.from_stdlib_socket(ours))

    async def live(self) -> None:
        """Until it is gone; when cancelled, that is now."""
        try:
            await _until_exit(self._process.pid)
        finally:
            self.kill()
            with trio.CancelScope(deadline=trio.current_time() + _FAREWELL, shield=True):
                await _until_exit(self._process.pid)
            self._process.poll()
            self.gone.set()
            if self._used:
                # What it wrote is still read, then comes the end, even if a process that it forked holds the socket.
                with suppress(OSError):
                    self._stream.socket.shutdown(socket.SHUT_RDWR)
            else:
                self._stream.socket.close()

    @contextmanager
    def _in_use(self) -> Iterator[None]:
        self._used = True
        try:
            yield
        finally:
            self._used = False
            if self.gone.is_set():
                self._stream.socket.close()

    def kill(self) -> None:
        """End it and the processes that it started; also when it has ended and these have not."""
        if self._process.returncode is None:  # not buried yet, so that its number is still its own
            with suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)

    async def prepare(self, warm_up: bytes | None) -> None:
        """Until it can answer; raises as `receive` does."""
        await self.receive(READY, lambda _report: None)
        if warm_up is not None:
            await self.send(warm_up)
            await self.receive(ANSWER, lambda _report: None)

    async def send(self, request: bytes) -> bool:
        """Send a request; False if the child was gone before it had it all."""
        with self._in_use():
            try:
                await self._stream.send_all(framed(REQUEST, request))
            except (trio.BrokenResourceError, trio.ClosedResourceError):
                return False
        return True

    async def receive(self, wanted: bytes, on_report: Callable[[bytes], None]) -> bytes:
        """The next frame of that kind.

        Raises:
            ChildFailed, ChildLost: As `Processes.run` says.
        """
        with self._in_use():
            return await self._received(wanted, on_report)

    async def _received(self, wanted: bytes, on_report: Callable[[bytes], None]) -> bytes:
        while True:
            kind, length = HEADER.unpack(await self._read(HEADER.size))
            if length > self._max_bytes:
                self._lost_because = f"it sent {length} bytes, more than {self._max_bytes}"
                self.kill()
                raise await self._lost()
            data = await self._read(length)
            if kind == wanted:
                return data
            if kind == FAILURE:
                raise ChildFailed(data.decode("utf-8", "replace"))
            if kind == REPORT:
                on_report(data)

    async def _read(self, length: int) -> bytes:
        while len(self._buffer) < length:
            try:
                piece = await self._stream.receive_some(_PIECE)
            except (trio.BrokenResourceError, trio.ClosedResourceError):
                piece = b""
            if not piece:
                raise await self._lost()
            self._buffer += piece
        data = bytes(self._buffer[:length])
        del self._buffer[:length]
        return data

    async def _lost(self) -> ChildLost:
        with trio.move_on_after(_FAREWELL):
            await self.gone.wait()
        self.kill()
        await self.gone.wait()
        return ChildLost(self._lost_because or exit_reason(self._process.returncode))


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


def exit_reason(code: int) -> str:
    """How a process ended, in words."""
    if code >= 0:
        return f"the process ended with exit code {code}"
    try:
        name = signal.Signals(-code).name
    except ValueError:
        name = f"signal {-code}"
    hint = ", most often sent by the kernel when memory runs out" if -code == signal.SIGKILL else ""
    return f"the process was ended by {name}{hint}"
