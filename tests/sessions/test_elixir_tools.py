"""Python functions that stand in for Elixir tools, where the store is ours."""

import threading
from contextlib import asynccontextmanager
from functools import partial

import pytest
import trio
from google.protobuf import any_pb2, wrappers_pb2

from dspex_trio import rpc, threads
from dspex_trio.model import MISSING, ToolParameter
from dspex_trio.sessions import MemoryStore
from dspex_trio.store.elixir_tools import ELIXIR_TOOLS, MAX_CALLS, StandIns, describe, elixir_tool
from dspex_trio.store.servicer import SessionStore, in_process_stub
from dspex_trio.wire import decode_tool_result, decode_tool_spec, encode_tool_arguments
from dspex_trio.wire.generated import bridge_pb2
from dspex_trio.wire.generated.any_pb2 import Any as AnyMessage

STRING = "type.googleapis.com/google.protobuf.StringValue"


@asynccontextmanager
async def store_of(*functions):
    """The calls of a store with a session `s` and these tools."""
    memory = MemoryStore()
    memory.initialize("s")
    tools = {function.__name__: describe(function) for function in functions}
    async with threads.open_threads() as workers:
        yield in_process_stub(SessionStore(memory, tools=StandIns(workers, tools)))


async def call(store, tool, /, session_id="s", **arguments):
    request = bridge_pb2.ExecuteElixirToolRequest(
        session_id=session_id, tool_name=tool, parameters=encode_tool_arguments(arguments)
    )
    reply = await store.ExecuteElixirTool(request)
    assert reply.execution_time_ms >= 0
    return decode_tool_result(reply.result, reply.binary_result) if reply.success else RuntimeError(reply.error_message)


def search(query: str, limit: int = 3, *, exact: bool | None = None, tags: list[str] = (), where: dict = {}):  # noqa: B006
    """Search the web.

    Answers titles.
    """
    return [query] * limit


async def test_a_tool_is_described_by_its_annotations_and_its_docstring():
    async with store_of(search) as store:
        reply = await store.GetExposedElixirTools(bridge_pb2.GetExposedElixirToolsRequest(session_id="s"))
        spec = decode_tool_spec(reply.tools[0])
    assert (spec.name, spec.description) == ("search", "Search the web.\n\nAnswers titles.")
    assert spec.parameters == (
        ToolParameter("query", "string", required=True, default=MISSING),
        ToolParameter("limit", "integer", default=3),
        ToolParameter("exact", "boolean", default=None),
        ToolParameter("tags", "list", default=[]),
        ToolParameter("where", "map", default={}),
    )


async def test_a_session_that_does_not_exist_has_no_tools():
    """As with snakepit."""
    async with store_of(search) as store:
        reply = await store.GetExposedElixirTools(bridge_pb2.GetExposedElixirToolsRequest(session_id="other"))
    assert not reply.tools


async def test_a_call_answers_what_the_function_returns():
    def anything(x):
        return {"x": x, "set": {2, 1}, "odd": object}

    def binary():
        return b"\x00\xff"

    async with store_of(search, anything, binary) as store:
        assert await call(store, "search", query="trio", limit=2) == ["trio", "trio"]
        assert await call(store, "anything", x=None) == {
            "x": None,
            "set": [1, 2],
            "odd": {"__ffi_unserializable__": True, "__type__": "type"},
        }
        assert await call(store, "binary") == b"\x00\xff"


@pytest.mark.parametrize(
    "sent",
    [
        any_pb2.Any(type_url=STRING, value=b'"trio"'),
        any_pb2.Any(type_url=STRING, value=wrappers_pb2.StringValue(value="trio").SerializeToString()),
        any_pb2.Any(type_url="type.googleapis.com/snakepit.string", value=b'"trio"'),
        any_pb2.Any(type_url="type.googleapis.com/google.protobuf.Value", value=b'"trio"'),
    ],
    ids=["snakepit's", "packed", "ours", "snakepit's Python side"],
)
async def test_arguments_come_in_every_form_that_peers_send(sent):
    async with store_of(search) as store:
        parameters = {"query": AnyMessage(type_url=sent.type_url, value=sent.value)}
        request = bridge_pb2.ExecuteElixirToolRequest(session_id="s", tool_name="search", parameters=parameters)
        reply = await store.ExecuteElixirTool(request)
    assert decode_tool_result(reply.result, b"") == ["trio"] * 3


def fails():
    raise LookupError("nothing there; key sk-" + "a" * 40)


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ({"tool": "fails"}, "LookupError: nothing there; key [redacted]"),
        ({"tool": "missing"}, "Tool not found: missing"),
        ({"tool": "search", "session_id": "other"}, "Session not found: other"),
        ({"tool": "search"}, "TypeError: missing a required argument: 'query'"),
        ({"tool": "search", "query": "x", "page": 2}, "TypeError: got an unexpected keyword argument 'page'"),
    ],
)
async def test_whatever_goes_wrong_is_told_in_an_ok_reply(arguments, told):
    """As with snakepit, whose callers cannot read a status."""
    async with store_of(search, fails) as store:
        error = await call(store, arguments.pop("tool"), **arguments)
    assert str(error) == told


