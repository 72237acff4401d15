"""Parameter paths and session variables: what they set, what they refuse, and that they set it on this trial alone."""

import enum

import dspy
import pytest

import dspex_trio as dspex
from dspex_trio.model import MISSING, Binding, BoundVariable, LanguageModel, Variable
from dspex_trio.model.errors import (
    ClassNotFound,
    ImportNotAllowed,
    InvalidSpec,
    ProgramError,
    StoreUnavailable,
    VariableInvalid,
    VariableNotFound,
)
from dspex_trio.programs import ProgramSettings

from .fakes import NoSession, Scripted, Source, answers, chat


def bind(**pairs):
    """Parameter → variable; `__` in a keyword stands for a dot."""
    return tuple(Binding(parameter.replace("__", "."), variable) for parameter, variable in pairs.items())


@pytest.fixture
def pipeline():
    """A program with nested modules, attributes of every plain kind, and some that are not plain."""

    @dspex.register("Pipeline")
    class Pipeline(dspy.Module):
        limit = 10

        def __init__(self):
            super().__init__()
            self.draft = dspy.Predict("question -> draft")
            self.agent = dspy.ReAct("question -> answer", tools=[], max_iters=5)
            self.steps = [dspy.Predict("a -> b"), dspy.ChainOfThought("a -> b")]
            self.rounds, self.share, self.style, self.loud = 2, 0.5, "plain", False
            self.words, self.table, self.pair, self.nothing = ["a"], {"a": 1}, (1, 2), None
            self.judge = dspy.LM("openai/gpt-4o-mini")
            self.reward = lambda _: 1.0
            self._level = 1

        @property
        def level(self):
            return self._level

        @level.setter
        def level(self, value):
            if value > 9:
                raise RuntimeError("too high")
            self._level = value

        @property
        def fixed(self):
            return 1

        def forward(self, question: str):
            return self.draft(question=question)

    return "Pipeline"


async def test_a_sampling_keyword_reaches_every_predictor_and_the_model_itself(trial, pipeline):
    """Also predictors that the program makes while it runs, which take it from the model."""
    t = await trial(python_class=pipeline, parameters={"temperature": 0.25}).ready()
    assert [p.config for p in t.module.predictors()] == [{"temperature": 0.25}] * 5
    assert t.hydrated._model.lm.kwargs["temperature"] == 0.25


async def test_a_sampling_keyword_under_a_prefix_reaches_that_submodule_alone(trial, pipeline):
    parameters = {"draft.top_p": 0.5, "agent.max_tokens": 7, "steps[1].seed": 3, "agent.extract.predict.stop": ["x"]}
    t = await trial(python_class=pipeline, parameters=parameters).ready()
    assert {name: p.config for name, p in t.module.named_predictors()} == {
        "draft": {"top_p": 0.5},
        "agent.react": {"max_tokens": 7},
        "agent.extract.predict": {"max_tokens": 7, "stop": ["x"]},
        "steps[0]": {},
        "steps[1].predict": {"seed": 3},
    }
    assert "top_p" not in t.hydrated._model.lm.kwargs


async def test_the_provider_is_asked_with_the_bound_values(trial):
    asked = []
    lm = Scripted(lambda request: asked.append(request.config) or chat(a="x"))
    t = trial(
        python_class="dspy.Predict",
        signature="q -> a",
        config_space=bind(temperature="temp", max_tokens="size"),
        source=Source(temp=0.7, size=99.0),
        model=lm,
    )
    await t.run(q="?")
    assert (asked[0].temperature, asked[0].max_tokens) == (0.7, 99)


async def test_plain_attributes_are_set_with_their_own_type(trial, pipeline):
    given = {
        "rounds": 3.0, "share": 1, "style": "odd", "loud": True, "words": ["b", "c"], "table": {}, "pair": [3, 4],
        "nothing": {"any": "thing"}, "limit": 11, "level": 2, "agent.max_iters": 9,
    }  # fmt: skip
    module = (await trial(python_class=pipeline, parameters=given).ready()).module
    assert (module.rounds, module.share, module.style, module.loud) == (3, 1.0, "odd", True)
    assert (module.words, module.table, module.pair) == (["b", "c"], {}, (3, 4))
    assert (module.nothing, module.limit, module.level) == ({"any": "thing"}, 11, 2)
    assert module.agent.max_iters == 9
    assert [type(module.rounds), type(module.share)] == [int, float]
    assert type(module).__mro__[2].limit == 10, "the class is not touched"


