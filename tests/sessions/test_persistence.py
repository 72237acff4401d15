"""A store with a file: what was acknowledged is there, whatever happened to the process."""

import math
import os
import signal
import sqlite3
import subprocess
import sys
import threading
from contextlib import closing

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from dspex_trio.model.errors import VariableNotFound
from dspex_trio.model.variable_types import TYPES
from dspex_trio.sessions import CannotPersist, MemoryStore, Sessions
from dspex_trio.store.file import StoreFile
from dspex_trio.store.journal import Journal, open_persistent
from dspex_trio.store.records import SessionDropped, SessionKept, VariableKept
from dspex_trio.store.rows import SCHEMA
from dspex_trio.store.servicer import SessionStore, in_process_stub

VALUES = {
    "float": -math.inf,
    "integer": 10**400,
    "string": '{"looks": "like JSON", "and": "\u2028 \x00 ümläute"}',
    "boolean": False,
    "choice": 3,
    "module": "dspy.ReAct",
    "embedding": [0.5, 1e300],
    "tensor": {"shape": [2, 1], "data": [[1], [2]]},
    "map": {"a": [None, True, {"b": 2**70}], "": b"\x00\xff"},
    "list": ["NaN", 1, 1.0],
}


@pytest.fixture
def path(tmp_path):
    return tmp_path / "store.db"


async def test_everything_is_there_again(path):
    assert set(VALUES) == set(TYPES)
    async with open_persistent(path) as (store, journal):
        store.initialize("s", {"by": "test"}, idle_seconds=1000)
        store.initialize("other")
        for kind, value in VALUES.items():
            store.register("s", kind, kind, value, metadata={"unit": "K"})
        store.set("s", "float", math.inf)
        store.register("s", "limited", "float", 1, constraints={"min": 0, "max": 10**30, "unknown": ["x"]})
        await journal.settled()
        before = store.list("s")
        created = store.session("s").created_at
    async with open_persistent(path) as (store, _):
        assert store.list("s") == [same_as(record) for record in before]
        session = store.session("s")
        assert (session.metadata, session.idle_seconds, session.created_at) == ({"by": "test"}, 1000.0, created)
        assert len(store) == 2


class same_as:  # noqa: N801 - reads as a word where it is used
    """Records compare by identity."""

    def __init__(self, record):
        self.record = record

    def __eq__(self, other):
        one, two = self.record, other
        return (one.variable, one.updated_at, one.size, one.position) == (
            two.variable,
            two.updated_at,
            two.size,
            two.position,
        )

    __hash__ = None


async def test_what_is_gone_stays_gone_and_new_things_come_after(path):
    async with open_persistent(path) as (store, _):
        for session in ("s", "dropped"):
            store.initialize(session)
            for name in ("a", "b", "c"):
                store.register(session, name, "float", 1)
        store.delete("s", "a")
        store.register("s", "a", "string", "another")
        store.cleanup("dropped")
        store.initialize("dropped")
    async with open_persistent(path) as (store, _):
        assert [(r.variable.name, r.variable.value) for r in store.list("s")] == [("b", 1), ("c", 1), ("a", "another")]
        assert store.list("dropped") == []
        ids = {record.variable.id for record in store.list("s")}
        store.register("s", "d", "float", 1)
        assert store.get("s", "d").variable.id not in ids
    async with open_persistent(path) as (store, _):
        assert [record.variable.name for record in store.list("s")] == ["b", "c", "a", "d"]


