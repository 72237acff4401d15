"""One program is tested without a server, on the road that a worker's trials take."""

import threading
import time

import dspy
import pytest
import trio
from dspy.utils import DummyLM

import dspex_trio as dspex
from dspex_trio.programs.registry import MODULE_REGISTRY, TOOL_REGISTRY
from dspex_trio.testing import Timeline, TrialEnvironment, VirtualClock


class Answers(dspy.Module):
    def __init__(self):
        super().__init__()
        self.generate = dspy.Predict("question -> answer")
        self.suffix = "!"

    def forward(self, question):
        return dspy.Prediction(answer=self.generate(question=question).answer + self.suffix)


class Sleeps(dspy.Module):
    def forward(self, seconds):
        time.sleep(seconds)
        return dspy.Prediction(slept=seconds)


class Looks(dspy.Module):
    def __init__(self, search):
        super().__init__()
        self.search = search

    def forward(self, word):
        return dspy.Prediction(found=self.search(word=word))


@pytest.fixture
def lm():
    return DummyLM([{"answer": "Paris"}] * 4)


def test_a_class_is_tested_in_a_plain_function(lm):
    outcome = TrialEnvironment(lm=lm).run_sync(Answers, question="The capital of France?")
    assert isinstance(outcome, dspex.TrialSuccess)
    assert outcome.prediction == {"answer": "Paris!"}
    assert [entry.predictor for entry in outcome.trace] == ["generate"]
    assert [name for name in MODULE_REGISTRY if name.startswith("dspex_trio.testing")] == []


async def test_an_instance_is_tested_inside_trio_and_stays_as_it_was(lm, virtual_clock):
    """An optimised program is an instance; DSPy's modules keep history, which a trial's copy takes away with it."""
    program = Answers()
    program.suffix = "?"
    outcome = await TrialEnvironment(lm=lm).run(program, question="…")
    assert outcome.prediction == {"answer": "Paris?"}
    assert program.history == []
    assert program.generate.history == []


def test_one_of_dspys_own_is_an_instance_too(lm):
    outcome = TrialEnvironment(lm=lm).run_sync(dspy.Predict("question -> answer"), question="…")
    assert outcome.prediction == {"answer": "Paris"}
    assert outcome.trace[0].class_name == "Predict"


@pytest.mark.parametrize(
    "program",
    [
        dspex.Program("dspy.Predict", dspex.Signature("question -> answer")),
        {"python_class": "dspy.Predict", "signature": "question -> answer"},
    ],
)
def test_a_specification_is_tested_as_a_worker_gets_it(lm, program):
    assert TrialEnvironment(lm=lm).run_sync(program, question="…").prediction == {"answer": "Paris"}


def test_variables_reach_the_parameters_that_are_bound_to_them(lm):
    environment = TrialEnvironment(
        lm=lm,
        variables={"end": ".", "heat": dspex.Variable("heat", "float", 1, constraints={"max": 2})},
        bind={"suffix": "end", "temperature": "heat"},
    )
    outcome = environment.run_sync(Answers, question="…")
    assert outcome.prediction == {"answer": "Paris."}
    assert {path: bound.value for path, bound in outcome.variables.items()} == {"suffix": ".", "temperature": 1.0}


def test_a_variable_that_is_missing_is_a_failure_and_no_exception(lm):
    outcome = TrialEnvironment(lm=lm, bind={"suffix": "end"}).run_sync(Answers, question="…")
    assert (outcome.kind.name, outcome.stage.name) == ("VARIABLE_NOT_FOUND", "SYNC")


def test_a_tool_is_the_tests_own_and_gone_afterwards():
    def search(word: str) -> str:
        return f"all about {word}"

    program = dspex.Program("tests.Looks", dependencies={"search": {"tool": "search"}})
    dspex.register("tests.Looks")(Looks)
    try:
        outcome = TrialEnvironment(tools={"search": search}).run_sync(program, word="Trio")
    finally:
        del MODULE_REGISTRY["tests.Looks"]
    assert outcome.prediction == {"found": "all about Trio"}
    assert "search" not in TOOL_REGISTRY


def test_ten_minutes_of_work_take_no_time_and_end_with_a_deadline():
    virtual_clock = VirtualClock()
    timeline = Timeline(virtual_clock)
    environment = TrialEnvironment(timeout=5, timeline=timeline)

    async def main():
        assert isinstance(await environment.run(Sleeps, seconds=4), dspex.TrialSuccess)
        return await environment.run(Sleeps, seconds=600)

    outcome = trio.run(main, clock=virtual_clock, instruments=[virtual_clock])
    assert (outcome.kind.name, outcome.stage.name) == ("DEADLINE_EXCEEDED", "EXECUTE")
    assert outcome.details["stuck"] == "false"
    timeline.expect("EXECUTE@0.0", "success@4.0", "EXECUTE@4.0", "rung:wake@9.0", "deadline@9.0")


async def test_calls_of_the_model_stand_on_the_timeline(lm, virtual_clock):
    timeline = Timeline()
    await TrialEnvironment(lm=lm, timeline=timeline).run(Answers, question="…")
    stages = ["ADMISSION", "SESSION", "HYDRATE", "SYNC", "EXECUTE"]
    timeline.expect_exactly(*stages, "lm_started", "lm_finished", "SERIALIZE", "success")
    assert [one.data["predictor"] for one in timeline.happenings if one.name == "lm_started"] == ["generate"]


async def test_the_enclosing_scope_is_a_deadline_as_well(virtual_clock):
    with trio.fail_after(3):
        outcome = await TrialEnvironment(timeout=60).run(Sleeps, seconds=600)
    assert outcome.kind.name == "DEADLINE_EXCEEDED"


async def test_inside_trio_a_plain_run_says_what_to_do():
    with pytest.raises(RuntimeError, match="await environment"):
        TrialEnvironment().run_sync(Sleeps, seconds=1)


def test_what_is_no_program_is_told_apart():
    with pytest.raises(TypeError, match="got int"):
        TrialEnvironment().run_sync(3)


def test_an_instance_that_cannot_be_copied_says_why():
    program = Sleeps()
    program.lock = threading.Lock()
    with pytest.raises(TypeError, match="give the class"):
        TrialEnvironment().run_sync(program, seconds=1)


def test_a_variable_of_no_known_type_asks_for_one():
    with pytest.raises(TypeError, match="give a dspex"):
        TrialEnvironment(variables={"when": object()})
