"""The store of a runtime and of `dspex-trio store`, opened with a file and with tools."""

import os
import signal
import subprocess
import sys

import pytest
import trio

import dspex_trio as dspex
from dspex_trio import rpc
from dspex_trio.model.errors import VariableNotFound
from dspex_trio.sessions import STORE_CHANNEL, CannotPersist, Sessions
from dspex_trio.store.elixir_tools import ELIXIR_TOOLS
from dspex_trio.wire import decode_tool_result, encode_tool_arguments
from dspex_trio.wire.generated import bridge_pb2
from dspex_trio.wire.generated.bridge_grpc import BridgeServiceStub

TOOLS = """
import dspex_trio as dspex

@dspex.elixir_tool
def shout(text: str) -> str:
    return text.upper()
"""


@pytest.fixture
def registry():
    before = dict(ELIXIR_TOOLS)
    yield
    ELIXIR_TOOLS.clear()
    ELIXIR_TOOLS.update(before)


async def test_an_embedded_store_can_be_kept_in_a_file(tmp_path):
    settings = dspex.Settings(persist=tmp_path / "store.db")
    async with dspex.open_runtime(settings) as runtime:
        session = runtime.session("s")
        await session.initialize(ttl_seconds=1000)
        await session.register("t", "float", 1)
        with pytest.raises(CannotPersist, match=f"in use by process {os.getpid()}"):
            await dspex.open_runtime(settings).__aenter__()
    async with dspex.open_runtime(settings) as runtime:
        assert await runtime.session("s").get("t") == 1.0
    async with dspex.open_runtime(dspex.Settings()) as runtime:
        with pytest.raises(VariableNotFound):
            await runtime.session("s").get("t")


def test_a_store_elsewhere_is_not_ours_to_keep(tmp_path):
    with pytest.raises(ValueError, match="persist is for the embedded store"):
        dspex.Settings(persist=tmp_path / "store.db", store="localhost:1")


async def test_an_embedded_store_has_the_tools_that_are_registered(registry):
    dspex.elixir_tool(name="double")(lambda x: 2 * x)
    async with dspex.open_runtime() as runtime:
        await runtime.session("s").initialize()
        servicer = next(each for each in runtime.servicers if hasattr(each, "ExecuteElixirTool"))
        request = bridge_pb2.ExecuteElixirToolRequest(
            session_id="s", tool_name="double", parameters=encode_tool_arguments({"x": 21})
        )
        reply = await servicer.ExecuteElixirTool(request, rpc.Call("/x"))
    assert decode_tool_result(reply.result, b"") == 42


class Command:
    """`dspex-trio store` in a directory, as a process."""

    def __init__(self, directory, *arguments):
        self.ready = directory / "ready"
        self.ready.unlink(missing_ok=True)
        self.process = subprocess.Popen(
            [sys.executable, "-m", "dspex_trio", "store", "--port", "0", "--ready-file", self.ready, *arguments],
            cwd=directory,
            stderr=subprocess.PIPE,
            text=True,
        )

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.kill()
        self.process.wait(20)
        self.process.stderr.close()

    def address(self):
        """Once it answers; it tells by a line in its log."""
        for line in self.process.stderr:
            if "serving sessions" in line:
                return f"127.0.0.1:{self.ready.read_text()}"
        raise AssertionError("it did not start")

    def failure(self):
        told = self.process.stderr.read()
        assert self.process.wait(20) == 1
        assert "Traceback" not in told
        return told


async def test_the_command_keeps_its_store_through_a_kill_and_brings_tools(tmp_path):
    (tmp_path / "my_tools.py").write_text(TOOLS)
    with Command(tmp_path, "--persist", "s.db", "--load", "my_tools") as command:
        async with rpc.open_channel(command.address(), settings=STORE_CHANNEL) as channel:
            stub = BridgeServiceStub(channel)
            session = Sessions(stub).context("s")
            await session.initialize()
            await session.register("t", "float", 1)
            assert await session.set("t", 2) == 2
            request = bridge_pb2.ExecuteElixirToolRequest(
                session_id="s", tool_name="shout", parameters=encode_tool_arguments({"text": "hi"})
            )
            reply = await stub.ExecuteElixirTool(request)
            assert decode_tool_result(reply.result, b"") == "HI"
            with Command(tmp_path, "--persist", "s.db") as second:
                assert f"Error: --persist: s.db is in use by process {command.process.pid}" in second.failure()
        command.process.send_signal(signal.SIGKILL)
        command.process.wait(20)
    with Command(tmp_path, "--persist", "s.db") as command:
        async with rpc.open_channel(command.address(), settings=STORE_CHANNEL) as channel:
            found = await Sessions(BridgeServiceStub(channel)).context("s").get_variable("t")
            assert (found.value, found.version) == (2.0, 2)
        command.process.send_signal(signal.SIGTERM)
        assert await trio.to_thread.run_sync(command.process.wait, 20) == 0


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--load", "nowhere_at_all"], "Error: --load nowhere_at_all: there is no module"),
        (["--persist", "text"], "Error: --persist: text is damaged, or is no session store's: file is not a database"),
    ],
)
def test_what_the_command_cannot_do_is_told_in_one_line(tmp_path, arguments, told):
    (tmp_path / "text").write_text("no database at all" * 100)
    with Command(tmp_path, *arguments) as command:
        assert told in command.failure()
