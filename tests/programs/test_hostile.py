"""Whatever a request says, it is a program that runs or an error of a known kind; and it reaches nothing it may not."""

import copy
import socket
from pathlib import Path

import dspy
import pytest
import trio
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import dspex_trio
from dspex_trio.model import Binding, Field, LanguageModel, Signature
from dspex_trio.model.errors import InternalError, TrialError
from dspex_trio.programs import ProgramSettings, open_programs

from .fakes import Source, Trial, answers

names = st.one_of(
    st.sampled_from(
        ["temperature", "max_tokens", "model", "instructions", "demos", "api_key", "api_base", "config", "lm", "self",
         "signature", "tools", "max_iters", "callbacks", "stage", "predict", "react", "extract", "forward", "history",
         "__class__", "__dict__", "_compiled", "question", "answer", "python_class", "rollout_id", "n", "metadata",
         "traces", "train", "fields", "interpreter_factory", "module", "reward_fn", "M", ""]
    ),
    st.text(max_size=8),
)  # fmt: skip
paths = st.lists(names, min_size=1, max_size=3).map(".".join)
scalars = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=10), st.just(10**400), st.binary(max_size=4)
)
values = st.recursive(
    scalars,
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.dictionaries(names, inner, max_size=3),
        st.sampled_from([{"tool": "no"}, {"elixir_tool": "x"}, {"tool": 3}]),
    ),
    max_leaves=8,
)
classes = st.one_of(
    st.sampled_from(
        ["dspy.Predict", "dspy.ChainOfThought", "dspy.ReAct", "dspy.BestOfN", "dspy.ProgramOfThought", "dspy.RLM",
         "dspy.Module", "dspy.Example", "dspy.LM", "dspy.Flex", "dspy.CodeAct", "dspy.Parallel", "dspy.settings",
         "dspy.primitives.module.Module", "os.system", "", "Predict", "dspy.predict", "dspy..x", "builtins.exec"]
    ),
    st.text(max_size=12),
)  # fmt: skip
signatures = st.one_of(
    st.none(),
    st.just(Signature("question -> answer")),
    st.text(st.sampled_from("aq,:->[]|'\". ()*=intsr\n"), max_size=30).map(Signature),
    st.builds(
        Signature,
        inputs=st.lists(st.builds(Field, names, st.text(max_size=8), st.text(max_size=4)), max_size=3).map(tuple),
        outputs=st.lists(st.builds(Field, names, st.text(max_size=8)), max_size=3).map(tuple),
        instructions=st.text(max_size=8),
    ),
)
STATE = dspy.Predict("question -> answer").dump_state()


def bent(replacements):
    """A real state with some of its parts replaced."""
    state = copy.deepcopy(STATE)
    for place, value in replacements.items():
        state[place] = value
    return state


states = st.one_of(
    st.none(),
    st.dictionaries(st.one_of(names, st.sampled_from(list(STATE))), values, max_size=3).map(bent),
    st.dictionaries(names, values, max_size=2),
)
programs = st.fixed_dictionaries(
    {
        "python_class": classes,
        "signature": signatures,
        "dependencies": st.dictionaries(names, values, max_size=3),
        "parameters": st.dictionaries(paths, values, max_size=3),
        "config_space": st.lists(st.builds(Binding, paths, st.sampled_from("vw"), st.booleans()), max_size=2).map(
            tuple
        ),
        "state": states,
        "lm": st.one_of(st.none(), st.builds(LanguageModel, names, st.dictionaries(names, values, max_size=2))),
    }
)


OURS = str(Path(dspex_trio.__file__).parent)


@pytest.fixture(scope="module")
def loader():
    model = answers(reasoning="r", answer="a", next_thought="t", next_tool_name="finish", next_tool_args={})
    with open_programs(ProgramSettings(), lm=model) as opened:
        yield opened


@pytest.fixture
def no_network(monkeypatch):
    """A program of these tests has no business there."""

    def refuse(self, address):
        raise AssertionError(f"connected to {address}")

    monkeypatch.setattr(socket.socket, "connect", refuse)


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning")
@settings(
    max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)
@given(program=programs, value=values, inputs=st.dictionaries(names, values, max_size=2))
def test_any_specification_runs_or_fails_with_a_known_kind(loader, no_network, program, value, inputs):
    async def one():
        t = Trial(loader, source=Source(v=value), **program)
        refused = None
        try:
            await t.ready()
        except TrialError as error:
            refused = error
        if refused is not None:
            assert not isinstance(refused, InternalError)
            assert str(refused)
            return
        asked = [t.hydrated._model.lm, *(p.lm for p in t.module.predictors() if p.lm is not None)]
        for model in asked:
            assert not {"api_key", "api_base", "base_url"} & {k for k, v in model.kwargs.items() if v is not None}
        if all(model.model == "dummy" for model in asked):
            raised = None
            try:
                t.prediction(**{"question": "?", **inputs})
            except Exception as error:  # noqa: BLE001 - whose it is is the question
                raised = error
            assert raised is None or isinstance(raised, TrialError) or OURS not in innermost_file(raised)

    trio.run(one)


def innermost_file(error):
    step = error.__traceback__
    while step.tb_next is not None:
        step = step.tb_next
    return step.tb_frame.f_code.co_filename
