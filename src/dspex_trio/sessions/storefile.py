"""The file of a session store: SQLite, one process at a time, every write on the disk when it is acknowledged."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterable, Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Any, Final

from dspex_trio.errors import ValueNotDecodable
from dspex_trio.generated.any_pb2 import Any as AnyMessage
from dspex_trio.model import Variable
from dspex_trio.sessions.checking import size_of
from dspex_trio.sessions.records import Note, Record, SessionDropped, SessionKept, VariableDropped, VariableKept
from dspex_trio.wire import decode_any, decode_json, encode_json, encode_typed

SCHEMA: Final = 1
"""The layout of the tables, as `user_version`."""
APPLICATION: Final = 0x64737078
"""What tells the file from SQLite files of others, as `application_id`: "dspx"."""

_TABLES: Final = (
    """
    CREATE TABLE sessions (
        id TEXT PRIMARY KEY,
        metadata TEXT NOT NULL,
        created_at REAL NOT NULL,
        touched_at REAL NOT NULL,
        idle_seconds REAL NOT NULL
    ) WITHOUT ROWID
    """,
    """
    CREATE TABLE variables (
        session TEXT NOT NULL,
        name TEXT NOT NULL,
        id TEXT NOT NULL,
        position INTEGER NOT NULL,
        type TEXT NOT NULL,
        value TEXT NOT NULL,
        constraints TEXT NOT NULL,
        metadata TEXT NOT NULL,
        version INTEGER NOT NULL,
        updated_at REAL NOT NULL,
        PRIMARY KEY (session, name)
    ) WITHOUT ROWID
    """,
    f"PRAGMA application_id = {APPLICATION}",
    f"PRAGMA user_version = {SCHEMA}",
)


class CannotPersist(Exception):
    """The store's file cannot be used; the text names it and says why."""


