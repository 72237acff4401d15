"""Starting children: forked from a warm parent where that can be done, else spawned, each importing everything anew."""

from __future__ import annotations

import logging
import os
import secrets
import select
import signal
import socket
import sys
from collections import deque
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from typing import Final

import trio

from dspex_trio.children.exchange import ChildFailed, ChildLost
from dspex_trio.children.frames import ANSWER, FAILURE, FREED, REPORT, REQUEST, Frames, framed
from dspex_trio.children.leftovers import MARK, kill_marked
from dspex_trio.children.starting import Spawned, Started, exit_reason
from dspex_trio.tasks.background import open_background

logger: Final = logging.getLogger(__name__)

_MODULES: Final = "dspex_trio.children"
CAN_FORK: Final = sys.platform == "linux"
# A warm parent that does not fork within so many seconds is replaced.
_FORK_SECONDS: Final = 10.0
# Between attempts to start a warm parent, in seconds.
_FIRST_RETRY: Final = 0.1
_LAST_RETRY: Final = 10.0
_MAX_BYTES: Final = 64 << 20
_FAREWELL: Final = 1.0
# How long after its end a child has been waited for by its warm parent, unless that stands still.
_FREED_SECONDS: Final = 1.0


class Forked:
    """A child that was forked by a warm parent, which waits for it. See `Started`."""

    def __init__(self, pid: int) -> None:
        self._pid = pid
        self._exited = trio.Event()
        self._code: int | None = None
        self._poll = select.poll()
        try:
            self._descriptor = os.pidfd_open(pid)
            self._poll.register(self._descriptor, select.POLLIN)
        except OSError:  # it has ended, or too many files are open: without a watch it is as good as gone
            self._descriptor = -1

    @property
    def pid(self) -> int:
        return self._pid

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL, os.killpg)
        self.send_signal(signal.SIGKILL)  # should the program have moved it to another group

    def send_signal(self, number: int, send: Callable[[int, int], None] = os.kill) -> None:
        if not self._exited.is_set():  # the number is free again only a moment before this is known
            with suppress(ProcessLookupError, PermissionError):
                send(self._pid, number)

    def has_ended(self) -> bool:
        return self._exited.is_set() or self._descriptor < 0 or bool(self._poll.poll(0))

    async def wait(self) -> int | None:
        if self._descriptor >= 0:
            with suppress(trio.ClosedResourceError):
                await trio.lowlevel.wait_readable(self._descriptor)
            with trio.move_on_after(_FREED_SECONDS):
                await self._exited.wait()
        else:
            await self._exited.wait()
        return self._code

    def exited(self, code: int) -> None:
        """The warm parent has waited for it."""
        self._code = code
        self._exited.set()
        if self._descriptor >= 0:
            trio.lowlevel.notify_closing(self._descriptor)
            os.close(self._descriptor)
            self._descriptor = -1


