"""The file of a session store: SQLite, one store at a time, every write on the disk when it is acknowledged.

While a store runs, its last writes stand in the file's log (`FILE-wal`), and the file alone is not whole. The file says
so itself: `needs_log` is 1 in it, and 0 in the first write behind that in the log. So it is 0 for whoever reads both,
and 1 for whoever has a copy of the file alone.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterable
from contextlib import AbstractContextManager, closing, suppress
from pathlib import Path
from typing import Final

from dspex_trio.store.place import (
    CannotPersist,
    explained,
    first_value,
    has_log,
    hold,
    log_of,
    new_file,
    pragma,
)
from dspex_trio.store.records import Note, SessionKept, VariableKept
from dspex_trio.store.rows import APPLICATION, PROCESS, SCHEMA, TABLES, read_rows, statements

PAGE: Final = 4096
LOG_PAGES: Final = 1_000
"""The log is copied into the file once about so many pages were written to it."""
PATIENCE_MS: Final = 5_000
"""How long a write waits for somebody else's lock, such as that of an SQLite shell."""


class StoreFile:
    """A file that a store uses, alone. It blocks: for a thread, one call at a time.

    Args:
        path: Where it lies; it is made, for its owner's eyes only, if there is none.

    Raises:
        CannotPersist: Another store uses it, it is damaged, empty or without its log, it was written by a later
            version, or it is no such file.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock = hold(path)
        try:
            if not path.exists():
                self._make()
            had_log = has_log(path)
            with self._explained():
                # Threads take turns, so any of them may use the connection.
                self._db = sqlite3.connect(path, timeout=0, isolation_level=None, check_same_thread=False)
            try:
                with self._explained():
                    self._take_over(had_log=had_log)
            except BaseException:
                self._db.close()
                raise
        except BaseException:
            self._lock.close()
            raise
        self._pages = 0

    def load(self) -> list[SessionKept | VariableKept]:
        """All that is kept: sessions, and then their variables in the order of registration.

        Raises:
            CannotPersist: Something cannot be read.
        """
        with self._explained():
            return read_rows(self._db)

    def write(self, notes: Iterable[Note]) -> None:
        """Write it all or nothing; it is on the disk when this returns.

        Raises:
            CannotPersist: It cannot be written.
        """
        with self._explained():
            self._db.execute("BEGIN IMMEDIATE")
            try:
                for note in notes:
                    for statement, values in statements(note):
                        self._db.execute(statement, values)
                        self._pages += 1 + sum(len(each) for each in values if isinstance(each, str)) // PAGE
                self._db.execute("COMMIT")
            except BaseException:
                with suppress(sqlite3.Error):  # SQLite may have rolled back by itself; the first error is the one
                    self._db.execute("ROLLBACK")
                raise
            if self._pages >= LOG_PAGES:
                self._empty_log()

    def close(self) -> None:
        """Let go of the file, which is then whole without a log unless somebody else reads it."""
        with suppress(sqlite3.Error):  # what was acknowledged is safe without it
            self._db.execute("PRAGMA busy_timeout = 0")
            pragma(self._db, "journal_mode = DELETE")
        with suppress(sqlite3.Error):
            self._db.close()
        self._lock.close()

    def _make(self) -> None:
        """Make a file that has its tables from its first moment on."""
        if has_log(self._path):
            raise CannotPersist(
                f"{self._path} is missing, and its log {log_of(self._path).name} is there: move both to the same "
                f"place, or remove the log"
            )
        with new_file(self._path) as aside, explained(aside), closing(sqlite3.connect(aside)) as db:
            for statement in TABLES:
                db.execute(statement)
            db.commit()

    def _take_over(self, *, had_log: bool) -> None:
        # The file is changed only once it is known to be ours, and whole.
        schema = check_ours(self._db, self._path)
        check_whole(self._db, self._path, schema, had_log=had_log)
        if schema < SCHEMA:
            self._db.execute("BEGIN IMMEDIATE")
            for statement in PROCESS:
                self._db.execute(statement)
            self._db.execute("COMMIT")
        if pragma(self._db, "journal_mode = WAL") != "wal":
            raise CannotPersist(f"{self._path} cannot be used: its file system cannot keep SQLite's log")
        pragma(self._db, "synchronous = FULL")
        pragma(self._db, "wal_autocheckpoint = 0")
        self._empty_log()
        pragma(self._db, f"busy_timeout = {PATIENCE_MS}")

    def _empty_log(self) -> None:
        """Copy the log into the file, which says from then on that what follows stands in the log."""
        self._db.execute("UPDATE process SET pid = ?, needs_log = 1", (os.getpid(),))
        pragma(self._db, "wal_checkpoint(PASSIVE)")
        self._db.execute("UPDATE process SET needs_log = 0")
        self._pages = 0

    def _explained(self) -> AbstractContextManager[None]:
        return explained(self._path)


def check_ours(db: sqlite3.Connection, path: Path) -> int:
    """Refuse what is no store's file; returns its layout.

    Raises:
        CannotPersist: It is empty, another application's or a later version's.
        sqlite3.Error: It is no SQLite file.
    """
    with closing(db.execute("SELECT count(*) FROM sqlite_schema")) as found:
        if found.fetchone()[0] == 0:
            raise CannotPersist(
                f"{path} is no store's file: it is empty, or a copy without its log {log_of(path).name}; "
                f"`dspex-trio store backup` makes whole copies"
            )
    if pragma(db, "application_id") != APPLICATION:
        raise CannotPersist(f"{path} is an SQLite file, and not a session store's")
    schema: int = pragma(db, "user_version")
    if schema > SCHEMA:
        raise CannotPersist(
            f"{path} was written by a later version (its layout is {schema}, this version knows {SCHEMA})"
        )
    return schema


def check_whole(db: sqlite3.Connection, path: Path, schema: int, *, had_log: bool) -> None:
    """Refuse a file of ours that is damaged or lacks its log.

    Args:
        db: The open file.
        path: Its name.
        schema: Its layout.
        had_log: Whether its log was there before it was opened.

    Raises:
        CannotPersist: It is not whole.
    """
    if (problem := pragma(db, "quick_check(1)")) != "ok":
        raise CannotPersist(f"{path} is damaged: {problem}")
    if schema < SCHEMA or had_log or not first_value(db, "SELECT max(needs_log) FROM process") or has_log(path):
        return
    raise CannotPersist(
        f"{path} is not whole: it was copied while a store used it, or its log {log_of(path).name} was removed; "
        f"`dspex-trio store backup` makes whole copies"
    )