async def test_a_value_that_becomes_another_kind_of_number_is_told(trial, pipeline):
    """Nothing is lost, but a caller who compares what it wrote with what was used must not wonder."""
    source = Source(whole=3.0, exact=4, right=2)
    space = {"rounds": "whole", "share": "exact", "agent.max_iters": "right", "draft.max_tokens": "whole"}
    bindings = tuple(dspex.Binding(path, name) for path, name in space.items())
    model = answers(draft="d")
    t = trial(python_class=pipeline, config_space=bindings, source=source, model=model)
    await t.ready()
    assert (t.module.rounds, t.module.share, t.module.draft.config["max_tokens"]) == (3, 4.0, 3)
    assert t.prediction(question="?").warnings == (
        "parameter 'rounds' takes int: 3.0 of variable 'whole' became 3",
        "parameter 'share' takes float: 4 of variable 'exact' became 4.0",
        "parameter 'draft.max_tokens' takes int: 3.0 of variable 'whole' became 3",
    )


async def test_a_store_without_lists_and_objects_holds_their_json_text(trial, pipeline):
    """As snakepit 0.4 does, whose types have neither; a parameter that takes text gets the text."""
    source = Source(
        shots='[{"question": "1+1?", "draft": "2"}]', words=' ["b"]', table='{"a": [1.5]}', style='["text"]'
    )
    space = bind(draft__demos="shots", words="words", table="table", style="style")
    t = trial(python_class=pipeline, config_space=space, source=source, model=answers(draft="d"))
    await t.ready()
    [example] = t.module.draft.demos
    assert (example.draft, example.inputs().toDict()) == ("2", {"question": "1+1?"})
    assert (t.module.words, t.module.table, t.module.style) == (["b"], {"a": [1.5]}, '["text"]')
    assert t.prediction(question="?").warnings == tuple(
        f"parameter {path!r} takes no text: the JSON in variable {name!r} was read"
        for path, name in (("draft.demos", "shots"), ("words", "words"), ("table", "table"))
    )


@pytest.mark.parametrize(
    ("path", "value", "told"),
    [
        ("draft.demos", "[1]", "takes a list of objects"),
        ("words", '{"a": 1}', "takes a list"),
        ("words", "[1", "takes a list"),
        ("words", "[NaN]", "takes a list"),
        ("words", "[" * 10_000, "takes a list"),
        ("words", "[" + "9" * 10_000 + "]", "takes a list"),
        ("rounds", "[3]", "takes a whole number"),
    ],
)
async def test_json_text_that_is_not_what_the_parameter_takes(trial, pipeline, path, value, told):
    t = trial(python_class=pipeline, config_space=(Binding(path, "v"),), source=Source(v=value))
    with pytest.raises(VariableInvalid, match=told):
        await t.ready()


async def test_sets_and_enumerations_stay_what_they_are(trial):
    class Tone(enum.StrEnum):
        DRY = "dry"
        WARM = "warm"

    @dspex.register("Kinds")
    class Kinds(dspy.Module):
        def __init__(self):
            super().__init__()
            self.tone, self.words, self.fixed = Tone.DRY, {"a"}, frozenset({1})

        def forward(self): ...

    t = await trial(python_class="Kinds", parameters={"tone": "warm", "words": ["b", "c"], "fixed": [2]}).ready()
    assert (t.module.tone, t.module.words, t.module.fixed) == (Tone.WARM, {"b", "c"}, frozenset({2}))
    assert type(t.module.tone) is Tone
    for path, value, told in [
        ("tone", "cold", "takes one of 'dry', 'warm'"),
        ("words", ["b", "b"], "takes a list of different"),
        ("words", [["b"]], "takes a list of different"),
        ("fixed", 2, "takes a list of different"),
    ]:
        with pytest.raises(InvalidSpec, match=told):
            await trial(python_class="Kinds", parameters={path: value}).ready()


async def test_an_attribute_named_like_a_sampling_keyword_is_set_too(trial):
    """A module that reads its own `temperature`, as one registered in the specification's way does."""

    @dspex.register("Reads")
    class Reads(dspy.Module):
        def __init__(self):
            super().__init__()
            self.temperature = 0.0

        def forward(self):
            return {"temperature": self.temperature}

    assert await trial(python_class="Reads", parameters={"temperature": 0.5}).run() == {"temperature": 0.5}