class StoreFile:
    """An open file. It blocks: for a thread, one call at a time.

    Args:
        path: Where it lies; it is made, for its owner's eyes only, if there is none.

    Raises:
        CannotPersist: Another process uses it, it is damaged, it was written by a later version, or it is no such file.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        with self._explained(), suppress(FileExistsError):
            os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o600))
        with self._explained():
            # No waiting for locks: whoever has one keeps it. Threads take turns, so any of them may use the connection.
            self._db = sqlite3.connect(path, timeout=0, isolation_level=None, check_same_thread=False)
        try:
            with self._explained():
                self._prepare()
        except BaseException:
            self._db.close()
            raise

    def load(self) -> list[SessionKept | VariableKept]:
        """All that is kept: sessions, and then their variables in the order of registration.

        Raises:
            CannotPersist: Something cannot be read.
        """
        with self._explained():
            sessions = self._db.execute("SELECT id, metadata, created_at, touched_at, idle_seconds FROM sessions")
            variables = self._db.execute(
                "SELECT session, name, id, position, type, value, constraints, metadata, version, updated_at "
                "FROM variables WHERE session IN (SELECT id FROM sessions) ORDER BY position"
            )
            return [*map(_session, sessions), *map(_variable, variables)]

    def write(self, notes: Iterable[Note]) -> None:
        """Write it all or nothing; it is on the disk when this returns.

        Raises:
            CannotPersist: It cannot be written.
        """
        with self._explained():
            self._db.execute("BEGIN IMMEDIATE")
            try:
                for note in notes:
                    for statement, values in _statements(note):
                        self._db.execute(statement, values)
                self._db.execute("COMMIT")
            except BaseException:
                with suppress(sqlite3.Error):  # SQLite may have rolled back by itself; the first error is the one
                    self._db.execute("ROLLBACK")
                raise

    def close(self) -> None:
        """Let go of the file."""
        with suppress(sqlite3.Error):  # what was acknowledged is safe without it
            self._db.close()

    def _prepare(self) -> None:
        # The file is changed, and even locked, only once it is known to be ours.
        application, schema = self._pragma("application_id"), self._pragma("user_version")
        with closing(self._db.execute("SELECT count(*) FROM sqlite_schema")) as found:
            empty = found.fetchone()[0] == 0
        if not empty and application != APPLICATION:
            raise CannotPersist(f"{self._path} is an SQLite file, and not a session store's")
        if not empty and schema > SCHEMA:
            raise CannotPersist(
                f"{self._path} was written by a later version (its layout is {schema}, this version knows {SCHEMA})"
            )
        self._pragma("locking_mode = EXCLUSIVE")
        self._pragma("journal_mode = WAL")
        self._pragma("synchronous = FULL")
        self._db.execute("BEGIN IMMEDIATE")  # from here on the lock is held for as long as the file is open
        if empty:
            for statement in _TABLES:
                self._db.execute(statement)
        self._db.execute("COMMIT")
        if (problem := self._pragma("quick_check(1)")) != "ok":
            raise CannotPersist(f"{self._path} is damaged: {problem}")

    def _pragma(self, pragma: str) -> Any:
        with closing(self._db.execute(f"PRAGMA {pragma}")) as found:
            row = found.fetchone()
        return None if row is None else row[0]

    @contextmanager
    def _explained(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.Error as error:
            match getattr(error, "sqlite_errorcode", None):
                case sqlite3.SQLITE_BUSY | sqlite3.SQLITE_LOCKED:
                    why = "is in use by another process"
                case sqlite3.SQLITE_NOTADB | sqlite3.SQLITE_CORRUPT:
                    why = f"is damaged, or is no session store's: {error}"
                case _:
                    why = f"cannot be used: {error}"
            raise CannotPersist(f"{self._path} {why}") from error
        except OSError as error:
            raise CannotPersist(f"{self._path} cannot be made: {error.strerror or error}") from error
        except (ValueNotDecodable, TypeError) as error:
            raise CannotPersist(f"{self._path} is damaged: {error}") from error


def _statements(note: Note) -> Iterator[tuple[str, tuple[Any, ...]]]:
    match note:
        case SessionKept(session_id, metadata, created_at, touched_at, idle_seconds):
            values = (session_id, _json(dict(metadata)), created_at, touched_at, idle_seconds)
            yield "INSERT OR REPLACE INTO sessions VALUES (?, ?, ?, ?, ?)", values
        case SessionDropped(session_id):
            yield "DELETE FROM variables WHERE session = ?", (session_id,)
            yield "DELETE FROM sessions WHERE id = ?", (session_id,)
        case VariableKept(session_id, record):
            variable = record.variable
            yield (
                "INSERT OR REPLACE INTO variables VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
                (
                    session_id,
                    variable.name,
                    variable.id,
                    record.position,
                    variable.type,
                    encode_typed(variable.type, variable.value).value.decode(),
                    _json(dict(variable.constraints)),
                    _json(dict(variable.metadata)),
                    variable.version,
                    record.updated_at,
                ),
            )
        case VariableDropped(session_id, name):
            yield "DELETE FROM variables WHERE session = ? AND name = ?", (session_id, name)


def _session(row: tuple[Any, ...]) -> SessionKept:
    session_id, metadata, created_at, touched_at, idle_seconds = row
    return SessionKept(session_id, decode_json(metadata.encode()), created_at, touched_at, idle_seconds)


def _variable(row: tuple[Any, ...]) -> VariableKept:
    session_id, name, identifier, position, kind, value, constraints, metadata, version, updated_at = row
    typed = AnyMessage(type_url=f"type.googleapis.com/snakepit.{kind}", value=value.encode())
    variable = Variable(
        name=name,
        type=kind,
        value=decode_any(typed, unwrap=False),
        version=version,
        id=identifier,
        constraints=decode_json(constraints.encode()),
        metadata=decode_json(metadata.encode()),
    )
    return VariableKept(session_id, Record(variable, updated_at, size_of(variable), position))


def _json(value: Any) -> str:
    return encode_json(value).decode()
