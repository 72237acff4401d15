"""Variables that pick the classes of submodules."""

import dspy
import pytest

import dspex_trio as dspex
from dspex_trio.model import Variable
from dspex_trio.model.errors import ClassNotFound, ImportNotAllowed, InvalidSpec, VariableInvalid, VariableNotFound

from .fakes import Source, answers


@pytest.fixture(autouse=True)
def program():
    @dspex.register("Parts")
    class Parts(dspy.Module):
        made = 0

        def __init__(self, own="plain"):
            super().__init__()
            Parts.made += 1
            self.answer = dspy.Predict(dspy.Signature("question -> answer", "Be brief."))
            self.thought = dspy.ChainOfThought("question -> verdict: bool")
            self.steps = [dspy.Predict("a -> b"), {"inner": dspy.Predict("c -> d")}]
            self.same = self.answer
            self.fixed = (dspy.Predict("a -> b"),)
            self.bare = Bare()

        def forward(self, question):
            return self.answer(question=question)

    class Bare(dspy.Module):
        def forward(self): ...

    return Parts


def bound(**parameters):
    return tuple(dspex.Binding(parameter.replace("__", "."), parameter) for parameter in parameters)


def picks(**variables):
    return Source(**{name: Variable(name, "module", value, version=1) for name, value in variables.items()})


async def test_a_submodule_is_made_anew_with_the_signature_that_it_had(trial, program):
    source = picks(answer="dspy.ChainOfThought", thought="dspy.Predict")
    t = trial(
        python_class="Parts",
        config_space=bound(answer=1, thought=1),
        source=source,
        model=answers(reasoning="r", answer="b"),
    )
    assert (await t.run(question="?"))["reasoning"] == "r"
    assert type(t.module.answer) is dspy.ChainOfThought
    assert t.module.answer.predict.signature.instructions == "Be brief."
    assert t.module.same is t.module.answer, "wherever it stood"
    assert type(t.module.thought) is dspy.Predict
    assert list(t.module.thought.signature.output_fields) == ["verdict"]
    assert t.recording.trace[0].predictor == "answer.predict"
    assert {path: one.value for path, one in t.variables.items()} == {
        "answer": "dspy.ChainOfThought",
        "thought": "dspy.Predict",
    }
    assert (program.made, len(source.reads)) == (1, 1)


async def test_other_bindings_mean_the_chosen_class_and_come_from_the_same_read(trial):
    source = picks(part="dspy.ChainOfThought")
    source.values["t"] = 0.3
    space = (
        dspex.Binding("answer.predict.temperature", "t"),
        dspex.Binding("answer", "part"),
        dspex.Binding("python_class", "cls", default="Parts"),
    )
    t = await trial(python_class="ignored", config_space=space, source=source).ready()
    assert t.module.answer.predict.config == {"temperature": 0.3}
    assert source.reads == [["t", "part", "cls"]]


async def test_a_state_is_loaded_into_what_was_chosen(trial):
    demo = {"question": "q", "reasoning": "r", "answer": "a"}
    empty = dspy.ChainOfThought("question -> answer").dump_state()["predict"]
    state = {"answer.predict": empty | {"demos": [demo]}}
    t = trial(python_class="Parts", config_space=bound(answer=1), source=picks(answer="dspy.ChainOfThought"))
    whole = await t.ready()
    state = whole.module.dump_state() | state
    chosen = trial(
        python_class="Parts", config_space=bound(answer=1), source=picks(answer="dspy.ChainOfThought"), state=state
    )
    await chosen.ready()
    assert [dict(one) for one in chosen.module.answer.predict.demos] == [demo]


async def test_submodules_in_lists_and_dictionaries_can_be_chosen(trial):
    space = (dspex.Binding("steps[0]", "first"), dspex.Binding("steps[1][inner]", "second"))
    source = picks(first="dspy.ChainOfThought", second="dspy.ChainOfThought")
    t = await trial(python_class="Parts", config_space=space, source=source).ready()
    assert type(t.module.steps[0]) is type(t.module.steps[1]["inner"]) is dspy.ChainOfThought


async def test_a_choice_of_what_is_there_leaves_it_alone(trial):
    """What the constructor gave it stays."""

    @dspex.register("Configured")
    class Configured(dspy.Module):
        def __init__(self):
            super().__init__()
            self.answer = dspy.Predict("q -> a", temperature=0.2)

        def forward(self): ...

    t = await trial(
        python_class="Configured", config_space=bound(answer=1), source=picks(answer="dspy.Predict")
    ).ready()
    assert t.module.answer.config == {"temperature": 0.2}


async def test_a_missing_choice_leaves_the_submodule_when_it_is_optional(trial):
    space = (
        dspex.Binding("answer", "missing", optional=True),
        dspex.Binding("thought", "gone", default="dspy.Predict"),
    )
    t = await trial(python_class="Parts", config_space=space).ready()
    assert (type(t.module.answer), type(t.module.thought)) == (dspy.Predict, dspy.Predict)
    assert t.variables.keys() == {"thought"}
    with pytest.raises(VariableNotFound, match="'missing', which parameter 'answer' is bound to"):
        await trial(python_class="Parts", config_space=(dspex.Binding("answer", "missing"),)).ready()


@pytest.mark.parametrize(
    ("path", "value", "error", "told"),
    [
        ("answer", 3, VariableInvalid, "parameter 'answer' takes the name of a program class"),
        ("answer", "Unheard", ClassNotFound, "no class is registered as 'Unheard'"),
        ("answer", "os.path", ImportNotAllowed, "may import from"),
        ("answer", "dspy.ReAct", InvalidSpec, "constructor of ReAct does not take these arguments"),
        ("bare", "dspy.Predict", InvalidSpec, "constructor of Predict does not take these arguments: missing"),
        ("fixed[0]", "dspy.ChainOfThought", InvalidSpec, "a submodule in a tuple cannot be exchanged"),
    ],
)
async def test_a_choice_that_cannot_be_made(trial, path, value, error, told):
    with pytest.raises(error, match=told):
        await trial(python_class="Parts", config_space=(dspex.Binding(path, "v"),), source=Source(v=value)).ready()


async def test_a_chosen_submodule_that_takes_another_ones_place_away_is_told(trial):
    @dspex.register("Outer")
    class Outer(dspy.Module):
        def __init__(self):
            super().__init__()
            self.thought = dspy.ChainOfThought("q -> a")

        def forward(self): ...

    space = (dspex.Binding("thought.predict", "inner"), dspex.Binding("thought", "outer"))
    source = picks(inner="dspy.ChainOfThought", outer="dspy.Predict")
    with pytest.raises(InvalidSpec, match=r"'thought\.predict' does not exist: another choice took the submodule away"):
        await trial(python_class="Outer", config_space=space, source=source).ready()


async def test_a_reusable_class_is_chosen_for_each_trial(trial):
    program = {"python_class": "dspy.ChainOfThought", "signature": "q -> a", "config_space": bound(predict=1)}

    @dspex.register("Quiet")
    class Quiet(dspy.Predict): ...

    model = answers(a="b")
    for name, cls in (("Quiet", Quiet), ("dspy.Predict", dspy.Predict), ("Quiet", Quiet)):
        t = await trial(source=picks(predict=name), model=model, **program).ready()
        assert type(t.module.predict) is cls
