"""A program is hydrated, called, and what it returned or raised is told."""

import datetime as dt
import enum

import dspy
import pydantic
import pytest
from dspy.utils import DummyLM

import dspex_trio as dspex
from dspex_trio.model import LanguageModel
from dspex_trio.model.errors import InvalidSpec, LmError, ToolError
from dspex_trio.programs import ProgramSettings

from .fakes import Scripted, answers, chat


async def test_predict(trial):
    t = trial(python_class="dspy.Predict", signature="question -> answer", model=answers(answer="42"))
    assert await t.run(question="?") == {"answer": "42"}
    assert t.tree() == [("self", 1)]


async def test_chain_of_thought(trial):
    model = answers(reasoning="because", answer="42")
    t = trial(python_class="dspy.ChainOfThought", signature="question -> answer", model=model)
    assert await t.run(question="?") == {"reasoning": "because", "answer": "42"}
    assert t.tree() == [("predict", 1)]


async def test_react_with_a_registered_tool(trial):
    seen = []

    @dspex.tool
    def lookup(topic: str) -> str:
        """Look a topic up."""
        seen.append(topic)
        return "a capital"

    model = answers(
        {"next_thought": "look", "next_tool_name": "lookup", "next_tool_args": {"topic": "Paris"}},
        {"next_thought": "done", "next_tool_name": "finish", "next_tool_args": {}},
        {"reasoning": "seen", "answer": "a capital"},
    )
    t = trial(
        python_class="dspy.ReAct",
        signature="question -> answer",
        dependencies={"tools": [{"tool": "lookup"}], "max_iters": 4},
        model=model,
    )
    prediction = await t.run(question="What is Paris?")
    assert prediction["answer"] == "a capital"
    assert prediction["trajectory"]["observation_0"] == "a capital"
    assert seen == ["Paris"]
    assert t.tree() == [("react", 1), ("react", 1), ("extract.predict", 1)]


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning")  # DSPy's own, of its own classes
@pytest.mark.parametrize(
    ("name", "tools", "predictors"),
    [
        ("Predict", False, ["self"]),
        ("ChainOfThought", False, ["predict"]),
        ("MultiChainComparison", False, ["predict"]),
        ("ProgramOfThought", False, ["code_generate.predict", "code_regenerate.predict", "generate_output.predict"]),
        ("RLM", True, ["generate_action", "extract"]),
        ("ReAct", True, ["react", "extract.predict"]),
        ("ReActV2", True, ["react"]),
        ("CodeAct", True, ["codeact", "extractor.predict"]),
    ],
)
async def test_every_class_of_dspys_that_data_can_describe_is_built_once_and_copied(trial, name, tools, predictors):
    @dspex.tool
    def lookup(topic: str) -> str:
        """Look a topic up."""
        return topic

    given = {"tools": [{"tool": "lookup"}]} if tools else {}
    runs, modules = 0, []
    for _ in range(2):
        t = trial(python_class=f"dspy.{name}", signature="question -> answer", dependencies=given)
        await t.ready()
        runs += len(t.threads.runs)
        modules.append(t.module)
        assert [n for n, _ in t.module.named_predictors()] == predictors
        assert "question" in t.hydrated._inputs._fields
        assert "interpreter_factory" not in t.hydrated._inputs._fields
    assert runs == 1
    assert not {id(p) for p in modules[0].predictors()} & {id(p) for p in modules[1].predictors()}


async def test_a_registered_class_is_constructed_exactly_once_for_each_trial(trial):
    """The mixin comes by exchanging the instance's class; calling `__init__` again would run the user's code twice."""
    constructed = []

    @dspex.register("Mine")
    class Mine(dspy.Module):
        def __init__(self, greeting):
            super().__init__()
            constructed.append(greeting)
            self.greeting = greeting

        def forward(self, question: str):
            return dspy.Prediction(answer=f"{self.greeting} {question}")

    for name in ("hello", "hello", "bye"):
        t = trial(python_class="Mine", dependencies={"greeting": name})
        assert await t.run(question="you") == {"answer": f"{name} you"}
        assert isinstance(t.module, Mine)
        assert type(t.module).__name__ == "VariableAwareMine"
    assert constructed == ["hello", "hello", "bye"]


async def test_dspys_own_classes_and_reusable_ones_are_copied_from_a_prototype_without_a_thread(trial):
    constructed = []

    @dspex.register("Reused", reusable=True)
    class Reused(dspy.Module):
        def __init__(self):
            super().__init__()
            constructed.append(1)
            self.notes = []
            self.generate = dspy.Predict("question -> answer")

        def forward(self, question: str):
            self.notes.append(question)
            return dspy.Prediction(notes=list(self.notes))

    runs = []
    for question in "abc":
        t = trial(python_class="Reused")
        assert await t.run(question=question) == {"notes": [question]}
        runs.append(len(t.threads.runs))
    assert (constructed, runs) == ([1], [1, 0, 0])