@pytest.mark.parametrize(
    ("path", "value", "told"),
    [
        ("temperature", "hot", "takes a number of at least 0 and at most 10"),
        ("temperature", True, "takes a number"),
        ("temperature", float("nan"), "takes a number"),
        ("top_p", 1.5, "takes a number of at least 0 and at most 1"),
        ("max_tokens", 0, "takes a whole number of at least 1"),
        ("max_tokens", 1.5, "takes a whole number"),
        ("n", True, "takes a whole number"),
        ("stop", [1], "takes a text or a list of texts"),
        ("parallel_tool_calls", "yes", "takes true or false"),
        ("model_type", "video", "takes 'chat', 'text' or 'responses'"),
        ("model", "", "takes the name of a model"),
        ("model", "huggingface/https://evil.example", "and no address"),
        ("model", "bedrock/agentcore/arn:aws:bedrock-agentcore:evil.test/#:1:runtime/a", "no ARN"),
        ("agent.model", "openai/gpt-4o", "the operator can allow it with --allow-model openai/gpt-4o"),
        ("instructions", "", "takes a text that is not empty"),
        ("demos", "none", "takes a list of objects"),
        ("demos", [{}], "takes a list of objects"),
        ("rounds", 1.5, "takes a whole number"),
        ("rounds", "3", "takes a whole number"),
        ("share", "half", "takes a number"),
        ("share", 2**53 + 1, "takes a number that a float holds exactly"),
        ("share", 10**400, "takes a number that a float holds exactly"),
        ("style", 1, "takes a text"),
        ("loud", 1, "takes true or false"),
        ("words", "a", "takes a list"),
        ("table", [], "takes an object"),
        ("pair", 3, "takes a list"),
        ("level", 10, "refuses it: RuntimeError: too high"),
        ("agent.max_iters", 0, "takes a whole number of at least 1"),
    ],
)
async def test_a_value_that_the_parameter_does_not_take(trial, pipeline, path, value, told):
    """As a parameter it is the specification's fault; as a variable it names the variable and the parameter."""
    with pytest.raises(InvalidSpec) as caught:
        await trial(python_class=pipeline, parameters={path: value}).ready()
    assert f"parameter {path!r}" in str(caught.value)
    assert told in str(caught.value)

    bound = trial(python_class=pipeline, config_space=(Binding(path, "v"),), source=Source(v=value))
    with pytest.raises(VariableInvalid) as caught:
        await bound.ready()
    assert "variable 'v' is" in str(caught.value)
    assert f"parameter {path!r}" in str(caught.value)
    assert told in str(caught.value)


@pytest.mark.parametrize(
    ("path", "told"),
    [
        ("temprature", "does not exist; it can be a sampling keyword (temperature, max_tokens, top_p, …)"),
        ("lost.temperature", "the program has no submodule 'lost'; it has agent, agent.extract"),
        ("draft.lost", "does not exist"),
        ("judge", "does not exist"),
        ("reward", "does not exist"),
        ("forward", "does not exist"),
        ("fixed", "does not exist"),
        ("_level", "does not exist"),
        ("__class__", "does not exist"),
        ("__dict__", "does not exist"),
        ("draft.config", "does not exist"),
        ("draft.signature", "does not exist"),
        ("draft.stage", "does not exist"),
        ("agent.tools", "does not exist"),
        ("callbacks", "--allow-lm-arg callbacks"),
        ("history", "does not exist"),
        ("draft.lm", "decides where the worker's key is sent"),
        ("lm", "decides where the worker's key is sent"),
        ("api_key", "decides where the worker's key is sent"),
        ("api_base", "(the operator can allow it with --allow-lm-arg api_base)"),
        ("base_url", "--allow-lm-arg base_url"),
        ("draft.headers", "--allow-lm-arg headers"),
        ("agent.extra_headers", "--allow-lm-arg extra_headers"),
        ("timeout", "--allow-lm-arg timeout"),
        ("num_retries", "--allow-lm-arg num_retries"),
        ("cache", "--allow-lm-arg cache"),
        ("custom_llm_provider", "--allow-lm-arg custom_llm_provider"),
        ("", "does not exist"),
        (".", "does not exist"),
        ("a..b", "does not exist"),
    ],
)
async def test_a_path_that_stands_for_nothing_or_for_what_is_not_a_requests_business(trial, pipeline, path, told):
    for program in ({"parameters": {path: 1}}, {"config_space": (Binding(path, "v"),), "source": Source(v=1)}):
        with pytest.raises(InvalidSpec) as caught:
            await trial(python_class=pipeline, **program).ready()
        assert f"parameter {path!r}" in str(caught.value)
        assert told in str(caught.value)


