"""The ladder's last step inside the process: an asynchronous exception for a thread that runs Python and never checks.

`PyThreadState_SetAsyncExc` has the interpreter raise at the thread's next bytecode. That is safe only where a program's
own code runs, and only if the thread is still there when it is raised. So the thread's stack is inspected first.
The next step (if the thread is still at that very instruction, raise) is one call into C without a bytecode in between:
the GIL is not released, and the thread cannot move. The exception is raised at the inspected instruction, or where the
C call that the thread is in returns.
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

# Switches the collector off and returns whether it was on, in one step.
_disable_collector: Final = ctypes.PYFUNCTYPE(ctypes.c_int)(("PyGC_Disable", ctypes.pythonapi))
_reading_frames: Final = threading.RLock()

# The GIL is what makes looking and raising one step.
POSSIBLE: Final[bool] = getattr(sys, "_is_gil_enabled", lambda: True)()

_position: Final = operator.attrgetter("f_code", "f_lasti", "f_back")


def _home(module: ModuleType) -> str:
    path = Path(module.__file__ or "<built in>")
    return str(path.parent) if path.name == "__init__.py" else str(path)


_OURS: Final = str(Path(__file__).resolve().parent.parent) + os.sep
# Code that keeps state which outlives the program: locks, registries, queues, pools, half-made modules.
_STATEFUL: Final = (
    "<frozen importlib",
    "<frozen zipimport",
    *map(_home, (importlib, logging, threading, queue, weakref, selectors, socket, ssl)),
    *map(_home, (asyncio, concurrent.futures, trio)),
)
_never_interrupted: Counter[str] = Counter()
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
_interruptible: set[CodeType] = set()  # of ours for good
_interruptible_now: Counter[CodeType] = Counter()
_passing: set[CodeType] = set()
_frame_lookups: list[Callable[[FrameType], object]] = []


@contextmanager
def never_interrupt(*names: str) -> Iterator[None]:
    """Meanwhile, never raise while code of these modules or packages is on the stack; absent ones do not matter.

    For connection pools and other code that manages what many jobs share: interrupted halfway, a connection is lost.
    """
    places = Counter(whole for name in names if (whole := _place(name)) is not None)
    _never_interrupted.update(places)
    try:
        yield
    finally:
        _take_off(_never_interrupted, places)


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


def inside_pool(top: FrameType) -> bool:
    """Whether code of a module that `never_interrupt` names is on a stack."""
    modules = tuple(_never_interrupted)
    frame: FrameType | None = top
    while frame is not None:
        code = frame.f_code
        if code.co_filename.startswith(modules) and code.co_name not in _BASES.get(code.co_filename, ()):
            return True
        frame = frame.f_back
    return False


def allow_interrupts_in(function: Callable[..., object]) -> None:
    """Declare a function of ours that stays on the stack while a program runs.

    A job is interrupted only while the function waits for the program; its own bytecode is never interrupted.
    """
    _interruptible.add(function.__code__)


@contextmanager
def allowing_interrupts_in(*functions: Callable[..., object]) -> Iterator[None]:
    """Meanwhile, take these functions for ones that `allow_interrupts_in` declares."""
    codes = Counter(function.__code__ for function in functions)
    _interruptible_now.update(codes)
    try:
        yield
    finally:
        _take_off(_interruptible_now, codes)


def passes_on(function: Callable[..., object]) -> None:
    """Declare a function of ours that only forwards a call and keeps no state: it may be interrupted anywhere."""
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
    """Switch the garbage collector off while frames of other threads are read.

    CPython 3.11 makes a frame's object when it is asked for, which may collect; a finalizer then lets the other thread
    run, which leaves the frame half-made: what is read is freed memory, and `sys._current_frames`, which
    holds a lock meanwhile, may never return (gh-106883). Since 3.12 making an object does not collect.
    """
    with _reading_frames:
        enabled = _disable_collector()
        try:
            yield
        finally:
            if enabled:
                gc.enable()


def _works_for(job: Job, top: FrameType) -> bool:
    frame: FrameType | None = top
    while isinstance(frame, FrameType):  # without `frames_kept` it may be freed memory: see there
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
        if not is_interruptible(top) or (if_for is not None and not _works_for(if_for, top)):
            return False
        frames = map(operator.call, (sys._current_frames,))  # noqa: SLF001 - as above
        still_there = map(operator.eq, map(_position, map(operator.methodcaller("get", ident), frames)), (where,))
        try:
            # One call into C from here to the exception: see the module's docstring.
            return bool(next(map(_raise, compress((ident,), still_there), (JobCancelled,)), 0))
        except AttributeError:  # the thread has ended: there is no frame
            return False


def is_interruptible(top: FrameType) -> bool:
    """Whether a stack shows nothing that an exception from outside could leave half-done.

    Never interrupted: import machinery, logging, the standard library's locks, queues and pools, the modules of
    `never_interrupt`, and our own code, except functions of `allow_interrupts_in` that wait for a program, and those of
    `passes_on`.
    """
    if top.f_code.co_filename.startswith(_OURS) and top.f_code not in _passing:
        return False
    whole = (*_STATEFUL, *_never_interrupted)
    frame: FrameType | None = top
    while isinstance(frame, FrameType):  # as in _works_for
        code = frame.f_code
        if code.co_filename.startswith(_OURS):
            if code not in _interruptible and code not in _interruptible_now and code not in _passing:
                return False
        elif code.co_filename.startswith(whole) and (
            frame is top or code.co_name not in _BASES.get(code.co_filename, ())
        ):
            return False
        frame = frame.f_back
    return frame is None


def take_back(ident: int) -> None:
    """Receive an exception that is still pending; called in the thread itself, before its next job.

    It is not cleared by raising NULL: up to CPython 3.12 that puts up the flag "an exception waits somewhere" and only
    a delivery takes it down, and in 3.11 a traced or profiled function does not begin while it is up.
    """
    try:
        _raise(ident, JobCancelled)  # replaces the pending one
        while True:
            pass
    except JobCancelled:
        return
