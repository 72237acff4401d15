"""`dspex-trio store backup`, `restore` and `check`."""

import re

import pytest
from click.testing import CliRunner

from dspex_trio import rpc
from dspex_trio.cli import main
from dspex_trio.sessions import STORE_CHANNEL, Sessions
from dspex_trio.wire.generated.bridge_grpc import BridgeServiceStub


@pytest.fixture
def dspex(tmp_path, monkeypatch):
    """What a command says, and its exit code; in a directory of its own."""
    monkeypatch.chdir(tmp_path)

    def run(*arguments):
        done = CliRunner().invoke(main, ["store", *arguments])
        return done.exit_code, done.output

    return run


async def test_a_running_store_is_backed_up_and_its_backup_becomes_another_stores_file(start, dspex, tmp_path):
    store = await start("store", "--persist", "sessions.db")
    async with rpc.open_channel(await store.address(), settings=STORE_CHANNEL) as channel:
        session = Sessions(BridgeServiceStub(channel)).context("s")
        await session.initialize()
        await session.register("t", "float", 1)
        assert dspex("backup", "backup.db", "--persist", "sessions.db") == (
            0,
            "backup.db holds 1 sessions and 1 variables\n",
        )
        await session.set("t", 2)
        assert dspex("check", "sessions.db")[0] == 0
        pid = store.process.pid
        code, told = dspex("restore", "backup.db", "--persist", "sessions.db", "--overwrite")
        assert (code, told) == (1, f"Error: sessions.db is in use by process {pid}\n")
        assert await session.get("t") == 2
    (tmp_path / "copied.db").write_bytes((tmp_path / "sessions.db").read_bytes())
    refused = await start("store", "--persist", "copied.db")
    assert await refused.ends() == 1
    assert re.fullmatch(r"Error: --persist: copied.db is not whole: .*`dspex-trio store backup`.*\n", refused.told)
    assert dspex("restore", "backup.db", "--persist", "restored.db")[0] == 0
    other = await start("store", "--persist", "restored.db")
    async with rpc.open_channel(await other.address(), settings=STORE_CHANNEL) as channel:
        assert await Sessions(BridgeServiceStub(channel)).context("s").get("t") == 1


def test_the_stores_file_is_said_before_the_command_behind_it_or_in_the_environment(dspex, monkeypatch):
    for arguments in (["--persist", "no.db", "backup", "b.db"], ["backup", "b.db", "--persist", "no.db"]):
        assert dspex(*arguments) == (1, "Error: no.db does not exist\n")
    code, told = dspex("backup", "b.db")
    assert code == 2
    assert "say which file the store has: --persist FILE" in told
    monkeypatch.setenv("DSPEX_TRIO_PERSIST", "no.db")
    assert dspex("backup", "b.db") == (1, "Error: no.db does not exist\n")


def test_a_file_that_is_there_is_replaced_with_overwrite_alone(dspex, tmp_path):
    from dspex_trio.store.file import StoreFile

    for name in ("one.db", "other.db"):
        StoreFile(tmp_path / name).close()
    code, told = dspex("backup", "other.db", "--persist", "one.db")
    assert (code, told) == (1, "Error: other.db exists already (--overwrite replaces it)\n")
    assert dspex("backup", "other.db", "--persist", "one.db", "--overwrite")[0] == 0
    assert dspex("check", "other.db") == (0, "other.db is whole: 0 sessions, 0 variables, layout 2\n")
