"""Parameter paths: what a path on a module stands for, which values it takes, and how one is applied.

A path is a name, or a submodule's dotted name and a name: `temperature`, `generate.instructions`, `agent.max_iters`.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Final, Protocol

import dspy

from dspex_trio.errors import InvalidSpec
from dspex_trio.programs.settings import SAMPLING, ProgramSettings, is_forbidden_lm_argument

# Attributes that DSPy manages itself; setting them would break the module or reach its language model.
_MANAGED: Final = frozenset(
    {"lm", "config", "signature", "stage", "traces", "train", "fields", "callbacks", "history", "tools", "session"}
)


class Refused(ValueError):
    """A parameter does not take this value; the text says what it would take."""


class Target(Protocol):
    """The trial's language model, as far as parameters change it."""

    def set_model(self, predictors: list[dspy.Predict], model: str, *, everywhere: bool) -> None:
        """Have these predictors, and with `everywhere` the whole program, ask another model."""
        ...

    def set_argument(self, name: str, value: Any) -> None:
        """Give the trial's language model a keyword, for predictors that are made while the program runs."""
        ...


@dataclass(frozen=True, slots=True)
class Parameter:
    """One settable thing of a program.

    Attributes:
        path: As written.
        check: Returns the value as it will be applied, or raises Refused.
        apply: Applies a checked value.
    """

    path: str
    check: Callable[[Any], Any]
    apply: Callable[[Any], None]


def find_parameter(module: dspy.Module, path: str, settings: ProgramSettings, target: Target) -> Parameter:
    """What `path` stands for on `module`; raises InvalidSpec, naming what there is, if it stands for nothing."""
    prefix, _, name = path.rpartition(".")
    owner = _submodule(module, prefix, path)
    predictors = [predictor for _, predictor in owner.named_predictors()]
    if name == "model":
        return Parameter(path, _text, lambda value: target.set_model(predictors, value, everywhere=not prefix))
    if name == "instructions":
        _need(predictors, path)
        return Parameter(path, _text, lambda value: _set_instructions(owner, predictors, value))
    if name == "demos":
        _need(predictors, path)
        return Parameter(path, _examples, lambda value: _set_demos(predictors, value))
    if settings.may_set(name):
        return _lm_argument(path, name, owner, predictors, None if prefix else target)
    if is_forbidden_lm_argument(name) and not _has_attribute(owner, name):
        raise InvalidSpec(
            f"parameter {path!r}: the language-model argument {name!r} decides where the worker's key is sent or how "
            f"it is used; a request may not set it (the operator can allow it with --allow-lm-arg {name})"
        )
    if name.startswith("_") or name in _MANAGED or not _has_attribute(owner, name):
        raise InvalidSpec(f"parameter {path!r} does not exist; {_suggestions(module, owner, prefix)}")
    return Parameter(path, _like(getattr(owner, name), name), lambda value: setattr(owner, name, value))


def _submodule(module: dspy.Module, prefix: str, path: str) -> dspy.Module:
    if not prefix:
        return module
    found = dict(module.named_sub_modules()) | dict(module.named_predictors())
    owner = found.get(prefix) or found.get(f"self.{prefix}")
    if not isinstance(owner, dspy.Module):
        names = sorted({name.removeprefix("self.") for name in found} - {"self"})
        raise InvalidSpec(
            f"parameter {path!r} does not exist: the program has no submodule {prefix!r}; "
            f"it has {', '.join(names) or 'none'}"
        )
    return owner


def _need(predictors: list[dspy.Predict], path: str) -> None:
    if not predictors:
        raise InvalidSpec(f"parameter {path!r} does not exist: there is no predictor to set it on")


def _has_attribute(owner: dspy.Module, name: str) -> bool:
    """Plain data only: what the instance holds, or a property that can be set; no method, no submodule."""
    if name in vars(owner):
        return not isinstance(vars(owner)[name], dspy.Module)
    declared = inspect.getattr_static(type(owner), name, None)
    if isinstance(declared, property):
        return declared.fset is not None
    return declared is not None and not callable(declared) and not isinstance(declared, (classmethod, staticmethod))


def _suggestions(module: dspy.Module, owner: dspy.Module, prefix: str) -> str:
    dot = f"{prefix}." if prefix else ""
    plain = [f"{dot}{name}" for name in vars(owner) if not name.startswith("_") and name not in _MANAGED]
    plain = [name for name in plain if _has_attribute(owner, name.rpartition(".")[2])]
    submodules = [name.removeprefix("self.") for name, _ in module.named_sub_modules() if name != "self"]
    told = [
        "a sampling keyword (temperature, max_tokens, top_p, …), model, instructions or demos",
        *([f"an attribute ({', '.join(sorted(plain))})"] if plain else []),
        *([f"the same on a submodule ({', '.join(submodules)})"] if submodules else []),
    ]
    return "it can be " + ", ".join(told)


