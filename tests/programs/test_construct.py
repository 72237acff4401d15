import sys

import dspy
import pytest

import dspex_trio as dspex
from dspex_trio.model.errors import InvalidSpec, ProgramError

from .fakes import answers


@pytest.fixture
def keeps():
    @dspex.register("KeepsAll")
    class KeepsAll(dspy.Module):
        def __init__(self, **given):
            super().__init__()
            self.given = given

        def forward(self):
            return {"given": self.given}

    return "KeepsAll"


async def test_dependencies_are_constructor_keywords_with_tools_at_any_depth(trial, keeps):
    @dspex.tool
    def find(topic: str) -> str:
        return topic

    given = {
        "plain": {"a": [1, None, "x", {"b": True}]},
        "tool": {"tool": "find"},
        "nested": {"inner": [{"tool": "find"}, {"tool": "find", "but": "more"}, {"tool": 5}]},
    }
    t = await trial(python_class=keeps, dependencies=given).ready()
    kept = t.module.given
    assert kept["plain"] == given["plain"]
    assert isinstance(kept["tool"], dspy.Tool)
    assert kept["nested"]["inner"][0].name == "find"
    assert kept["nested"]["inner"][1:] == [{"tool": "find", "but": "more"}, {"tool": 5}]


async def test_a_constructor_that_changes_what_it_is_given_does_not_change_the_request(trial):
    @dspex.register("Eats")
    class Eats(dspy.Module):
        def __init__(self, options):
            super().__init__()
            options.clear()

        def forward(self): ...

    dependencies = {"options": {"a": 1}}
    await trial(python_class="Eats", dependencies=dependencies).ready()
    assert dependencies == {"options": {"a": 1}}


REACT = {"signature": "q -> a"}


@pytest.mark.parametrize(
    ("program", "told"),
    [
        ({"dependencies": {"toolz": []}}, "does not take these arguments"),
        ({"dependencies": {"tools": []}}, "missing a required argument: 'signature'"),
        ({"signature": "q -> a"}, "it takes signature, tools, max_iters"),
        ({"signature": "q -> a", "dependencies": {"tools": 5}}, "ReAct refuses its arguments"),
        ({"signature": "q -> a", "dependencies": {"tools": ["text"]}}, "ReAct refuses its arguments"),
        (REACT | {"dependencies": {"tools": [], "signature": "x -> y"}}, "is given as the program's"),
        (REACT | {"dependencies": {"tools": [{"tool": "no"}]}}, "'tools[0]': no tool is registered as 'no'"),
        (REACT | {"dependencies": {"tools": [{"elixir_tool": "x"}]}}, "'tools[0]': the session has no Elixir tool 'x'"),
        (REACT | {"dependencies": {"tools": {"elixir_tools": 5}}}, 'elixir_tools takes "*"'),
    ],
)  # fmt: skip
async def test_arguments_that_the_constructor_does_not_take(trial, program, told):
    with pytest.raises(InvalidSpec) as caught:
        await trial(python_class="dspy.ReAct", **program).ready()
    assert told in str(caught.value)


async def test_a_signature_given_as_a_dependency_is_no_way_round_the_import_policy(trial, tmp_path, monkeypatch):
    """DSPy parses it, and its parser imports whatever module the text names."""
    (tmp_path / "evil_by_dependency.py").write_text("")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(InvalidSpec, match="dependency 'signature'"):
        await trial(python_class="dspy.Predict", dependencies={"signature": "q: evil_by_dependency.T -> a"}).ready()
    assert "evil_by_dependency" not in sys.modules


async def test_a_signature_for_a_class_that_takes_none(trial):
    @dspex.register("NoSignature")
    class NoSignature(dspy.Module):
        def forward(self): ...

    with pytest.raises(InvalidSpec, match=r"constructor of NoSignature does not take .*'signature'.* takes callbacks"):
        await trial(python_class="NoSignature", signature="q -> a").ready()


