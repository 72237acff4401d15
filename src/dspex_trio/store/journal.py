"""A store that acknowledges a write only once it is on disk; writes that come together share a commit."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TypeVar

import trio

from dspex_trio.store.file import StoreFile
from dspex_trio.store.memory import MemoryStore
from dspex_trio.store.records import Note, SessionDropped, SessionKept, StoreLimits, VariableDropped, VariableKept

T = TypeVar("T")


class Journal:
    """Writes changes to a file, in a worker thread.

    Args:
        file: The file; nobody else uses it.
    """

    def __init__(self, file: StoreFile) -> None:
        self._file = file
        # Of several notes about one thing only the last matters, so this is no larger than what is kept.
        self._pending: dict[tuple[str, ...], Note] = {}
        self._noted = 0
        self._written = 0
        self._more = trio.Event()
        self._progress = trio.Event()

    def note(self, note: Note) -> None:
        """Add a change to the next commit."""
        key = _key(note)
        self._pending.pop(key, None)  # the order is that of the last notes
        self._pending[key] = note
        self._noted += 1
        self._more.set()

    @property
    def is_settled(self) -> bool:
        """Whether every change noted so far is on disk."""
        return self._written >= self._noted

    async def settled(self) -> None:
        """Wait until every change noted so far is on disk."""
        wanted = self._noted
        while self._written < wanted:
            await self._progress.wait()

    async def run(self) -> None:
        """Write until cancelled; raises CannotPersist when that fails."""
        while True:
            await self._more.wait()
            await self.flush()

    async def flush(self) -> None:
        """Write the changes noted so far; a cancellation takes effect once they are written."""
        batch, upto = [*self._pending.values()], self._noted
        if not batch:
            return
        self._pending.clear()
        self._more = trio.Event()
        with trio.CancelScope(shield=True):  # for one commit: what is half written cannot be left
            await _in_thread(self._file.write, batch)
        self._written = upto
        self._progress.set()
        self._progress = trio.Event()


async def _in_thread(function: Callable[..., T], *args: object) -> T:
    """Run blocking disk work, which cannot be stopped: a cancellation takes effect when it returns."""
    return await trio.to_thread.run_sync(function, *args, limiter=trio.CapacityLimiter(1))


def _key(note: Note) -> tuple[str, ...]:
    match note:
        case SessionKept(session_id):
            return ("kept", session_id)
        case SessionDropped(session_id):
            return ("dropped", session_id)
        case VariableKept(session_id, record):
            return ("variable", session_id, record.variable.name)
        case VariableDropped(session_id, name):
            return ("variable", session_id, name)


@asynccontextmanager
async def open_persistent(path: Path, limits: StoreLimits | None = None) -> AsyncIterator[tuple[MemoryStore, Journal]]:
    """A store with all that the file holds, and the journal that keeps the file up to date.

    When the file cannot be written any more, the body is cancelled and CannotPersist comes out, in a group: what was
    not written must not be told, so there is nothing left to do but start anew from the file.

    Raises:
        CannotPersist: The file cannot be used.
    """
    file = await _in_thread(StoreFile, path)
    try:
        journal = Journal(file)
        store = MemoryStore(limits, note=journal.note)
        store.restore(await _in_thread(file.load))
        async with trio.open_nursery() as nursery:
            nursery.start_soon(journal.run)
            yield store, journal
            nursery.cancel_scope.cancel()
        await journal.flush()
    finally:
        file.close()