async def test_a_reusable_program_that_cannot_be_copied_is_made_anew(trial):
    """DSPy's own copying would share what it cannot copy between trials, and say nothing."""

    class Uncopyable:
        def __deepcopy__(self, memo):
            raise TypeError("no copies")

    constructed = []

    @dspex.register("Held", reusable=True)
    class Held(dspy.Module):
        def __init__(self):
            super().__init__()
            constructed.append(1)
            self.held = Uncopyable()

        def forward(self):
            return {"held": id(self.held)}

    assert await trial(python_class="Held").run() != await trial(python_class="Held").run()
    assert len(constructed) == 2


async def test_objects_of_an_embedding_program_are_not_taken_for_each_other(trial):
    """They may look alike in text, so a program that holds them is not kept as a prototype."""

    class Alike:
        def __init__(self, value):
            self.value = value

        def __repr__(self):
            return "Alike()"

    @dspex.register("Holder", reusable=True)
    class Holder(dspy.Module):
        def __init__(self, held):
            super().__init__()
            self.held = held

        def forward(self):
            return {"value": self.held[0].value if isinstance(self.held, list | tuple) else self.held}

    seen = [
        await trial(python_class="Holder", dependencies={"held": held}).run()
        for held in ([Alike(1)], [Alike(2)], (Alike(3),), 1, True, 1.0, "1")
    ]
    assert [(type(s["value"]).__name__, s["value"]) for s in seen] == [
        ("int", 1), ("int", 2), ("int", 3), ("int", 1), ("bool", True), ("float", 1.0), ("str", "1"),
    ]  # fmt: skip


# ---- what a program returns -----------------------------------------------------------------------------------------


class Colour(enum.Enum):
    RED = "red"


class Place(pydantic.BaseModel):
    name: str
    seen: dt.date


def returns(value):
    @dspex.register("Returns")
    class Returns(dspy.Module):
        def forward(self):
            return value


async def test_a_prediction_is_made_plain(trial):
    returns(dspy.Prediction(place=Place(name="Paris", seen=dt.date(2024, 5, 1)), colours=[Colour.RED], nothing=None))
    t = trial(python_class="Returns")
    assert await t.run() == {"place": {"name": "Paris", "seen": "2024-05-01"}, "colours": ["red"], "nothing": None}


async def test_several_completions_are_told_one_by_one(trial):
    lm = Scripted(lambda _: chat(answer="one"), n=1)
    t = trial(python_class="dspy.Predict", signature="question -> answer", parameters={"n": 2}, model=lm)
    await t.ready()
    prediction = t.prediction(question="?")
    assert prediction.fields == {"answer": "one"}
    assert prediction.completions == ({"answer": "one"}, {"answer": "one"})


@pytest.mark.parametrize(
    ("value", "fields", "warned"),
    [
        ({"answer": 1, 2: "b"}, {"answer": 1, "2": "b"}, False),
        (dspy.Example(answer=1), {"answer": 1}, False),
        ("just text", {"result": "just text"}, True),
        (None, {"result": None}, True),
        ([1, 2], {"result": [1, 2]}, True),
    ],
)
async def test_what_is_no_prediction_is_told_too(trial, value, fields, warned):
    returns(value)
    t = await trial(python_class="Returns").ready()
    prediction = t.prediction()
    assert prediction.fields == fields
    assert bool(prediction.warnings) is warned


@pytest.mark.parametrize("allowed", [False, True])
async def test_what_is_no_json_is_a_marker_and_a_warning_with_its_repr_only_if_allowed(trial, allowed):
    class Opaque:
        def __repr__(self):
            return "<Opaque sk-abcdefghijklmnopqrstuvwxyz>"

    returns(dspy.Prediction(answer="fine", thing=Opaque()))
    t = await trial(python_class="Returns", settings=ProgramSettings(allow_repr=allowed)).ready()
    prediction = t.prediction()
    marker = prediction.fields["thing"]
    assert prediction.fields["answer"] == "fine"
    assert marker["__ffi_unserializable__"] is True
    assert marker["__type__"].endswith("Opaque")
    assert ("__repr__" in marker) is allowed
    assert prediction.warnings[0].startswith("thing: ")


# ---- what a program raises ------------------------------------------------------------------------------------------


def raising(error, cause=None):
    @dspex.register("RaisesIt")
    class RaisesIt(dspy.Module):
        def forward(self):
            raise error from cause


async def test_a_programs_own_exception_comes_as_it_is_with_its_own_cause(trial):
    error, cause = ZeroDivisionError("by zero"), KeyError("inner")
    raising(error, cause)
    with pytest.raises(ZeroDivisionError) as caught:
        await trial(python_class="RaisesIt").run()
    assert caught.value is error
    assert caught.value.__cause__ is cause


@pytest.mark.parametrize("error", [SystemExit(3), KeyboardInterrupt(), GeneratorExit()])
async def test_what_is_no_exception_passes(trial, error):
    """What becomes of it is decided where the thread is; here it must not be taken for anything else."""
    raising(error)
    t = await trial(python_class="RaisesIt").ready()
    with pytest.raises(type(error)):
        t.call()


