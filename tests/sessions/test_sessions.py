import pytest
import trio

from dspex_trio.model import Variable
from dspex_trio.model.errors import NoVariables, StoreUnavailable, VariableInvalid, VariableNotFound
from dspex_trio.sessions import Sessions, VersionConflict
from dspex_trio.sessions.decoded import DecodedVariables
from dspex_trio.wire import encode_variable
from dspex_trio.wire.generated import bridge_pb2

from .fakes import UNAVAILABLE, ScriptedStore, status


async def test_a_session_has_one_context_while_it_is_in_use():
    sessions = Sessions(ScriptedStore())
    assert sessions.context("a") is sessions.context("a")
    assert sessions.context("a") is not sessions.context("b")


async def test_contexts_are_bounded_and_the_longest_unused_goes_first():
    sessions = Sessions(ScriptedStore(), max_sessions=2)
    a, b = sessions.context("a"), sessions.context("b")
    sessions.context("a")
    sessions.context("c")
    assert len(sessions) == 2
    assert sessions.context("a") is a
    assert sessions.context("b") is not b


async def test_a_context_that_is_not_used_is_dropped(virtual_clock):
    sessions = Sessions(ScriptedStore(), idle_seconds=60)
    a = sessions.context("a")
    virtual_clock.jump(59)
    assert sessions.context("a") is a
    sessions.context("b")
    virtual_clock.jump(60)
    assert sessions.context("c") is not a
    assert len(sessions) == 1


async def test_a_dropped_context_still_works_for_who_holds_it():
    sessions = Sessions(store := ScriptedStore(), max_sessions=1)
    store.register(t=1.0)
    session = sessions.context("s")
    sessions.context("other")
    assert await session.get("t") == 1.0


@pytest.mark.parametrize(
    ("answer", "error", "text"),
    [
        (status("INVALID_ARGUMENT", "must be <= 2"), VariableInvalid, "must be <= 2"),
        (status("INTERNAL", 'validation: "must be >= 0"'), VariableInvalid, "must be >= 0"),
        (status("INTERNAL", "invalid_constraints: x"), VariableInvalid, "invalid_constraints"),
        (status("INTERNAL", "boom"), StoreUnavailable, "answers INTERNAL: boom"),
        (status("NOT_FOUND", "Variable not found: t"), VariableNotFound, "Variable not found: t"),
        (status("ABORTED", "has version 3, not 2"), VersionConflict, "has version 3, not 2"),
        (status("RESOURCE_EXHAUSTED", "the limit is 5"), VariableInvalid, "the limit is 5"),
        (status("UNIMPLEMENTED", "no such method"), NoVariables, "does not have the call: no such method"),
        (UNAVAILABLE, StoreUnavailable, "cannot be reached"),
        (lambda request: bridge_pb2.SetVariableResponse(success=False, error_message="no"), VariableInvalid, "no"),
        (
            lambda request: bridge_pb2.SetVariableResponse(error_message="Variable not found"),
            VariableNotFound,
            "not found",
        ),
    ],
)
async def test_a_refused_write_is_an_error_of_its_kind(answer, error, text):
    """A write is never repeated: nobody knows whether the first one arrived."""
    store = ScriptedStore(SetVariable=answer)
    with pytest.raises(error, match=text):
        await store.session().set("t", 1)
    assert store.calls == ["SetVariable"]


async def test_an_old_store_says_that_a_session_exists_by_a_status():
    store = ScriptedStore(InitializeSession=status("ALREADY_EXISTS", "Session already exists: s"))
    await store.session().initialize()


async def test_a_value_without_a_json_form_is_refused_before_it_is_sent():
    store = ScriptedStore()
    with pytest.raises(VariableInvalid, match="variable t: function cannot be expressed as JSON"):
        await store.session().set("t", lambda: 1)
    with pytest.raises(VariableInvalid, match=r"variable t\[0\]: object cannot"):
        await store.session().register("t", "list", [object()])
    assert store.calls == []


async def test_ping_answers_and_waits_for_a_store_that_starts(virtual_clock):
    sessions = Sessions(ScriptedStore(Ping=[UNAVAILABLE, UNAVAILABLE]))
    with trio.fail_after(2):
        assert await sessions.ping("hello") == "pong: hello"


async def test_an_absurdly_long_session_id_is_not_kept():
    sessions = Sessions(ScriptedStore())
    assert sessions.context("x" * 1000).session_id == "x" * 1000
    assert len(sessions) == 0


def message(name, value="x"):
    return encode_variable(Variable(name, "string", value, 1))


def test_what_is_kept_of_variables_is_bounded_and_the_longest_unused_goes_first():
    decoded = DecodedVariables(max_bytes=3 * message("a").ByteSize() + 12)
    for name in "abc":
        decoded.decode("s", name, message(name))
    first = decoded.decode("s", "a", message("a"))
    decoded.decode("s", "d", message("d"))
    assert len(decoded) == 3
    assert decoded.decode("s", "a", message("a")) is first
    decoded.decode("s", "e", message("e", "x" * 1000))
    assert len(decoded) == 0


def test_a_large_variable_is_decoded_each_time():
    decoded = DecodedVariables()
    assert decoded.decode("s", "a", message("a", "x" * 100_000)).value == "x" * 100_000
    assert len(decoded) == 0


def test_a_variable_of_another_session_is_another_variable():
    decoded = DecodedVariables()
    assert decoded.decode("s", "a", message("a", "1")).value == "1"
    assert decoded.decode("t", "a", message("a", "2")).value == "2"
    assert decoded.decode("s", "a", message("a", "1")).value == "1"


def test_a_value_that_changed_and_cannot_be_decoded_is_forgotten():
    decoded = DecodedVariables()
    decoded.decode("s", "a", message("a"))
    bad = bridge_pb2.Variable(name="a", value={"type_url": "foo", "value": b"x"})
    with pytest.raises(VariableInvalid):
        decoded.decode("s", "a", bad)
    assert len(decoded) == 0
    assert decoded.decode("s", "a", message("a")).value == "x"
