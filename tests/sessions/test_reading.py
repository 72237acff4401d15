import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from dspex_trio.model.errors import NoVariables, StoreUnavailable, VariableInvalid, VariableNotFound
from dspex_trio.wire import encode_any
from dspex_trio.wire.generated import bridge_pb2

from .fakes import NEVER, UNAVAILABLE, UNIMPLEMENTED, ScriptedStore, status

NAMES = [f"v{number}" for number in range(32)]


def store_of_32(**script):
    store = ScriptedStore(**script)
    store.register(**{name: float(number) for number, name in enumerate(NAMES)})
    return store


async def test_any_number_of_variables_is_one_call():
    store = store_of_32()
    found = await store.session().get_variables(NAMES)
    assert {name: variable.value for name, variable in found.items()} == {name: float(name[1:]) for name in NAMES}
    assert store.calls == ["GetVariables"]


async def test_no_variables_are_no_call():
    store = ScriptedStore(GetVariables=NEVER)
    assert await store.session().get_variables([]) == {}
    assert store.calls == []


async def test_a_store_without_batches_is_read_by_a_call_for_each_variable():
    """All at once, so that 32 variables cost one round trip more than one does."""
    gate = trio.Event()
    store = store_of_32(GetVariables=UNIMPLEMENTED, GetVariable=gate)
    session = store.session(max_reads=32)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(session.get_variables, NAMES)
        await wait_all_tasks_blocked()
        assert store.running == 32
        gate.set()


async def test_no_more_reads_than_allowed_run_at_once():
    store = store_of_32(GetVariables=UNIMPLEMENTED)
    found = await store.session(max_reads=5).get_variables(NAMES)
    assert len(found) == 32
    assert store.most == 5


async def test_a_missing_batch_call_is_remembered_until_the_connection_is_lost():
    """Asking again for each trial would double its round trips; a store that comes back may be another one."""
    store = store_of_32(GetVariables=[UNIMPLEMENTED], GetVariable=[None, None, UNAVAILABLE])
    session = store.session()
    await session.get_variables(["v1"])
    await session.get_variables(["v2"])
    assert store.calls == ["GetVariables", "GetVariable", "GetVariable"]
    store.calls.clear()
    await session.get_variables(["v3"])
    assert store.calls == ["GetVariable", "GetVariables"]


async def test_the_first_error_ends_the_other_reads():
    store = store_of_32(GetVariables=UNIMPLEMENTED, GetVariable=[NEVER, status("DATA_LOSS", "broken"), NEVER])
    with pytest.raises(StoreUnavailable, match="the session store at the test's store answers DATA_LOSS: broken"):
        await store.session().get_variables(["v1", "v2", "v3"])
    assert store.running == 0


async def test_of_errors_that_come_together_the_first_variables_is_told():
    """Whichever task happened to run first, the outcome is the same."""

    def fail(request):
        raise status("INTERNAL", f"no {request.variable_identifier}")

    for names in (["v1", "v2", "v3"], ["v3", "v1", "v2"]):
        for _ in range(10):
            store = store_of_32(GetVariables=UNIMPLEMENTED, GetVariable=fail)
            with pytest.raises(StoreUnavailable, match=f"no {names[0]}"):
                await store.session().get_variables(names)


async def test_a_store_without_variables_is_a_matter_of_configuration_and_no_reason_to_try_again():
    store = ScriptedStore(GetVariables=UNIMPLEMENTED, GetVariable=UNIMPLEMENTED)
    with pytest.raises(NoVariables, match=r"the test's store has no variable calls \(snakepit 0.13 has none\)") as info:
        await store.session().get_variables(["t"])
    assert not info.value.retryable
    assert "--store HOST:PORT" in str(info.value)
    assert "--variables-tool NAME" in str(info.value)


@pytest.mark.parametrize("batch", [None, UNIMPLEMENTED])
async def test_a_variable_that_is_not_there_is_none(batch):
    store = store_of_32(GetVariables=batch)
    found = await store.session().get_variables(["v1", "missing"])
    assert found["missing"] is None
    assert found["v1"].value == 1.0


@pytest.mark.parametrize("batch", [None, UNIMPLEMENTED])
async def test_a_session_that_is_not_there_is_an_error_even_if_every_variable_is_optional(batch):
    store = ScriptedStore(GetVariables=batch)
    with pytest.raises(VariableNotFound, match="Session not found: other"):
        await store.session("other").get_variables(["t"])


@pytest.mark.parametrize(("answer", "missing"), [(None, "variable"), (status("NOT_FOUND", "x"), "session")])
async def test_where_the_text_does_not_say_what_is_missing_the_store_is_asked(answer, missing):
    store = ScriptedStore(GetVariables=UNIMPLEMENTED, GetVariable=status("NOT_FOUND", "not_found"), GetSession=answer)
    session = store.session()
    if missing == "variable":
        assert await session.get_variables(["t"]) == {"t": None}
    else:
        with pytest.raises(VariableNotFound):
            await session.get_variables(["t"])


