"""Measure the session store with a file: `just bench-persist [--writes N]`.

Writers set variables of their own, each waiting for its acknowledgement, in memory and with `--persist`. Beside them,
in the same run: how long the disk takes to sync, and how long bare SQLite takes to commit one row.
"""

from __future__ import annotations

import argparse
import os
import sqlite3
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

import trio

from dspex_trio.sessions import MemoryStore, Sessions
from dspex_trio.store.journal import open_persistent
from dspex_trio.store.servicer import SessionStore, in_process_stub

WRITERS: Final = (1, 8, 64)


def each(count: int, act: Callable[[int], object]) -> float:
    """Seconds that one takes of so many."""
    began = time.perf_counter()
    for number in range(count):
        act(number)
    return (time.perf_counter() - began) / count


def measure_disk(place: Path, count: int) -> tuple[float, float]:
    """Seconds to append and sync a page, and to commit a row in SQLite, one after the other."""
    descriptor = os.open(place / "page", os.O_CREAT | os.O_WRONLY)

    def write_page(_: int) -> None:
        os.write(descriptor, bytes(4096))
        os.fdatasync(descriptor)

    sync = each(count, write_page)
    os.close(descriptor)
    db = sqlite3.connect(place / "bare.db", isolation_level=None)
    db.execute("PRAGMA journal_mode = WAL")
    db.execute("PRAGMA synchronous = FULL")
    db.execute("CREATE TABLE t (id INTEGER PRIMARY KEY, value TEXT)")
    commit = each(count, lambda number: db.execute("INSERT OR REPLACE INTO t VALUES (1, ?)", (str(number),)))
    db.close()
    return sync, commit


async def measure_store(name: str, store: SessionStore, writes: int) -> None:
    """Print a line for each number of writers."""
    session = Sessions(in_process_stub(store)).context("s")
    await session.initialize()
    for number in range(max(WRITERS)):
        await session.register(f"v{number}", "float", 0.0)

    async def write(variable: str, count: int) -> None:
        for number in range(count):
            await session.set(variable, float(number))

    for writers in WRITERS:
        count = max(writes // writers, 20)
        began = time.perf_counter()
        async with trio.open_nursery() as nursery:
            for number in range(writers):
                nursery.start_soon(write, f"v{number}", count)
        spent = time.perf_counter() - began
        print(f"{name:8} {writers:4} {count * writers / spent:14,.0f} {spent / count * 1e3:10.2f} ms")


async def main(writes: int) -> None:
    """Measure and print."""
    with tempfile.TemporaryDirectory(dir=Path.cwd()) as directory:
        place = Path(directory)
        sync, commit = await trio.to_thread.run_sync(measure_disk, place, 100)
        print(f"the disk syncs a page in {sync * 1e3:.2f} ms; bare SQLite commits a row in {commit * 1e3:.2f} ms")
        print("store    writers   writes/s   a write takes")
        await measure_store("memory", SessionStore(MemoryStore()), writes)
        async with open_persistent(place / "store.db") as (memory, journal):
            await measure_store("file", SessionStore(memory, journal=journal), writes)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Measure the session store with a file.")
    parser.add_argument("--writes", type=int, default=1000, help="for each number of writers (default: %(default)s)")
    trio.run(main, parser.parse_args().writes)