async def test_nobody_is_told_of_a_write_that_is_not_on_the_disk(path):
    """Neither who wrote it, nor who reads or watches: else a trial could run with a value that never was."""
    disk = threading.Event()

    class SlowFile(StoreFile):
        def write(self, notes):
            assert disk.wait(20)
            super().write(notes)

    with closing(SlowFile(path)) as file:
        journal = Journal(file)
        memory = MemoryStore(note=journal.note)
        session = Sessions(in_process_stub(SessionStore(memory, journal=journal))).context("s")
        memory.initialize("s")
        memory.register("s", "t", "float", 1)
        memory.register("s", "u", "float", 1)
        memory.register("s", "gone", "float", 1)
        memory.delete("s", "gone")
        told = []

        async def tell(call):
            told.append(await call)

        async def watch():
            async with session.watch() as changes:
                told.append((await anext(changes)).kind)

        async def miss():
            with pytest.raises(VariableNotFound):
                await session.set("gone", 1)
            told.append("not there")

        async with trio.open_nursery() as nursery:
            nursery.start_soon(journal.run)
            async with trio.open_nursery() as callers:
                for call in (session.set("t", 2), session.get("t"), session.list(), session.delete("u")):
                    callers.start_soon(tell, call)
                callers.start_soon(watch)
                callers.start_soon(miss)
                await wait_all_tasks_blocked()
                assert told == []
                disk.set()
            assert len(told) == 6
            nursery.cancel_scope.cancel()


async def test_writes_that_come_together_are_one_commit(path):
    """What takes time is the disk; so many writers wait for it together."""
    commits = []

    class CountingFile(StoreFile):
        def write(self, notes):
            commits.append(len(notes))
            super().write(notes)

    with closing(CountingFile(path)) as file:
        journal = Journal(file)
        store = MemoryStore(note=journal.note)
        store.initialize("s")
        for number in range(100):
            store.register("s", f"v{number}", "float", number)
            store.set("s", "v0", number)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(journal.run)
            async with trio.open_nursery() as writers:
                for _ in range(100):
                    writers.start_soon(journal.settled)
            nursery.cancel_scope.cancel()
    assert commits == [101], "of several writes to one variable only the last goes to the disk"


async def test_a_writer_that_gives_up_does_not_hold_up_or_undo_anything(path):
    async with open_persistent(path) as (store, journal):
        store.initialize("s")
        store.register("s", "t", "float", 1)
        with trio.CancelScope() as scope:
            scope.cancel()
            await journal.settled()
        assert scope.cancelled_caught
        await journal.settled()
        assert StoreFileContent(path).variables == [("t", "1.0")]


class StoreFileContent:
    """What a reader without our code sees while the store runs."""

    def __init__(self, path):
        with closing(sqlite3.connect(path)) as db:
            self.variables = db.execute("SELECT name, value FROM variables").fetchall()


async def test_a_file_that_cannot_be_written_any_more_ends_the_store(path, monkeypatch):
    """What it has told is on the disk, and what it would tell from now on is not: only the file knows what is true."""

    async def until_it_is_full():
        async with open_persistent(path) as (store, journal):
            store.initialize("s")
            await journal.settled()
            monkeypatch.setattr(StoreFile, "write", full_disk)
            store.register("s", "t", "float", 1)
            await journal.settled()

    with pytest.raises(ExceptionGroup) as info:
        await until_it_is_full()
    assert info.group_contains(CannotPersist, match="database or disk is full")
    monkeypatch.undo()
    async with open_persistent(path) as (store, _):
        assert store.list("s") == []


def full_disk(self, notes):
    with self._explained():
        raise sqlite3.OperationalError("database or disk is full")


def test_a_write_is_whole_or_not_at_all(path):
    with closing(StoreFile(path)) as file:
        file.write([SessionKept("s", {}, 1.0, 1.0, 10.0)])
        with pytest.raises(CannotPersist):
            file.write([SessionDropped("s"), SessionKept("t", {}, None, 1.0, 10.0)])
        assert [note.session_id for note in file.load()] == ["s"]


def test_a_file_belongs_to_one_store(path):
    with closing(StoreFile(path)):
        with pytest.raises(CannotPersist, match=rf"store.db is in use by process {os.getpid()}$"):
            StoreFile(path)
        code = f"from dspex_trio.store.file import *; StoreFile(Path({str(path)!r}))"
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=60)
        assert "CannotPersist" in done.stderr
        assert f"in use by process {os.getpid()}\n" in done.stderr, "whoever is told can look for it"
    StoreFile(path).close()


def test_a_link_is_no_second_file(path):
    """Two stores, each with a lock beside its own name, would write into one file."""
    with closing(StoreFile(path)):
        (link := path.with_name("link.db")).symlink_to(path)
        with pytest.raises(CannotPersist, match="in use by process"):
            StoreFile(link)


