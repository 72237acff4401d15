"""Patches of Python's own blocking calls: a job's threads can be woken out of them, whichever library calls them.

One set of patches below every library (requests, httpx, urllib, DSPy's native stack, litellm, a user's own tool) in
place of a hook for each. Outside of jobs calls pass through. Hooks are installed while a runtime is open, counted
over runtimes, and taken back where they are still ours; where other code patched over them they stay and pass
everything on.
"""

from __future__ import annotations

import asyncio
import importlib
import logging
import multiprocessing.connection
import multiprocessing.pool
import multiprocessing.popen_fork
import os
import select
import selectors
import signal
import socket
import ssl
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from types import ModuleType
from typing import Any, Final

import trio
from urllib3.connectionpool import HTTPConnectionPool

from dspex_trio.threads.patches import connection_pools as pools
from dspex_trio.threads.patches import event_loops as loops
from dspex_trio.threads.patches import excepthooks as cancelled
from dspex_trio.threads.patches import sockets, subprocesses, waits

_SELECTORS: Final = ("SelectSelector", "_PollLikeSelector", "EpollSelector", "KqueueSelector")

_lock = threading.Lock()
_users = 0
_take_back: list[Callable[[], None]] = []
_ABSENT: Final = object()


@contextmanager
def hooks() -> Iterator[None]:
    """Keep the patches installed, as open threads do; for code that imports modules which bind the calls by name."""
    with cancelled.quiet():
        _enter()
        try:
            yield
        finally:
            _leave()


def _enter() -> None:
    global _users  # noqa: PLW0603 - the classes that are changed are the process's, and so is the count
    with _lock:
        if _users == 0:
            _take_back.extend(replaced(*each) for each in list(_replacements()))
        _users += 1


def _leave() -> None:
    global _users  # noqa: PLW0603 - as above
    with _lock:
        _users -= 1
        if _users == 0:
            while _take_back:
                _take_back.pop()()


def replaced(owner: Any, name: str, replacement: Any) -> Callable[[], None]:
    """Put something in the place of an attribute; returns a way to take it back.

    If somebody has put something else there meanwhile, that stays, and calls ours. An attribute that is made when it is
    first asked for is not asked for.
    """
    own = vars(owner).get(name, _ABSENT)
    setattr(owner, name, replacement)

    def take_back() -> None:
        if vars(owner).get(name) is not replacement:
            return
        if own is _ABSENT:
            delattr(owner, name)
        else:
            setattr(owner, name, own)

    return take_back


def _reloading(original: Callable[[ModuleType], ModuleType]) -> Callable[[ModuleType], ModuleType]:
    """`importlib.reload`: a module that is executed anew has its own calls again, and these are replaced as before."""

    @wraps(original)
    def reload(module: ModuleType) -> ModuleType:
        reloaded = original(module)
        with _lock:
            if _users:
                for owner, name, replacement in list(_replacements()):
                    if owner is module or getattr(owner, "__module__", None) == module.__name__:
                        _take_back.append(replaced(owner, name, replacement))
        return reloaded

    return reload


def _replacements() -> Iterator[tuple[Any, str, Any]]:
    for name in sockets.WAITING:
        yield socket.socket, name, sockets.blocking(getattr(socket.socket, name))
    for name in sockets.SENDING:
        yield socket.socket, name, sockets.sending(getattr(socket.socket, name))
    accept = getattr(socket.socket, sockets.ACCEPTING)
    yield socket.socket, sockets.ACCEPTING, sockets.accepting(accept)
    for name in sockets.TLS:
        yield ssl.SSLSocket, name, sockets.secured(getattr(ssl.SSLSocket, name))
    for name in sockets.RESOLVING:
        yield socket, name, sockets.resolving(getattr(socket, name))
    yield from _of_waits()
    if hasattr(select, "PIPE_BUF"):  # on Windows a pipe is nothing to select from
        yield subprocess.Popen, "__init__", subprocesses.starting(subprocess.Popen.__init__)
        yield os, "system", subprocesses.running_a_shell(os.system)
    yield subprocess.Popen, "communicate", subprocesses.communicating(subprocess.Popen.communicate)
    yield subprocess.Popen, "_wait", subprocesses.waiting_for_process(vars(subprocess.Popen)["_wait"])
    yield (
        multiprocessing.popen_fork.Popen,
        "wait",
        subprocesses.waiting_for_worker(multiprocessing.popen_fork.Popen.wait),
    )
    receive = vars(multiprocessing.connection.Connection)["_recv_bytes"]
    yield multiprocessing.connection.Connection, "_recv_bytes", subprocesses.receiving(receive)
    terminate = vars(multiprocessing.pool.Pool)["_terminate_pool"]
    yield multiprocessing.pool.Pool, "_terminate_pool", subprocesses.finishing(terminate)
    yield asyncio.BaseEventLoop, "run_forever", loops.running_a_loop(asyncio.BaseEventLoop.run_forever)
    yield trio, "run", loops.running_trio(trio.run)
    yield trio.from_thread, "run", loops.calling_trio(trio.from_thread.run)
    yield importlib, "reload", _reloading(importlib.reload)
    yield logging.Handler, "handle", waits.logging_(logging.Handler.handle)
    yield HTTPConnectionPool, "_get_conn", pools.lending(vars(HTTPConnectionPool)["_get_conn"])
    yield HTTPConnectionPool, "_put_conn", pools.taking_back(vars(HTTPConnectionPool)["_put_conn"])


def _of_waits() -> Iterator[tuple[Any, str, Any]]:
    for name in _SELECTORS:
        if (selector := getattr(selectors, name, None)) is not None:
            yield selector, "select", waits.selecting(selector.select)
    yield select, "select", waits.select_call(select.select)
    if hasattr(select, "poll"):
        yield select, "poll", waits.polling(select.poll)
    yield threading.Condition, "wait", waits.conditions(threading.Condition.wait)
    yield threading.Thread, "start", waits.starting(threading.Thread.start)
    yield threading.Thread, "join", waits.joining(threading.Thread.join)
    yield time, "sleep", waits.sleeping(time.sleep)
    if hasattr(signal, "sigtimedwait"):  # not on macOS, nor Windows
        for name in ("sigwait", "sigwaitinfo"):
            yield signal, name, waits.awaiting_signals(getattr(signal, name))
