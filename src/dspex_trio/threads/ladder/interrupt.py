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
import gc
import importlib
import importlib.util
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
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from itertools import compress
from pathlib import Path
from types import CodeType, FrameType, ModuleType
from typing import Final, TypeVar

import trio

from dspex_trio.threads.ladder.job import Job
from dspex_trio.threads.patches.excepthooks import JobCancelled

KeyT = TypeVar("KeyT")

_raise: Final = ctypes.PYFUNCTYPE(ctypes.c_int, ctypes.c_ulong, ctypes.py_object)(
    ("PyThreadState_SetAsyncExc", ctypes.pythonapi)
)

# Whether it was on is told by the same step that switches it off.
_collect_no_more: Final = ctypes.PYFUNCTYPE(ctypes.c_int)(("PyGC_Disable", ctypes.pythonapi))
_one_looks: Final = threading.RLock()

# The GIL is what makes looking and raising one step.
POSSIBLE: Final[bool] = getattr(sys, "_is_gil_enabled", lambda: True)()

_position: Final = operator.attrgetter("f_code", "f_lasti", "f_back")


def _home(module: ModuleType) -> str:
    path = Path(module.__file__ or "<built in>")
    return str(path.parent) if path.name == "__init__.py" else str(path)


_OURS: Final = str(Path(__file__).resolve().parent.parent) + os.sep
# Code that keeps state which outlives the program: locks, registries, queues, pools, half-made modules.
_WHOLE: Final = (
    "<frozen importlib",
    "<frozen zipimport",
    *map(_home, (importlib, logging, threading, queue, weakref, selectors, socket, ssl)),
    *map(_home, (asyncio, concurrent.futures, trio)),
)
_kept_whole: Counter[str] = Counter()
# What threads, thread pools and event loops stand on while a program's code runs on top of it; not by themselves.
_BASES: Final = {
    threading.__file__: frozenset({"_bootstrap", "_bootstrap_inner", "run"}),
    str(Path(_home(concurrent.futures)) / "thread.py"): frozenset({"_worker", "run"}),
    str(Path(_home(asyncio)) / "runners.py"): frozenset({"run"}),
    str(Path(_home(asyncio)) / "base_events.py"): frozenset({"run_until_complete", "run_forever", "_run_once"}),
    str(Path(_home(asyncio)) / "events.py"): frozenset({"_run"}),
    str(Path(_home(trio)) / "_core" / "_run.py"): frozenset({"run", "unrolled_run"}),
    str(Path(_home(trio)) / "_core" / "_thread_cache.py"): frozenset({"_work", "_handle_job"}),
}
_carriers: set[CodeType] = set()  # of ours for good
_carriers_now: Counter[CodeType] = Counter()
_passing: set[CodeType] = set()
_frame_lookups: list[Callable[[FrameType], object]] = []


@contextmanager
def keep_whole(*names: str) -> Iterator[None]:
    """Meanwhile, never raise while code of these modules or packages is on the stack; absent ones do not matter.

    For code that lends out what many jobs share, as a connection pool: left halfway, a connection is lost to all.
    """
    places = Counter(whole for name in names if (whole := _place(name)) is not None)
    _kept_whole.update(places)
    try:
        yield
    finally:
        _take_off(_kept_whole, places)


def _place(name: str) -> str | None:
    """The file of a module, or the folder of a package."""
    try:
        spec = importlib.util.find_spec(name)
    except ModuleNotFoundError:  # nor is its parent there
        return None
    if spec is None or spec.origin is None:
        return None
    return str(Path(spec.origin).parent) + os.sep if spec.submodule_search_locations else spec.origin


def _take_off(counted: Counter[KeyT], given: Mapping[KeyT, int]) -> None:
    counted.subtract(given)
    for key in given:
        if not counted[key]:
            del counted[key]