def test_a_file_is_for_its_owners_eyes(path):
    """Values are prompts and what programs said."""
    with closing(StoreFile(path)) as file:
        file.write([SessionKept("s", {}, 1.0, 1.0, 10.0)])
        assert {each.stat().st_mode & 0o077 for each in path.parent.iterdir()} == {0}


def spoiled(path, how):
    """A store's file with something in it, and then changed from outside."""
    with closing(StoreFile(path)) as file:
        notes = []
        store = MemoryStore(note=notes.append)
        store.initialize("s")
        for number in range(200):
            store.register("s", f"v{number}", "string", "x" * 100)
        file.write(notes)
    if callable(how):
        path.write_bytes(how(path.read_bytes()))
    else:
        with closing(sqlite3.connect(path)) as db:
            db.execute(how)
            db.commit()


@pytest.mark.parametrize(
    ("how", "told"),
    [
        (
            f"PRAGMA user_version = {SCHEMA + 1}",
            r"was written by a later version \(its layout is 3, this version knows 2\)",
        ),
        ("PRAGMA application_id = 7", "is an SQLite file, and not a session store's"),
        ("UPDATE variables SET value = '{'", "is damaged: the text is no JSON"),
        ("UPDATE variables SET type = 'decimal'", "is damaged: the type .* is unknown"),
        ("DROP TABLE variables", "cannot be used: no such table"),
        (lambda raw: b"not a database at all " * 100, "is damaged, or is no session store's"),
        (lambda raw: raw[:5000], "is damaged"),
        (lambda raw: raw[:4096] + os.urandom(4096) + raw[8192:], "is damaged"),
    ],
)
def test_a_file_that_is_none_of_ours_is_named_and_left_alone(path, how, told):
    spoiled(path, how)
    before = path.read_bytes()
    with pytest.raises(CannotPersist, match=f"store.db {told}"):
        load(path)
    if "damaged" not in told and "no such table" not in told:
        assert path.read_bytes() == before


def load(path):
    with closing(StoreFile(path)) as file:
        file.load()


@pytest.mark.parametrize(
    ("name", "told"), [("", "cannot be used"), ("nowhere/store.db", "cannot be made: No such file or directory")]
)
def test_a_place_where_no_file_can_be_is_named(tmp_path, name, told):
    with pytest.raises(CannotPersist, match=told):
        StoreFile(tmp_path / name)


WRITER = """
import sys, trio
from pathlib import Path
from dspex_trio.store.journal import open_persistent

async def write(store, journal, name):
    number = store.get("s", name).variable.version
    while True:
        number += 1
        store.set_many("s", {name: number, name + "_twin": number}, atomic=True)
        await journal.settled()
        print(name, number, flush=True)

async def main():
    async with open_persistent(Path(sys.argv[1])) as (store, journal):
        store.initialize("s")
        names = [f"v{number}" for number in range(8)]
        if not store.list("s"):
            for name in names:
                store.register("s", name, "integer", 1)
                store.register("s", name + "_twin", "integer", 1)
        async with trio.open_nursery() as nursery:
            for name in names:
                nursery.start_soon(write, store, journal, name)

trio.run(main)
"""


def test_a_store_that_is_killed_has_lost_nothing_that_it_acknowledged(path):
    """Three times in the middle of writing; and no write is there by half: twins, written together, are equal."""
    acknowledged = {}
    for _ in range(3):
        with subprocess.Popen([sys.executable, "-c", WRITER, path], stdout=subprocess.PIPE, text=True) as writer:
            for count, line in enumerate(writer.stdout):
                if line.endswith("\n"):  # the last one may be cut
                    name, number = line.split()
                    acknowledged[name] = int(number)
                if count == 400:
                    writer.send_signal(signal.SIGKILL)  # lines that it has written by now still arrive
        assert writer.returncode == -signal.SIGKILL
        with closing(StoreFile(path)) as file:
            kept = {
                note.record.variable.name: note.record.variable for note in file.load() if type(note) is VariableKept
            }
        assert len(acknowledged) == 8
        for name, number in acknowledged.items():
            assert kept[name].value >= number
            assert kept[name].value == kept[f"{name}_twin"].value == kept[name].version
