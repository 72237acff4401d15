"""`module.session`: what a running program reads and writes."""

import dspy
import pytest

import dspex_trio as dspex
from dspex_trio.model import BoundVariable, Variable
from dspex_trio.model.errors import StoreUnavailable, VariableInvalid, VariableNotFound
from dspex_trio.programs.session import MAX_WRITTEN, MAX_WRITTEN_CHARS

from .fakes import Ended, Interrupt, Source, answers


@pytest.fixture
def does():
    """`does(work)` registers a program that returns what `work(session)` returns."""

    def make(work):
        @dspex.register("Does")
        class Does(dspy.Module):
            def forward(self):
                return {"result": work(self.session)}

        return "Does"

    return make


async def test_what_a_program_reads_is_as_it_is_now(trial, does):
    """A value that was read for a binding is no answer to a later question."""
    source = Source(t=0.5, a=Variable("a", "float", 1, version=7), b=[1])

    def work(session):
        before = session.get("t")
        source.values["t"] = 0.75
        found = session.get_variables(["a"])["a"]
        return [before, session.get("t"), session.get_many(["b", "t", "b"]), found.value, found.version]

    t = trial(python_class=does(work), config_space=(dspex.Binding("temperature", "t"),), source=source)
    assert await t.in_worker() == {"result": [0.5, 0.75, {"b": [1], "t": 0.75}, 1.0, 7]}
    assert source.reads[1:] == [["t"], ["a"], ["t"], ["b", "t"]]


async def test_what_is_not_there_is_an_error_or_the_default(trial, does):
    def work(session):
        assert session.get("x", default=None) is None
        with pytest.raises(VariableNotFound, match="no variable 'x'"):
            session.get("x")
        with pytest.raises(VariableNotFound, match="no variable 'x', 'y'"):
            session.get_many(["x", "t", "y"])
        return session.get("x")

    with pytest.raises(VariableNotFound, match="no variable 'x'"):
        await trial(python_class=does(work), source=Source(t=1)).in_worker()


async def test_a_value_that_breaks_its_own_declaration_is_invalid(trial, does):
    source = Source(t=Variable("t", "float", 3.0, constraints={"max": 2}))
    with pytest.raises(VariableInvalid, match="constraint max"):
        await trial(python_class=does(lambda session: session.get("t")), source=source).in_worker()


async def test_writes_get_to_the_store_and_into_the_trials_record(trial, does):
    def work(session):
        return [session.set("t", 0.9), session.set("t", 1.0, expected_version=2), session.set_many({"a": [1], "b": 2})]

    t = trial(python_class=does(work), source=Source(t=0.5))
    assert await t.in_worker() == {"result": [2, 3, {"a": 1, "b": 1}]}
    assert t.recording.written == {
        "session:t": BoundVariable("", "t", 1.0, 3),
        "session:a": BoundVariable("", "a", [1], 1),
        "session:b": BoundVariable("", "b", 2, 1),
    }


async def test_a_write_that_the_store_refused_is_none(trial, does):
    source = Source(t=0.5)

    def work(session):
        session.set("t", 0.75)
        source.refuse = VariableInvalid("constraint max")
        for write in (lambda: session.set("t", 3), lambda: session.set_many({"t": 3, "new": 1})):
            with pytest.raises(VariableInvalid):
                write()
        return "went on"

    t = trial(python_class=does(work), source=source)
    assert await t.in_worker() == {"result": "went on"}
    assert t.recording.written == {"session:t": BoundVariable("", "t", 0.75, 2)}


async def test_a_write_that_nobody_acknowledged_has_no_version(trial, does):
    """The connection broke: the store may have it or not, and a caller who reads the record must know."""
    source = Source(t=0.5)
    source.refuse = StoreUnavailable("connection lost")
    t = trial(python_class=does(lambda session: session.set("t", 0.75)), source=source)
    with pytest.raises(StoreUnavailable):
        await t.in_worker()
    assert t.recording.written == {"session:t": BoundVariable("", "t", 0.75, 0)}


async def test_what_was_written_is_as_it_was_then(trial, does):
    def work(session):
        demos = [{"q": "a"}]
        session.set("demos", demos)
        demos[0]["q"] = "scribble"

    t = trial(python_class=does(work))
    await t.in_worker()
    assert t.recording.written["session:demos"].value == [{"q": "a"}]


async def test_the_record_of_writes_is_bounded(trial, does):
    """A program can write for ever; its outcome must still leave."""

    def work(session):
        for _ in range(3):
            session.set("large", "x" * MAX_WRITTEN_CHARS)
        session.set("over", "y")
        session.set_many({f"v{i}": None for i in range(MAX_WRITTEN)})

    t = trial(python_class=does(work))
    await t.in_worker()
    assert len(t.recording.written) == MAX_WRITTEN
    assert len(t.recording.written["session:large"].value) == MAX_WRITTEN_CHARS, "only what is kept counts"
    assert t.recording.written["session:over"] == BoundVariable("", "over", None, 1)


async def test_an_attribute_or_method_of_the_programs_own_keeps_its_name(trial):
    """Programs that have a session of their own, of an HTTP library for one, go on working."""

    @dspex.register("OwnAttribute")
    class OwnAttribute(dspy.Module):
        def __init__(self):
            super().__init__()
            self.session = "own"

        def forward(self):
            return {"result": self.session}

    @dspex.register("OwnMethod")
    class OwnMethod(dspy.Module):
        def session(self):
            return "own"

        def forward(self):
            return {"result": self.session()}

    assert await trial(python_class="OwnAttribute").run() == {"result": "own"}
    assert await trial(python_class="OwnMethod").run() == {"result": "own"}


async def test_copies_that_a_program_makes_of_itself_have_the_session_too(trial):
    @dspex.register("Copies")
    class Copies(dspy.Module):
        def __init__(self):
            super().__init__()
            self.answer = dspy.Predict("q -> a")

        def forward(self):
            return {"result": self.deepcopy().session.get("t"), "same": self.deepcopy().session is self.session}

    assert await trial(python_class="Copies", source=Source(t=0.5)).in_worker() == {"result": 0.5, "same": True}


async def test_before_the_program_runs_there_is_no_session(trial, does):
    t = await trial(python_class=does(lambda session: None), source=Source(t=0.5)).ready()
    with pytest.raises(RuntimeError, match="while the program runs"):
        t.module.session.get("t")
    with pytest.raises(AttributeError, match="has no session; its instances do"):
        type(t.module).session  # noqa: B018


async def test_a_program_that_catches_everything_does_not_catch_its_end(trial):
    """The interrupt is no Exception, and comes out of a wait for the store as it does out of any other."""

    @dspex.register("Stubborn")
    class Stubborn(dspy.Module):
        def __init__(self):
            super().__init__()
            self.answer = dspy.Predict("q -> a")

        def forward(self):
            try:
                self.session.get("missing")
            except Exception:  # noqa: BLE001 - as programs do
                return self.answer(q="x")

    t = trial(python_class="Stubborn", model=answers(a="b"), interrupt=Interrupt(at=1))
    with pytest.raises(Ended):
        await t.in_worker()
