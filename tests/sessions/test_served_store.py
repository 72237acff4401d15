"""The session store as a client sees it that is none of ours: grpcio's, over loopback."""

import json
import math
import struct
from functools import partial

import grpc
import pytest
import trio
from google.protobuf import any_pb2

from dspex_trio import rpc
from dspex_trio.sessions import MemoryStore, StoreLimits
from dspex_trio.store.servicer import SessionStore


class Peer:
    """A grpcio stub, whose blocking calls are made in a thread."""

    def __init__(self, generated, channel):
        self.pb2 = generated.pb2
        self._stub = generated.grpc.BridgeServiceStub(channel)

    async def __call__(self, name, /, **fields):
        request_name = {"GetVariables": "BatchGetVariables", "SetVariables": "BatchSetVariables"}.get(name, name)
        request = getattr(self.pb2, f"{request_name}Request")(**fields)
        return await trio.to_thread.run_sync(partial(getattr(self._stub, name), request, timeout=20))

    async def status(self, name, /, **fields):
        with pytest.raises(grpc.RpcError) as info:
            await self(name, **fields)
        return info.value.code().name, info.value.details()

    def watch(self, **fields):
        return self._stub.WatchVariables(self.pb2.WatchVariablesRequest(session_id="s", **fields), timeout=20)


LIMITS = StoreLimits(max_sessions=2, max_session_bytes=10_000, max_watchers=1)


class Clock:
    time = 1000.0

    def __call__(self):
        return self.time


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
async def peer(generated, clock):
    async with trio.open_nursery() as nursery:
        store = SessionStore(MemoryStore(LIMITS, clock=clock))
        listeners = await nursery.start(partial(rpc.serve, [store], host="127.0.0.1", port=0))
        port = listeners[0].socket.getsockname()[1]
        with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
            peer = Peer(generated, channel)
            await peer("InitializeSession", session_id="s", metadata={"by": "grpcio"})
            yield peer
        nursery.cancel_scope.cancel()


def typed(kind, value):
    return any_pb2.Any(type_url=f"type.googleapis.com/snakepit.{kind}", value=json.dumps(value).encode())


async def register(peer, name, kind, value, **fields):
    return await peer(
        "RegisterVariable", session_id="s", name=name, type=kind, initial_value=typed(kind, value), **fields
    )


async def test_a_session_is_described_kept_alive_and_removed(peer):
    found = await peer("GetSession", session_id="s")
    assert (found.session_id, dict(found.metadata)) == ("s", {"by": "grpcio"})
    assert found.created_at.seconds > 1_700_000_000
    assert (await peer("Heartbeat", session_id="s")).session_valid
    assert not (await peer("Heartbeat", session_id="other")).session_valid
    await register(peer, "t", "float", 1)
    assert (await peer("CleanupSession", session_id="s")).resources_cleaned == 2
    assert await peer.status("GetSession", session_id="s") == ("NOT_FOUND", "Session not found: s")
    assert (await peer("CleanupSession", session_id="s")).success


async def test_a_session_lives_as_long_as_it_asked_for(peer, clock):
    """`cache_ttl_seconds` is what snakepit's clients can say about it."""
    config = peer.pb2.SessionConfig(cache_ttl_seconds=60)
    await peer("InitializeSession", session_id="short", config=config)
    clock.time += 59
    assert (await peer("Heartbeat", session_id="short")).session_valid
    clock.time += 61
    assert not (await peer("Heartbeat", session_id="short")).session_valid
    assert (await peer("Heartbeat", session_id="s")).session_valid


async def test_ping_answers_with_the_stores_time(peer):
    reply = await peer("Ping", message="hello")
    assert reply.message == "pong: hello"
    assert reply.server_time.seconds > 1_700_000_000


async def test_a_variable_is_told_with_all_that_is_known_of_it(peer):
    reply = await register(peer, "t", "float", 1, constraints_json='{"max": 2}', metadata={"source": "python"})
    found = (await peer("GetVariable", session_id="s", variable_identifier="t")).variable
    assert reply.success
    assert (found.id, found.name, found.type, found.version) == (reply.variable_id, "t", "float", 1)
    assert (found.value.type_url, found.value.value) == ("type.googleapis.com/snakepit.float", b"1.0")
    assert json.loads(found.constraints_json) == {"max": 2}
    assert found.source == peer.pb2.Variable.PYTHON
    assert found.last_updated_at.seconds > 1_700_000_000


