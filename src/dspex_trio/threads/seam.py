"""The seam: Python's own blocking calls, so changed that a job's threads can be woken out of them, whoever calls them.

One seam below every library (requests, httpx, urllib, DSPy's native stack, litellm, a user's own tool) in place of a
hook for each. Outside of jobs every call passes through. Hooks are installed while a runtime is open, counted over
runtimes, and taken back where they are still ours; where somebody patched over them they stay and pass everything on.
"""

from __future__ import annotations

import asyncio
import logging
import select
import selectors
import socket
import ssl
import subprocess
import threading
import time
from _thread import allocate_lock, start_new_thread
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial, wraps
from typing import Any, Final

from dspex_trio.threads.job import Job, current_job, descriptors

# How often a wait that cannot be woken looks whether its job is to end, in seconds.
POLL: Final = 0.02
# Shorter waits end by themselves soon enough.
_SHORT: Final = 0.02

_SOCKET_CALLS: Final = (
    "recv", "recv_into", "recvfrom", "recvfrom_into", "recvmsg", "recvmsg_into",
    "send", "sendall", "sendto", "sendmsg", "connect", "connect_ex", "_accept",
)  # fmt: skip
_TLS_CALLS: Final = ("read", "write", "send", "do_handshake", "unwrap")
_SELECTORS: Final = ("SelectSelector", "_PollLikeSelector", "EpollSelector", "KqueueSelector")

_lock = threading.Lock()
_users = 0
_installed: list[tuple[Any, str, Any, Any]] = []
_ABSENT: Final = object()


class _Exempt(threading.local):
    """Where a thread's waits are not to be broken: inside a log handler, or inside an event loop of its own."""

    logging = 0
    loops = 0


_exempt = _Exempt()


def _job() -> Job | None:
    job = current_job()
    return None if job is None or _exempt.logging else job


@contextmanager
def hooks() -> Iterator[None]:
    """Keep the seam installed."""
    _enter()
    try:
        yield
    finally:
        _leave()


def _enter() -> None:
    global _users  # noqa: PLW0603 - the classes that are changed are the process's, and so is the count
    with _lock:
        _users += 1
        if _users == 1:
            for owner, name, replacement in _replacements():
                own = vars(owner).get(name, _ABSENT)
                setattr(owner, name, replacement)
                _installed.append((owner, name, own, replacement))


def _leave() -> None:
    global _users  # noqa: PLW0603 - as above
    with _lock:
        _users -= 1
        if _users == 0:
            for owner, name, own, replacement in reversed(_installed):
                if vars(owner).get(name) is not replacement:
                    continue
                if own is _ABSENT:
                    delattr(owner, name)
                else:
                    setattr(owner, name, own)
            _installed.clear()


def _replacements() -> Iterator[tuple[Any, str, Any]]:
    for name in _SOCKET_CALLS:
        yield socket.socket, name, _blocking(getattr(socket.socket, name))
    for name in _TLS_CALLS:
        yield ssl.SSLSocket, name, _blocking(getattr(ssl.SSLSocket, name))
    for name in ("_real_close", "detach"):
        yield socket.socket, name, _closing(getattr(socket.socket, name))
    for name in _SELECTORS:
        if (selector := getattr(selectors, name, None)) is not None:
            yield selector, "select", _selecting(selector.select)
    yield select, "select", _select(select.select)
    yield threading.Condition, "wait", _waiting(threading.Condition.wait)
    yield threading.Thread, "join", _joining(threading.Thread.join)
    yield time, "sleep", _sleeping(time.sleep)
    yield socket, "getaddrinfo", _resolving(socket.getaddrinfo)
    yield subprocess.Popen, "_wait", _waiting_for_process(vars(subprocess.Popen)["_wait"])
    yield asyncio.BaseEventLoop, "run_forever", _running_forever(asyncio.BaseEventLoop.run_forever)
    yield logging.Handler, "handle", _logging(logging.Handler.handle)


# ---- sockets ---------------------------------------------------------------------------------------------------------


def _blocking(original: Callable[..., Any]) -> Callable[..., Any]:
    @wraps(original)
    def call(self: socket.socket, *args: Any, **kwargs: Any) -> Any:
        job = _job()
        # A non-blocking socket never waits, and is often shared: Trio's own wakeup pair is one.
        if job is None or self.gettimeout() == 0.0:
            return original(self, *args, **kwargs)
        job.enter(self)
        try:
            return original(self, *args, **kwargs)
        finally:
            job.leave(self)

    return call


def _closing(original: Callable[..., Any]) -> Callable[..., Any]:
    @wraps(original)
    def close(self: socket.socket, *args: Any, **kwargs: Any) -> Any:
        with descriptors:
            return original(self, *args, **kwargs)

    return close


def _resolving(original: Callable[..., Any]) -> Callable[..., Any]:
    @wraps(original)
    def getaddrinfo(host: Any, port: Any, *args: Any, **kwargs: Any) -> Any:
        job = _job()
        if job is None or _is_numeric(host):
            return original(host, port, *args, **kwargs)
        # The resolver cannot be woken, so it gets a thread that nobody has to wait for.
        answer: list[tuple[bool, Any]] = []
        waiter = allocate_lock()
        waiter.acquire()

        def resolve() -> None:
            try:
                answer.append((True, original(host, port, *args, **kwargs)))
            except BaseException as error:  # noqa: BLE001 - raised again in the thread that asked
                answer.append((False, error))
            with suppress(RuntimeError):  # the job was woken first
                waiter.release()

        start_new_thread(resolve, ())
        job.park(waiter, None)
        job.woken()
        succeeded, value = answer[0]
        if succeeded:
            return value
        raise value

    return getaddrinfo


