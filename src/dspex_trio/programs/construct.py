"""From a specification to a fresh instance: dependencies put in their places, the constructor called once."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

import dspy

from dspex_trio.errors import InvalidSpec, ProgramError
from dspex_trio.model import Program
from dspex_trio.programs.registry import TOOL_REGISTRY


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
        made = cls(**keywords)
    except Exception as error:
        if cls.__module__.partition(".")[0] == "dspy" and isinstance(error, (TypeError, ValueError, AttributeError)):
            raise InvalidSpec(f"{cls.__name__} refuses its arguments: {error}") from error
        raise ProgramError(f"the constructor of {cls.__name__} raised") from error
    if not isinstance(made, dspy.Module):
        raise InvalidSpec(f"constructing {cls.__name__} gave a {type(made).__name__}, which is no dspy.Module")
    return made


def _check_arguments(cls: type[dspy.Module], keywords: Mapping[str, Any]) -> None:
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
