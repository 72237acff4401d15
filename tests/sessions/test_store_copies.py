"""Copies of a store's file: those of ours are whole, and others are told from whole ones."""

import os
import shutil
import sqlite3
import subprocess
import sys
from contextlib import closing

import pytest

from dspex_trio.sessions import CannotPersist, MemoryStore
from dspex_trio.store import file as storefile
from dspex_trio.store import place as storeplace
from dspex_trio.store.copies import Contents, check_file, copy_store
from dspex_trio.store.file import StoreFile
from dspex_trio.store.rows import SCHEMA, TABLES


@pytest.fixture
def path(tmp_path):
    return tmp_path / "store.db"


@pytest.fixture
def copy(tmp_path):
    return tmp_path / "copy.db"


class Writer:
    """A store that writes to its file."""

    def __init__(self, file):
        self.notes = []
        self.file = file
        self.store = MemoryStore(note=self.notes.append)
        self.store.restore(file.load())

    def register(self, name, value="x"):
        self.store.initialize("s")
        self.store.register("s", name, "string", value)
        self.file.write(self.notes)
        self.notes.clear()


def names(path):
    with closing(StoreFile(path)) as file:
        return [note.record.variable.name for note in file.load()[1:]]


def test_a_backup_is_the_store_as_it_was_while_a_store_uses_its_file(path, copy):
    with closing(StoreFile(path)) as file:
        writer = Writer(file)
        writer.register("a")
        assert copy_store(path, copy) == Contents(sessions=1, variables=1, layout=SCHEMA)
        writer.register("b")
        assert check_file(path) == Contents(1, 2, SCHEMA)
        assert check_file(copy) == Contents(1, 1, SCHEMA)
    assert names(copy) == ["a"]
    assert names(path) == ["a", "b"]
    assert copy.stat().st_mode & 0o077 == 0


def test_a_file_copied_while_a_store_uses_it_is_refused_and_not_emptied(path, copy, monkeypatch):
    """At every moment: before anything was written, with writes in the log, and after the log went into the file."""
    monkeypatch.setattr(storefile, "LOG_PAGES", 7)
    with closing(StoreFile(path)) as file:
        writer = Writer(file)
        for number in range(30):
            shutil.copy(path, copy)
            before = copy.read_bytes()
            with pytest.raises(CannotPersist, match=r"copy.db is not whole: it was copied while a store used it"):
                StoreFile(copy)
            with pytest.raises(CannotPersist, match="is not whole"):
                check_file(copy)
            assert copy.read_bytes() == before
            writer.register(f"v{number}")
    shutil.copy(path, copy)
    assert names(copy) == names(path) == [f"v{number}" for number in range(30)]


def test_a_copy_with_its_log_is_whole(path, copy):
    with closing(StoreFile(path)) as file:
        Writer(file).register("a")
        shutil.copy(path, copy)
        shutil.copy(storeplace.log_of(path), storeplace.log_of(copy))
    assert check_file(copy).variables == 1
    assert names(copy) == ["a"]