def lends(top: FrameType) -> bool:
    """Whether code that `keep_whole` names is on a stack."""
    lenders = tuple(_kept_whole)
    frame: FrameType | None = top
    while frame is not None:
        code = frame.f_code
        if code.co_filename.startswith(lenders) and code.co_name not in _BASES.get(code.co_filename, ()):
            return True
        frame = frame.f_back
    return False


def carries_programs(function: Callable[..., object]) -> None:
    """Declare a function of ours that stays on the stack while a program runs.

    An exception from outside leaves it only where it calls the program; its own bytecode is never interrupted.
    """
    _carriers.add(function.__code__)


@contextmanager
def carrying_programs(*functions: Callable[..., object]) -> Iterator[None]:
    """Meanwhile, take these functions for ones that `carries_programs` declares."""
    codes = Counter(function.__code__ for function in functions)
    _carriers_now.update(codes)
    try:
        yield
    finally:
        _take_off(_carriers_now, codes)


def passes_on(function: Callable[..., object]) -> None:
    """Declare a function of ours that passes a call on and keeps nothing, so that it may be left at any point."""
    _passing.add(function.__code__)


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
    with frames_kept():
        stacks = sys._current_frames()  # noqa: SLF001 - the documented way to see a stack
        return [ident for ident, top in stacks.items() if _works_for(job, top)]


@contextmanager
def frames_kept() -> Iterator[None]:
    """Hold the garbage collector off while frames of other threads are looked at.

    CPython 3.11 makes a frame's object when it is asked for, which may collect; a finalizer then lets the other thread
    run, which leaves the frame in the middle of that: what is read is freed memory, and `sys._current_frames`, which
    holds a lock meanwhile, may never return (gh-106883). Since 3.12 making an object does not collect.
    """
    with _one_looks:
        enabled = _collect_no_more()
        try:
            yield
        finally:
            if enabled:
                gc.enable()


def _works_for(job: Job, top: FrameType) -> bool:
    frame: FrameType | None = top
    while isinstance(frame, FrameType):  # what else it could be without `frames_kept`, nobody knows
        if any(lookup(frame) is job for lookup in _frame_lookups):
            return True
        frame = frame.f_back
    return False


def raise_in(ident: int, *, if_for: Job | None = None) -> bool:
    """Raise JobCancelled in the thread, if its stack shows nothing that this could leave half-done; whether it did.

    With `if_for`, only if one of its frames works for that job: a library's thread goes on to other jobs when it likes,
    and the number of one that has ended is the next one's.
    """
    with frames_kept():
        top = sys._current_frames().get(ident) if POSSIBLE else None  # noqa: SLF001 - the documented way to see a stack
        if top is None:
            return False
        where = _position(top)
        if not bears_an_exception(top) or (if_for is not None and not _works_for(if_for, top)):
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

    That is: import machinery, logging, the standard library's locks, queues and pools, what `keep_whole` names, and our
    own code, but for what carries programs and is waiting for them, and what passes their calls on.
    """
    if top.f_code.co_filename.startswith(_OURS) and top.f_code not in _passing:
        return False
    whole = (*_WHOLE, *_kept_whole)
    frame: FrameType | None = top
    while isinstance(frame, FrameType):  # as in _works_for
        code = frame.f_code
        if code.co_filename.startswith(_OURS):
            if code not in _carriers and code not in _carriers_now and code not in _passing:
                return False
        elif code.co_filename.startswith(whole) and (
            frame is top or code.co_name not in _BASES.get(code.co_filename, ())
        ):
            return False
        frame = frame.f_back
    return frame is None


def take_back(ident: int) -> None:
    """Take delivery of an exception that is still on its way; in the thread itself, before its next job.

    It is not cleared by raising NULL: up to CPython 3.12 that puts up the flag "an exception waits somewhere" and only
    a delivery takes it down, and in 3.11 a traced or profiled function does not begin while it is up.
    """
    try:
        _raise(ident, JobCancelled)  # in the place of the one that waits
        while True:
            pass
    except JobCancelled:
        return
