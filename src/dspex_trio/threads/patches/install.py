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
from dspex_trio.threads.patches.registry import PACKAGE, Installed, InstalledPatch, Patch, PatchState, install

_SELECTORS: Final = ("SelectSelector", "_PollLikeSelector", "EpollSelector", "KqueueSelector")

_lock = threading.Lock()
_users = 0


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
            INSTALLED.install()
        _users += 1


def _leave() -> None:
    global _users  # noqa: PLW0603 - as above
    with _lock:
        _users -= 1
        if _users == 0:
            INSTALLED.take_back()


def replaced(owner: Any, name: str, replacement: Any) -> Callable[[], None]:
    """Put something in the place of an attribute; returns a way to take it back.

    If somebody has put something else there meanwhile, that stays, and calls ours. An attribute that is made when it is
    first asked for is not asked for.
    """
    made = install(Patch(owner, name, "", lambda _there: replacement))
    assert isinstance(made, InstalledPatch)  # noqa: S101 - it was not left as it is
    return made.take_back


def _reloading(original: Callable[[ModuleType], ModuleType]) -> Callable[[ModuleType], ModuleType]:
    """`importlib.reload`: a module that is executed anew has its own calls again, and these are replaced as before."""

    @wraps(original)
    def reload(module: ModuleType) -> ModuleType:
        reloaded = original(module)
        with _lock:
            if _users:
                for patch in list(_table()):
                    if patch.owner is module or getattr(patch.owner, "__module__", None) == module.__name__:
                        INSTALLED.add(patch)
        return reloaded

    return reload


_SOCKETS: Final = "a wait on a socket ends with its trial"
_NAMES: Final = "a name lookup cannot be woken, so it is left to a thread that nobody waits for"
_PROCESSES: Final = "a wait for a process ends with its trial, and so does the process"
_LOOPS: Final = "an event loop of a program's is ended from inside, by cancelling its tasks"
_POOLS: Final = "a wait for a connection ends with its trial, and the pool's count stays right"


def _table() -> Iterator[Patch]:
    for name in sockets.WAITING:
        yield Patch(socket.socket, name, _SOCKETS, sockets.blocking)
    for name in sockets.SENDING:
        yield Patch(socket.socket, name, _SOCKETS, sockets.sending)
    yield Patch(socket.socket, sockets.ACCEPTING, _SOCKETS, sockets.accepting)
    for name in sockets.TLS:
        yield Patch(ssl.SSLSocket, name, _SOCKETS, sockets.secured)
    for name in sockets.RESOLVING:
        yield Patch(socket, name, _NAMES, sockets.resolving)
    yield from _of_waits()
    if hasattr(select, "PIPE_BUF"):  # on Windows a pipe is nothing to select from
        reason = "processes that a program starts end with its trial, and waits at their pipes do"
        yield Patch(subprocess.Popen, "__init__", reason, subprocesses.starting)
        yield Patch(os, "system", "it waits in C, where nothing reaches it", subprocesses.running_a_shell)
    yield Patch(subprocess.Popen, "communicate", _PROCESSES, subprocesses.communicating)
    yield Patch(subprocess.Popen, "_wait", _PROCESSES, subprocesses.waiting_for_process)
    yield Patch(multiprocessing.popen_fork.Popen, "wait", _PROCESSES, subprocesses.waiting_for_worker)
    reason = "a wait for what a process sends ends with its trial"
    yield Patch(multiprocessing.connection.Connection, "_recv_bytes", reason, subprocesses.receiving)
    reason = "a pool that ends with its trial ends its processes to the last"
    yield Patch(multiprocessing.pool.Pool, "_terminate_pool", reason, subprocesses.finishing)
    yield Patch(asyncio.BaseEventLoop, "run_forever", _LOOPS, loops.running_a_loop)
    yield Patch(trio, "run", _LOOPS, loops.running_trio)
    yield Patch(
        trio.from_thread, "run", "what a thread waits for in a Trio loop is cancelled there", loops.calling_trio
    )
    yield Patch(importlib, "reload", "a module that is reloaded is changed as before", _reloading)
    reason = "a log handler's socket is not broken by a trial's end, and its errors end no thread of ours"
    yield Patch(logging.Handler, "handle", reason, waits.logging_)
    yield Patch(HTTPConnectionPool, "_get_conn", _POOLS, pools.lending)
    yield Patch(HTTPConnectionPool, "_put_conn", _POOLS, pools.taking_back)


def _of_waits() -> Iterator[Patch]:
    selecting = "a wait for files and sockets ends with its trial"
    for name in _SELECTORS:
        if (selector := getattr(selectors, name, None)) is not None:
            yield Patch(selector, "select", selecting, waits.selecting)
    yield Patch(select, "select", selecting, waits.select_call)
    if hasattr(select, "poll"):
        yield Patch(select, "poll", selecting, waits.polling)
    reason = "a wait for a lock, an event, a queue or a future ends with its trial"
    yield Patch(threading.Condition, "wait", reason, waits.conditions)
    yield Patch(
        threading.Thread, "start", "a thread that is being started is not lost at its trial's end", waits.starting
    )
    yield Patch(threading.Thread, "join", "a wait for a thread ends with its trial", waits.joining)
    yield Patch(time, "sleep", "a sleep ends with its trial", waits.sleeping)
    if hasattr(signal, "sigtimedwait"):  # not on macOS, nor Windows
        for name in ("sigwait", "sigwaitinfo"):
            yield Patch(signal, name, "it waits in C, where nothing reaches it", waits.awaiting_signals)


INSTALLED: Final = Installed(_table)
"""The changes that `hooks` makes."""


def patches() -> list[PatchState]:
    """What this package changes in the process, with what has become of each."""
    return [*cancelled.hook_states(), *INSTALLED.states(PACKAGE)]