def test_somebody_who_looks_with_sqlite_after_a_kill_does_no_harm(path):
    """The last one who closes the file moves its log into it, whoever that is: the file is then whole without."""
    code = (
        "import os; from pathlib import Path; from dspex_trio.store.file import *\n"
        "from dspex_trio.store.records import SessionKept\n"
        f"StoreFile(Path({str(path)!r})).write([SessionKept('s', {{}}, 1.0, 1.0, 10.0)]); os._exit(9)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False, timeout=60).returncode == 9
    with closing(sqlite3.connect(path)) as db:
        assert db.execute("SELECT id FROM sessions").fetchall() == [("s",)]
    assert not storeplace.has_log(path)
    assert check_file(path).sessions == 1
    with closing(StoreFile(path)) as file:
        assert [note.session_id for note in file.load()] == ["s"]


def emptied(path):
    path.write_bytes(b"")


def without_tables(path):
    path.unlink()
    with closing(sqlite3.connect(path)) as db:
        db.execute("PRAGMA journal_mode = WAL")


@pytest.mark.parametrize("how", [emptied, without_tables])
def test_an_empty_file_is_refused_and_not_made_a_store(path, how):
    StoreFile(path).close()
    how(path)
    before = path.read_bytes()
    with pytest.raises(CannotPersist, match=r"store.db is no store's file: it is empty, or a copy without its log"):
        StoreFile(path)
    assert path.read_bytes() == before


def test_a_log_without_its_file_is_no_new_store(path, copy):
    """Somebody moved the one and not the other; SQLite would read the log into whatever comes beside it."""
    with closing(StoreFile(path)) as file:
        Writer(file).register("a")
        shutil.copy(storeplace.log_of(path), storeplace.log_of(copy))
    with pytest.raises(CannotPersist, match=r"copy.db is missing, and its log copy.db-wal is there"):
        StoreFile(copy)
    with pytest.raises(CannotPersist, match=r"copy.db-wal exists already"):
        copy_store(path, copy)
    assert not copy.exists()
    copy_store(path, copy, overwrite=True)
    assert names(copy) == ["a"]


def test_a_file_of_the_first_layout_is_taken_over(path, copy):
    with closing(sqlite3.connect(path)) as db:
        for statement in TABLES[:3]:
            db.execute(statement)
        db.execute("PRAGMA user_version = 1")
        db.execute("INSERT INTO sessions VALUES ('s', '{}', 1, 1, 10)")
        db.commit()
    assert check_file(path) == Contents(1, 0, 1)
    assert copy_store(path, copy) == Contents(1, 0, SCHEMA)
    for each in (path, copy):
        with closing(StoreFile(each)) as file:
            assert [note.session_id for note in file.load()] == ["s"]


def test_nothing_is_replaced_without_being_asked(path, copy):
    with closing(StoreFile(path)) as file:
        Writer(file).register("a")
    copy.write_text("something of somebody's")
    with pytest.raises(CannotPersist, match=r"copy.db exists already"):
        copy_store(path, copy)
    assert copy.read_text() == "something of somebody's"
    with pytest.raises(CannotPersist, match="is the store's file itself"):
        copy_store(path, path, overwrite=True)
    copy_store(path, copy, overwrite=True)
    assert names(copy) == ["a"]


def test_a_file_that_a_store_uses_is_not_replaced(path, copy):
    with closing(StoreFile(path)) as file:
        Writer(file).register("a")
        copy_store(path, copy)
        with pytest.raises(CannotPersist, match=f"store.db is in use by process {os.getpid()}"):
            copy_store(copy, path, overwrite=True)
        Writer(file).register("b")
    assert names(path) == ["a", "b"]
    copy_store(copy, path, overwrite=True)
    assert names(path) == ["a"]


def test_the_log_of_a_file_that_is_replaced_does_not_come_into_the_new_one(path, copy):
    """As after a kill: there are writes in the log that SQLite would bring into whatever lies there."""
    with closing(StoreFile(path)) as file:
        Writer(file).register("a")
    with closing(StoreFile(copy)) as file:
        Writer(file).register("b")
        kept = {each: each.read_bytes() for each in (copy, storeplace.log_of(copy))}
    for each, raw in kept.items():
        each.write_bytes(raw)
    copy_store(path, copy, overwrite=True)
    assert names(copy) == ["a"]


@pytest.mark.parametrize(
    ("spoil", "told"),
    [
        ("UPDATE variables SET value = '{'", "is damaged: the text is no JSON"),
        ("PRAGMA application_id = 7", "is an SQLite file, and not a session store's"),
        ("PRAGMA user_version = 99", "was written by a later version"),
    ],
)
def test_what_is_no_whole_store_is_neither_backed_up_nor_restored(path, copy, spoil, told):
    with closing(StoreFile(path)) as file:
        Writer(file).register("a")
    with closing(sqlite3.connect(path)) as db:
        db.execute(spoil)
        db.commit()
    for attempt in (lambda: copy_store(path, copy), lambda: check_file(path)):
        with pytest.raises(CannotPersist, match=told):
            attempt()
    assert [each.name for each in path.parent.iterdir() if "copy" in each.name] == []


def test_a_file_that_is_not_there_is_named(path, copy):
    with pytest.raises(CannotPersist, match=r"store.db does not exist"):
        copy_store(path, copy)
    assert not path.exists()


KILLED = """
import os, signal, sys
from contextlib import closing
from pathlib import Path
from dspex_trio.store.copies import copy_store
from dspex_trio.store.file import StoreFile
from dspex_trio.store.records import SessionKept

what, path, copy, after = sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3]), int(sys.argv[4])
count = 0

def kill(event, arguments):
    global count
    if event.startswith(("open", "os.", "sqlite3.")) and os.getpid() == child:
        count += 1
        if count > after:
            signal.raise_signal(signal.SIGKILL)

for after in range(after, after + 100):
    if (child := os.fork()) == 0:
        child = os.getpid()
        sys.addaudithook(kill)
        if what == "start":
            StoreFile(path).close()
        else:
            copy_store(path, copy, overwrite=what == "replace")
        os._exit(0)
    _, status = os.waitpid(child, 0)
    print(after, status, flush=True)
    if status != signal.SIGKILL or sys.stdin.readline() != "on\\n":
        sys.exit(0 if status in (0, signal.SIGKILL) else 1)
"""


@pytest.mark.parametrize("what", ["make", "replace", "start"])
def test_a_copy_is_whole_or_not_there_whenever_its_process_is_killed(path, copy, what):
    """Before each thing that it asks of the system, one after the other until it comes to its end."""
    with closing(StoreFile(path)) as file:
        Writer(file).register("new")
    if what == "replace":
        with closing(StoreFile(copy)) as file:
            Writer(file).register("old")
    kills = 0
    command = [sys.executable, "-c", KILLED, what, path, copy, "0"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        for line in process.stdout:
            if line.split()[1] == "0":
                break
            kills += 1
            assert names(path) == ["new"]
            if what == "make":
                assert not copy.exists() or check_file(copy).variables == 1
                copy.unlink(missing_ok=True)
            elif what == "replace":
                assert names(copy) in (["old"], ["new"])
            process.stdin.write("on\n")
            process.stdin.flush()
    assert process.returncode == 0
    assert kills >= 5
    assert names(path if what == "start" else copy) == ["new"]


def test_a_copy_that_fails_leaves_nothing_behind(path, copy, monkeypatch):
    with closing(StoreFile(path)) as file:
        Writer(file).register("a")

    def full(_db):
        raise sqlite3.OperationalError("database or disk is full")

    monkeypatch.setattr("dspex_trio.store.copies._contents", full)
    with pytest.raises(CannotPersist, match=r"copy.db cannot be used: database or disk is full"):
        copy_store(path, copy)
    assert [each.name for each in path.parent.iterdir() if "copy" in each.name] == []


def test_a_full_disk_is_called_so(path, monkeypatch):
    """Whatever SQLite says of it: where it could not write, it may say that an I/O error came up."""
    monkeypatch.setattr(storeplace.shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(10**9, 10**9, 4096))
    told = r"store.db cannot be used: the disk is full \(disk I/O error\)"
    with pytest.raises(CannotPersist, match=told), storeplace.explained(path):
        raise sqlite3.OperationalError("disk I/O error")
