"""What a session does, whatever store is behind it: ours in this process, ours over HTTP/2, and grpcio ones."""

import math

import pytest
import trio

from dspex_trio.model.errors import NoVariables, StoreUnavailable, VariableInvalid, VariableNotFound

from .conftest import at, in_process, over_http2


@pytest.fixture
async def session(sessions):
    session = sessions.context("s1")
    await session.initialize({"by": "the contract"})
    return session


async def test_a_session_comes_and_goes(sessions):
    session = sessions.context("s1")
    assert not await session.exists()
    await session.initialize()
    await session.initialize()
    assert await session.exists()
    await session.cleanup()
    await session.cleanup()
    assert not await session.exists()


@pytest.mark.parametrize(
    ("kind", "value"),
    [
        ("float", 0.5),
        ("float", 3),
        ("integer", 10**30),
        ("string", '{"looks": "like JSON"}'),
        ("boolean", False),
        ("choice", "fast"),
        ("module", "dspy.ReAct"),
        ("embedding", [0.5, 1.0]),
        ("tensor", {"shape": [2], "data": [1, 2]}),
    ],
)
async def test_a_value_of_every_type_is_read_as_it_was_written(session, kind, value):
    await session.register("v", kind, value)
    found = await session.get_variable("v")
    assert (found.name, found.type, found.value) == ("v", kind, value)
    assert await session.set("v", value) == found.version + 1
    assert await session.get("v") == value


async def test_a_variable_is_found_by_name_and_by_id_with_what_was_declared(session):
    identifier = await session.register("t", "float", 1, constraints={"min": 0, "max": 2}, metadata={"unit": "K"})
    found = await session.get_variables(["t", identifier, "missing"])
    assert found["t"] == found[identifier]
    assert (found["t"].id, found["t"].constraints) == (identifier, {"min": 0, "max": 2})
    assert found["t"].metadata["unit"] == "K"
    assert found["missing"] is None


async def test_what_is_not_there_is_not_found(session, sessions):
    with pytest.raises(VariableNotFound, match="missing"):
        await session.get("missing")
    with pytest.raises(VariableNotFound, match="missing"):
        await session.set("missing", 1)
    with pytest.raises(VariableNotFound, match="missing"):
        await session.delete("missing")
    nowhere = sessions.context("nowhere")
    for call in (nowhere.get("t"), nowhere.set("t", 1), nowhere.register("t", "float", 1), nowhere.list()):
        with pytest.raises(VariableNotFound, match="nowhere"):
            await call


async def test_a_value_that_does_not_fit_is_invalid_and_changes_nothing(session):
    await session.register("t", "float", 1, constraints={"max": 2})
    with pytest.raises(VariableInvalid):
        await session.set("t", "hot")
    with pytest.raises(VariableInvalid):
        await session.set("t", 3)
    with pytest.raises(VariableInvalid):
        await session.register("u", "float", "hot")
    with pytest.raises(VariableInvalid):
        await session.register("u", "decimal", 1)
    assert await session.get("t") == 1.0
    assert [variable.name for variable in await session.list()] == ["t"]


@pytest.mark.parametrize("value", [2**53 + 1, -(2**53) - 1, 10**400])
async def test_a_whole_number_that_is_no_float_is_refused_wherever_it_is_written(our_session, value):
    """Nothing is rounded: not when a variable is registered, nor when it is set, alone, with others or in a list."""
    await our_session.register("f", "float", 2**53)
    with pytest.raises(VariableInvalid, match="exactly"):
        await our_session.register("g", "float", value)
    with pytest.raises(VariableInvalid, match="exactly"):
        await our_session.set("f", value)
    with pytest.raises(VariableInvalid, match="exactly"):
        await our_session.set_many({"f": value})
    with pytest.raises(VariableInvalid, match="is no embedding"):
        await our_session.register("e", "embedding", [0.5, value])
    assert [(variable.name, variable.value) for variable in await our_session.list()] == [("f", 2.0**53)]