def _is_numeric(host: Any) -> bool:
    if host is None or host in {"localhost", b"localhost", "", b""}:
        return True
    text = host.decode("ascii", "replace") if isinstance(host, (bytes, bytearray)) else str(host)
    return ":" in text or text.replace(".", "").isdigit()


# ---- waits -----------------------------------------------------------------------------------------------------------


def _waiting(original: Callable[..., Any]) -> Callable[..., Any]:
    """`Condition.wait`, and with it Event, Queue, Semaphore, Barrier and Future.

    As the original does it, with a lock of its own for each waiter. Whoever was notified returns normally even when the
    job is to end, so that no notification is lost; it stops at its next call.
    """

    @wraps(original)
    def wait(self: Any, timeout: float | None = None) -> Any:
        job = _job()
        if job is None or (timeout is not None and timeout <= 0):
            return original(self, timeout)
        if not self._is_owned():
            raise RuntimeError("cannot wait on un-acquired lock")
        waiter = allocate_lock()
        waiter.acquire()
        self._waiters.append(waiter)
        state = self._release_save()
        notified = True
        try:
            job.park(waiter, timeout)
        finally:
            self._acquire_restore(state)
            with suppress(ValueError):
                self._waiters.remove(waiter)
                notified = False
        if not notified:
            job.woken()
        return notified

    return wait


def _sleeping(original: Callable[..., Any]) -> Callable[..., Any]:
    @wraps(original)
    def sleep(seconds: float, /) -> None:
        job = _job()
        if job is None or not seconds > 0:
            original(seconds)
            return
        waiter = allocate_lock()
        waiter.acquire()
        job.park(waiter, seconds)
        job.woken()

    return sleep


def _in_steps(job: Job, wait: Callable[[float], Any], timeout: float | None, done: Callable[[Any], bool]) -> Any:
    """Wait in short steps, looking in between whether the job is to end."""
    end = None if timeout is None else time.monotonic() + timeout
    while True:
        job.woken()
        left = POLL if end is None else min(POLL, end - time.monotonic())
        result = wait(max(left, 0))
        if done(result) or (end is not None and time.monotonic() >= end):
            return result


def _joining(original: Callable[..., Any]) -> Callable[..., Any]:
    @wraps(original)
    def join(self: threading.Thread, timeout: float | None = None) -> None:
        job = _job()
        if job is None or (timeout is not None and timeout <= _SHORT):
            original(self, timeout)
        else:
            _in_steps(job, partial(original, self), timeout, lambda _: not self.is_alive())

    return join


def _selecting(original: Callable[..., Any]) -> Callable[..., Any]:
    @wraps(original)
    def select(self: Any, timeout: float | None = None) -> Any:
        job = _job()
        if job is None or _exempt.loops or (timeout is not None and timeout <= _SHORT):
            return original(self, timeout)
        return _in_steps(job, partial(original, self), timeout, bool)

    return select


def _select(original: Callable[..., Any]) -> Callable[..., Any]:
    @wraps(original)
    def select(rlist: Any, wlist: Any, xlist: Any, timeout: float | None = None, /) -> Any:
        job = _job()
        if job is None or _exempt.loops or (timeout is not None and timeout <= _SHORT):
            return original(rlist, wlist, xlist, timeout)
        return _in_steps(job, partial(original, rlist, wlist, xlist), timeout, any)

    return select


def _waiting_for_process(original: Callable[..., Any]) -> Callable[..., Any]:
    @wraps(original)
    def wait(self: subprocess.Popen[Any], timeout: float | None) -> Any:
        job = _job()
        if job is None or (timeout is not None and timeout <= _SHORT):
            return original(self, timeout)

        def step(seconds: float) -> Any:
            try:
                return original(self, seconds)
            except subprocess.TimeoutExpired:
                return None

        code = _in_steps(job, step, timeout, lambda code: code is not None)
        if code is None and timeout is not None:
            raise subprocess.TimeoutExpired(self.args, timeout)
        return code

    return wait


# ---- event loops, logging --------------------------------------------------------------------------------------------


def _running_forever(original: Callable[..., Any]) -> Callable[..., Any]:
    """An event loop inside a job has its tasks cancelled, from inside, in place of being torn out of its selector."""

    @wraps(original)
    def run_forever(self: asyncio.BaseEventLoop) -> None:
        job = _job()
        if job is None or job.cancelled:  # a loop that cleans up after its cancel may do so
            original(self)
            return
        take_back = job.on_cancel(partial(_cancel_tasks, self))
        _exempt.loops += 1
        try:
            original(self)
        finally:
            _exempt.loops -= 1
            take_back()

    return run_forever


def _cancel_tasks(loop: asyncio.BaseEventLoop) -> None:
    def cancel() -> None:
        for task in asyncio.all_tasks(loop):
            task.cancel()

    with suppress(RuntimeError):  # it has closed meanwhile
        loop.call_soon_threadsafe(cancel)


def _logging(original: Callable[..., Any]) -> Callable[..., Any]:
    """A log handler's socket is the process's: it is not broken because a trial ends while it logs."""

    @wraps(original)
    def handle(self: logging.Handler, record: logging.LogRecord) -> Any:
        _exempt.logging += 1
        try:
            return original(self, record)
        finally:
            _exempt.logging -= 1

    return handle
