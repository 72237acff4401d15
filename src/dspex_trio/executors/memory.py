"""How much memory a process has of its own."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

import trio

_PAGE: Final = os.sysconf("SC_PAGE_SIZE") if hasattr(os, "sysconf") else 4096


async def memory_of(pid: int, limit: int) -> int:
    """The memory that a process has of its own, in bytes; only known not to be more if all it has is within `limit`."""
    resident = resident_bytes(pid)
    if resident <= limit:
        return resident  # what it shares with others is in that figure, and reading more exactly takes a while
    return await trio.to_thread.run_sync(own_bytes, pid, abandon_on_cancel=True, limiter=trio.CapacityLimiter(1))


def resident_bytes(pid: int) -> int:
    """The memory of a process that is in RAM, shared memory included; 0 if that is not known."""
    try:
        return int(Path(f"/proc/{pid}/statm").read_text(encoding="ascii").split()[1]) * _PAGE
    except (OSError, IndexError, ValueError):
        return 0


def own_bytes(pid: int) -> int:
    """The memory that would be free without the process: its private pages; 0 if that is not known."""
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text(encoding="ascii").splitlines()
    except OSError:
        return 0
    private = ("Private_Clean:", "Private_Dirty:", "Swap:")
    return sum(int(line.split()[1]) << 10 for line in lines if line.startswith(private))