class Starter:
    """Starts children; made by `open_starter`.

    Args:
        prepare: `module:name` of what a warm parent does once, on bytes.
        serve: `module:name` of what children run.
        opening: Gives what the warm parent prepares with.
        nursery: For the warm parent.
    """

    def __init__(self, prepare: str, serve: str, opening: Callable[[], bytes], nursery: trio.Nursery) -> None:
        self._prepare = prepare
        self._serve = serve
        self._opening = opening
        self._forks = CAN_FORK
        self._known = trio.Event()
        self._failure: Exception | None = None
        self._connection: trio.SocketStream | None = None
        self._warm = trio.Event()
        # Who waits for a child, in the order in which they asked: set once it is there, or an error in its place.
        self._waiting: deque[tuple[trio.Event, list[Forked | ChildLost]]] = deque()
        self._children: dict[int, Forked] = {}
        self._asking = trio.Lock()
        self.pid: int | None = None
        self._nursery = nursery
        self._started = False

    def warm_up(self) -> None:
        """Start the warm parent, if there can be one and it was not started yet."""
        if self._forks and not self._started:
            self._started = True
            self._nursery.start_soon(self._keep_warm)

    async def prepared(self) -> None:
        """Wait until the first warm parent has prepared; returns at once where children are spawned.

        Raises:
            ChildFailed: `prepare` raised; the text is the traceback.
            ChildLost: The process ended, or cannot be told with what to prepare.
        """
        if not self._forks:
            return
        self.warm_up()
        await self._known.wait()
        if self._failure is not None:
            raise self._failure

    async def start(self) -> tuple[Started, socket.socket]:
        """Start a child: its process, and this end of its connection. Waits for the warm parent.

        Raises:
            ChildFailed, ChildLost: As `prepared`; or the warm parent ended meanwhile, or the system has no room for one
                more process.
        """
        self.warm_up()
        if self._forks:
            await self.prepared()
            await self._warm_or_not()
        if not self._forks:
            return _spawned(f"{_MODULES}.child", self._serve)
        ours, theirs = _connection()
        try:
            with theirs:
                return await self._fork(theirs), ours
        except BaseException:
            ours.close()
            raise

    async def _warm_or_not(self) -> None:
        while self._forks and self._connection is None:
            await self._warm.wait()

    async def _fork(self, theirs: socket.socket) -> Forked:
        done, found = trio.Event(), list[Forked | ChildLost]()
        async with self._asking:
            if (connection := self._connection) is None:
                raise ChildLost("the warm parent ended")
            try:
                with trio.fail_after(_FORK_SECONDS):
                    await self._ask(connection.socket, theirs, (done, found))
                    await done.wait()
            except trio.TooSlowError:
                self._kill()
                raise ChildLost("the warm parent does not fork") from None
            except OSError as error:
                raise ChildLost(f"the warm parent is gone: {error}") from None
        match found:
            case [Forked() as child]:
                return child
            case [ChildLost() as lost]:
                raise lost
        raise ChildLost("the warm parent ended")

    async def _ask(
        self,
        connection: trio.socket.SocketType,
        theirs: socket.socket,
        waiting: tuple[trio.Event, list[Forked | ChildLost]],
    ) -> None:
        """Ask for a child. Who waits is known before the warm parent can answer, and only if it was really asked."""
        self._waiting.append(waiting)
        try:
            await _send_descriptor(connection, theirs)
        except BaseException:  # the byte is not on its way: answers belong to others
            with suppress(ValueError):
                self._waiting.remove(waiting)
            raise

    # ---- the warm parent

    async def _keep_warm(self) -> None:
        pause = _FIRST_RETRY
        while self._forks:
            began = trio.current_time()
            await self._live()
            if trio.current_time() - began > _LAST_RETRY:
                pause = _FIRST_RETRY
            await trio.sleep(pause)
            pause = min(pause * 2, _LAST_RETRY)

    def _kill(self) -> None:
        if self.pid is not None:
            with suppress(ProcessLookupError):
                os.kill(self.pid, signal.SIGKILL)

    async def _end(self, process: Spawned, mark: str) -> int | None:
        """Wait for a warm parent whose connection is closed, for a moment, and kill it; returns its exit code."""
        was_warm = self._warm.is_set()
        if was_warm:  # else it is being waited for already
            self._warm = trio.Event()
            with trio.move_on_after(_FAREWELL / 2):  # it kills its children and what they have started
                await process.wait()
        process.kill()
        code = await process.wait()
        if was_warm and code != 0:  # it was killed, and could not
            await trio.to_thread.run_sync(kill_marked, mark, limiter=trio.CapacityLimiter(1))
        return code

    async def _live(self) -> None:
        try:
            opening = self._opening()
            mark = secrets.token_hex(16)
            process, ours = _spawned(f"{_MODULES}.warm", self._prepare, self._serve, environment={MARK: mark})
        except (TypeError, ValueError, ChildLost) as error:  # what is to be sent cannot be, or there is no room
            self._not_warm(ChildLost(str(error)))
            return
        self.pid = process.pid
        stream = trio.SocketStream(trio.socket.from_stdlib_socket(ours))
        try:
            with suppress(trio.BrokenResourceError, trio.ClosedResourceError):
                await stream.send_all(framed(REQUEST, 0, opening))
                frames = Frames(_MAX_BYTES)
                while data := await stream.receive_some():
                    for kind, number, frame in frames.feed(data):
                        self._take(stream, kind, number, frame)
        finally:
            self.pid = None
            self._connection = None
            stream.socket.close()
            code = None
            with trio.CancelScope(deadline=trio.current_time() + 2 * _FAREWELL, shield=True):
                code = await self._end(process, mark)
            if not self._known.is_set():
                self._not_warm(ChildLost(exit_reason(code)))
            for done, _ in self._waiting:
                done.set()
            self._waiting.clear()
            children, self._children = self._children, {}
            for child in children.values():  # they die with it
                child.kill()
                child.exited(-signal.SIGKILL)
            if not self._forks:
                self._warm.set()

    def _not_warm(self, error: Exception) -> None:
        """There is no warm parent, and this is why; only the first start may have waiters, who get it raised."""
        if not self._known.is_set():
            self._failure = error
            self._known.set()
        else:
            logger.error("the warm parent cannot be started again: %s", error)

    def _take(self, stream: trio.SocketStream, kind: bytes, number: int, data: bytes) -> None:
        if kind == ANSWER:
            self._connection = stream
            self._failure = None
            self._known.set()
            self._warm.set()
        elif kind == FAILURE and number:
            logger.warning(
                "importing the operator's modules started threads (%s): child processes are spawned, not forked, and "
                "import everything anew",
                data.decode("utf-8", "replace"),
            )
            self._forks = False
            self._known.set()
        elif kind == FAILURE:
            self._not_warm(ChildFailed.from_bytes(data))
        elif kind == REPORT:
            done, found = self._waiting.popleft()
            if number:
                self._children[number] = child = Forked(number)
                found.append(child)
            else:
                found.append(ChildLost(f"no process can be forked: {data.decode('utf-8', 'replace')}"))
            done.set()
        elif kind == FREED and (child_ended := self._children.pop(number, None)) is not None:
            child_ended.exited(int(data))


