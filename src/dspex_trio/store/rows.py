"""The layout of a store's file: its tables, and how what is noted becomes rows and comes back."""

from __future__ import annotations

from collections.abc import Iterator
from sqlite3 import Connection
from typing import Any, Final

from dspex_trio.model import Variable
from dspex_trio.store.checking import size_of
from dspex_trio.store.records import Note, Record, SessionDropped, SessionKept, VariableDropped, VariableKept
from dspex_trio.wire import decode_any, decode_json, encode_json, encode_typed
from dspex_trio.wire.generated.any_pb2 import Any as AnyMessage

SCHEMA: Final = 2
"""The layout of the tables, as `user_version`. Layout 1 had no table `process`."""
APPLICATION: Final = 0x64737078
"""What tells the file from SQLite files of others, as `application_id`: "dspx"."""

PROCESS: Final = (
    "CREATE TABLE process (pid INTEGER NOT NULL, needs_log INTEGER NOT NULL)",
    "INSERT INTO process VALUES (0, 0)",
    f"PRAGMA user_version = {SCHEMA}",
)
"""What layout 2 has more than layout 1: the last process that used the file, and whether it lacks its log."""

TABLES: Final = (
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
    *PROCESS,
)


def read_rows(db: Connection) -> list[SessionKept | VariableKept]:
    """All that is kept: sessions, and then their variables in the order of registration.

    Raises:
        sqlite3.Error, ValueNotDecodable, TypeError: Something cannot be read.
    """
    sessions = db.execute("SELECT id, metadata, created_at, touched_at, idle_seconds FROM sessions")
    variables = db.execute(
        "SELECT session, name, id, position, type, value, constraints, metadata, version, updated_at "
        "FROM variables WHERE session IN (SELECT id FROM sessions) ORDER BY position"
    )
    return [*map(_session, sessions), *map(_variable, variables)]


def statements(note: Note) -> Iterator[tuple[str, tuple[Any, ...]]]:
    """What writes a note down: SQL, and the values in it."""
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
