"""The last rung inside the process: an asynchronous exception into a thread that runs Python and never asks.

`PyThreadState_SetAsyncExc` has the interpreter raise at the thread's next bytecode. That is safe only where the
program's own code runs, and only while the job that is meant is still the thread's.
"""

from __future__ import annotations

import ctypes
import importlib
import logging
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from types import CodeType, FrameType
from typing import Final

from dspex_trio.threads.job import Job, JobCancelled

# Two prototypes of one function: with an exception type it raises, with NULL it takes back what is pending.
_WHERE: Final = ("PyThreadState_SetAsyncExc", ctypes.pythonapi)
_raise: Final = ctypes.PYFUNCTYPE(ctypes.c_int, ctypes.c_ulong, ctypes.py_object)(_WHERE)
_clear: Final = ctypes.PYFUNCTYPE(ctypes.c_int, ctypes.c_ulong, ctypes.c_void_p)(_WHERE)

_OURS: Final = str(Path(__file__).resolve().parent.parent)
_GUARDED: Final = ("<frozen importlib", importlib.__file__ or "<none>", str(Path(logging.__file__).parent), _OURS)
# Every thread that Python starts stands on these.
_THREAD_BASE: Final = frozenset({"_bootstrap", "_bootstrap_inner", "run"})

_carriers: set[CodeType] = set()


_frame_lookups: list[Callable[[FrameType], object]] = []


def add_frame_lookup(lookup: Callable[[FrameType], object]) -> Callable[[], None]:
    """Ask `lookup` for the job that a frame on the stack of a thread of some library works for; None for none.

    Returns a way to take it back.
    """
    _frame_lookups.append(lookup)
    return lambda: _frame_lookups.remove(lookup)


def threads_of(job: Job) -> list[int]:
    """The threads, beside the one that `Threads.run` started, that work for the job at this moment."""
    found = []
    for ident, top in sys._current_frames().items():  # noqa: SLF001 - the documented way to see a stack
        frame: FrameType | None = top
        while frame is not None:
            if any(lookup(frame) is job for lookup in _frame_lookups):
                found.append(ident)
                break
            frame = frame.f_back
    return found


def carries_programs(function: Callable[..., object]) -> None:
    """Declare a function of ours that stays on the stack while a program runs, and bears being left at any point."""
    _carriers.add(function.__code__)


def may_raise_in(ident: int) -> bool:
    """Whether the thread's stack shows nothing that an exception from outside could leave half-done.

    That is: import machinery, logging, the threading module's own code, and ours (but for what carries programs).
    """
    frame: FrameType | None = sys._current_frames().get(ident)  # noqa: SLF001 - the documented way to see a stack
    if frame is None:
        return False
    while frame is not None:
        code = frame.f_code
        if code.co_filename.startswith(_GUARDED) and code not in _carriers:
            return False
        if code.co_filename == threading.__file__ and code.co_name not in _THREAD_BASE:
            return False
        frame = frame.f_back
    return True


def raise_in(ident: int) -> bool:
    """Raise JobCancelled in the thread, at its next bytecode; False if there is no such thread."""
    return bool(_raise(ident, JobCancelled))


def take_back(ident: int) -> None:
    """Remove an exception that was not delivered; in the thread itself, before its next job."""
    _clear(ident, None)
