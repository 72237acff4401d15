"""Which models a request may name. LiteLLM reads the provider, and with some the address, from the name."""

import dspy
import pytest
from hypothesis import given
from hypothesis import strategies as st

import dspex_trio as dspex
from dspex_trio.model import Binding, LanguageModel
from dspex_trio.model.errors import InvalidSpec, VariableInvalid
from dspex_trio.model.lm_arguments import Refused
from dspex_trio.programs import ProgramSettings
from dspex_trio.programs.bind.language_models import LanguageModels
from dspex_trio.programs.bind.model_names import ModelNames
from dspex_trio.runtime.settings import InvalidSettings, Settings

from .fakes import Source

STOLEN = "bedrock/agentcore/arn:aws:bedrock-agentcore:evil.test/#:1:runtime/a"
BEDROCK = "bedrock/anthropic.claude-3-haiku-20240307-v1:0"


def may(name, *, own=(), patterns=()):
    try:
        return ModelNames(patterns).check(name, own) == name
    except Refused:
        return False


@pytest.mark.parametrize(
    ("own", "name"),
    [
        ("openai/gpt-4o-mini", "openai/gpt-4o"),
        ("openai/gpt-4o-mini", "openai/meta-llama/Llama-3.1-8B-Instruct"),
        ("openrouter/openai/gpt-4o", "openrouter/anthropic/claude-sonnet-4.5"),
        ("openrouter/openai/gpt-4o", "openrouter/deepseek/deepseek-r1:free"),
        ("ollama/llama3:8b", "ollama/qwen2.5:0.5b"),
        (BEDROCK, "bedrock/anthropic.claude-3-sonnet-20240229-v1:0"),
        (BEDROCK, "bedrock/us.anthropic.claude-3-5-haiku-20241022-v1:0:48k"),
        ("bedrock/us-west-2/anthropic.claude-v2", "bedrock/us-west-2/anthropic.claude-v2:1"),
        ("bedrock/converse/amazon.nova-lite-v1:0", "bedrock/converse/amazon.nova-pro-v1:0"),
        ("azure/my-deployment", "azure/my-other-deployment"),
    ],
)
def test_a_model_of_the_operators_provider_that_goes_the_same_way_may_be_named(own, name):
    assert may(name, own=[own])


@pytest.mark.parametrize(
    "own", ["gpt-4o", "ft:gpt-4o:org::id", f"{BEDROCK[:8]}arn:aws:bedrock:us-east-1:1:x/y", STOLEN]
)
def test_the_operators_own_model_may_be_named_whatever_its_name_looks_like(own):
    assert may(own, own=[own])
    assert may(own, patterns=[own])
    assert not may(f"{own}x", own=[own])


@pytest.mark.parametrize(
    ("own", "name"),
    [
        ("openai/gpt-4o-mini", "anthropic/claude-sonnet-4"),
        ("openai/gpt-4o-mini", "openai_like/gpt-4o"),
        ("openai/gpt-4o-mini", "OpenAI/gpt-4o"),
        ("openai/gpt-4o-mini", "gpt-4o"),
        ("openai/gpt-4o-mini", "openai/ft:gpt-4o:org::id"),
        ("openai/gpt-4o-mini", "bedrock/agentcore/a"),
        ("gpt-4o-mini", "gpt-4o"),
        ("gpt-4o-mini", "openai/gpt-4o"),
        (BEDROCK, "bedrock/agentcore/a"),
        (BEDROCK, "bedrock/agent/A/B"),
        (BEDROCK, "bedrock/us-west-2/anthropic.claude-v2"),
        (BEDROCK, "bedrock/mantle/x"),
        ("vertex_ai/gemini-2.0-flash", "vertex_ai/agent_engine/1"),
        ("azure_ai/a", "azure_ai/agents/asst_1"),
        ("azure/my-deployment", "azure/command-r-plus"),
        ("azure/my-deployment", "azure/mistral-large-latest"),
        ("ollama/llama3", "ollama/org/model"),
        ("huggingface/org/model", "huggingface/together/org/model"),
        ("sagemaker/my-endpoint", "sagemaker/another-endpoint"),
        ("langgraph/agent", "langgraph/another"),
    ],
)
def test_another_provider_route_or_endpoint_is_the_operators_to_allow(own, name):
    with pytest.raises(Refused) as caught:
        ModelNames().check(name, [own])
    assert repr(own) in str(caught.value)
    assert f"--allow-model {name}" in str(caught.value)
    assert may(name, own=[own], patterns=[name])


NO_NAMES = [
    None, 3, "", " ", "/", "openai/", "/gpt-4o", "openai//gpt-4o", "openai/../x", "openai/..", "openai/.",
    "openai/a..b", "openai/gpt 4o", "openai/gpt-4o\n", "openai/gpt-4o\u0000", "openai/gpt-4o\u202e",
    "openai/gpt\u00e4", "openai/a#b", "openai/a?b=c", "openai/a@b", "openai/a%2fb", "openai/a\\b",
    "openai/http://evil.test", "http://evil.test", "huggingface/https://evil.test", "openai/evil.test/v1",
    "openai/evil.test:443/v1", "evil.test/gpt", "bedrock/arn:aws",
    "bedrock/arn:aws:bedrock:us-east-1:1:inference-profile/x", "bedrock/ARN:aws:x", STOLEN, "openai/a:b:c:d",
    "openai/a:", "openai/:b", "openai/-a", "openai/" + "a" * 300, "ft:gpt:a:b:c:d", "openai/a/ft:x/y",
    "ollama/hf.co/org/model", "cloudflare/@cf/meta/llama",
]  # fmt: skip


