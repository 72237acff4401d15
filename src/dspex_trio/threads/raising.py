"""The last rung inside the process: an asynchronous exception into a thread that runs Python and never asks.

`PyThreadState_SetAsyncExc` has the interpreter raise at the thread's next bytecode. That is safe only where a program's
own code runs, and only if the thread is still there when it is raised. So the thread's stack is looked at first, and
what follows (is the thread still at that very instruction? then raise) is one call into C without a bytecode in
between: the GIL is not given up, and the thread cannot move. It then raises where it was seen, or where the C call
that it is in returns to.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import ctypes
import importlib
import logging
import operator
import os
import queue
import selectors
import socket
import ssl
import sys
import threading
import weakref
from collections.abc import Callable
from itertools import compress
from pathlib import Path
from types import CodeType, FrameType, ModuleType
from typing import Final

from dspex_trio.threads.job import Job, JobCancelled

# Two prototypes of one function: with an exception type it raises, with NULL it takes back what is pending.
_WHERE: Final = ("PyThreadState_SetAsyncExc", ctypes.pythonapi)
_raise: Final = ctypes.PYFUNCTYPE(ctypes.c_int, ctypes.c_ulong, ctypes.py_object)(_WHERE)
_clear: Final = ctypes.PYFUNCTYPE(ctypes.c_int, ctypes.c_ulong, ctypes.c_void_p)(_WHERE)

# The GIL is what makes looking and raising one step.
POSSIBLE: Final[bool] = getattr(sys, "_is_gil_enabled", lambda: True)()

_position: Final = operator.attrgetter("f_code", "f_lasti", "f_back")


def _home(module: ModuleType) -> str:
    path = Path(module.__file__ or "<built in>")
    return str(path.parent) if path.name == "__init__.py" else str(path)


_OURS: Final = str(Path(__file__).resolve().parent.parent) + os.sep
# Code that keeps state which outlives the program: locks, registries, queues, pools, half-made modules.
_whole: list[str] = [
    "<frozen importlib",
    "<frozen zipimport",
    *map(_home, (importlib, logging, threading, queue, weakref, selectors, socket, ssl)),
    *map(_home, (asyncio, concurrent.futures)),
]
# What every thread, thread pool and event loop stands on while a program's code runs on top of it.
_BASES: Final = {
    threading.__file__: frozenset({"_bootstrap", "_bootstrap_inner", "run"}),
    str(Path(_home(concurrent.futures)) / "thread.py"): frozenset({"_worker", "run"}),
    str(Path(_home(asyncio)) / "runners.py"): frozenset({"run"}),
    str(Path(_home(asyncio)) / "base_events.py"): frozenset({"run_until_complete", "run_forever", "_run_once"}),
    str(Path(_home(asyncio)) / "events.py"): frozenset({"_run"}),
}
_carriers: set[CodeType] = set()
_frame_lookups: list[Callable[[FrameType], object]] = []


def keep_whole(prefix: str) -> None:
    """Never raise while a frame of a file whose path begins with `prefix` is on the stack, as in a connection pool."""
    _whole.append(prefix)


def carries_programs(function: Callable[..., object]) -> None:
    """Declare a function of ours that stays on the stack while a program runs.

    An exception from outside leaves it only where it calls the program; its own bytecode is never interrupted.
    """
    _carriers.add(function.__code__)


def add_frame_lookup(lookup: Callable[[FrameType], object]) -> Callable[[], None]:
    """Ask `lookup` for the job that a frame on the stack of a thread of some library works for; None for none.

    Returns a way to take it back.
    """
    _frame_lookups.append(lookup)
    return lambda: _frame_lookups.remove(lookup)


def threads_of(job: Job) -> list[int]:
    """The threads, beside the one that `Threads.run` started, that work for the job at this moment."""
    if not _frame_lookups:
        return []
    found = []
    for ident, top in sys._current_frames().items():  # noqa: SLF001 - the documented way to see a stack
        frame: FrameType | None = top
        while frame is not None:
            if any(lookup(frame) is job for lookup in _frame_lookups):
                found.append(ident)
                break
            frame = frame.f_back
    return found


def raise_in(ident: int) -> bool:
    """Raise JobCancelled in the thread, if its stack shows nothing that this could leave half-done; whether it did."""
    top = sys._current_frames().get(ident) if POSSIBLE else None  # noqa: SLF001 - the documented way to see a stack
    if top is None:
        return False
    where = _position(top)
    if not bears_an_exception(top):
        return False
    frames = map(operator.call, (sys._current_frames,))  # noqa: SLF001 - as above
    still_there = map(operator.eq, map(_position, map(operator.methodcaller("get", ident), frames)), (where,))
    try:
        # One call into C from here to the exception: see the module's docstring.
        return bool(next(map(_raise, compress((ident,), still_there), (JobCancelled,)), 0))
    except AttributeError:  # the thread has ended: there is no frame
        return False


def bears_an_exception(top: FrameType) -> bool:
    """Whether a stack shows nothing that an exception from outside could leave half-done.

    That is: import machinery, logging, the standard library's locks, queues and pools, files named by `keep_whole`, and
    our own code, but for what carries programs and is waiting for them.
    """
    if top.f_code.co_filename.startswith(_OURS):
        return False
    whole = tuple(_whole)
    frame: FrameType | None = top
    while frame is not None:
        code = frame.f_code
        if code.co_filename.startswith(_OURS):
            if code not in _carriers:
                return False
        elif code.co_filename.startswith(whole) and code.co_name not in _BASES.get(code.co_filename, ()):
            return False
        frame = frame.f_back
    return True


def take_back(ident: int) -> None:
    """Remove an exception that was not delivered; in the thread itself, before its next job."""
    _clear(ident, None)
