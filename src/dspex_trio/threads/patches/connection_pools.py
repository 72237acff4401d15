"""What urllib3's connection pools need, so that a wait for a connection can be ended.

When a request fails by anything but EmptyPoolError, its pool counts a connection as given back. One that was not lent,
since the job ended in the wait for it, would be counted too, and some other job's then come back to a full pool.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from functools import wraps
from typing import Any

from dspex_trio.threads.patches.excepthooks import JobCancelled


def lending(original: Callable[..., Any]) -> Callable[..., Any]:
    """`_get_conn`: a wait that is ended here has taken no connection."""

    @wraps(original)
    def get(self: Any, timeout: float | None = None) -> Any:
        try:
            return original(self, timeout)
        except JobCancelled as stop:
            stop.lent_nothing_by = self
            raise

    return get


def taking_back(original: Callable[..., Any]) -> Callable[..., Any]:
    """`_put_conn`: nothing comes back of what was not lent."""

    @wraps(original)
    def put(self: Any, conn: Any) -> None:
        if isinstance(stop := sys.exception(), JobCancelled) and stop.lent_nothing_by is self:
            stop.lent_nothing_by = None
        else:
            original(self, conn)

    return put
