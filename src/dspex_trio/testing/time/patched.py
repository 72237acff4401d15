"""What a virtual clock puts in the place of Python's and Trio's own while its run lasts."""

from __future__ import annotations

import importlib
import queue
import socket
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from concurrent.futures import thread as executors
from contextlib import ExitStack, contextmanager
from functools import partial, wraps
from typing import Any, Final
from weakref import WeakKeyDictionary

import trio

from dspex_trio.testing.time.clocked import VirtualThreads
from dspex_trio.testing.time.locks import VirtualLock, VirtualRLock
from dspex_trio.testing.time.virtual_thread import VirtualThread
from dspex_trio.testing.time.waiters import VirtualWaiter
from dspex_trio.threads import Job, JobCancelled, ThreadClock, add_lookup, gated_job, hooks, left_alone, replaced

# The modules of `trio.to_thread` and `trio.from_thread` that are patched.
_trio_threads: Final[Any] = importlib.import_module("trio._threads")
_ASKING: Final = "_send_message_to_trio"
# Where waits with a timeout look what time it is.
_MONOTONIC: Final = ((time, "monotonic"), (queue, "time"), (threading, "_time"))


@contextmanager
def virtual_time(
    clock: ThreadClock,
    threads: VirtualThreads,
    monotonic: Callable[[], float],
    listens: Callable[[socket.socket], None],
) -> Iterator[None]:
    """Put a clock's time under the waits of threads, and count those that they and Trio start among them.

    Args:
        clock: The clock.
        threads: Its threads.
        monotonic: What takes the place of `time.monotonic`.
        listens: Told of sockets that begin to listen.
    """
    jobs = _Jobs(clock, threads)
    with hooks(), ExitStack() as taking_back:
        taking_back.callback(add_lookup(jobs.current, last=True))
        for owner, name, replacement in (
            *((owner, name, monotonic) for owner, name in _MONOTONIC),
            (threading, "Lock", lock := partial(VirtualLock, threads)),
            (threading, "RLock", partial(VirtualRLock, threads)),
            (executors, "_global_shutdown_lock", lock()),
            (threading.Thread, "start", jobs.starting(threading.Thread.start)),
            (threading.Thread, "join", jobs.joining(threading.Thread.join)),
            (ThreadPoolExecutor, "__init__", jobs.pooling(ThreadPoolExecutor.__init__)),
            (socket.socket, "listen", _listening(socket.socket.listen, listens)),
            (_trio_threads, "start_thread_soon", jobs.offloading(_trio_threads.start_thread_soon)),
            (_trio_threads, _ASKING, jobs.asking(getattr(_trio_threads, _ASKING))),
        ):
            taking_back.callback(replaced(owner, name, replacement))
        yield


