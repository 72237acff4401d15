"""A guard against leaks: threads, tasks, sockets and whatever else can be counted that a block leaves behind."""

from __future__ import annotations

import socket
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final
from weakref import WeakKeyDictionary

import trio

from dspex_trio.testing.time.clock import VirtualClock
from dspex_trio.testing.time.looking import stack, tasks, where_it_waits

_SLICE: Final = 0.01


class Leaked(AssertionError):
    """Something was left behind; the text names each thing, and where it was made or is now."""


@contextmanager
def no_leaks(*, grace: float = 1.0, **counters: Callable[[], int]) -> Iterator[None]:
    """Assert that the block leaves no thread, socket or (inside Trio) task behind that was not there before.

    Idle threads of Trio's cache, which end by themselves, are none. Nothing is asserted when the block raises. One
    block at a time: what other threads of the process make meanwhile counts too.

    Args:
        grace: Real seconds in which threads that are about to end may do so; Trio's loop stands still meanwhile.
        counters: Name → a function that counts something else, such as sessions or slots in use; it may not have grown.

    Raises:
        Leaked: Something was left behind.
    """
    threads_before = set(threading.enumerate())
    tasks_before = set(tasks())
    counted_before = {name: count() for name, count in counters.items()}
    with _made(threading.Thread, "start") as threads, _made(socket.socket, "__init__") as sockets:
        yield
    found = [
        *(_thread(one, threads.get(one, "")) for one in _threads(threads_before, grace)),
        *(f"task {one.name!r}, which is at:\n{where_it_waits(one)}" for one in tasks() if one not in tasks_before),
        *(f"socket {one!r}, made at:\n{made}" for one, made in list(sockets.items()) if one.fileno() != -1),
    ]
    for name, before in counted_before.items():
        if (now := counters[name]()) > before:
            found.append(f"{name}: {now}, and {before} before\n")
    if found:
        raise Leaked("\n".join(["left behind:", *found]).rstrip())


@contextmanager
def _made(cls: type[Any], method: str) -> Iterator[WeakKeyDictionary[Any, str]]:
    """Object → the stack on which this method of it was called first, while the block runs."""
    stacks: WeakKeyDictionary[Any, str] = WeakKeyDictionary()
    original = getattr(cls, method)

    def noting(self: Any, *args: Any, **kwargs: Any) -> Any:
        result = original(self, *args, **kwargs)
        stacks.setdefault(self, stack(sys._getframe(1)))  # noqa: SLF001 - the only way without reading source files
        return result

    setattr(cls, method, noting)
    try:
        yield stacks
    finally:
        if getattr(cls, method) is noting:  # else somebody has wrapped it in turn, and calls the original through it
            setattr(cls, method, original)


def _threads(before: set[threading.Thread], grace: float) -> list[threading.Thread]:
    """The new ones that still work after so many seconds."""
    if trio.lowlevel.in_trio_run() and isinstance(clock := trio.lowlevel.current_clock(), VirtualClock):
        clock.let_threads_run()
    for _ in range(int(grace / _SLICE)):
        working = [one for one in threading.enumerate() if one not in before and not _is_idle(one)]
        if not working:
            return []
        working[0].join(_SLICE)
    return [one for one in threading.enumerate() if one not in before and not _is_idle(one)]


def _is_idle(thread: threading.Thread) -> bool:
    """Whether it waits in Trio's cache for something to do."""
    frame = _frame(thread)
    return (
        frame is not None and frame.f_code.co_name == "_work" and Path(frame.f_code.co_filename).stem == "_thread_cache"
    )


def _frame(thread: threading.Thread) -> Any:
    return sys._current_frames().get(thread.ident or 0)  # noqa: SLF001 - its documented name


def _thread(thread: threading.Thread, made: str) -> str:
    frame = _frame(thread)
    now = "" if frame is None else stack(frame)
    return f"thread {thread.name!r}, which is at:\n{now}" + (f"started at:\n{made}" if made else "")