def _connection() -> tuple[socket.socket, socket.socket]:
    try:
        return socket.socketpair()
    except OSError as error:
        raise ChildLost(f"no connection can be made: {error}") from None


def _spawned(
    module: str, *arguments: str, environment: Mapping[str, str] | None = None
) -> tuple[Spawned, socket.socket]:
    """A process that runs a module of ours, and this end of its connection; raises ChildLost where there is no room."""
    ours, theirs = _connection()
    with theirs:
        try:
            return Spawned([module, str(theirs.fileno()), str(os.getpid()), *arguments], theirs, environment), ours
        except OSError as error:
            ours.close()
            raise ChildLost(f"no process can be started: {error}") from None


async def _send_descriptor(connection: trio.socket.SocketType, theirs: socket.socket) -> None:
    """Send one byte with a descriptor."""
    rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, theirs.fileno().to_bytes(4, sys.byteorder))]
    await connection.sendmsg([b"f"], rights)


@asynccontextmanager
async def open_starter(
    prepare: str, serve: str, opening: Callable[[], bytes], *, at_once: bool = True
) -> AsyncIterator[Starter]:
    """Have a warm parent, where there can be one, until the block ends; the children die with it.

    Args:
        prepare: `module:name` of what a warm parent does once, on bytes. It must leave no thread running.
        serve: `module:name` of what children run: see `child.Parent.serve`.
        opening: Gives what the warm parent prepares with, each time that one is started.
        at_once: Whether it starts now, or with the first child.
    """
    async with open_background() as nursery:
        starter = Starter(prepare, serve, opening, nursery)
        if at_once:
            starter.warm_up()
        yield starter
