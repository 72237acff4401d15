"""What ends a thread or a finaliser of a cancelled job is no news for standard error; everything else is."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any

from dspex_trio.threads.job import JobCancelled


def but_for_interrupts(original: Callable[[Any], object]) -> Callable[[Any], object]:
    """`threading.excepthook` and `sys.unraisablehook`."""

    @wraps(original)
    def hook(news: Any, /) -> object:
        return None if news.exc_type is JobCancelled else original(news)

    return hook