async def test_a_batch_tells_what_it_found_under_the_name_asked_for_and_what_it_did_not(peer):
    by_id = (await register(peer, "t", "float", 1)).variable_id
    reply = await peer("GetVariables", session_id="s", variable_identifiers=["t", by_id, "a", "b"])
    assert set(reply.variables) == {"t", by_id}
    assert list(reply.missing_variables) == ["a", "b"]


async def test_a_write_counts_the_version_and_minds_the_one_expected(peer):
    await register(peer, "t", "float", 1)
    set_t = partial(peer, "SetVariable", session_id="s", variable_identifier="t")
    assert (await set_t(value=typed("float", 2), expected_version=1)).new_version == 2
    refused = await peer.status(
        "SetVariable", session_id="s", variable_identifier="t", value=typed("float", 2), expected_version=1
    )
    assert refused == ("ABORTED", "variable 't' has version 2, not 1")


async def test_a_batch_write_is_all_or_nothing_when_it_is_atomic(peer):
    await register(peer, "a", "float", 1)
    await register(peer, "b", "float", 1, constraints_json='{"max": 2}')
    updates = {"a": typed("float", 5), "b": typed("float", 5), "c": typed("float", 5)}
    reply = await peer("SetVariables", session_id="s", updates=updates, atomic=True)
    assert not reply.success
    assert set(reply.errors) == {"b", "c"}
    assert not reply.new_versions
    reply = await peer("SetVariables", session_id="s", updates=updates)
    assert dict(reply.new_versions) == {"a": 2}
    assert set(reply.errors) == {"b", "c"}
    bad = {"a": typed("float", 6), "b": any_pb2.Any(type_url="foo", value=b"x")}
    reply = await peer("SetVariables", session_id="s", updates=bad, atomic=True)
    assert "the type 'foo' is unknown" in reply.errors["b"]
    assert (await peer("GetVariable", session_id="s", variable_identifier="a")).variable.version == 2


async def test_tensors_may_come_as_bytes(peer):
    await peer(
        "RegisterVariable",
        session_id="s",
        name="e",
        type="embedding",
        initial_binary_value=struct.pack("<2f", 0.5, 1.5),
        metadata={"binary_format": "raw", "dtype": "float32", "shape": "[2]"},
    )
    await peer(
        "SetVariables",
        session_id="s",
        binary_updates={"e": struct.pack("<1f", 2.5)},
        metadata={"binary_format": "raw", "dtype": "float32", "shape": "[1]"},
    )
    found = (await peer("GetVariable", session_id="s", variable_identifier="e")).variable
    assert json.loads(found.value.value) == [2.5]


async def test_special_floats_are_text_as_elixir_writes_them(peer):
    await register(peer, "t", "float", "NaN")
    found = (await peer("GetVariable", session_id="s", variable_identifier="t")).variable
    assert found.value.value == b'"NaN"'
    assert math.isnan(float(json.loads(found.value.value)))


async def test_variables_are_listed_and_deleted(peer):
    for name in ("temp_a", "temp_b", "other"):
        await register(peer, name, "float", 1)
    reply = await peer("ListVariables", session_id="s", pattern="temp_*")
    assert [variable.name for variable in reply.variables] == ["temp_a", "temp_b"]
    assert (await peer("DeleteVariable", session_id="s", variable_identifier="temp_a")).success
    assert len((await peer("ListVariables", session_id="s")).variables) == 2


REGISTER = {"session_id": "s", "name": "t", "type": "float", "initial_value": typed("float", 1)}