async def test_predictors_settings_that_a_request_may_not_make_are_refused_as_dependencies_too(trial):
    """`dspy.Predict` takes keywords of its LM calls in its constructor."""
    for name in ("api_base", "api_key", "extra_headers", "callbacks", "timeout"):
        with pytest.raises(InvalidSpec, match=f"dependencies of Predict: .*--allow-lm-arg {name}"):
            await trial(python_class="dspy.Predict", signature="q -> a", dependencies={name: "http://evil"}).ready()
    with pytest.raises(InvalidSpec, match="takes a number"):
        await trial(python_class="dspy.Predict", signature="q -> a", dependencies={"temperature": "hot"}).ready()
    t = await trial(python_class="dspy.ChainOfThought", signature="q -> a", dependencies={"temperature": 0.4}).ready()
    assert t.module.predict.config == {"temperature": 0.4}


async def test_what_a_programs_constructor_hands_on_is_looked_at_too(trial):
    @dspex.register("HandsOnSettings")
    class HandsOnSettings(dspy.Module):
        def __init__(self, endpoint="here", **others):
            super().__init__()
            self.endpoint = endpoint
            self.generate = dspy.Predict("q -> a", **others)

        def forward(self): ...

    t = await trial(python_class="HandsOnSettings", dependencies={"endpoint": "its own affair", "odd": 1}).ready()
    assert (t.module.endpoint, t.module.generate.config) == ("its own affair", {"odd": 1})
    with pytest.raises(InvalidSpec, match="--allow-lm-arg api_base"):
        await trial(python_class="HandsOnSettings", dependencies={"api_base": "http://evil"}).ready()


async def test_a_constructor_that_raises_is_the_programs_error_with_its_cause(trial):
    @dspex.register("Raising")
    class Raising(dspy.Module):
        def __init__(self):
            raise LookupError("no constructor today")

        def forward(self): ...

    with pytest.raises(ProgramError, match="constructor of Raising raised") as caught:
        await trial(python_class="Raising").ready()
    assert isinstance(caught.value.__cause__, LookupError)


async def test_a_constructor_may_use_a_type_error_for_itself(trial):
    """Only a call that cannot be made is the specification's fault."""

    @dspex.register("Typed")
    class Typed(dspy.Module):
        def __init__(self, n):
            super().__init__()
            "a" + n

        def forward(self): ...

    with pytest.raises(ProgramError) as caught:
        await trial(python_class="Typed", dependencies={"n": 1}).ready()
    assert isinstance(caught.value.__cause__, TypeError)


async def test_a_class_whose_construction_gives_something_else(trial):
    @dspex.register("Odd")
    class Odd(dspy.Module):
        def __new__(cls):
            return "not a module"

        def forward(self): ...

    with pytest.raises(InvalidSpec, match=r"gave a str, which is no dspy\.Module"):
        await trial(python_class="Odd").ready()


async def test_registered_tools_are_shared_and_not_copied_with_the_prototype(trial):
    """A tool may hold a connection or a lock, and keeps its own state over trials."""

    class Counter:
        def __init__(self):
            self.calls = 0

        def __call__(self, x: int) -> int:
            self.calls += 1
            return x

        def __deepcopy__(self, memo):
            raise TypeError("holds a connection")

    counter = Counter()
    dspex.tool(name="count", description="Count.")(counter)
    asks = {"next_thought": "t", "next_tool_name": "count", "next_tool_args": {"x": 1}}
    ends = {"next_thought": "t", "next_tool_name": "finish", "next_tool_args": {}}
    model = answers(*[asks, ends, {"reasoning": "r", "a": "b"}] * 2)
    for _ in range(2):
        t = trial(
            python_class="dspy.ReAct", signature="q -> a", dependencies={"tools": [{"tool": "count"}]}, model=model
        )
        await t.run(q="?")
    assert counter.calls == 2
    assert t.threads.runs == []
