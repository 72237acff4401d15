"""JobCancelled, and the hooks that keep it off standard error where it leaves a library's thread, task or finaliser.

The hooks stay as long as a runtime is open, and as long as one JobCancelled is alive: a library's thread may go on for
a while after the runtime has closed, and still ends with ours. When the last one is gone they are taken back.
"""

from __future__ import annotations

import asyncio
import sys
import threading
import weakref
from _thread import allocate_lock
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from typing import Any, Final

from dspex_trio.threads.patches.registry import PACKAGE, Patch, PatchState, State


class JobCancelled(BaseException):
    """Ends a job's code; no `except Exception` of a program's keeps it. Never leaves `Threads.run`."""

    rung = "raise"  # the interpreter makes those that are raised from outside, without arguments
    lent_nothing_by: object = None  # the pool that it left without a connection

    def __init__(self) -> None:
        super().__init__()
        _holders.add(weakref.ref(self, _let_go))
        _settle()


@contextmanager
def quiet() -> Iterator[None]:
    """Keep the hooks installed, as an open runtime does."""
    holder = object()
    _holders.add(holder)
    _settle()
    try:
        yield
    finally:
        _let_go(holder)


class _Hook:
    """One function that shows exceptions to the user, and the one that we put in its place."""

    def __init__(
        self, owner: Any, name: str, quieter: Callable[[Callable[..., object]], Callable[..., object]]
    ) -> None:
        self._owner = owner
        self._name = name
        self._quieter = quieter
        self._ours: object = None
        self._original: object = None

    def in_place(self) -> bool:
        """Whether ours is there; where somebody has put theirs over it, it stays below and is not counted."""
        return self._ours is not None and vars(self._owner)[self._name] is self._ours

    def state(self) -> PatchState:
        """What has become of it."""
        patch = Patch(self._owner, self._name, _REASON, self._quieter)
        state: State = "ours" if self.in_place() else "not installed" if self._ours is None else "covered"
        return PatchState(PACKAGE, patch.where, _REASON, state)

    def put(self, *, ours: bool) -> None:
        """Put ours there, or the one that was there before."""
        if ours == self.in_place():
            return
        if ours:
            original = self._original = vars(self._owner)[self._name]
            self._ours = self._quieter(original)
            setattr(self._owner, self._name, self._ours)
        else:
            setattr(self._owner, self._name, self._original)
            self._ours = self._original = None


def _quiet_hook(original: Callable[..., object]) -> Callable[..., object]:
    """`threading.excepthook` and `sys.unraisablehook`."""

    @wraps(original)
    def hook(news: Any, /) -> object:
        return None if _is_ours(news.exc_value) else original(news)

    return hook


def _quiet_loop(original: Callable[..., object]) -> Callable[..., object]:
    """`call_exception_handler` of asyncio's loops: a callback's exception, or a task's that nobody has asked for."""

    @wraps(original)
    def call_exception_handler(self: Any, context: dict[str, Any]) -> object:
        return None if _is_ours(context.get("exception")) else original(self, context)

    return call_exception_handler


def _is_ours(error: BaseException | None) -> bool:
    if isinstance(error, BaseExceptionGroup):
        return all(map(_is_ours, error.exceptions))
    return isinstance(error, JobCancelled)


_HOOKS: Final = (
    _Hook(threading, "excepthook", _quiet_hook),
    _Hook(sys, "unraisablehook", _quiet_hook),
    _Hook(asyncio.BaseEventLoop, "call_exception_handler", _quiet_loop),
)
_REASON: Final = "the end of a trial is not reported as an error of a library's thread, task or finaliser"


def hook_states() -> list[PatchState]:
    """The hooks, with what has become of each."""
    return [hook.state() for hook in _HOOKS]


_holders: Final[set[object]] = set()
_settling: Final = allocate_lock()


def _let_go(holder: object) -> None:
    _holders.discard(holder)
    _settle()


def _settle() -> None:
    """Have the hooks as they are wanted now.

    Never waits: an exception may be made, or collected, at any point of any thread, in here too. Whoever finds that
    another one is at it leaves the rest to him, who looks again when he is done.
    """
    while any(hook.in_place() != bool(_holders) for hook in _HOOKS):
        if not _settling.acquire(blocking=False):
            return
        try:
            for hook in _HOOKS:
                hook.put(ours=bool(_holders))
        finally:
            _settling.release()
