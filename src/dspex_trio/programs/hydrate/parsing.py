"""One `ast.parse` at a time, on Pythons where two at once may fail; DSPy parses signatures and field values with it.

Before 3.11.8 the parser counts its depth for all threads together: "AST constructor recursion depth mismatch" (CPython
issue 106905). 3.12 is not affected.
"""

from __future__ import annotations

import functools
import sys
import threading
from collections.abc import Callable
from typing import Any, Final

FAILS_AT_ONCE: Final = sys.version_info < (3, 11, 8)

_lock: Final = threading.RLock()  # parsing may collect garbage, and a finaliser may parse


def one_at_a_time(original: Callable[..., Any]) -> Callable[..., Any]:
    """`ast.parse`, and with it `ast.literal_eval`."""

    @functools.wraps(original)
    def parse(*args: Any, **kwargs: Any) -> Any:
        with _lock:
            return original(*args, **kwargs)

    return parse
