"""Classes that variables pick: the program's own, and those of its submodules."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final, cast

import dspy

from dspex_trio.model import Binding, BoundVariable, Program, Variable
from dspex_trio.model.errors import InvalidSpec, VariableInvalid
from dspex_trio.model.variable_types import show
from dspex_trio.programs.bind.mixin import bound_value, program_class
from dspex_trio.programs.bind.parameters import is_parameter_name
from dspex_trio.programs.hydrate.classes import ImportPolicy, resolve_class
from dspex_trio.programs.hydrate.construct import construct
from dspex_trio.programs.settings import ProgramSettings

# What dspy.ChainOfThought puts before a signature's outputs (predict/chain_of_thought.py).
_REASONING: Final = "reasoning"


def chosen_classes(bindings: Sequence[Binding], known: Mapping[str, Variable | None]) -> dict[str, BoundVariable]:
    """Parameter → the class that its variable names; without optional ones whose variable is missing.

    Raises:
        VariableNotFound, VariableInvalid: As `bound_value` does, and for what is no text.
    """
    chosen = {}
    for binding in bindings:
        if (bound := bound_value(binding, known)) is None:
            continue
        if not isinstance(bound.value, str):
            raise VariableInvalid(
                f"variable {binding.variable!r} is {show(bound.value)}, but parameter {binding.parameter!r} takes the "
                f"name of a program class"
            )
        chosen[binding.parameter] = bound
    return chosen


def submodule_choices(module: dspy.Module, program: Program) -> tuple[Binding, ...]:
    """The bindings of `program` that name a submodule of `module`, outer ones first."""
    possible = [binding for binding in program.config_space if _may_name_one(module, binding.parameter)]
    if not possible:
        return ()
    places = {name: at for at, name in enumerate(_submodules(module))}
    return tuple(sorted((b for b in possible if b.parameter in places), key=lambda b: places[b.parameter]))


def _may_name_one(module: dspy.Module, path: str) -> bool:
    """Decided without a walk through the module, which plain attributes need not wait for."""
    first = path.partition(".")[0].partition("[")[0]
    inside = isinstance(vars(module).get(first), (dspy.Module, list, tuple, dict))
    return inside and not is_parameter_name(path.rpartition(".")[2])


def replace_submodule(
    module: dspy.Module, path: str, class_name: str, policy: ImportPolicy, settings: ProgramSettings
) -> None:
    """Put an instance of another class in the place of a submodule, made with its signature.

    A submodule that is of that class already stays as it is. Imports and runs user code: for a worker thread.

    Raises:
        InvalidSpec: The class cannot be constructed from a signature alone, or the place cannot be changed.
        ClassNotFound, ImportNotAllowed, ProgramError: As `resolve_class` and `construct` do.
    """
    cls = resolve_class(class_name, policy)
    if (present := _submodules(module).get(path)) is None:
        raise InvalidSpec(f"parameter {path!r} does not exist: another choice took the submodule away")
    if program_class(present) is cls:
        return
    made = construct(cls, Program(class_name), _task_of(present), settings)
    if not _put(module, present, made, set()):
        raise InvalidSpec(f"parameter {path!r}: the submodule stands where no other can be put")


def _submodules(module: dspy.Module) -> dict[str, dspy.Module]:
    named = module.named_sub_modules(dspy.Module)
    return {name.removeprefix("self."): found for name, found in named if found is not module}


def _task_of(module: dspy.Module) -> type[dspy.Signature] | None:
    """The signature that the module was made with."""
    if isinstance(module, dspy.ChainOfThought):
        extended = module.predict.signature
        return cast("type[dspy.Signature]", extended.delete(_REASONING))
    own = getattr(module, "signature", None)
    return own if isinstance(own, type) and issubclass(own, dspy.Signature) else None


def _put(holder: Any, present: dspy.Module, made: dspy.Module, seen: set[int]) -> bool:
    """Exchange `present` wherever it stands in `holder`; whether it stood anywhere."""
    if id(holder) in seen:
        return False
    seen.add(id(holder))
    items, place = _items(holder)
    done = False
    for key, item in items:
        if item is present:
            place[key] = made
            done = True
        elif isinstance(item, (dspy.Module, list, tuple, dict)):
            done |= _put(item, present, made, seen)
    return done


def _items(holder: Any) -> tuple[list[tuple[Any, Any]], Any]:
    if isinstance(holder, dspy.Module):
        return list(vars(holder).items()), vars(holder)
    if isinstance(holder, dict):
        return list(holder.items()), holder
    return list(enumerate(holder)), holder if isinstance(holder, list) else _Fixed()


class _Fixed:
    """A tuple as a place: what stands in it stays."""

    def __setitem__(self, key: object, value: object) -> None:
        raise InvalidSpec("a submodule in a tuple cannot be exchanged")
