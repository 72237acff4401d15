"""Whole copies of a store's file: made while a store uses it or not, put back, and looked at."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from dspex_trio.store.file import PATIENCE_MS, check_ours, check_whole
from dspex_trio.store.place import CannotPersist, explained, has_log, hold, log_of, new_file, pragma
from dspex_trio.store.records import SessionKept
from dspex_trio.store.rows import PROCESS, SCHEMA, read_rows


@dataclass(frozen=True, slots=True)
class Contents:
    """What a store's file holds.

    Attributes:
        sessions: How many sessions.
        variables: How many variables in all of them.
        layout: The layout of its tables.
    """

    sessions: int
    variables: int
    layout: int


def check_file(path: Path) -> Contents:
    """Read all of a store's file, also while a store uses it.

    Raises:
        CannotPersist: It is not there, not whole, no store's, or a later version's.
    """
    with _reading(path) as db, explained(path):
        return _contents(db)


def copy_store(source: Path, target: Path, *, overwrite: bool = False) -> Contents:
    """Copy a store's file as it is at one moment, also while a store uses it.

    The target is there at once and as a whole, or not at all; it is read through before. It is for its owner's eyes
    only, needs no log, and lies on the disk when this returns.

    Args:
        source: The store's file.
        target: The copy.
        overwrite: Whether it may take the place of another one, which no store may be using.

    Raises:
        CannotPersist: The source cannot be read, or the target not be written; it is as it was.
    """
    target = target.resolve() if target.is_symlink() else target
    if not overwrite and (target.exists() or has_log(target)):
        raise CannotPersist(f"{target if target.exists() else log_of(target)} exists already")
    if target.exists() and source.exists() and os.path.samestat(target.stat(), source.stat()):
        raise CannotPersist(f"{target} is the store's file itself")
    with _reading(source) as db, _replaceable(target, overwrite=overwrite):
        with new_file(target, replace=overwrite) as aside, explained(target):
            with closing(sqlite3.connect(aside, isolation_level=None)) as copy:
                db.backup(copy)
                pragma(copy, "journal_mode = DELETE")
                if pragma(copy, "user_version") < SCHEMA:
                    for statement in PROCESS:
                        copy.execute(statement)
                copy.execute("UPDATE process SET pid = 0, needs_log = 0")
                if (problem := pragma(copy, "integrity_check(1)")) != "ok":
                    raise CannotPersist(f"{source} is damaged: {problem}")
                contents = _contents(copy)
            if overwrite:
                _remove_log(target)
        return contents


@contextmanager
def _replaceable(target: Path, *, overwrite: bool) -> Iterator[None]:
    """Keep stores from a file that is replaced, and have it whole without its log until then."""
    if not overwrite:
        yield
        return
    with closing(hold(target)):
        if target.exists():
            with suppress(sqlite3.Error), closing(sqlite3.connect(target, timeout=0)) as old:
                pragma(old, "journal_mode = DELETE")
        yield


def _remove_log(target: Path) -> None:
    """Remove what SQLite would take for the log of the file that comes."""
    for each in (log_of(target), log_of(target).with_name(target.resolve().name + "-shm")):
        each.unlink(missing_ok=True)


@contextmanager
def _reading(path: Path) -> Iterator[sqlite3.Connection]:
    if not path.is_file():
        raise CannotPersist(f"{path} does not exist" if not path.exists() else f"{path} is no file")
    had_log = has_log(path)
    with explained(path):
        db = _opened(path)
    with closing(db):
        with explained(path):
            check_whole(db, path, check_ours(db, path), had_log=had_log)
        yield db


def _opened(path: Path) -> sqlite3.Connection:
    """Open the file for reading: so that its log stays as it is, where SQLite can do that.

    It cannot where the log is there and the index of the log is not, as in a copy.
    """
    for mode in ("ro", "rw"):
        db = sqlite3.connect(
            f"{path.absolute().as_uri()}?mode={mode}", uri=True, timeout=PATIENCE_MS / 1e3, isolation_level=None
        )
        try:
            pragma(db, "schema_version")
        except BaseException as error:  # noqa: ASYNC103 - nothing is awaited here
            db.close()
            if mode == "rw" or getattr(error, "sqlite_errorcode", None) != sqlite3.SQLITE_CANTOPEN:
                raise
        else:
            return db
    raise AssertionError("the second way raises or returns")


def _contents(db: sqlite3.Connection) -> Contents:
    kept = read_rows(db)
    sessions = sum(isinstance(each, SessionKept) for each in kept)
    return Contents(sessions, len(kept) - sessions, pragma(db, "user_version"))
