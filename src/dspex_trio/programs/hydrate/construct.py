"""From a specification to a fresh instance: dependencies put in their places, the constructor called once."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from typing import Any

import dspy

from dspex_trio.model import Program, ToolSpec
from dspex_trio.model.errors import InvalidSpec, ProgramError
from dspex_trio.model.lm_arguments import is_forbidden, refusal
from dspex_trio.programs.registry import is_dspys
from dspex_trio.programs.settings import ProgramSettings
from dspex_trio.programs.tools import Dependencies


def construct(
    cls: type[dspy.Module],
    program: Program,
    signature: type[dspy.Signature] | None,
    settings: ProgramSettings,
    elixir_tools: Sequence[ToolSpec] = (),
) -> dspy.Module:
    """Call the class once. Runs user code: for a worker thread.

    Args:
        cls: The class.
        program: The specification.
        signature: Its signature.
        settings: What the operator decided.
        elixir_tools: The tools that the trial's session offers.

    Raises:
        InvalidSpec: The constructor does not take these arguments, or there is no such tool.
        ProgramError: The constructor raised.
    """
    dependencies = Dependencies(elixir_tools)
    keywords = {name: dependencies.resolve(value, name) for name, value in program.dependencies.items()}
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