async def test_what_the_operator_allows_can_be_set(trial):
    settings = ProgramSettings(allow_lm_arg=("api_base", "made_up"))
    parameters = {"api_base": "http://there", "made_up": [1]}
    t = await trial(python_class="dspy.Predict", signature="q -> a", parameters=parameters, settings=settings).ready()
    assert t.module.config == parameters


# ---- model, instructions, demos -------------------------------------------------------------------------------------


async def test_model_for_the_whole_program_or_for_one_part_of_it(trial, pipeline):
    t = await trial(
        python_class=pipeline,
        lm=LanguageModel("openai/first", {"top_p": 0.5}),
        parameters={"temperature": 0.3, "model": "openai/second", "agent.model": "openai/third"},
        settings=ProgramSettings(allow_model=("openai/*",)),
    ).ready()
    models = {name: p.lm.model for name, p in t.module.named_predictors()}
    assert models["draft"] == models["steps[0]"] == t.hydrated._model.lm.model == "openai/second"
    assert models["agent.react"] == models["agent.extract.predict"] == "openai/third"
    assert t.hydrated._model.lm.kwargs["temperature"] == 0.3
    assert t.module.draft.lm.kwargs["top_p"] == 0.5, "what the program says of its model holds for the other one too"


async def test_instructions_keep_what_modules_write_for_their_inner_predictors(trial):
    """ReAct tells its predictor how to use the tools; without that it could not work."""

    @dspex.tool
    def lookup(topic: str) -> str:
        """Look a topic up."""
        return topic

    t = await trial(
        python_class="dspy.ReAct",
        signature="question -> answer",
        dependencies={"tools": [{"tool": "lookup"}]},
        parameters={"instructions": "Answer like a pirate."},
    ).ready()
    react = t.module.react.signature.instructions
    assert react.startswith("Answer like a pirate.\n\nYou are an Agent.")
    assert "lookup" in react
    assert t.module.extract.predict.signature.instructions == "Answer like a pirate."
    assert t.module.signature.instructions == "Answer like a pirate."


async def test_instructions_for_a_whole_program_spare_the_agent_inside_it(trial, pipeline):
    t = await trial(python_class=pipeline, parameters={"instructions": "Be brief."}).ready()
    assert t.module.draft.signature.instructions == "Be brief."
    assert t.module.agent.react.signature.instructions.startswith("Be brief.\n\nYou are an Agent.")


async def test_demos_become_examples_with_their_inputs_and_types(trial):
    asked = []
    lm = Scripted(lambda request: asked.append(request) or chat(total="3"))
    t = trial(
        python_class="dspy.Predict",
        signature="numbers: list[int] -> total: int",
        config_space=bind(demos="shots"),
        source=Source(shots=[{"numbers": [1, 2], "total": "3"}, {"numbers": [], "total": 0, "augmented": True}]),
        model=lm,
    )
    assert await t.run(numbers=[3]) == {"total": 3}
    first, _ = t.module.demos
    assert (first.numbers, first.total, first.inputs().keys()) == ([1, 2], 3, ["numbers"])
    assert "[1, 2]" in repr(asked[0])


async def test_demos_that_do_not_fit_the_signature_name_the_demo_and_the_field(trial):
    t = trial(
        python_class="dspy.Predict",
        signature="numbers: list[int] -> total: int",
        config_space=bind(demos="shots"),
        source=Source(shots=[{"numbers": [1]}, {"numbers": "one"}]),
    )
    with pytest.raises(
        VariableInvalid, match=r"parameter 'demos' takes demos that fit.*demo 1, field 'numbers': takes"
    ):
        await t.ready()


async def test_instructions_and_demos_need_a_predictor(trial):
    @dspex.register("Empty")
    class Empty(dspy.Module):
        def forward(self): ...

    for path in ("instructions", "demos"):
        with pytest.raises(InvalidSpec, match="there is no predictor to set it on"):
            await trial(python_class="Empty", parameters={path: "x"}).ready()


# ---- the variables of a session -------------------------------------------------------------------------------------


async def test_all_variables_come_from_one_read_that_is_not_older_than_the_trial(trial):
    source = Source(temp=0.7, size=9)
    t = trial(
        python_class="dspy.ChainOfThought",
        signature="q -> a",
        config_space=bind(temperature="temp", top_p="temp", max_tokens="size"),
        source=source,
    )
    await t.ready()
    assert source.reads == [["temp", "size"]]
    assert t.variables == {
        "temperature": BoundVariable("temperature", "temp", 0.7, 1),
        "top_p": BoundVariable("top_p", "temp", 0.7, 1),
        "max_tokens": BoundVariable("max_tokens", "size", 9, 1),
    }


