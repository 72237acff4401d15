"""From a specification to a fresh instance: dependencies put in their places, the constructor called once."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

import dspy

from dspex_trio.errors import InvalidSpec, ProgramError
from dspex_trio.model import Program
from dspex_trio.programs.lm_arguments import is_forbidden, refusal
from dspex_trio.programs.registry import TOOL_REGISTRY, is_dspys
from dspex_trio.programs.settings import ProgramSettings


def construct(
    cls: type[dspy.Module], program: Program, signature: type[dspy.Signature] | None, settings: ProgramSettings
) -> dspy.Module:
    """Call the class once. Runs user code: for a worker thread.

    Raises:
        InvalidSpec: The constructor does not take these arguments, or a tool is not registered.
        ProgramError: The constructor raised.
    """
    keywords = {name: _dependency(value, name) for name, value in program.dependencies.items()}
    if isinstance(keywords.get("signature"), str) or (signature is not None and "signature" in keywords):
        # DSPy would parse the text, and import whatever its types name.
        raise InvalidSpec("dependency 'signature': a signature is given as the program's signature, and once")
    if signature is not None:
        keywords["signature"] = signature
    _check_arguments(cls, keywords, settings)
    try:
        made = cls(**keywords)
    except Exception as error:
        if is_dspys(cls) and isinstance(error, (TypeError, ValueError, AttributeError)):
            raise InvalidSpec(f"{cls.__name__} refuses its arguments: {error}") from error
        raise ProgramError(f"the constructor of {cls.__name__} raised") from error
    if not isinstance(made, dspy.Module):
        raise InvalidSpec(f"constructing {cls.__name__} gave a {type(made).__name__}, which is no dspy.Module")
    return made


def _check_arguments(cls: type[dspy.Module], keywords: Mapping[str, Any], settings: ProgramSettings) -> None:
    # The class itself takes anything (DSPy's metaclass), so the constructor is asked.
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
    # What only **kwargs takes is on its way to a predictor, which makes it keywords of its LM calls.
    handed_on = {
        name: value
        for name, value in keywords.items()
        if (name not in taken.parameters and (is_dspys(cls) or is_forbidden(name)))
        or (is_dspys(cls) and is_forbidden(name))  # callbacks
    }
    if (why := refusal(handed_on, settings.allow_lm_arg)) is not None:
        raise InvalidSpec(f"the dependencies of {cls.__name__}: {why}")


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