async def test_a_variable_that_the_batch_leaves_out_is_asked_for_alone():
    """Snakepit 0.4 silently drops what it cannot encode; without asking, it would look missing."""
    store = store_of_32(
        GetVariables=lambda request: bridge_pb2.BatchGetVariablesResponse(missing_variables=["gone"]),
        GetVariable=[status("INTERNAL", "Failed to encode value")],
    )
    with pytest.raises(StoreUnavailable, match="Failed to encode value"):
        await store.session().get_variables(["v1", "gone"])
    assert store.calls == ["GetVariables", "GetVariable"]


async def test_a_value_that_cannot_be_decoded_names_its_variable():
    def undecodable(request):
        bad = bridge_pb2.Variable(name="t", type="float", value={"type_url": "foo", "value": b"x"})
        return bridge_pb2.BatchGetVariablesResponse(variables={"t": bad})

    store = ScriptedStore(GetVariables=undecodable)
    with pytest.raises(VariableInvalid, match="variable 't' of type float: the type 'foo' is unknown"):
        await store.session().get_variables(["t"])


async def test_a_trial_without_a_session_is_told_so_without_asking():
    store = ScriptedStore()
    with pytest.raises(VariableNotFound, match="variable 't' is asked for, and no session is named"):
        await store.session("").get_variables(["t"])
    assert store.calls == []


# ---- freshness and the cache ----------------------------------------------------------------------------------------


async def test_every_read_sees_what_was_written_before_it():
    store = store_of_32()
    session = store.session()
    for number in range(5):
        store.memory.set("s", "v1", float(number))
        assert await session.get("v1") == float(number)


async def test_a_variable_that_came_back_with_the_same_version_is_not_taken_for_the_old_one():
    """A store that was restarted counts from one again."""
    store = store_of_32()
    session = store.session()
    assert await session.get("v1") == 1.0
    store.memory.delete("s", "v1")
    store.memory.register("s", "v1", "string", "another")
    found = await session.get_variable("v1")
    assert (found.value, found.version) == ("another", 1)


async def test_the_same_bytes_are_decoded_once():
    store = store_of_32()
    session = store.session()
    assert await session.get_variable("v1") is await session.get_variable("v1")


async def test_a_program_cannot_change_what_the_next_one_reads():
    store = ScriptedStore()
    store.memory.register("s", "demos", "list", [{"q": ["a"]}])
    session = store.session()
    first = await session.get("demos")
    first[0]["q"].append("scribble")
    assert await session.get("demos") == [{"q": ["a"]}]


# ---- an Elixir tool as the source -----------------------------------------------------------------------------------


def tool_reply(**values):
    return lambda request: bridge_pb2.ExecuteElixirToolResponse(success=True, result=encode_any(values))


async def test_an_elixir_tool_can_stand_in_for_variables():
    requests = []

    def answer(request):
        requests.append(request)
        return tool_reply(t=0.5, m={"a": [1]})(request)

    store = ScriptedStore(ExecuteElixirTool=answer, GetVariables=NEVER)
    found = await store.session(variables_tool="read_variables").get_variables(["t", "m", "missing"])
    assert (found["t"].value, found["m"].value, found["missing"]) == (0.5, {"a": [1]}, None)
    assert (requests[0].tool_name, requests[0].session_id) == ("read_variables", "s")
    assert requests[0].parameters["names"].value == b'["t","m","missing"]'


@pytest.mark.parametrize(
    ("reply", "error", "text"),
    [
        (
            {"error_message": "Tool not found"},
            NoVariables,
            "'read' .--variables-tool., which reads the variables, failed; there is none of that name: Tool not found",
        ),
        ({"error_message": "session_not_found"}, VariableNotFound, "session_not_found"),
        ({"success": True, "result": encode_any([1])}, StoreUnavailable, "no JSON object"),
        ({"success": True, "result": {"type_url": "x", "value": b"y"}}, StoreUnavailable, "cannot be decoded"),
    ],
)
async def test_a_tool_that_does_not_read_variables_is_no_store_and_will_be_none(reply, error, text):
    store = ScriptedStore(ExecuteElixirTool=lambda request: bridge_pb2.ExecuteElixirToolResponse(**reply))
    with pytest.raises(error, match=text) as info:
        await store.session(variables_tool="read").get_variables(["t"])
    assert not info.value.retryable


# ---- a store that is away -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("away", [UNAVAILABLE, status("CANCELLED")])
async def test_a_store_that_restarts_is_waited_for(away, virtual_clock):
    """A server that shuts down cancels the calls under it; nobody here did."""
    store = store_of_32(GetVariables=[away] * 5)
    with trio.fail_after(5):
        assert await store.session().get("v1") == 1.0
    assert store.calls == ["GetVariables"] * 6


async def test_a_store_that_stays_away_fails_the_read_while_there_is_time_to_say_so(virtual_clock):
    """The caller learns STORE_UNAVAILABLE, not merely that the deadline passed."""
    store = ScriptedStore(GetVariables=UNAVAILABLE)
    with (
        trio.move_on_after(3) as scope,
        pytest.raises(StoreUnavailable, match="cannot be reached: connection refused") as info,
    ):
        await store.session().get("v1")
    assert not scope.cancel_called
    assert info.value.retryable
    assert 10 < len(store.calls) < 40


