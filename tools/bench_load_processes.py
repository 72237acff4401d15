"""What a worker's processes cost, by role: CPU and memory, as /proc tells it."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

_TICK: Final = os.sysconf("SC_CLK_TCK")
_STAT: Final = re.compile(r"\d+ \(.*\) (.*)", re.DOTALL)
# Of what follows the name in /proc/PID/stat: the parent; time in user and system mode; that of children waited for;
# threads; when it began.
_PARENT, _TIMES, _TIMES_OF_DEAD, _THREADS, _BEGAN = 1, slice(11, 13), slice(13, 15), 17, 19
_MEMORY: Final = re.compile(r"^(Rss|Pss): +(\d+) kB", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Usage:
    """What processes have used.

    Attributes:
        processes: How many there are.
        cpu_s: CPU of all of them until now, that of their dead children included.
        rss_bytes: Resident memory; pages that several share count for each.
        pss_bytes: The same; each counts its part of what is shared.
    """

    processes: int
    cpu_s: float
    rss_bytes: int
    pss_bytes: int


def usage_by_role(root: int) -> dict[str, Usage]:
    """The worker of that process id, and its descendants.

    A worker without children is `worker`. In one that has some, the root is `front` and all others are `executors`.
    """
    stats = _stats()
    others = _below(root, stats)
    if not others:
        return {"worker": _usage([root], stats)}
    own = _usage([root], stats, dead=False)
    rest = _usage(others, stats)
    dead = sum(map(int, stats[root][_TIMES_OF_DEAD])) / _TICK if root in stats else 0.0
    executors = Usage(rest.processes, rest.cpu_s + dead, rest.rss_bytes, rest.pss_bytes)
    return {"front": own, "executors": executors}


@dataclass(frozen=True, slots=True)
class Holdings:
    """What a process and its descendants hold.

    Attributes:
        processes: How many there are.
        threads: Of all of them.
        sockets: Open ones; one that several processes share counts once.
        rss_bytes: Resident memory; pages that several share count for each.
        pss_bytes: The same; each counts its part of what is shared.
    """

    processes: int
    threads: int
    sockets: int
    rss_bytes: int
    pss_bytes: int


def descendants(root: int) -> dict[int, str]:
    """The children of that process, their children, and so on: process id → when it began, as the kernel counts."""
    stats = _stats()
    return {pid: stats[pid][_BEGAN] for pid in _below(root, stats)}


def still_there(processes: dict[int, str]) -> list[int]:
    """Those of them that have not ended; a process id that another one has now is not among them."""
    stats = _stats()
    return [pid for pid, began in processes.items() if pid in stats and stats[pid][_BEGAN] == began]


def holdings(root: int) -> Holdings:
    """What that process and its descendants hold now."""
    stats = _stats()
    pids = [root, *_below(root, stats)]
    used = _usage(pids, stats)
    threads = sum(int(stats[pid][_THREADS]) for pid in pids if pid in stats)
    sockets = {name for pid in pids for name in _sockets(pid)}
    return Holdings(len(pids), threads, len(sockets), used.rss_bytes, used.pss_bytes)


def _below(root: int, stats: dict[int, list[str]]) -> list[int]:
    found: list[int] = []
    parents = [root]
    while parents:
        parent = parents.pop()
        children = [pid for pid, fields in stats.items() if int(fields[_PARENT]) == parent]
        found += children
        parents += children
    return found


def _sockets(pid: int) -> Iterator[str]:
    try:
        descriptors = list(Path(f"/proc/{pid}/fd").iterdir())
    except OSError:  # the process has ended
        return
    for each in descriptors:
        try:
            name = str(each.readlink())
        except OSError:  # closed meanwhile
            continue
        if name.startswith("socket:"):
            yield name


def _stats() -> dict[int, list[str]]:
    found = {}
    for each in Path("/proc").iterdir():
        if each.name.isdigit() and (text := _read(each / "stat")) and (fields := _STAT.match(text)):
            found[int(each.name)] = fields[1].split()
    return found


def _usage(pids: list[int], stats: dict[int, list[str]], *, dead: bool = True) -> Usage:
    ticks, memory = 0, {"Rss": 0, "Pss": 0}
    for pid in pids:
        fields = stats.get(pid, [])
        ticks += sum(map(int, fields[_TIMES] + (fields[_TIMES_OF_DEAD] if dead else [])))
        for name, kilobytes in _MEMORY.findall(_read(Path(f"/proc/{pid}/smaps_rollup"))):
            memory[name] += int(kilobytes) * 1024
    return Usage(len(pids), ticks / _TICK, memory["Rss"], memory["Pss"])


def _read(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8", errors="replace")
    except OSError:  # the process has ended
        return ""