async def test_bounds_that_are_no_floats_are_kept_and_compared_as_they_are(our_session):
    await our_session.register("f", "float", 2**53, constraints={"min": -(10**400), "max": 2**53 + 1})
    assert (await our_session.get_variable("f")).constraints == {"min": -(10**400), "max": 2**53 + 1}
    with pytest.raises(VariableInvalid, match="the most is 9007199254740993"):
        await our_session.set("f", 2.0**53 + 2)


async def test_several_are_set_together_or_not_at_all(session):
    await session.register("a", "float", 1, constraints={"max": 2})
    await session.register("b", "float", 1)
    first = await session.get_variables(["a", "b"])
    versions = await session.set_many({"a": 2, "b": 5})
    assert versions == {name: variable.version + 1 for name, variable in first.items()}
    with pytest.raises(VariableInvalid, match="a: "):
        await session.set_many({"a": 3, "b": 6})
    assert (await session.get("a"), await session.get("b")) == (2.0, 5.0)
    with pytest.raises(VariableInvalid, match="a: "):
        await session.set_many({"a": 3, "b": 6}, atomic=False)
    assert (await session.get("a"), await session.get("b")) == (2.0, 6.0)


async def test_variables_are_listed_and_removed(session):
    for name in ("temp_a", "temp_b", "other", "my_temp_c"):
        await session.register(name, "float", 1)
    assert [variable.name for variable in await session.list("temp_*")] == ["temp_a", "temp_b"]
    assert [variable.name for variable in await session.list("temp")] == []
    # No regular expression, also where the store takes it for one, or fails on one that is wrong.
    assert [variable.name for variable in await session.list("temp_(a|b)")] == []
    assert [variable.name for variable in await session.list("temp_[")] == []
    await session.delete("my_temp_c")
    await session.delete("temp_a")
    assert {variable.name for variable in await session.list()} == {"temp_b", "other"}


async def test_a_sign_of_life(sessions):
    assert await sessions.ping("hello") == "pong: hello"


async def test_several_that_are_not_there_are_not_found_or_named(session, sessions):
    """Snakepit 0.4 refuses such a batch as a whole, with another status."""
    await session.register("a", "float", 1)
    with pytest.raises((VariableNotFound, VariableInvalid), match="missing"):
        await session.set_many({"a": 2, "missing": 1})
    assert await session.get("a") == 1.0
    with pytest.raises(VariableNotFound, match="ession"):
        await sessions.context("nowhere").set_many({"a": 1})


# ---- ours alone -----------------------------------------------------------------------------------------------------


@pytest.fixture(params=[in_process, over_http2])
async def our_session(request):
    async with request.param() as sessions:
        session = sessions.context("s1")
        await session.initialize()
        yield session


@pytest.mark.parametrize(("kind", "value"), [("map", {"a": [None, {"b": True}]}), ("list", ["a", 1, None])])
async def test_maps_and_lists_are_values(our_session, kind, value):
    await our_session.register("v", kind, value)
    found = await our_session.get_variable("v")
    assert (found.type, found.value, found.version) == (kind, value, 1)


async def test_a_name_is_registered_once(our_session):
    await our_session.register("t", "float", 1)
    with pytest.raises(VariableInvalid, match="already exists: t"):
        await our_session.register("t", "float", 2)
    assert await our_session.get("t") == 1.0


async def test_a_writer_can_say_which_version_it_saw(our_session):
    await our_session.register("t", "float", 1)
    await our_session.set("t", 2, expected_version=1)
    with pytest.raises(VariableInvalid, match="variable 't' has version 2, not 1"):
        await our_session.set("t", 3, expected_version=1)


async def test_special_floats_are_values(our_session):
    await our_session.register("t", "float", math.inf)
    assert await our_session.get("t") == math.inf
    await our_session.set("t", math.nan)
    assert math.isnan(await our_session.get("t"))


