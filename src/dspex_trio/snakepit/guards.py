"""A worker must not outlive its pool, nor leave anything behind: its process group, its parent, its own standstill."""

from __future__ import annotations

import ctypes
import logging
import os
import select
import signal
import stat
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Final

import trio

from dspex_trio.tasks.signals import end_by_force_after

logger: Final = logging.getLogger(__name__)

_PR_SET_PDEATHSIG: Final = 1  # linux/prctl.h
_PGRP_FIELD: Final = 2  # of /proc/PID/stat, counted from behind the name: proc(5)

REARM_SECONDS: Final = 1.0


def lead_group() -> None:
    """Lead a session and a process group of our own, which the pool can kill as one."""
    try:
        os.setsid()
    except PermissionError:
        logger.debug("this process leads a group already")  # as OTP 25 starts it


def end_with_parent(end: Callable[[], None]) -> None:
    """Have `end` called, as a signal handler, when the parent ends (Linux). Call it in the main thread, and early.

    Where nobody else takes SIGHUP, it is called for that too: so ends a worker whose terminal is gone.
    """
    if signal.getsignal(signal.SIGHUP) is signal.SIG_DFL:
        signal.signal(signal.SIGHUP, lambda _number, _frame: end())
    if not sys.platform.startswith("linux"):
        return
    parent = os.getppid()

    def ended(_number: int, _frame: object) -> None:
        # It comes, too, when only the thread ended that had started this process.
        if os.getppid() != parent:
            end()

    # A signal of its own: what comes from the parent's end must not count as a second one of somebody's.
    signal.signal(signal.SIGRTMIN, ended)
    if ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGRTMIN) != 0:
        logger.debug("prctl(PR_SET_PDEATHSIG): %s", os.strerror(ctypes.get_errno()))
    ended(0, None)  # it may have ended a moment ago


def may_outlive_parent() -> bool:
    """Whether whoever started this process wants it to go on without him: `nohup` has SIGHUP ignored."""
    return signal.getsignal(signal.SIGHUP) is signal.SIG_IGN


def stdin_is_held() -> bool:
    """Whether standard input is a pipe or a socket, whose end says that whoever holds the other side is gone."""
    try:
        mode = os.fstat(0).st_mode
    except OSError:
        return False
    return stat.S_ISFIFO(mode) or stat.S_ISSOCK(mode)


def stdin_has_ended() -> bool:
    """Whether nobody holds the other side of standard input already, and there is nothing in it."""
    asked = select.poll()
    asked.register(0, select.POLLIN)
    events = dict(asked.poll(0)).get(0, 0)
    return bool(events & select.POLLHUP) and not events & select.POLLIN


async def end_when_stuck(seconds: float, stopping: trio.Event, stacks_to: int = 2) -> None:
    """End the process, with every thread's stack on `stacks_to`, when this task does not run for so long.

    That is when somebody's C code holds the GIL and no signal, no end of standard input and no heartbeat can be
    noticed: a pool would have killed the worker by then, and where it has not, it is gone. Ends when `stopping` is set:
    the end has a bound of its own.
    """
    while not stopping.is_set():
        end_by_force_after(seconds, stacks_to)
        with trio.move_on_after(REARM_SECONDS):
            await stopping.wait()


def kill_group() -> None:
    """Kill what is left of the process group that this process leads: whatever programs have started (Linux)."""
    own = os.getpid()
    if os.getpgrp() != own:
        return
    for entry in Path("/proc").glob("[0-9]*/stat"):
        pid = int(entry.parent.name)
        try:
            behind_name = entry.read_text("utf-8", "replace").rpartition(")")[2].split()
            if pid != own and int(behind_name[_PGRP_FIELD]) == own:
                os.kill(pid, signal.SIGKILL)
        except (OSError, IndexError, ValueError):
            continue  # it has just ended