@pytest.mark.parametrize(
    ("name", "fields", "status", "text"),
    [
        ("GetVariable", {"session_id": "s", "variable_identifier": "x"}, "NOT_FOUND", "Variable not found: x"),
        ("GetVariable", {"session_id": "z", "variable_identifier": "x"}, "NOT_FOUND", "Session not found: z"),
        ("GetVariables", {"session_id": "z"}, "NOT_FOUND", "Session not found: z"),
        ("SetVariable", {"session_id": "s", "variable_identifier": "x"}, "NOT_FOUND", "Variable not found: x"),
        ("SetVariables", {"session_id": "z"}, "NOT_FOUND", "Session not found: z"),
        ("DeleteVariable", {"session_id": "s", "variable_identifier": "x"}, "NOT_FOUND", "Variable not found: x"),
        ("ListVariables", {"session_id": "z"}, "NOT_FOUND", "Session not found: z"),
        ("RegisterVariable", {**REGISTER, "session_id": "z"}, "NOT_FOUND", "Session not found: z"),
        ("RegisterVariable", {**REGISTER, "name": ""}, "INVALID_ARGUMENT", "the variable name '' has 0 characters"),
        (
            "RegisterVariable",
            {**REGISTER, "type": "decimal"},
            "INVALID_ARGUMENT",
            "'decimal' is no type; the types are",
        ),
        (
            "RegisterVariable",
            {**REGISTER, "initial_value": typed("string", "hot")},
            "INVALID_ARGUMENT",
            "'hot' is no float",
        ),
        ("RegisterVariable", {**REGISTER, "constraints_json": '{"max": 0}'}, "INVALID_ARGUMENT", "the most is 0"),
        (
            "RegisterVariable",
            {**REGISTER, "constraints_json": "{"},
            "INVALID_ARGUMENT",
            "constraints_json: the text is no JSON",
        ),
        ("RegisterVariable", {**REGISTER, "constraints_json": '{"min": "a"}'}, "INVALID_ARGUMENT", "it takes a number"),
        ("RegisterVariable", {**REGISTER, "initial_binary_value": b"x"}, "INVALID_ARGUMENT", "no binary_format"),
        (
            "RegisterVariable",
            {**REGISTER, "initial_value": any_pb2.Any(type_url="foo", value=b"1")},
            "INVALID_ARGUMENT",
            "the value cannot be decoded: the type 'foo' is unknown",
        ),
        ("InitializeSession", {"session_id": ""}, "INVALID_ARGUMENT", "the session id '' has 0 characters"),
        (
            "RegisterVariable",
            {**REGISTER, "type": "string", "initial_value": typed("string", "x" * 20_000)},
            "RESOURCE_EXHAUSTED",
            "the limit is 10000",
        ),
        ("ExecuteTool", {"session_id": "s"}, "UNIMPLEMENTED", "/snakepit.bridge.BridgeService/ExecuteTool"),
        ("RegisterTools", {"session_id": "s"}, "UNIMPLEMENTED", "RegisterTools"),
        ("GetVariables", {"session_id": "s", "variable_identifiers": ["x"] * 11_000}, "INVALID_ARGUMENT", "is 10000"),
        ("ListVariables", {"session_id": "s", "pattern": "x" * 600}, "INVALID_ARGUMENT", "600 characters"),
    ],
)
async def test_what_cannot_be_done_has_the_status_of_a_real_store_and_says_why(peer, name, fields, status, text):
    code, details = await peer.status(name, **fields)
    assert code == status
    assert text in details


async def test_a_name_can_be_registered_once_and_sessions_are_limited(peer):
    await register(peer, "t", "float", 1)
    assert (await peer.status("RegisterVariable", **REGISTER))[0] == "ALREADY_EXISTS"
    await peer("InitializeSession", session_id="second")
    assert (await peer.status("InitializeSession", session_id="third"))[0] == "RESOURCE_EXHAUSTED"


async def test_a_watch_streams_until_the_session_ends(peer):
    await register(peer, "t", "float", 1)
    watch = peer.watch(variable_identifiers=["t"], include_initial_values=True)

    async def following():
        return await trio.to_thread.run_sync(next, watch, None)

    first = await following()
    assert (first.update_type, first.variable.name, first.variable_id) == ("initial", "t", first.variable.id)
    await peer("SetVariable", session_id="s", variable_identifier="t", value=typed("float", 2))
    second = await following()
    assert (second.update_type, second.variable.version, second.timestamp.seconds > 0) == ("updated", 2, True)
    await peer("CleanupSession", session_id="s")
    assert await following() is None


async def test_a_watcher_that_goes_away_makes_room_for_another(peer):
    """The only one allowed here: its place must be free again."""
    await register(peer, "t", "float", 1)
    for _ in range(3):
        watch = peer.watch(include_initial_values=True)
        assert (await trio.to_thread.run_sync(next, watch)).update_type == "initial"
        watch.cancel()
        # Whatever was sent after the cancel on the same connection is served after it.
        await peer("Ping")
