import dspy
import pytest

import dspex_trio as dspex
from dspex_trio.model.errors import InvalidSpec
from dspex_trio.programs import ProgramSettings

from .fakes import answers


@pytest.fixture
def two():
    @dspex.register("Two")
    class Two(dspy.Module):
        def __init__(self):
            super().__init__()
            self.first = dspy.Predict("q -> draft")
            self.second = dspy.ChainOfThought("draft -> answer")

        def forward(self, q: str):
            return self.second(draft=self.first(q=q).draft)

    return Two


async def test_a_saved_program_gives_its_instructions_demos_and_models(trial, two, tmp_path):
    """The document is the one that DSPy saves; what it says of versions is not ours to judge."""
    saved = two()
    saved.first.signature = saved.first.signature.with_instructions("Draft it.")
    saved.first.demos = [dspy.Example(q="a", draft="b").with_inputs("q")]
    saved.second.predict.lm = dspy.LM("openai/gpt-4o-mini", temperature=0.3, max_tokens=50, api_key="sk-not-saved")
    state = {**saved.dump_state(), "metadata": {"dependency_versions": {"dspy": "1.0"}}}

    t = await trial(python_class="Two", state=state, settings=ProgramSettings(allow_model=("openai/*",))).ready()
    assert t.module.first.signature.instructions == "Draft it."
    assert t.module.first.demos == [{"q": "a", "draft": "b"}]
    lm = t.module.second.predict.lm
    assert (lm.model, lm.kwargs["temperature"], lm.kwargs["max_tokens"]) == ("openai/gpt-4o-mini", 0.3, 50)
    assert t.module.first.lm is None


async def test_a_predictors_own_state_has_no_names(trial):
    saved = dspy.Predict("q -> a")
    saved.demos = [dspy.Example(q="1", a="2")]
    t = trial(python_class="dspy.Predict", signature="q -> a", state=saved.dump_state(), model=answers(a="x"))
    assert await t.run(q="?") == {"a": "x"}
    assert t.module.demos == [{"q": "1", "a": "2"}]


async def test_loading_again_and_again_starts_from_the_same_signature(trial):
    """DSPy nests a signature's fields at every load, and dies of it after some 140."""
    state = dspy.Predict("q -> answer").dump_state()
    for _ in range(200):
        t = trial(python_class="dspy.Predict", signature="q -> answer", state=state)
        await t.ready()
    assert t.call(q="?") == {"answer": "yes"}


def edited(edit):
    state = {"first": dspy.Predict("q -> draft").dump_state(), "second.predict": None}
    state["second.predict"] = dspy.ChainOfThought("draft -> answer").predict.dump_state()
    edit(state)
    return state


@pytest.mark.parametrize(
    ("edit", "told"),
    [
        (
            lambda s: s.update(third={}),
            "the state has 'third', which the program has not; it has first, second.predict",
        ),
        (lambda s: s.pop("first"), "the state lacks 'first'"),
        (lambda s: s.update(first=[]), "the state of 'first' is no object"),
        (lambda s: s["first"].pop("signature"), "lacks 'signature'"),
        (lambda s: s["first"].update(signature={}), "without instructions and a list of fields"),
        (
            lambda s: s["first"].update(signature={"instructions": "x", "fields": []}),
            "describes 0 fields; the signature has 2",
        ),
        (lambda s: s["first"].update(signature={"instructions": "x", "fields": [1, 2]}), "the state does not load"),
        (lambda s: s["first"].update(demos="x"), "'demos', which takes a list of objects"),
        (lambda s: s["first"].update(demos=[1]), "'demos', which takes a list of objects"),
        (lambda s: s["first"].update(fields={"a": 1}), "the state does not load"),
        (lambda s: s["first"].update(config={"api_base": "http://evil"}), "the state of 'first' sets 'config'"),
        (lambda s: s["first"].update(callbacks=[]), "sets 'callbacks'"),
        (lambda s: s["first"].update(forward="x"), "sets 'forward'"),
        (lambda s: s["first"].update(__class__="x"), "sets '__class__'"),
        (lambda s: s["first"].update(lm="gpt"), "the state's lm of 'first' is no object"),
        (
            lambda s: s["first"].update(lm={}),
            "the state's lm.model of 'first' takes a text that is not empty; got None",
        ),
        (lambda s: s["first"].update(lm={"model": "m", "_dspy_lm_class": "os.system"}), "only dspy.LM loads"),
        (lambda s: s["first"].update(lm={"model": "m", "temperature": "hot"}), "takes a number"),
        (lambda s: s["first"].update(lm={"model": "m", "made_up": 1}), "no language-model argument a request can set"),
        *[
            (lambda s, name=name: s["first"].update(lm={"model": "m", name: "http://evil"}), f"--allow-lm-arg {name}")
            for name in ("api_base", "base_url", "api_key", "headers", "extra_headers", "model_list", "timeout")
        ],
    ],
)
async def test_a_state_that_does_not_fit_or_reaches_for_more_than_it_may(trial, two, edit, told):
    """DSPy would set every attribute that the document names, the keywords of the LM's calls among them."""
    with pytest.raises(InvalidSpec) as caught:
        await trial(python_class="Two", state=edited(edit)).ready()
    assert told in str(caught.value)


async def test_a_state_brings_no_code(trial):
    """`dspy.Flex` keeps its program's source in its state."""
    flex = {"module_src": "import os\nos.system('true')", "lm": None}

    @dspex.register("HasFlex")
    class HasFlex(dspy.Module):
        def __init__(self):
            super().__init__()
            self.inner = _flex()

        def forward(self): ...

    with pytest.raises(InvalidSpec, match="the state of 'inner' sets 'module_src'"):
        await trial(python_class="HasFlex", state={"inner": flex}).ready()


def _flex():
    """An object of the class, whose constructor says that it is experimental."""
    made = dspy.Flex.__new__(dspy.Flex)
    made.lm, made._module_src = None, "class M: ..."
    return made


async def test_what_the_operator_allows_loads(trial, two):
    state = edited(lambda s: s["first"].update(lm={"model": "openai/m", "api_base": "http://there"}))
    settings = ProgramSettings(allow_lm_arg=("api_base",), allow_model=("openai/m",))
    t = await trial(python_class="Two", state=state, settings=settings).ready()
    assert t.module.first.lm.kwargs["api_base"] == "http://there"
