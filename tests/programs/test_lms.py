import sys
from typing import ClassVar

import dspy
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dspex_trio.model import LanguageModel
from dspex_trio.model.errors import InvalidSpec
from dspex_trio.model.lm_arguments import SAMPLING, Refused, is_forbidden, refusal
from dspex_trio.programs import CannotLoad, open_programs
from dspex_trio.programs.bind.language_models import LanguageModels
from dspex_trio.programs.settings import ProgramSettings

OPERATORS = LanguageModel("openai/gpt-4o", {"api_key": "sk-operator", "api_base": "http://gateway", "temperature": 0.2})


def models(**settings):
    return LanguageModels(ProgramSettings(**settings))


def test_the_operators_model_is_for_programs_that_name_none():
    lm = models(lm=OPERATORS).for_trial(None, no_cache=False)
    assert lm.model == "openai/gpt-4o"
    assert lm.kwargs == {**OPERATORS.params, "max_tokens": None}


def test_a_trials_model_shares_connections_with_the_next_trials_and_nothing_else():
    kept = models(lm=OPERATORS)
    first, second = (kept.for_trial(None, no_cache=False) for _ in range(2))
    assert first is not second
    assert first.kwargs is not second.kwargs
    assert first._engine_store is second._engine_store


def test_no_cache_is_one_trials_own():
    kept = models(lm=OPERATORS)
    assert not kept.for_trial(None, no_cache=True).cache
    assert kept.for_trial(None, no_cache=False).cache


def test_the_operators_connection_goes_to_models_of_the_same_provider_and_to_no_other():
    """A key for one provider must not be shown to another, and its sampling is for its own model."""
    kept = models(lm=OPERATORS, allow_model=("anthropic/*",))
    same = kept.for_trial(LanguageModel("openai/other", {"temperature": 0.9}), no_cache=False)
    assert (same.kwargs["api_key"], same.kwargs["api_base"]) == ("sk-operator", "http://gateway")
    assert kept.for_trial(LanguageModel("openai/other"), no_cache=False).kwargs["temperature"] is None
    assert kept.for_trial(LanguageModel("openai/gpt-4o"), no_cache=False).kwargs["temperature"] == 0.2
    other = kept.for_trial(LanguageModel("anthropic/claude", {"temperature": 0.9}), no_cache=False)
    assert other.kwargs == {"temperature": 0.9, "max_tokens": None}


def test_models_are_kept_up_to_a_limit_the_longest_unused_going_first():
    kept = models(max_lms=2, allow_model=("openai/*",))
    stores = {}
    for name in ("a", "b", "a", "c"):
        stores[name] = kept.for_trial(LanguageModel(f"openai/{name}"), no_cache=False)._engine_store
    assert kept.for_trial(LanguageModel("openai/a"), no_cache=False)._engine_store is stores["a"]
    assert kept.for_trial(LanguageModel("openai/b"), no_cache=False)._engine_store is not stores["b"]


@pytest.mark.parametrize(
    ("wanted", "told"),
    [
        (LanguageModel(""), "lm.model takes the name of a model"),
        (LanguageModel("huggingface/https://evil.example"), "and no address"),
        (LanguageModel("openai/"), "takes the name of a model"),
        (LanguageModel("openai/m", {"temperature": "hot"}), "takes a number of at least 0"),
        (LanguageModel("openai/gpt-5", {"temperature": 0.3}), "DSPy refuses the language model"),
        (LanguageModel("openai/m", {"made_up": 1}), "'made_up' is no language-model argument a request can set"),
    ],
)
def test_a_model_that_cannot_be_had_says_why(wanted, told):
    with pytest.raises(InvalidSpec) as caught:
        models(allow_model=("openai/*",)).for_trial(wanted, no_cache=False)
    assert told in str(caught.value)


FORBIDDEN = [
    "api_key", "api_base", "api_version", "api_type", "base_url", "url", "azure_endpoint", "headers", "extra_headers",
    "default_headers", "engine", "async_engine", "provider", "custom_llm_provider", "callbacks", "timeout",
    "num_retries", "cache", "cache_key", "model_list", "organization", "project", "http_client", "proxy", "proxies",
    "aws_access_key_id", "aws_secret_access_key", "aws_session_token", "vertex_credentials", "vertex_project",
    "azure_ad_token", "azure_ad_token_provider", "extra_body", "extra_query", "lm", "API_BASE", "hostname", "password",
]  # fmt: skip


@pytest.mark.parametrize("name", FORBIDDEN)
def test_what_decides_where_the_key_goes_is_refused_unless_the_operator_allows_it(name):
    assert is_forbidden(name)
    told = refusal({name: "http://evil"}, ())
    assert told is not None
    assert f"--allow-lm-arg {name}" in told
    assert "http://evil" not in told
    assert refusal({name: "http://evil"}, (name,)) is None


def test_sampling_keywords_are_not_forbidden():
    assert not any(map(is_forbidden, [*SAMPLING, "model"]))


@given(st.text(max_size=20), st.one_of(st.none(), st.booleans(), st.floats(), st.text(), st.lists(st.integers())))
def test_only_known_sampling_keywords_pass_whatever_the_name_or_value(name, value):
    told = refusal({name: value}, ())
    assert told is not None or name in SAMPLING


@given(
    st.sampled_from(sorted(SAMPLING)),
    st.one_of(st.none(), st.booleans(), st.floats(allow_nan=False), st.integers(), st.text()),
)
def test_a_checked_value_is_the_same_value(name, value):
    """A coercion that loses something would run another experiment than the one that was asked for."""
    try:
        taken = SAMPLING[name](value)
    except Refused:
        return
    assert taken == value
    assert isinstance(taken, bool) is isinstance(value, bool)


@pytest.mark.parametrize(
    ("model", "arguments", "imported"),
    [
        ("openai/gpt-4o", {}, []),
        ("openai/gpt-4o", {"engine": "litellm"}, ["litellm"]),
        ("fireworks_ai/some-model", {}, ["litellm"]),
        ("no-such-provider/some-model", {"engine": "lm15"}, []),
    ],
)
def test_litellm_is_imported_at_the_start_where_the_operators_model_needs_it(monkeypatch, model, arguments, imported):
    """Its import takes seconds, which would be the first trial's."""

    class Finder:
        seen: ClassVar = []

        @classmethod
        def find_spec(cls, name, path=None, target=None):
            if name == "litellm":
                cls.seen.append(name)
                raise ImportError("only looked for")

    monkeypatch.delitem(sys.modules, "litellm", raising=False)
    monkeypatch.setattr(sys, "meta_path", [Finder, *sys.meta_path])
    with open_programs(ProgramSettings(lm=LanguageModel(model, arguments))):
        pass
    assert Finder.seen == imported


def test_an_operators_model_that_dspy_refuses_stops_the_start():
    refused = ProgramSettings(lm=LanguageModel("openai/"))
    with pytest.raises(CannotLoad, match="--lm: DSPy refuses the language model 'openai/'"), open_programs(refused):
        pass


def test_a_ready_model_stands_in_for_the_operators():
    class Mine(dspy.LM):
        pass

    mine = Mine("openai/x")
    found = LanguageModels(ProgramSettings(lm=OPERATORS), mine).for_trial(None, no_cache=False)
    assert isinstance(found, Mine)
    assert found is not mine
