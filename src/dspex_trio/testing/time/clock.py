"""A virtual clock that knows of worker threads: time passes only when every task and every thread waits."""

from __future__ import annotations

import math
import select
import socket
import time
from _thread import get_ident
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress
from typing import Final

import trio

from dspex_trio.testing.time.clocked import VirtualThreads
from dspex_trio.testing.time.looking import tasks, where_it_waits
from dspex_trio.testing.time.patched import virtual_time
from dspex_trio.testing.time.seeding import check_trio, nobody_waits_for_idleness, seeded
from dspex_trio.testing.time.turns import SeededTurns
from dspex_trio.testing.time.virtual_thread import HELD_UP, State, VirtualThread
from dspex_trio.testing.time.waiters import VirtualWaiter
from dspex_trio.threads import Parks, ThreadClock, left_alone

MAX_STEPS: Final = 1_000_000
"""After so many entries of its log a schedule is taken for one without an end."""
# Real seconds for which nothing may happen before time jumps, so that what the kernel still carries can arrive. It is
# longer than the cushion of `wait_all_tasks_blocked`, whose callers go first.
_CUSHION: Final = 0.001
_RECEIVING: Final = ("recv", "read", "_accept")

_monotonic: Final = time.monotonic


class VirtualClock(trio.abc.Clock, trio.abc.Instrument, ThreadClock):
    """Give it to `trio.run` as clock and as instrument; pytest-trio does so with a fixture that returns one.

    Trio's own autojump clock jumps while a thread is busy. This one holds time still while a thread runs, and jumps to
    the next deadline, of a task or of a thread's wait, when all of them wait. Its threads are those of
    `trio.to_thread.run_sync` and of `dspex_trio.threads`, and those that their code starts, executors' too.

    Their waits take virtual time: `time.sleep`, `threading.Event.wait` and whatever else rests on a Condition,
    `Thread.join`, futures, `select` and event loops, `trio.from_thread`, `run_in_loop`. A wait for a socket does when
    the other end is in this process: see `listens`. In these threads `time.monotonic` is virtual as well, because waits
    with a timeout look at it; `time.time` is not. A wait for another process or machine counts as running; code that
    never waits and never ends keeps time from passing for ever. Mark what lasts until something else happens with
    `blocked`. A thread that uses no CPU for a tenth of a second while everybody waits, as one that waits for a bare
    lock, is taken for blocked.

    Args:
        seed: Have tasks and threads take turns: in place of running at the same time, a thread runs from one of its
            waits to the next, and which task or thread goes next is a matter of the seed. The same seed gives the same
            run, as far as the program does not look at real time or at addresses. The global `random` is seeded too.

    Raises:
        RuntimeError: A seed was given, and this version of Trio cannot be told the order of its tasks.
    """

    def __init__(self, seed: int | None = None) -> None:
        if seed is not None:
            check_trio()
        self.seed = seed
        self._turns = None if seed is None else SeededTurns(seed)
        self._now = 0.0
        self._origin = math.ceil(_monotonic())  # whole, so that little is lost in sums
        self._token: trio.lowlevel.TrioToken | None = None
        # Nothing has happened since the loop began its last wait, at which threads had changed what they do so often:
        # what one of them tells the loop before it waits is in that wait.
        self._quiet = False
        self._seen = 0
        self._threads = VirtualThreads(self.current_time, self._look, self._turns)
        self._ports: set[int] = set()  # that this process listens on
        self._tasks: dict[trio.lowlevel.Task, int] = {}
        self._spawned = 0
        self._run = ExitStack()
        self._end: _End | None = None

    @property
    def log(self) -> tuple[str, ...]:
        """What happened in a seeded run, in its order: steps of tasks, turns of threads, jumps of time."""
        return () if self._turns is None else tuple(self._turns.log)

    # ---- trio.abc.Clock ----------------------------------------------------------------------------------------------

    def start_clock(self) -> None:
        """Nothing is to be started."""

    def current_time(self) -> float:
        """Virtual seconds; 0 at the start."""
        return self._now

    def deadline_to_sleep_time(self, deadline: float) -> float:
        """Asked by Trio whenever no task can run: the place to jump from."""
        if self._token is None:
            self._token = trio.lowlevel.current_trio_token()
        if self._threads.one_runs():
            self._quiet = False
            return 0
        self._threads.expire(self._now)
        due = min(deadline, self._threads.next_due())
        if due <= self._now:
            return 0
        if due == math.inf:
            return self._nothing_is_due()
        if self._threads.any_runs():
            return HELD_UP
        if not self._quiet or self._seen != self._threads.changes:
            return self._cushion()
        self._jump(due, due == deadline == self._threads.next_due())
        return 0

    def _nothing_is_due(self) -> float:
        """Whatever ends this wakes the loop, if there is anything; in a seeded run it is known where not."""
        if (
            self._end is None
            or self._end.event.is_set()
            or self._threads.might_do_something()
            or _waits_for_the_system()
        ):
            return math.inf
        if not self._quiet or self._seen != self._threads.changes:
            return self._cushion()
        self._end.set(
            "deadlock, nothing can happen any more: every task and thread waits for something that will never happen"
        )
        return 0

    def _cushion(self) -> float:
        """Real seconds to wait for what the kernel carries; where there are turns, nothing that counts is there."""
        return 0 if self._turns is not None and not self._ports and nobody_waits_for_idleness() else _CUSHION

    def _jump(self, due: float, tie: bool) -> None:  # noqa: FBT001 - internal
        """Let time pass; where a thread's wait ends at the very moment of a deadline, either may come first."""
        self._quiet = False
        self._now = due = float(due)  # a deadline may be an int
        if self._turns is not None:
            if tie and self._turns.threads_first():
                self._now = math.nextafter(due, 0)  # Trio looks at its deadlines before anything else
            self._turns.log.append(f"time {self._now!r}")
        self._threads.time_passes(due)

    # ---- trio.abc.Instrument -----------------------------------------------------------------------------------------

    def before_run(self) -> None:
        """Put virtual time under the waits of threads."""
        self._threads.loop = get_ident()
        if self.seed is not None:
            self._run.enter_context(seeded(self.seed))
        self._run.enter_context(virtual_time(self, self._threads, self._monotonic, self.listens))

    def after_run(self) -> None:
        """Take it back."""
        self._threads.over()
        self._run.close()

    def task_spawned(self, task: trio.lowlevel.Task) -> None:
        """One more that may step."""
        if self._turns is not None:
            self._spawned += 1
            self._tasks[task] = self._spawned

    def task_exited(self, task: trio.lowlevel.Task) -> None:
        """One less."""
        self._tasks.pop(task, None)

    def before_io_wait(self, timeout: float) -> None:
        """The loop goes on, perhaps after threads."""
        if self._turns is not None and timeout == 0:
            while self._turns.threads_first() and self._threads.one_runs():
                pass
        self._seen = self._threads.changes

    def after_io_wait(self, _timeout: float) -> None:
        """The loop has waited; unless a task runs now, nothing has happened meanwhile."""
        self._quiet = True

    def before_task_step(self, task: trio.lowlevel.Task) -> None:
        """Something has happened."""
        self._quiet = False
        if self._turns is not None:
            self._turns.log.append(f"task {self._tasks.get(task, 0)} {task.name}")
            if self._end is not None and len(self._turns.log) > MAX_STEPS:
                self._end.set(f"{MAX_STEPS:,} steps have brought no end")

    # ---- ThreadClock -------------------------------------------------------------------------------------------------

    def thread(self, name: str) -> VirtualThread:
        return self._threads.thread(name)

    def waiter(self) -> VirtualWaiter:
        return VirtualWaiter(self._threads)

    def watcher(self, happened: Callable[[], bool], look: Callable[[], bool]) -> VirtualWaiter:
        return VirtualWaiter(self._threads, happened, look)

    def interrupted(self, ident: int) -> None:
        self._threads.interrupted(ident)

    @contextmanager
    def at_socket(self, job: Parks, sock: socket.socket, operation: str) -> Iterator[None]:
        if hasattr(select, "poll") and operation.startswith(_RECEIVING) and self._is_local(sock):
            self._until_readable(job, sock)
        with self._threads.gone(State.OUTSIDE):
            yield

    def _until_readable(self, job: Parks, sock: socket.socket) -> None:
        if getattr(sock, "pending", int)():  # decrypted already
            return
        with left_alone():
            poll = select.poll()
        poll.register(sock, select.POLLIN)

        def readable() -> bool:
            return bool(poll.poll(0))

        if readable():
            return
        watcher = self.watcher(readable, readable)
        job.park(watcher, sock.gettimeout())
        if watcher.expired:
            raise TimeoutError("timed out")

    def _is_local(self, sock: socket.socket) -> bool:
        """Whether what this socket waits for comes from this process."""
        if sock.family == getattr(socket, "AF_UNIX", None):
            return True
        try:
            return (
                bool(sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)) or sock.getpeername()[1] in self._ports
            )
        except OSError:
            return False

    # ---- for tests ---------------------------------------------------------------------------------------------------

    def listens(self, sock: socket.socket) -> None:
        """Declare that this process serves on a socket: who waits for what comes from there waits in virtual time.

        Known of sockets that begin to listen during the run.
        """
        if sock.family != getattr(socket, "AF_UNIX", None):
            self._ports.add(sock.getsockname()[1])

    def jump(self, seconds: float) -> None:
        """Let so many seconds pass at once without running anything, as if the loop were blocked: what was due is late.

        Raises:
            ValueError: Less than nothing is to pass.
        """
        if seconds < 0:
            raise ValueError("time does not go back")
        self._jump(self._now + seconds, tie=False)
        self._look()

    async def wait_for_deadlock(self) -> str:
        """In a seeded run: wait for deadlock; returns why, and where each task and thread is blocked."""
        self._end = _End()
        await self._end.event.wait()
        return "\n".join([self._end.why, *_whereabouts(self._threads)])

    def give_up(self) -> None:
        """In a seeded run that will not end: end its threads, whose waits raise JobCancelled."""
        self._threads.give_up()

    def blocked(self) -> AbstractContextManager[None]:
        """Declare that the calling thread waits for something that the clock cannot see, so that time may pass."""
        return self._threads.gone(State.AWAY)

    def let_threads_run(self) -> None:
        """In a seeded run: let threads run in turns until all of them wait; called in the loop."""
        self._threads.run_while(lambda: True)

    def _monotonic(self) -> float:
        return _monotonic() if self._threads.here() is None else self._origin + self._now

    def _look(self) -> None:
        """Make the loop check again whether time may jump."""
        if self._token is not None:
            with suppress(trio.RunFinishedError):
                self._token.run_sync_soon(_nothing, idempotent=True)


class _End:
    """Set, with the reason, once a run is deadlocked."""

    def __init__(self) -> None:
        self.event = trio.Event()
        self.why = ""

    def set(self, why: str) -> None:
        if not self.event.is_set():
            self.why = why
            self.event.set()


def _waits_for_the_system() -> bool:
    """Whether a task waits for what only the operating system can tell it of; the loop's own one always does."""
    io = trio.lowlevel.current_statistics().io_statistics
    waiting = [getattr(io, name, 0) for name in ("tasks_waiting_read", "tasks_waiting_write", "tasks_waiting")]
    return sum(waiting) > 1


def _whereabouts(threads: VirtualThreads) -> Iterator[str]:
    me = trio.lowlevel.current_task()
    for task in tasks():
        if task is not me and (where := where_it_waits(task)):
            yield f"task {task.name!r} waits at:\n{where}"
    for name, where in threads.whereabouts():
        yield f"{name} waits at:\n{where}"


def _nothing() -> None:
    pass