# ---- language-model keywords ---------------------------------------------------------------------------------------


def _lm_argument(
    path: str, name: str, owner: dspy.Module, predictors: list[dspy.Predict], target: Target | None
) -> Parameter:
    def apply(value: Any) -> None:
        for predictor in predictors:
            predictor.config = {**predictor.config, name: value}
        if name in vars(owner):  # a module that reads its own `temperature` sees it too
            setattr(owner, name, value)
        if target is not None:
            target.set_argument(name, value)

    return Parameter(path, _LM_CHECKS.get(name, _anything), apply)


def _anything(value: Any) -> Any:
    return value


def _number(low: float, high: float = math.inf) -> Callable[[Any], Any]:
    def check(value: Any) -> Any:
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not low <= value <= high:
            above = f" and at most {high:g}" if high != math.inf else ""
            raise Refused(f"takes a number of at least {low:g}{above}")
        return value

    return check


def _integer(low: int) -> Callable[[Any], Any]:
    def check(value: Any) -> Any:
        if isinstance(value, float) and value.is_integer():
            value = int(value)
        if isinstance(value, bool) or not isinstance(value, int) or value < low:
            raise Refused(f"takes a whole number of at least {low}" if low > _ANY else "takes a whole number")
        return value

    return check


_ANY: Final = -(2**63)


def _text(value: Any) -> Any:
    if not isinstance(value, str) or not value:
        raise Refused("takes a text that is not empty")
    return value


def _stop(value: Any) -> Any:
    if isinstance(value, str) or (isinstance(value, list) and all(isinstance(item, str) for item in value)):
        return value
    raise Refused("takes a text or a list of texts")


_LM_CHECKS: Final[Mapping[str, Callable[[Any], Any]]] = {
    "temperature": _number(0, 10),
    "top_p": _number(0, 1),
    "min_p": _number(0, 1),
    "presence_penalty": _number(-10, 10),
    "frequency_penalty": _number(-10, 10),
    "repetition_penalty": _number(0, 10),
    "top_k": _integer(0),
    "max_tokens": _integer(1),
    "max_completion_tokens": _integer(1),
    "n": _integer(1),
    "top_logprobs": _integer(0),
    "seed": _integer(_ANY),
    "stop": _stop,
    "reasoning_effort": _text,
    "verbosity": _text,
}
assert _LM_CHECKS.keys() <= SAMPLING  # noqa: S101 - a check for a keyword that nobody can set would be dead


# ---- instructions, demos -------------------------------------------------------------------------------------------


def _set_instructions(owner: dspy.Module, predictors: list[dspy.Predict], value: str) -> None:
    """Set the task's description, keeping what a module like ReAct wrote behind it for its inner predictors."""
    signature = getattr(owner, "signature", None)
    outer = signature.instructions if signature is not None else ""
    for predictor in predictors:
        inner = predictor.signature.instructions
        new = value + inner[len(outer) :] if outer and inner.startswith(outer) else value
        predictor.signature = _with_instructions(predictor.signature, new)
    if signature is not None and not isinstance(owner, dspy.Predict):
        owner.signature = _with_instructions(signature, value)


@lru_cache(maxsize=1024)
def _with_instructions(signature: Any, instructions: str) -> Any:
    """A signature with other instructions; DSPy builds a pydantic model for it, which takes about a millisecond."""
    return signature.with_instructions(instructions)


def _examples(value: Any) -> Any:
    if not isinstance(value, list) or not all(isinstance(item, dict) and item for item in value):
        raise Refused("takes a list of objects, each a field name → value")
    return value


def _set_demos(predictors: list[dspy.Predict], value: list[dict[str, Any]]) -> None:
    for predictor in predictors:
        inputs = predictor.signature.input_fields.keys()
        predictor.demos = [dspy.Example(**item).with_inputs(*(inputs & item.keys())) for item in value]


# ---- plain attributes ----------------------------------------------------------------------------------------------


def _like(current: Any, name: str) -> Callable[[Any], Any]:
    """Accept what has the type of the attribute's current value, without losing precision."""
    if name == "max_iters":
        return _integer(1)
    if isinstance(current, bool):
        return _instance((bool,), "true or false")
    if isinstance(current, int):
        return _integer(_ANY)
    if isinstance(current, float):
        return lambda value: float(_number(-math.inf)(value))
    for kind, told in ((str, "a text"), (list, "a list"), (dict, "an object")):
        if isinstance(current, kind):
            return _instance((kind,), told)
    return _anything


def _instance(kinds: tuple[type, ...], told: str) -> Callable[[Any], Any]:
    def check(value: Any) -> Any:
        if not isinstance(value, kinds):
            raise Refused(f"takes {told}")
        return value

    return check
