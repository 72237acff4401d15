"""What the children of a warm parent have left behind that was killed itself, and so could not see to it (Linux).

Everything that they have started, in whatever process group or session, has inherited the warm parent's environment,
and in it a variable with a value of its own.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Final

MARK: Final = "DSPEX_TRIO_WARM_PARENT"
_AGAIN: Final = 0.02
_SECONDS: Final = 1.0


def kill_marked(value: str) -> None:
    """Kill all processes that were started with `MARK` set to that value, for a second at most. Blocks."""
    ends = time.monotonic() + _SECONDS
    while found := list(_marked(f"{MARK}={value}".encode())):
        for pid in found:
            with suppress(ProcessLookupError, PermissionError):
                os.kill(pid, signal.SIGKILL)
        if time.monotonic() > ends:
            return
        time.sleep(_AGAIN)  # until they are gone; what they started meanwhile is found next time


def _marked(entry: bytes) -> Iterator[int]:
    for folder in Path("/proc").iterdir():
        if folder.name.isdecimal():
            with suppress(OSError):  # it has ended, or is another user's
                if entry in (folder / "environ").read_bytes().split(b"\0"):
                    yield int(folder.name)
