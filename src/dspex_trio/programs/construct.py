"""From a specification to a fresh instance: signature, dependencies, constructor, state."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

import dspy

from dspex_trio.errors import InvalidSpec, ProgramError
from dspex_trio.model import LanguageModel, Program
from dspex_trio.programs.registry import TOOL_REGISTRY
from dspex_trio.programs.settings import ProgramSettings, refused_lm_argument

# What a DSPy state says of a predictor's language model beside sampling keywords; ours decides all of it.
_STATE_LM_KEYS = {"model", "model_type", "cache", "num_retries", "_dspy_lm_class", "engine", "launch_kwargs"}
_STATE_LM_KEYS |= {"train_kwargs", "finetuning_model", "provider", "use_developer_role"}


def construct(cls: type[dspy.Module], program: Program, signature: type[dspy.Signature] | None) -> dspy.Module:
    """Call the class once. Runs user code: for a worker thread.

    Raises:
        InvalidSpec: The constructor does not take these arguments, or a tool is not registered.
        ProgramError: The constructor raised.
    """
    keywords = {name: _dependency(value, name) for name, value in program.dependencies.items()}
    if signature is not None:
        if "signature" in keywords:
            raise InvalidSpec("the signature is given twice: as signature and in dependencies")
        keywords["signature"] = signature
    _check_arguments(cls, keywords)
    try:
        return cls(**keywords)
    except Exception as error:
        if cls.__module__.partition(".")[0] == "dspy" and isinstance(error, (TypeError, ValueError)):
            raise InvalidSpec(f"{cls.__name__} refuses its arguments: {error}") from error
        raise ProgramError(f"the constructor of {cls.__name__} raised") from error


def _check_arguments(cls: type[dspy.Module], keywords: Mapping[str, Any]) -> None:
    # type(cls).__call__ takes anything (dspy's ProgramMeta), so ask the constructor itself.
    try:
        taken = inspect.signature(cls.__init__)
    except (ValueError, TypeError):
        return
    try:
        taken.bind(None, **keywords)
    except TypeError as error:
        names = list(taken.parameters)[1:]
        raise InvalidSpec(
            f"the constructor of {cls.__name__} does not take these arguments: {error}; it takes "
            f"{', '.join(names) or 'none'} (the signature goes in as 'signature', dependencies by their names)"
        ) from None


def _dependency(value: Any, where: str) -> Any:
    """Put registered tools where `{"tool": "name"}` stands, at any depth."""
    match value:
        case {"tool": str(name), **rest} if not rest:
            if (tool := TOOL_REGISTRY.get(name)) is None:
                known = ", ".join(sorted(TOOL_REGISTRY)) or "none"
                raise InvalidSpec(f"dependency {where!r}: no tool is registered as {name!r} (registered: {known})")
            return tool
        case {"elixir_tool": _, **rest} | {"elixir_tools": _, **rest} if not rest:
            raise InvalidSpec(f"dependency {where!r}: this worker has no source of Elixir tools")
        case dict():
            return {key: _dependency(item, f"{where}.{key}") for key, item in value.items()}
        case list():
            return [_dependency(item, f"{where}[{index}]") for index, item in enumerate(value)]
    return value


def load_state(module: dspy.Module, state: Mapping[str, Any], settings: ProgramSettings) -> dict[str, LanguageModel]:
    """Load a `dump_state` document, except for its language models.

    Returns:
        Predictor's name → the language model that the state asks for.

    Raises:
        InvalidSpec: The state does not fit the program, or sets what a request may not set.
    """
    models: dict[str, LanguageModel] = {}
    stripped = {}
    for name, value in state.items():
        stripped[name] = value
        if isinstance(value, Mapping) and "lm" in value:
            stripped[name] = {**value, "lm": None}
            if value["lm"] is not None:
                models[name] = _state_lm(name, value["lm"], settings)
    if "lm" in state:  # a predictor's own state, not a module's
        stripped["lm"] = None
        if state["lm"] is not None:
            models["self"] = _state_lm("self", state["lm"], settings)
    try:
        module.load_state(stripped)
    except Exception as error:
        raise InvalidSpec(f"the state does not load: {type(error).__name__}: {error}") from error
    return models


def _state_lm(predictor: str, lm: Any, settings: ProgramSettings) -> LanguageModel:
    if not isinstance(lm, Mapping) or not isinstance(lm.get("model"), str):
        raise InvalidSpec(f"the state's lm of {predictor!r} is no object with a model")
    if lm.get("_dspy_lm_class") not in {None, "dspy.clients.lm.LM"}:
        raise InvalidSpec(
            f"the state's lm of {predictor!r} is of the class {lm['_dspy_lm_class']!r}; only dspy.LM loads"
        )
    params = {key: value for key, value in lm.items() if value is not None and key not in _STATE_LM_KEYS}
    if (refusal := refused_lm_argument(settings, params)) is not None:
        raise InvalidSpec(f"the state's lm of {predictor!r}: {refusal}")
    return LanguageModel(lm["model"], params)