async def test_a_program_without_bindings_reads_nothing(trial):
    """It runs in a session that does not exist, too."""
    t = trial(python_class="dspy.Predict", signature="q -> answer", source=NoSession())
    assert await t.run(q="?") == {"answer": "yes"}


async def test_missing_variables_optional_with_default_and_required(trial):
    t = trial(
        python_class="dspy.Predict",
        signature="q -> a",
        config_space=(Binding("temperature", "no", optional=True), Binding("top_p", "no", default=0.5)),
    )
    await t.ready()
    assert t.module.config == {"top_p": 0.5}
    assert t.variables == {"top_p": BoundVariable("top_p", "no", 0.5, 0, from_default=True)}

    required = trial(python_class="dspy.Predict", signature="q -> a", config_space=bind(temperature="nowhere"))
    with pytest.raises(VariableNotFound, match="no variable 'nowhere', which parameter 'temperature' is bound to"):
        await required.ready()


async def test_a_default_of_none_is_a_default(trial):
    @dspex.register("Noting")
    class Noting(dspy.Module):
        def __init__(self):
            super().__init__()
            self.note = None

        def forward(self): ...

    t = trial(python_class="Noting", config_space=(Binding("note", "no", default=None),))
    await t.ready()
    assert t.variables["note"].from_default
    assert Binding("note", "no").default is MISSING


@pytest.mark.parametrize(
    ("variable", "told"),
    [
        (Variable("v", "float", "hot"), "'hot' is no float"),
        (Variable("v", "float", 3.0, constraints={"max": 2}), "the most is 2"),
        (Variable("v", "colour", 3.0), "'colour' is no type"),
    ],
)
async def test_a_variable_that_breaks_its_own_declaration(trial, variable, told):
    t = trial(
        python_class="dspy.Predict",
        signature="q -> a",
        config_space=bind(temperature="v"),
        source=Source(v=variable),
    )
    with pytest.raises(VariableInvalid) as caught:
        await t.ready()
    assert "variable 'v', bound to parameter 'temperature'" in str(caught.value)
    assert told in str(caught.value)


async def test_nothing_is_applied_when_any_variable_is_refused(trial, pipeline):
    t = trial(
        python_class=pipeline,
        config_space=bind(rounds="good", style="bad"),
        source=Source(good=7, bad=7),
    )
    with pytest.raises(VariableInvalid, match="'style'"):
        await t.ready()
    assert t.module.rounds == 2


async def test_a_store_that_fails_fails_the_sync_with_its_own_error(trial):
    class Down:
        async def get_variables(self, identifiers):
            raise StoreUnavailable("refused")

    t = trial(python_class="dspy.Predict", signature="q -> a", config_space=bind(temperature="v"), source=Down())
    with pytest.raises(StoreUnavailable, match="refused"):
        await t.ready()


async def test_the_mixins_methods_can_be_used_by_hand(trial):
    """As the specification has it: `await module.bind_to_variable(…)`, `await module.sync_variables()`."""
    t = await trial(python_class="dspy.Predict", signature="q -> a", source=Source(temp=0.1, other=0.2)).ready()
    await t.module.bind_to_variable("temperature", "temp")
    await t.module.bind_to_variable("top_p", "no", default=1.0)
    assert set(await t.module.sync_variables()) == {"temperature", "top_p"}
    assert t.module.config == {"temperature": 0.1, "top_p": 1.0}
    await t.module.bind_to_variable("temperature", "other")
    await t.module.sync_variables()
    assert t.module.config["temperature"] == 0.2
    with pytest.raises(InvalidSpec, match="'temprature' does not exist"):
        await t.module.bind_to_variable("temprature", "temp")


