"""How often threads that compute let the loop run: the interpreter's switch interval, while a runtime is open."""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

_lock: Final = threading.Lock()
_open: list[float] = []
_before: float = 0.0


@contextmanager
def switch_interval(seconds: float) -> Iterator[None]:
    """Have a thread that wants the GIL ask for it after `seconds`; the shortest wish of those open holds.

    Python's own 5 ms are for each thread in the queue: with eight that compute, the loop waits for 40 ms each time that
    it has something to do. Taken back when the last wish is closed.
    """
    global _before  # noqa: PLW0603 - the interval is the process's, and so is the memory of what it was
    with _lock:
        if not _open:
            _before = sys.getswitchinterval()
        _open.append(seconds)
        sys.setswitchinterval(min(*_open, _before))
    try:
        yield
    finally:
        with _lock:
            _open.remove(seconds)
            sys.setswitchinterval(min(*_open, _before) if _open else _before)