@pytest.mark.parametrize("name", NO_NAMES)
def test_what_is_no_models_name_is_refused_even_where_everything_is_allowed(name):
    with pytest.raises(Refused, match=r"takes the name of a model.* and no address and no ARN"):
        ModelNames(["**"]).check(name, ["openai/gpt-4o", BEDROCK])


@given(st.text(max_size=30))
def test_only_letters_digits_and_a_few_marks_ever_pass(name):
    if may(name, patterns=["**"]):
        assert name.isascii()
        assert all(letter.isalnum() or letter in "-_./:" for letter in name)


@pytest.mark.parametrize(
    ("pattern", "name", "matches"),
    [
        ("anthropic/*", "anthropic/claude-sonnet-4", True),
        ("anthropic/*", "anthropic/x/y", False),
        ("anthropic/*", "anthropic2/x", False),
        ("anthropic/claude-*", "anthropic/other", False),
        ("bedrock/*", "bedrock/agentcore/a", False),
        ("openrouter/**", "openrouter/anthropic/claude-sonnet-4", True),
        ("openrouter/*/*", "openrouter/anthropic/claude-sonnet-4", True),
        ("openai/ft:gpt-4o:acme:*:*", "openai/ft:gpt-4o:acme::Ab1", True),
        ("openai/ft:gpt-4o:acme:*:*", "openai/ft:gpt-4o:else::Ab1", False),
        ("*", "openai/gpt-4o", False),
        ("**", "openai/gpt-4o", True),
        ("openai/gpt-4.1", "openai/gpt-4x1", False),
        ("openai/gpt-4.*", "openai/gpt-4x1", False),
    ],
)
def test_a_star_in_a_pattern_stops_at_a_slash_and_two_do_not(pattern, name, matches):
    assert may(name, patterns=["other/x", pattern]) is matches


def test_an_operator_who_configured_no_model_allowed_none():
    with pytest.raises(InvalidSpec) as caught:
        LanguageModels(ProgramSettings()).for_trial(LanguageModel("openai/gpt-4o"), no_cache=False)
    assert str(caught.value) == (
        "lm.model takes only a model that the operator allowed, and he named none by --lm; the operator can allow it "
        "with --allow-model openai/gpt-4o; got 'openai/gpt-4o'"
    )


def test_a_ready_model_and_the_one_that_a_loaded_module_configured_are_the_operators_too():
    mine = dspy.LM("openai/mine")
    LanguageModels(ProgramSettings(), mine).check_name("openai/another")
    with dspy.context(lm=mine):
        LanguageModels(ProgramSettings()).check_name("openai/another")
    with pytest.raises(Refused):
        LanguageModels(ProgramSettings()).check_name("openai/another")


@pytest.mark.parametrize("name", [STOLEN, "anthropic/claude-sonnet-4"])
async def test_every_way_of_naming_a_model_is_checked(trial, name):
    """In lm, a parameter, a variable, for the whole program or a predictor, and in a state."""

    @dspex.register("Asks")
    class Asks(dspy.Module):
        def __init__(self):
            super().__init__()
            self.first = dspy.Predict("q -> a")

        def forward(self, q: str):
            return self.first(q=q)

    state = {"first": dspy.Predict("q -> a").dump_state() | {"lm": {"model": name}}}
    operators = dspy.LM("openai/gpt-4o-mini")
    for asked, error, where in [
        ({"lm": LanguageModel(name)}, InvalidSpec, "lm.model takes"),
        ({"parameters": {"model": name}}, InvalidSpec, "parameter 'model' takes"),
        ({"parameters": {"first.model": name}}, InvalidSpec, "parameter 'first.model' takes"),
        ({"config_space": (Binding("model", "v"),)}, VariableInvalid, "variable 'v' is"),
        ({"config_space": (Binding("first.model", "v"),)}, VariableInvalid, "parameter 'first.model' takes"),
        ({"config_space": (Binding("model", "gone", default=name),)}, VariableInvalid, "parameter 'model' takes"),
        ({"state": state}, InvalidSpec, "the state's lm.model of 'first' takes"),
    ]:
        with pytest.raises(error) as caught:
            await trial(python_class="Asks", model=operators, source=Source(v=name), **asked).ready()
        assert where in str(caught.value)


def test_patterns_are_a_setting_and_those_that_can_match_nothing_are_refused():
    assert Settings.load_from({"allow_model": "openai/*, anthropic/claude-*"}).allow_model == (
        "openai/*",
        "anthropic/claude-*",
    )
    with pytest.raises(InvalidSettings, match=r"allow_model \(--allow-model, DSPEX_TRIO_ALLOW_MODEL\)"):
        Settings.load_from({"allow_model": ["openai/a b"]})
