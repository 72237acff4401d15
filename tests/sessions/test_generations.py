"""What the two generations of snakepit do differently, and what a session makes of it."""

import pytest
from google.protobuf import any_pb2, wrappers_pb2

from dspex_trio.model.errors import NoVariables, StoreUnavailable, ToolError, VariableInvalid, VariableNotFound

from .conftest import at
from .peer import Inspected, Snakepit013


@pytest.fixture
def old(peer):
    return peer()


@pytest.fixture
def new(peer):
    return peer(generation=Snakepit013)


async def session_at(sessions):
    session = sessions.context("session_1")
    await session.initialize()
    return session


# ---- 0.4 ------------------------------------------------------------------------------------------------------------


async def test_versions_of_0_4_begin_at_0_and_a_name_can_be_registered_again(old):
    async with at(old.address) as sessions:
        session = await session_at(sessions)
        first = await session.register("t", "float", 1)
        assert (await session.get_variable("t")).version == 0
        assert await session.set("t", 2) == 1
        assert await session.register("t", "float", 3) != first
        assert (await session.get_variable("t")).version == 0


@pytest.mark.parametrize(
    ("kind", "value", "constraints", "text"),
    [
        ("float", 3, {"max": 2}, "value 3.0 is above maximum 2"),
        ("integer", 1, {"min": 2}, "value 1 is below minimum 2"),
        ("choice", "c", {"choices": ["a", "b"]}, "must be one of: a, b"),
        ("map", {}, {}, "Unknown type: :map"),
        ("float", "hot", {}, "Validation failed: must be a number"),
        ("float", None, {}, "unknown_type"),
    ],
)
async def test_what_0_4_refuses_is_invalid_whatever_its_status(old, kind, value, constraints, text):
    """It answers INTERNAL to most of it: as a store that does not answer, it would be asked again."""
    async with at(old.address) as sessions:
        session = await session_at(sessions)
        with pytest.raises(VariableInvalid, match=text):
            await session.register("v", kind, value, constraints=constraints)


async def test_0_4_cannot_be_watched(old):
    async with at(old.address) as sessions:
        session = await session_at(sessions)
        with pytest.raises(StoreUnavailable, match="does not have the call") as info:
            async with session.watch() as changes:
                await anext(changes)
        assert not info.value.retryable


# ---- 0.13 -----------------------------------------------------------------------------------------------------------


async def test_0_13_has_no_variables(new):
    async with at(new.address) as sessions:
        session = await session_at(sessions)
        await session.initialize()
        with pytest.raises(NoVariables, match=r"has no variable calls \(snakepit 0.13 has none\).*--variables-tool"):
            await session.get("t")
        for call in (session.set("t", 1), session.register("t", "float", 1), session.delete("t"), session.list()):
            with pytest.raises(NoVariables, match=r"does not have the call.*--store HOST:PORT"):
                await call


async def test_a_tool_of_0_13_reads_the_variables(new):
    new.store.tools["read"] = lambda parameters: {name: 0.5 for name in parameters["names"] if name != "missing"}
    async with at(new.address, variables_tool="read") as sessions:
        session = await session_at(sessions)
        found = await session.get_variables(["t", "missing"])
        assert found["t"].value == 0.5
        assert found["missing"] is None
        assert new.store.calls == [("read", {"names": ["t", "missing"]})]
        with pytest.raises(VariableNotFound, match="session 'nowhere' is not in the store"):
            await sessions.context("nowhere").get("t")


async def test_a_reading_tool_that_is_missing_is_a_wrong_configuration_and_one_that_fails_a_store_that_is_away(new):
    """Whatever its words are: they name the session, and may speak of what is not."""

    def fail(parameters):
        raise RuntimeError("session_1 is not ready")

    new.store.tools["fails"] = fail
    for tool, error, text in (
        ("missing", NoVariables, "variables-tool.*tool_not_found"),
        ("fails", StoreUnavailable, "is not ready"),
    ):
        async with at(new.address, variables_tool=tool) as sessions:
            session = await session_at(sessions)
            with pytest.raises(error, match=text):
                await session.get("t")


async def test_tools_of_0_13_are_listed_and_called(new, generated):
    parameter = generated.pb2.ParameterSpec(name="query", type="string", required=True, validation_json="{}")
    new.store.specs["search"] = {"description": "Searches.", "parameters": [parameter]}
    new.store.tools["search"] = lambda parameters: [parameters["query"], 1, None]
    new.store.tools["inspected"] = lambda parameters: Inspected("{:ok, #PID<0.1.0>}")
    new.store.tools["binary"] = lambda parameters: b"\x00\xff"
    async with at(new.address) as sessions:
        session = await session_at(sessions)
        [spec] = await session.tools()
        assert (spec.name, spec.description, spec.parameters[0].required) == ("search", "Searches.", True)
        assert await session.call_tool("search", {"query": "trio"}) == ["trio", 1, None]
        assert await session.call_tool("inspected", {}) == "{:ok, #PID<0.1.0>}"
        assert await session.call_tool("binary", {}) == b"\x00\xff"
        with pytest.raises(ToolError, match="tool_not_found"):
            await session.call_tool("missing", {})
        assert await sessions.context("nowhere").tools() == []


def test_0_13_refuses_a_packed_string_and_takes_tools_once(new, generated):
    """What our own encodings are made for."""
    import grpc

    pb2 = generated.pb2
    with grpc.insecure_channel(new.address) as channel:
        stub = generated.grpc.BridgeServiceStub(channel)
        stub.InitializeSession(pb2.InitializeSessionRequest(session_id="s"), timeout=20)
        packed = any_pb2.Any()
        packed.Pack(wrappers_pb2.StringValue(value="x"))
        new.store.tools["echo"] = lambda parameters: parameters
        request = pb2.ExecuteElixirToolRequest(session_id="s", tool_name="echo", parameters={"a": packed})
        reply = stub.ExecuteElixirTool(request, timeout=20)
        assert not reply.success
        assert reply.error_message.startswith("Invalid parameter a: unexpected byte")
        request = pb2.RegisterToolsRequest(session_id="s", tools=[pb2.ToolRegistration(name="t")])
        assert dict(stub.RegisterTools(request, timeout=20).tool_ids) == {"t": "s:t"}
        again = stub.RegisterTools(request, timeout=20)
        assert (again.success, again.error_message) == (False, '{:duplicate_tool, "t"}')
