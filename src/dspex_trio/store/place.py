"""Where a store's file lies: kept for one store, made and replaced at once, and what goes wrong there, explained."""

from __future__ import annotations

import os
import shutil
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Any, Final

from dspex_trio.model.errors import ValueNotDecodable

_FULL: Final = 64 * 1024
"""A disk with fewer free bytes is full: SQLite needs 32 kB to begin with."""


class CannotPersist(Exception):
    """The store's file cannot be used; the text names it and says why."""


def log_of(path: Path) -> Path:
    """Where SQLite keeps the log of that file: beside the file itself, whatever link names it."""
    real = path.resolve()
    return real.with_name(real.name + "-wal")


def has_log(path: Path) -> bool:
    """Whether there is something in the file's log; nothing is opened for it, since that would let go of locks."""
    try:
        return log_of(path).stat().st_size > 0
    except OSError:
        return False


def hold(path: Path) -> sqlite3.Connection:
    """Keep other stores from the file for as long as what is returned is open; the file itself need not exist.

    Readers may come and go. It is a lock on `FILE-lock`, which is empty and stays: whoever removed it could remove the
    one that another process has just locked.

    Raises:
        CannotPersist: Another store has the file; or none can be there.
    """
    if path.is_dir():
        raise CannotPersist(f"{path} cannot be used: it is a directory")
    real = path.resolve()
    beside = real.with_name(real.name + "-lock")
    with explained(path), suppress(FileExistsError):
        os.close(os.open(beside, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o600))
    with explained(path):
        lock = sqlite3.connect(beside, timeout=0, isolation_level=None, check_same_thread=False)
    try:
        with explained(path):
            pragma(lock, "journal_mode = MEMORY")  # which takes no room on a disk that is full
            lock.execute("BEGIN EXCLUSIVE")
    except CannotPersist as error:
        lock.close()
        if getattr(error.__cause__, "sqlite_errorcode", None) != sqlite3.SQLITE_BUSY:
            raise
        raise CannotPersist(f"{path} is in use by {_user_of(path)}") from error
    return lock


@contextmanager
def new_file(path: Path, *, replace: bool = False) -> Iterator[Path]:
    """A file beside `path` to write to; when the block has ended well, it is `path`, at once and as a whole.

    A process that is killed meanwhile leaves `path` as it was, and a `*.partial` beside it.

    Args:
        path: What is to be made.
        replace: Whether it may exist; nobody may be using it.

    Raises:
        CannotPersist: It exists, or it cannot be made.
    """
    with explained(path):
        aside = path.with_name(f"{path.name}.{os.urandom(4).hex()}.partial")
        os.close(os.open(aside, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o600))
    try:
        yield aside
        with explained(path):
            if replace:
                aside.replace(path)
            else:
                _link(aside, path)
            _sync_directory(path.parent)
    except FileExistsError:
        raise CannotPersist(f"{path} exists already") from None
    finally:
        aside.unlink(missing_ok=True)


def _link(aside: Path, path: Path) -> None:
    try:
        path.hardlink_to(aside)
    except FileExistsError:
        raise
    except OSError:  # a file system without links
        if path.exists():
            raise FileExistsError(path) from None
        aside.rename(path)


def _sync_directory(directory: Path) -> None:
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def pragma(db: sqlite3.Connection, asked: str) -> Any:
    """What a pragma answers; None for nothing."""
    return first_value(db, f"PRAGMA {asked}")


def first_value(db: sqlite3.Connection, statement: str) -> Any:
    """The first value that a statement answers; None for nothing."""
    with closing(db.execute(statement)) as found:
        row = found.fetchone()
    return None if row is None else row[0]


@contextmanager
def explained(path: Path) -> Iterator[None]:
    """Turn what SQLite and the system say of a file into CannotPersist, but for FileExistsError."""
    try:
        yield
    except sqlite3.Error as error:
        match getattr(error, "sqlite_errorcode", None):
            case sqlite3.SQLITE_BUSY | sqlite3.SQLITE_LOCKED:
                why = "is locked by another process"
            case sqlite3.SQLITE_NOTADB | sqlite3.SQLITE_CORRUPT:
                why = f"is damaged, or is no session store's: {error}"
            case _ if _disk_is_full(path):
                why = f"cannot be used: the disk is full ({error})"
            case _:
                why = f"cannot be used: {error}"
        raise CannotPersist(f"{path} {why}") from error
    except FileExistsError:
        raise
    except OSError as error:
        raise CannotPersist(f"{path} cannot be made: {error.strerror or error}") from error
    except (ValueNotDecodable, TypeError) as error:
        raise CannotPersist(f"{path} is damaged: {error}") from error


def _user_of(path: Path) -> str:
    """The process that has the file, as it wrote into it; any may read that."""
    try:
        with closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True, timeout=0)) as db:
            pid = first_value(db, "SELECT pid FROM process")
    except sqlite3.Error:
        pid = None
    return f"process {pid}" if pid else "another process"


def _disk_is_full(path: Path) -> bool:
    try:
        return shutil.disk_usage(path.parent).free < _FULL
    except OSError:
        return False
