"""A job: one cancellable unit of work in threads, and how its code learns that it is over."""

from __future__ import annotations

import threading
from collections.abc import Callable


class JobCancelled(BaseException):
    """Ends a job's code; no BaseException handler of a program's may keep it. Never leaves `run`."""


class Job:
    """One unit of work; may run several functions one after another, and its code may use threads of its own.

    Args:
        name: For lists of stuck threads.
    """

    __slots__ = ("_callbacks", "_lock", "cancelled", "name")

    def __init__(self, name: str = "") -> None:
        self.name = name
        self.cancelled = False
        self._lock = threading.Lock()
        self._callbacks: dict[object, Callable[[], object]] = {}

    def check(self) -> None:
        """Return at once, or raise JobCancelled when the job is to end. From any thread of the job."""
        if self.cancelled:
            raise JobCancelled

    def on_cancel(self, callback: Callable[[], object]) -> Callable[[], None]:
        """Have `callback` called, in the Trio thread, when the job is cancelled; at once if it already is.

        It must not block. Returns a way to take it back.
        """
        key = object()
        with self._lock:
            if not self.cancelled:
                self._callbacks[key] = callback
                return lambda: self._forget(key)
        callback()
        return lambda: None

    def _forget(self, key: object) -> None:
        with self._lock:
            self._callbacks.pop(key, None)

    def cancel(self) -> None:
        """Tell the job's code to end: sets the flag, then calls back. In the Trio thread; never blocks for long."""
        with self._lock:
            self.cancelled = True
            callbacks, self._callbacks = list(self._callbacks.values()), {}
        for callback in callbacks:
            callback()