async def test_an_argument_that_cannot_be_decoded_is_named():
    async with store_of(search) as store:
        request = bridge_pb2.ExecuteElixirToolRequest(
            session_id="s", tool_name="search", parameters={"query": AnyMessage(type_url="foo", value=b"x")}
        )
        reply = await store.ExecuteElixirTool(request)
    assert not reply.success
    assert reply.error_message.startswith("Invalid parameter query: the type 'foo' is unknown")


async def test_a_function_runs_in_a_thread_and_an_async_one_on_the_loop():
    def blocking():
        return threading.get_ident()

    async def asynchronous():
        await trio.lowlevel.checkpoint()
        return threading.get_ident()

    async with store_of(blocking, asynchronous) as store:
        assert await call(store, "blocking") != threading.get_ident()
        assert await call(store, "asynchronous") == threading.get_ident()


async def test_no_more_threads_than_allowed_run_and_the_others_wait():
    lock, gate, arrived = threading.Lock(), threading.Event(), threading.Semaphore(0)
    running = most = 0

    def counted():
        nonlocal running, most
        with lock:
            running += 1
            most = max(most, running)
        arrived.release()
        assert gate.wait(20)
        with lock:
            running -= 1

    async with store_of(counted) as store, trio.open_nursery() as nursery:
        for _ in range(2 * MAX_CALLS):
            nursery.start_soon(call, store, "counted")
        for _ in range(MAX_CALLS):
            assert await trio.to_thread.run_sync(arrived.acquire, True, 20)
        gate.set()
    assert (running, most) == (0, MAX_CALLS)


async def test_a_function_that_exits_has_failed_and_the_store_goes_on():
    """It is somebody's script, and the store is everybody's."""

    def leaves():
        raise SystemExit(3)

    async def leaves_the_loop():
        raise SystemExit(3)

    async with store_of(leaves, leaves_the_loop, search) as store:
        for name in ("leaves", "leaves_the_loop"):
            assert str(await call(store, name)) == "SystemExit: 3"
        assert await call(store, "search", query="a", limit=1) == ["a"]


async def test_a_caller_that_goes_away_stops_the_function():
    begun, ended = threading.Event(), threading.Event()

    def endless():
        begun.set()
        try:
            while True:
                pass
        finally:
            ended.set()

    async with store_of(endless) as store:
        with trio.fail_after(20):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(call, store, "endless")
                await trio.to_thread.run_sync(begun.wait, 20)
                nursery.cancel_scope.cancel()
        assert await trio.to_thread.run_sync(ended.wait, 20)


@pytest.fixture
def registry():
    before = dict(ELIXIR_TOOLS)
    yield ELIXIR_TOOLS
    ELIXIR_TOOLS.clear()
    ELIXIR_TOOLS.update(before)


def test_a_function_is_registered_under_its_name_or_another_one_once(registry):
    assert elixir_tool(search) is search
    elixir_tool(name="find", description="Finds.")(search)
    assert {name: tool.spec.description for name, tool in registry.items()} == {
        "search": "Search the web.\n\nAnswers titles.",
        "find": "Finds.",
    }
    with pytest.raises(ValueError, match="Elixir tool 'find' is already registered"):
        elixir_tool(name="find")(search)
    with pytest.raises(TypeError, match="cannot be called: its parameter 'x' has no name"):
        elixir_tool(name="positional")(lambda x, /: x)


def test_annotations_that_cannot_be_read_say_nothing():
    def odd(x: "Nowhere", y: int | str, *, z, **others: int):  # noqa: F821
        pass

    assert [parameter.type for parameter in describe(odd).spec.parameters] == ["any", "any", "any"]


async def test_a_store_that_was_given_no_tools_has_none():
    memory = MemoryStore()
    memory.initialize("s")
    store = in_process_stub(SessionStore(memory))
    reply = await store.GetExposedElixirTools(bridge_pb2.GetExposedElixirToolsRequest(session_id="s"))
    assert not reply.tools
    assert str(await call(store, "search", query="x")) == "Tool not found: search"


async def test_tools_are_called_over_grpc(generated):
    """By a client that is none of ours, as a worker of snakepit's would."""
    import grpc

    async with threads.open_threads() as workers, trio.open_nursery() as nursery:
        memory = MemoryStore()
        memory.initialize("s")
        servicer = SessionStore(memory, tools=StandIns(workers, {"search": describe(search)}))
        [listener] = await nursery.start(partial(rpc.serve, [servicer], host="127.0.0.1", port=0))
        port = listener.socket.getsockname()[1]
        with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
            stub = generated.grpc.BridgeServiceStub(channel)
            request = generated.pb2.ExecuteElixirToolRequest(
                session_id="s",
                tool_name="search",
                parameters={"query": any_pb2.Any(type_url=STRING, value=b'"trio"')},
            )
            reply = await trio.to_thread.run_sync(partial(stub.ExecuteElixirTool, request, timeout=20))
        assert (reply.success, reply.result.type_url, reply.result.value) == (True, STRING, b'["trio","trio","trio"]')
        nursery.cancel_scope.cancel()
