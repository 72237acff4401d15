"""What DSPy's list says of a model is looked up once, and stays what DSPy says."""

import pytest

from dspex_trio.programs import ProgramSettings, open_programs
from dspex_trio.programs.dspy.private import capabilities, costs, model_metadata
from dspex_trio.programs.record.prices import ModelInfo

LISTED, UNLISTED = "gpt-4o-mini", "a-model-of-ours"


@pytest.fixture
def counted(monkeypatch):
    """DSPy's own look-up on its packaged list, and the models that it was asked for."""
    monkeypatch.setenv("LITELLM_LOCAL_MODEL_COST_MAP", "true")
    asked = []

    def look_up(provider, model, *, namespaces=None):
        asked.append((provider, model, namespaces))
        return model_metadata.model_info(provider, model, namespaces=namespaces)

    return ModelInfo(look_up), asked


@pytest.mark.parametrize("model", [LISTED, UNLISTED])
def test_a_model_is_looked_up_once_and_found_as_dspy_finds_it(counted, model):
    """Walking the list at every call was a third of a small call's CPU for models that are not on it."""
    model_info, asked = counted
    theirs = model_metadata.model_info("openai", model)
    assert [model_info("openai", model) for _ in range(3)] == [theirs] * 3
    assert asked == [("openai", model, None)]


def test_providers_and_namespaces_are_told_apart(counted):
    """The same name costs something else at another provider, and nothing is known of it in an empty namespace."""
    model_info, asked = counted
    assert model_info("openai", LISTED)["litellm_provider"] == "openai"
    assert model_info("azure", LISTED)["litellm_provider"] == "azure"
    assert model_info("openai", LISTED, namespaces=[]) == {}
    assert len(asked) == 3


def test_what_was_found_is_the_callers_to_change(counted):
    """DSPy gives a copy too."""
    model_info, _ = counted
    model_info("openai", LISTED)["input_cost_per_token"] = 1e9
    assert model_info("openai", LISTED) == model_metadata.model_info("openai", LISTED)


def test_another_list_is_looked_at_anew(counted, monkeypatch):
    """An embedding program may load one of its own."""
    model_info, _ = counted
    assert model_info("openai", UNLISTED).get("input_cost_per_token") is None
    priced = {f"openai/{UNLISTED}": {"litellm_provider": "openai", "input_cost_per_token": 0.5}}
    monkeypatch.setattr(model_metadata, "_data", priced)
    assert model_info("openai", UNLISTED)["input_cost_per_token"] == 0.5


def test_a_provider_that_names_its_model_differently_each_time_fills_no_memory(counted):
    """The model's name in a response is the provider's to choose."""
    model_info, asked = counted
    for number in range(300):
        model_info("openai", f"{UNLISTED}-{number}", namespaces=())
    assert len(model_info._found) <= 256
    assert len(asked) == 300


def test_dspy_asks_it_while_a_runtime_is_open_and_no_longer():
    """An embedding program gets its DSPy back as it was."""
    before = (costs.model_info, capabilities.model_info)
    with open_programs(ProgramSettings()):
        assert isinstance(costs.model_info, ModelInfo)
        assert isinstance(capabilities.model_info, ModelInfo)
    assert (costs.model_info, capabilities.model_info) == before