async def test_a_watch_tells_what_is_there_and_then_every_change(our_session):
    await our_session.register("a", "float", 1)
    await our_session.register("b", "float", 1)
    async with our_session.watch(["a"]) as changes:
        first = await anext(changes)
        assert (first.kind, first.variable.value) == ("initial", 1.0)
        await our_session.set("b", 7)
        await our_session.set("a", 2)
        second = await anext(changes)
        assert (second.kind, second.variable.name, second.variable.version) == ("updated", "a", 2)
        await our_session.delete("a")
        assert (await anext(changes)).kind == "deleted"
        await our_session.cleanup()
        with pytest.raises(StopAsyncIteration):
            await anext(changes)


async def test_a_watch_of_everything_sees_new_variables(our_session):
    await our_session.register("early", "float", 1)
    async with our_session.watch() as changes:
        assert (await anext(changes)).kind == "initial"
        await our_session.register("late", "float", 1)
        change = await anext(changes)
        assert (change.kind, change.variable.name) == ("registered", "late")


async def test_a_slow_watcher_gets_the_last_change_of_each_variable(our_session):
    """What a store keeps for a watcher must not grow with what others write."""
    await our_session.register("a", "float", 0)
    await our_session.register("b", "float", 0)
    async with our_session.watch() as changes:
        seen = await anext(changes)
        for number in range(100):
            await our_session.set("a", number)
            await our_session.set("b", number)
        last = {}
        while last.get("a") != 99 or last.get("b") != 99:
            change = await anext(changes)
            last[change.variable.name] = change.variable.value
    assert (seen.kind, seen.variable.value) == ("initial", 0.0)


async def test_watching_what_is_not_there_is_not_found(our_session):
    with pytest.raises(VariableNotFound, match="missing"):
        async with our_session.watch(["missing"]) as changes:
            await anext(changes)


# ---- a store of grpcio's that comes and goes ------------------------------------------------------------------------


async def test_a_store_without_variable_calls_says_so(peer):
    server = peer(without=["GetVariables", "GetVariable", "RegisterVariable"])
    async with at(server.address) as sessions:
        session = sessions.context("s1")
        await session.initialize()
        with pytest.raises(NoVariables, match=f"store at {server.address} has no variable calls"):
            await session.get("t")
        with pytest.raises(NoVariables, match="does not have the call"):
            await session.register("t", "float", 1)


async def test_a_store_that_is_down_is_named(peer):
    server = peer()
    server.stop()
    async with at(server.address, patience=0.0) as sessions:
        with pytest.raises(StoreUnavailable, match=f"the session store at {server.address} cannot be reached"):
            await sessions.context("s1").get("t")


async def test_a_store_that_restarts_in_the_middle_of_a_read_is_read_again(peer):
    """The first call dies with the connection; the deadline leaves room, and the new store answers."""
    server = peer()
    async with at(server.address) as sessions:
        session = sessions.context("s1")
        await session.initialize()
        await session.register("t", "float", 1)
        server.store.held.clear()
        found = []

        async def read():
            found.append(await session.get("t"))

        with trio.fail_after(20):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(read)
                await trio.to_thread.run_sync(server.store.wait_for_call)
                await trio.to_thread.run_sync(server.stop)
                server.store.sessions["s1"]["t"]["value"] = 2.0
                server.store.held.set()
                await trio.to_thread.run_sync(server.start)
        assert found == [2.0]


async def test_a_read_that_is_cancelled_ends_at_once_and_the_connection_serves_the_next(peer):
    server = peer()
    async with at(server.address) as sessions:
        session = sessions.context("s1")
        await session.initialize()
        await session.register("t", "float", 1)
        server.store.held.clear()
        with trio.move_on_after(20) as scope:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(session.get, "t")
                await trio.to_thread.run_sync(server.store.wait_for_call)
                nursery.cancel_scope.cancel()
        assert not scope.cancelled_caught
        server.store.held.set()
        assert await session.get("t") == 1.0
