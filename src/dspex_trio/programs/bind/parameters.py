"""Parameter paths: what a path on a module stands for, which values it takes, and how one is applied.

A path is a name, or a submodule's dotted name and a name: `temperature`, `generate.instructions`, `agent.max_iters`.
"""

from __future__ import annotations

import enum
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final, Protocol

import dspy

from dspex_trio.model.errors import InvalidSpec
from dspex_trio.model.lm_arguments import (
    SAMPLING,
    Refused,
    anything,
    boolean,
    is_forbidden,
    number,
    text,
    whole,
    why_forbidden,
)
from dspex_trio.programs.bind.prompts import examples_for, set_examples, set_instructions
from dspex_trio.programs.settings import ProgramSettings

# Attributes that DSPy manages itself; setting them would break the module or reach its language model.
_MANAGED: Final = frozenset(
    {"lm", "config", "signature", "stage", "traces", "train", "fields", "callbacks", "history", "tools", "session"}
)
_PLAIN: Final = (type(None), bool, int, float, str, bytes)


def is_parameter_name(name: str) -> bool:
    """Whether a path that ends so always stands for a setting of predictors, whatever the module has of that name."""
    return name in SAMPLING or name in {"model", "instructions", "demos"}


class Target(Protocol):
    """The trial's language model, as far as parameters change it."""

    def check_model(self, name: Any) -> str:
        """`name`, if it is that of a model that a request may ask; else raises Refused."""
        ...

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
        apply: Applies a checked value; raises Refused where the program's own code refuses it.
    """

    path: str
    check: Callable[[Any], Any]
    apply: Callable[[Any], None]


class Parameters:
    """What there is to set on one program instance.

    Args:
        module: The instance.
        settings: What a request may set.
        target: Its language model.
    """

    def __init__(self, module: dspy.Module, settings: ProgramSettings, target: Target) -> None:
        self._module = module
        self._settings = settings
        self._target = target
        self._named: dict[str, Any] = {}
        self._predictors: dict[str, list[dspy.Predict]] = {}

    def find(self, path: str) -> Parameter:
        """What `path` stands for; raises InvalidSpec, naming what there is, if it stands for nothing."""
        prefix, _, name = path.rpartition(".")
        owner = self._submodule(prefix, path)
        if name in SAMPLING or name in self._settings.allow_lm_arg:
            return self._lm_argument(path, name, owner, prefix)
        if name == "model":
            asking = self._predictors_of(owner, prefix)
            return Parameter(
                path,
                self._target.check_model,
                lambda value: self._target.set_model(asking, value, everywhere=not prefix),
            )
        if name in {"instructions", "demos"}:
            if not (predictors := self._predictors_of(owner, prefix)):
                raise InvalidSpec(f"parameter {path!r} does not exist: there is no predictor to set it on")
            if name == "instructions":
                return Parameter(path, text, lambda value: set_instructions(owner, value))
            return Parameter(path, lambda value: examples_for(predictors, value), set_examples)
        if not _is_attribute(owner, name):
            if is_forbidden(name):
                raise InvalidSpec(f"parameter {path!r}: {why_forbidden(name)}")
            raise InvalidSpec(f"parameter {path!r} does not exist; {self._suggestions(owner, prefix)}")
        return Parameter(path, _like(getattr(owner, name), name), lambda value: _set_attribute(owner, name, value))

    def _submodule(self, prefix: str, path: str) -> dspy.Module:
        if not prefix:
            return self._module
        if not self._named:
            self._named = dict(self._module.named_sub_modules()) | dict(self._module.named_predictors())
        owner = self._named.get(prefix) or self._named.get(f"self.{prefix}")
        if not isinstance(owner, dspy.Module):
            names = sorted({name.removeprefix("self.") for name in self._named} - {"self"})
            raise InvalidSpec(
                f"parameter {path!r} does not exist: the program has no submodule {prefix!r}; "
                f"it has {', '.join(names) or 'none'}"
            )
        return owner

    def _predictors_of(self, owner: dspy.Module, prefix: str) -> list[dspy.Predict]:
        if (found := self._predictors.get(prefix)) is None:
            found = self._predictors[prefix] = owner.predictors()
        return found

    def _lm_argument(self, path: str, name: str, owner: dspy.Module, prefix: str) -> Parameter:
        """A keyword of LM calls: set on the owner's predictors, and on its attribute of that name, if it has one."""
        predictors, too = self._predictors_of(owner, prefix), _is_attribute(owner, name)

        def apply(value: Any) -> None:
            for predictor in predictors:
                predictor.config = {**predictor.config, name: value}
            if too:
                _set_attribute(owner, name, value)
            if not prefix:
                self._target.set_argument(name, value)

        return Parameter(path, SAMPLING.get(name, anything), apply)

    def _suggestions(self, owner: dspy.Module, prefix: str) -> str:
        dot = f"{prefix}." if prefix else ""
        plain = sorted(f"{dot}{name}" for name in vars(owner) if _is_attribute(owner, name))
        submodules = [name.removeprefix("self.") for name, _ in self._module.named_sub_modules() if name != "self"]
        told = [
            "a sampling keyword (temperature, max_tokens, top_p, …), model, instructions or demos",
            *([f"an attribute ({', '.join(plain)})"] if plain else []),
            *([f"the same on a submodule ({', '.join(submodules)})"] if submodules else []),
        ]
        return "it can be " + ", ".join(told)


