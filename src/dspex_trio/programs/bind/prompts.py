"""What predictors put before the inputs: their instructions and their demos."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from typing import Any, cast

import dspy

from dspex_trio.model.lm_arguments import Refused
from dspex_trio.programs.hydrate.fields import Misfit, field_types


def set_instructions(owner: dspy.Module, value: str) -> None:
    """Set the task's description on every predictor of `owner`.

    What a module like ReAct wrote behind its signature's instructions for its inner predictors (how to use the tools)
    stays; the signature is the nearest one around the predictor.
    """
    written: dict[int, str] = {}
    around = [module for _, module in owner.named_sub_modules(dspy.Module) if not isinstance(module, dspy.Predict)]
    for module in around:  # outer ones come first
        if isinstance(signature := getattr(module, "signature", None), type):
            instructions = cast("Any", signature).instructions
            written |= {id(predictor): instructions for predictor in module.predictors()}
    for predictor in owner.predictors():
        outer, inner = written.get(id(predictor), ""), predictor.signature.instructions
        new = value + inner[len(outer) :] if outer and inner.startswith(outer) else value
        predictor.signature = _with_instructions(predictor.signature, new)
    for module in around:
        if isinstance(vars(module).get("signature"), type):
            module.signature = _with_instructions(module.signature, value)


@lru_cache(maxsize=256)
def _with_instructions(signature: Any, instructions: str) -> Any:
    """A signature with other instructions; DSPy builds a pydantic model for it, which takes about a millisecond."""
    return signature.with_instructions(instructions)


def examples_for(predictors: list[dspy.Predict], value: Any) -> list[tuple[dspy.Predict, list[dspy.Example]]]:
    """Demos as each predictor takes them: known fields converted to their types, its inputs marked as inputs.

    Raises:
        Refused: It is no list of objects, or a field does not fit its type.
    """
    if not isinstance(value, list) or not all(isinstance(item, Mapping) and item for item in value):
        raise Refused("takes a list of objects, each a field name → value")
    return [(predictor, [_example(predictor, item, i) for i, item in enumerate(value)]) for predictor in predictors]


def _example(predictor: dspy.Predict, item: Mapping[str, Any], index: int) -> dspy.Example:
    types = field_types(predictor.signature)
    converted = dict(item)
    for name, value in item.items():
        if name in types and value is not None:
            try:
                converted[name] = types[name].convert(value)
            except Misfit as misfit:
                raise Refused(f"takes demos that fit the program, but demo {index}, field {name!r}: {misfit}") from None
    return dspy.Example(**converted).with_inputs(*(predictor.signature.input_fields.keys() & item.keys()))


def set_examples(prepared: list[tuple[dspy.Predict, list[dspy.Example]]]) -> None:
    """Give predictors the demos that were prepared for them."""
    for predictor, examples in prepared:
        predictor.demos = examples