async def test_a_tools_exception_is_blamed_on_the_tool(trial):
    @dspex.tool
    def breaks(topic: str) -> str:
        raise OSError(f"cannot read {topic}")

    @dspex.register("Uses")
    class Uses(dspy.Module):
        def __init__(self, helper):
            super().__init__()
            self.helper = helper

        def forward(self, **arguments):
            return self.helper(**arguments)

    uses = {"python_class": "Uses", "dependencies": {"helper": {"tool": "breaks"}}}
    with pytest.raises(ToolError) as caught:
        await trial(**uses).run(topic="x")
    assert isinstance(caught.value.__cause__, OSError)
    with pytest.raises(ToolError, match="missing a required argument"):
        await trial(**uses).run()


async def test_a_reply_that_cannot_be_parsed_is_blamed_on_the_model(trial):
    lm = Scripted(lambda _: "nothing that anybody asked for")
    with pytest.raises(LmError) as caught:
        await trial(python_class="dspy.Predict", signature="q -> a: int", model=lm).run(q="?")
    assert isinstance(caught.value.__cause__, dspy.AdapterParseError)
    assert not caught.value.retryable


@pytest.mark.parametrize(
    ("error", "retryable", "retry_after"),
    [
        (dspy.LMRateLimitError("slow down", retry_after=7.0), True, 7.0),
        (dspy.LMServerError("oops"), True, None),
        (dspy.LMAuthError("who?"), False, None),
        (dspy.ContextWindowExceededError(model="m"), False, None),
    ],
)
async def test_a_models_error_tells_whether_trying_again_may_help(trial, error, retryable, retry_after):
    @dspex.register("Fails")
    class Fails(dspy.Module):
        def forward(self):
            raise error

    with pytest.raises(LmError) as caught:
        await trial(python_class="Fails").run()
    assert (caught.value.retryable, caught.value.retry_after) == (retryable, retry_after)
    assert caught.value.__cause__ is error


# ---- the language model ---------------------------------------------------------------------------------------------


async def test_without_any_language_model_the_failure_says_where_to_name_one():
    from dspex_trio.programs import open_programs

    from .fakes import Trial

    with open_programs(ProgramSettings()) as loader:
        t = Trial(loader, python_class="dspy.Predict", signature="q -> a")
        with pytest.raises(InvalidSpec, match=r"no language model: the program names none .* without --lm"):
            await t.run(q="?")


async def test_what_dspy_was_configured_with_is_used_where_the_operator_names_nothing():
    """A module that the operator loads may call `dspy.configure`, as any DSPy program does."""
    from dspex_trio.programs import open_programs

    from .fakes import Trial

    with dspy.context(lm=answers(a="configured")), open_programs(ProgramSettings()) as loader:
        assert await Trial(loader, python_class="dspy.Predict", signature="q -> a").run(q="?") == {"a": "configured"}


async def test_a_trials_model_is_a_copy_that_shares_nothing_it_writes(trial):
    lm = answers(a="x")
    before = dict(lm.kwargs)
    t = trial(python_class="dspy.Predict", signature="q -> a", parameters={"temperature": 0.9}, model=lm)
    await t.run(q="?")
    assert (lm.history, lm.callbacks, lm.kwargs) == ([], [], before)


async def test_a_model_that_the_program_keeps_is_copied_too(trial):
    """Its history would grow over all trials, and mix them."""
    kept = answers(a="kept")

    @dspex.register("Keeps")
    class Keeps(dspy.Module):
        def __init__(self):
            super().__init__()
            self.generate = dspy.Predict("q -> a")
            self.generate.lm = kept

        def forward(self, q: str):
            return self.generate(q=q)

    t = trial(python_class="Keeps")
    assert await t.run(q="?") == {"a": "kept"}
    assert (kept.history, kept.callbacks) == ([], [])
    assert t.tree() == [("generate", 1)]


async def test_a_program_that_configures_a_model_of_its_own_is_recorded(trial):
    @dspex.register("Own")
    class Own(dspy.Module):
        def __init__(self):
            super().__init__()
            self.generate = dspy.Predict("q -> a")

        def forward(self, q: str):
            with dspy.context(lm=DummyLM([{"a": "own"}])):
                return self.generate(q=q)

    settings = ProgramSettings(allow_model=("openai/never-asked",))
    t = trial(python_class="Own", lm=LanguageModel("openai/never-asked"), settings=settings)
    assert await t.run(q="?") == {"a": "own"}
    assert t.tree() == [("generate", 1)]


async def test_dspy_does_not_warn_of_inputs_that_were_checked_already(trial, caplog):
    """Its warnings would fill the worker's log."""
    t = trial(python_class="dspy.Predict", signature="n: float -> answer")
    assert await t.run(n=7) == {"answer": "yes"}
    assert caplog.records == []