# ---- plain attributes -----------------------------------------------------------------------------------------------


def _is_attribute(owner: dspy.Module, name: str) -> bool:
    """Plain data that the instance or its class holds, or a property that can be set; no method, module, LM or tool."""
    if name.startswith("_") or name in _MANAGED:
        return False
    if name in vars(owner):
        return _is_plain(vars(owner)[name])
    declared = next((vars(cls)[name] for cls in type(owner).__mro__ if name in vars(cls)), None)
    if isinstance(declared, property):
        return declared.fset is not None
    return declared is not None and _is_plain(declared)


def _is_plain(value: Any) -> bool:
    if isinstance(value, (list, tuple, set, frozenset)):
        return all(map(_is_plain, value))
    if isinstance(value, dict):
        return all(map(_is_plain, value)) and all(map(_is_plain, value.values()))
    return isinstance(value, _PLAIN)


def _set_attribute(owner: dspy.Module, name: str, value: Any) -> None:
    try:
        setattr(owner, name, value)
    except Exception as error:
        raise Refused(f"refuses it: {type(error).__name__}: {error}") from error


def _like(current: Any, name: str) -> Callable[[Any], Any]:
    """Accept what has the type of the attribute's current value, without losing precision."""
    if name == "max_iters":
        return whole(1)
    if isinstance(current, enum.Enum):
        return _member(type(current))
    if isinstance(current, (set, frozenset)):
        return _items_of(type(current))
    return next((check for kind, check in _CHECKS if isinstance(current, kind)), anything)


def _exact_float(value: Any) -> float:
    taken = number()(value)
    try:
        exact = float(taken)
    except OverflowError:
        exact = math.inf
    if exact != taken:
        raise Refused("takes a number that a float holds exactly")
    return exact


def _member(kind: type[enum.Enum]) -> Callable[[Any], Any]:
    def check(value: Any) -> Any:
        for member in kind:
            if member.value == value and type(member.value) is type(value):
                return member
        raise Refused(f"takes one of {', '.join(repr(member.value) for member in kind)}")

    return check


def _items_of(kind: type) -> Callable[[Any], Any]:
    def check(value: Any) -> Any:
        try:
            made = kind(value) if isinstance(value, (list, set, frozenset)) else None
        except TypeError:
            made = None
        if made is None or len(made) != len(value):
            raise Refused("takes a list of different texts or numbers")
        return made

    return check


def _instance(kind: type, told: str) -> Callable[[Any], Any]:
    def check(value: Any) -> Any:
        if kind is tuple and isinstance(value, list):
            return tuple(value)
        if not isinstance(value, kind):
            raise Refused(f"takes {told}")
        return value

    return check


_CHECKS: Final[tuple[tuple[type, Callable[[Any], Any]], ...]] = (
    (bool, boolean),  # before int, which it is too
    (int, whole()),
    (float, _exact_float),
    (str, _instance(str, "a text")),
    (list, _instance(list, "a list")),
    (tuple, _instance(tuple, "a list")),
    (dict, _instance(dict, "an object")),
)