class Link:
    """A connection that is there once it is said to be."""

    def __init__(self):
        self.failure = "connection refused"
        self.back = trio.Event()

    async def connected(self):
        await self.back.wait()
        self.failure = None


async def test_a_store_that_is_away_is_not_asked_until_there_is_a_connection(virtual_clock):
    """Hundreds of trials may wait for it, and each try costs processor time that its restart needs."""
    link = Link()
    store = store_of_32(GetVariables=[UNAVAILABLE] * 2)
    ended = []

    async def read(seconds):
        with trio.fail_after(seconds):
            await store.session(link=link).get("v1")
        ended.append((seconds, round(trio.current_time() - 10, 3)))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(read, 100)
        nursery.start_soon(read, 12)
        await trio.sleep(10)
        assert store.calls == ["GetVariables"] * 2
        link.back.set()
    assert store.calls == ["GetVariables"] * 4
    assert ended == [(12, 0.03), (100, 0.05)], "who has little time left comes first, and not all come at once"


async def test_a_connection_that_comes_too_late_is_no_help(virtual_clock):
    """A busy loop learns of it, and of the time, later than it was."""
    link = Link()
    store = ScriptedStore(GetVariables=UNAVAILABLE)

    async def read():
        with trio.fail_after(3), pytest.raises(StoreUnavailable, match="connection refused"):
            await store.session(link=link).get("v1")

    async with trio.open_nursery() as nursery:
        nursery.start_soon(read)
        await wait_all_tasks_blocked()
        link.back.set()
        virtual_clock.jump(2.8)


async def test_a_store_to_which_no_connection_comes_fails_the_read_in_time_too(virtual_clock):
    store = ScriptedStore(GetVariables=UNAVAILABLE)
    session = store.session(link=Link())
    with trio.fail_after(3) as scope, pytest.raises(StoreUnavailable, match="connection refused"):
        await session.get("v1")
    assert trio.current_time() == pytest.approx(scope.deadline - 0.3)
    assert store.calls == ["GetVariables"]
    assert session.away(2.69) == "the session store at the test's store cannot be reached: connection refused"


async def test_what_is_known_of_a_store_that_was_away(virtual_clock):
    store = store_of_32(GetVariables=[UNAVAILABLE, UNAVAILABLE])
    session = store.session()
    assert session.away(0) is None
    await trio.sleep(1)
    await session.get("v1")
    lost = trio.current_time()
    assert session.away(1) == "the session store at the test's store could not be reached: connection refused"
    assert session.away(lost) is None


async def test_a_try_that_hangs_after_the_store_went_away_still_ends_as_that(virtual_clock):
    store = ScriptedStore(GetVariables=[UNAVAILABLE, NEVER])
    with trio.fail_after(3), pytest.raises(StoreUnavailable, match="connection refused"):
        await store.session().get("v1")


async def test_patience_has_an_end_without_a_deadline_too(virtual_clock):
    store = ScriptedStore(GetVariables=UNAVAILABLE)
    began = trio.current_time()
    with pytest.raises(StoreUnavailable):
        await store.session(patience=10).get("v1")
    assert trio.current_time() - began <= 10


async def test_a_store_that_is_slow_is_cut_off_by_the_deadline(virtual_clock):
    store = ScriptedStore(GetVariables=NEVER)
    with trio.move_on_after(3) as scope:
        await store.session().get("v1")
    assert scope.cancelled_caught
    assert store.running == 0


async def test_a_stores_own_deadline_exceeded_is_our_deadline(virtual_clock):
    """It travelled along with the call; the store noticed it a moment before."""
    store = ScriptedStore(GetVariables=status("DEADLINE_EXCEEDED"))
    with trio.move_on_after(3) as scope:
        await store.session().get("v1")
    assert scope.cancelled_caught


async def test_a_store_with_a_deadline_of_its_own_does_not_answer_as_a_store():
    store = ScriptedStore(GetVariables=status("DEADLINE_EXCEEDED", "too slow"))
    with pytest.raises(StoreUnavailable, match="DEADLINE_EXCEEDED: too slow"):
        await store.session().get("v1")


@pytest.mark.parametrize("code", ["INTERNAL", "UNKNOWN", "INVALID_ARGUMENT", "PERMISSION_DENIED", "UNAUTHENTICATED"])
async def test_any_other_status_is_not_retried_and_is_named(code):
    store = ScriptedStore(GetVariables=status(code, "why"))
    with pytest.raises(StoreUnavailable, match=f"answers {code}: why"):
        await store.session().get("v1")
    assert store.calls == ["GetVariables"]


async def test_a_read_that_is_cancelled_leaves_no_call_behind():
    store = store_of_32(GetVariables=UNIMPLEMENTED, GetVariable=NEVER)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(store.session().get_variables, NAMES)
        await wait_all_tasks_blocked()
        assert store.running == 32
        nursery.cancel_scope.cancel()
    assert store.running == 0