async def test_parameters_come_before_variables_and_after_the_state(trial):
    """Order, last wins: state, lm, parameters, config_space."""
    trained = dspy.Predict("q -> a")
    trained.signature = trained.signature.with_instructions("from the state")
    trained.demos = [dspy.Example(q="state", a="state")]
    program = {
        "python_class": "dspy.Predict",
        "signature": "q -> a",
        "state": trained.dump_state(),
        "lm": LanguageModel("openai/m", {"temperature": 0.1, "top_p": 0.1, "seed": 1}),
        "parameters": {"temperature": 0.2, "top_p": 0.2, "instructions": "from the parameters"},
        "config_space": bind(temperature="temp"),
        "source": Source(temp=0.3),
        "settings": ProgramSettings(allow_model=("openai/m",)),
    }
    t = await trial(**program).ready()
    lm = t.hydrated._model.lm.kwargs
    assert (lm["temperature"], lm["top_p"], lm["seed"]) == (0.3, 0.2, 1)
    assert t.module.config == {"temperature": 0.3, "top_p": 0.2}
    assert t.module.signature.instructions == "from the parameters"
    assert t.module.demos == [{"q": "state", "a": "state"}]


# ---- a variable that picks the class --------------------------------------------------------------------------------


async def test_a_variable_picks_the_class_in_the_same_read_as_the_rest(trial):
    source = Source(which="dspy.ChainOfThought", temp=0.4)
    t = trial(
        python_class="dspy.Predict",
        signature="q -> a",
        config_space=bind(temperature="temp", python_class="which"),
        source=source,
        model=answers(reasoning="r", a="x"),
    )
    assert await t.run(q="?") == {"reasoning": "r", "a": "x"}
    assert source.reads == [["temp", "which"]]
    assert t.variables["python_class"].value == "dspy.ChainOfThought"
    assert t.variables["temperature"].value == 0.4


@pytest.mark.parametrize(
    ("value", "error", "told"),
    [
        (5, VariableInvalid, "parameter 'python_class' takes the name of a program class"),
        ("Nobody", ClassNotFound, "no class is registered as 'Nobody'"),
        ("os.path", ImportNotAllowed, "'os.path' lies under no prefix"),
        ("dspy.Example", InvalidSpec, "no dspy.Module"),
        (Variable("which", "module", ""), VariableInvalid, "no module"),
        (
            Variable("which", "module", "dspy.RLM", constraints={"allowed_modules": ["dspy.Predict"]}),
            VariableInvalid,
            "choices",
        ),
    ],
)
async def test_a_variable_that_picks_no_class(trial, value, error, told):
    t = trial(signature="q -> a", python_class="", config_space=bind(python_class="which"), source=Source(which=value))
    with pytest.raises(error) as caught:
        await t.ready()
    assert told in str(caught.value)


async def test_an_optional_choice_that_is_missing_leaves_the_class(trial):
    t = trial(
        python_class="dspy.Predict",
        signature="q -> answer",
        config_space=(Binding("python_class", "which", optional=True),),
    )
    assert await t.run(q="?") == {"answer": "yes"}


# ---- each trial its own ---------------------------------------------------------------------------------------------


async def test_what_one_trial_sets_no_other_sees(trial):
    first = trial(
        python_class="dspy.Predict",
        signature="q -> answer",
        parameters={"temperature": 0.9, "instructions": "Shout.", "demos": [{"q": "a", "answer": "b"}]},
    )
    second = trial(python_class="dspy.Predict", signature="q -> answer")
    await first.run(q="?")
    await second.run(q="?")
    assert second.threads.runs == [], "it is a copy of the same prototype"
    assert (second.module.config, second.module.demos) == ({}, [])
    assert second.module.signature.instructions != "Shout."
    assert second.hydrated._model.lm.kwargs.get("temperature") == 0.0


async def test_a_base_class_that_refuses_subclasses_is_the_programs_error(trial):
    class Final(dspy.Module):
        def __init_subclass__(cls, **keywords):
            raise TypeError("no subclasses")

        def forward(self): ...

    dspex.register("Final")(Final)
    with pytest.raises(ProgramError, match="mixin cannot be applied") as caught:
        await trial(python_class="Final").ready()
    assert isinstance(caught.value.__cause__, TypeError)


async def test_a_pattern_that_only_the_store_can_match_does_not_keep_a_variable_from_its_parameter(trial, pipeline):
    """An Elixir store knows look-around, and checked the value when it was written."""
    variable = Variable("style", "string", "brief", constraints={"pattern": "^(?!plain)", "max_length": 8})
    program = {"python_class": pipeline, "config_space": bind(style="style")}
    t = await trial(**program, source=Source(style=variable)).ready()
    assert t.module.style == "brief"
    long = Variable("style", "string", "much too long", constraints=variable.constraints)
    with pytest.raises(VariableInvalid, match=r"bound to parameter 'style': .*constraint max_length"):
        await trial(**program, source=Source(style=long)).ready()