class _Jobs:
    """Makes the threads that Trio and programs start into threads of the clock, whose waits take virtual time."""

    def __init__(self, clock: ThreadClock, threads: VirtualThreads) -> None:
        self._clock = clock
        self._threads = threads
        self._started: WeakKeyDictionary[threading.Thread, VirtualThread] = WeakKeyDictionary()

    def current(self) -> Job | None:
        """The calling thread's job, which is never cancelled: with it, patched waits go through the clock."""
        thread = self._threads.here()
        return None if thread is None else thread.job

    def _thread(self, name: str) -> VirtualThread:
        thread = self._threads.thread(name)
        thread.job = Job(name)
        thread.job.host = 0  # whose thread made it does not matter
        thread.job.clock = self._clock
        return thread

    def starting(self, original: Callable[..., None]) -> Callable[..., None]:
        """`Thread.start`, in a thread of the clock."""

        @wraps(original)
        def start(self_: threading.Thread) -> None:
            if self._threads.here() is None or _waits_in_c(self_):
                original(self_)
                return
            thread = self._thread(self_.name)
            run = self_.run

            def body() -> None:
                thread.entered()
                try:
                    run()
                finally:
                    thread.left()
                    thread.ended()

            self_.run = body  # type: ignore[method-assign]
            try:
                with left_alone():  # until it has started, which takes no time
                    original(self_)
            except BaseException:
                thread.ended()
                raise
            self._started[self_] = thread

        return start

    def joining(self, original: Callable[..., None]) -> Callable[..., None]:
        """`Thread.join`, of a thread of the clock by another one."""

        @wraps(original)
        def join(self_: threading.Thread, timeout: float | None = None) -> None:
            thread, job = self._started.get(self_), gated_job()
            if thread is None or job is None or self._threads.here() is None or (timeout is not None and timeout <= 0):
                original(self_, timeout)
                return
            job.check()
            if (waiter := self._threads.joined(thread)) is not None:
                job.park(waiter, timeout)
                job.woken()
                if waiter.expired:
                    return
            with left_alone():  # its last steps, which take no time
                original(self_)

        return join

    def pooling(self, original: Callable[..., None]) -> Callable[..., None]:
        """`ThreadPoolExecutor()`: its threads wait for work where the clock sees it, and are joined in their order."""

        @wraps(original)
        def init(self_: Any, *args: Any, **kwargs: Any) -> None:
            original(self_, *args, **kwargs)
            if self._threads.here() is not None:
                # In place of a queue in C, and of a set, whose order is that of addresses.
                vars(self_).update(_work_queue=queue.Queue(), _threads=_InOrder())

        return init

    def offloading(self, original: Callable[..., None]) -> Callable[..., None]:
        """What `trio.to_thread.run_sync` starts threads with."""

        @wraps(original)
        def start_thread_soon(function: Callable[[], Any], deliver: Callable[[Any], object], name: Any = None) -> None:
            token = trio.lowlevel.current_trio_token()
            thread = self._thread(str(name or ""))

            def body() -> Any:
                thread.entered()
                return function()

            def delivered(result: Any) -> None:
                try:
                    deliver(result)
                    token.run_sync_soon(thread.ended)  # after what `deliver` has told the loop
                except trio.RunFinishedError:
                    thread.ended()
                finally:
                    thread.left()

            try:
                original(body, delivered, name)
            except BaseException:
                thread.ended()
                raise

        return start_thread_soon

    def asking(self, original: Callable[..., Any]) -> Callable[..., Any]:
        """What `trio.from_thread` asks the loop with."""

        @wraps(original)
        def send_message_to_trio(trio_token: Any, message: Any) -> Any:
            if self._threads.here() is not None:
                object.__setattr__(message, "queue", _Mailbox(VirtualWaiter(self._threads)))
            return original(trio_token, message)

        return send_message_to_trio


class _InOrder(dict[Any, None]):
    """A set that keeps the order in which things were added."""

    def add(self, element: Any) -> None:
        self[element] = None


class _Mailbox:
    """One answer from the loop, waited for where the clock sees it."""

    def __init__(self, waiter: VirtualWaiter) -> None:
        self._waiter = waiter
        self._answers: list[Any] = []

    def put_nowait(self, answer: Any) -> None:
        self._answers.append(answer)
        self._waiter.release()

    def get(self) -> Any:
        self._waiter.acquire()
        if not self._answers:
            raise JobCancelled  # the run was given up
        return self._answers.pop()


def _listening(original: Callable[..., None], listens: Callable[[socket.socket], None]) -> Callable[..., None]:
    """`socket.listen`."""

    @wraps(original)
    def listen(self: socket.socket, *args: Any) -> None:
        original(self, *args)
        listens(self)

    return listen


def _waits_in_c(thread: threading.Thread) -> bool:
    """Whether it is of a pool that was made before, and waits for work where the clock does not see it."""
    if getattr(thread, "_target", None) is not executors._worker:  # noqa: SLF001 - what pools' threads run
        return False
    return not any(isinstance(argument, queue.Queue) for argument in getattr(thread, "_args", ()))
