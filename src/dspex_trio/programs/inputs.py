"""A trial's inputs: checked against what the program takes, before it starts."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from functools import lru_cache
from typing import Any, Final, cast, get_type_hints

import dspy

from dspex_trio.model import MISSING
from dspex_trio.model.errors import InvalidInput
from dspex_trio.programs.asynchronous import entry_of
from dspex_trio.programs.hydrate.fields import FieldType, Misfit, field_types
from dspex_trio.programs.registry import is_dspys

# A predictor takes these keywords of its call for itself (predict/predict.py, `_forward_preprocess`): a program that
# hands on whatever it is given would let a request set the address of the provider.
RESERVED: Final = frozenset(
    {"self", "signature", "new_signature", "demos", "config", "lm", "_trace", "interpreter_factory"}
)


class Inputs:
    """Checks inputs.

    Args:
        fields: Input → what it takes.
        others: Whether the program takes inputs that it does not name.
    """

    def __init__(self, fields: Mapping[str, FieldType], *, others: bool = False) -> None:
        self._fields = fields
        self._others = others

    def check(self, inputs: Mapping[str, Any]) -> dict[str, Any]:
        """What to call the program with; raises InvalidInput naming the field, what it takes and what came."""
        checked: dict[str, Any] = {}
        for name, value in inputs.items():
            if (field := self._fields.get(name)) is not None:
                try:
                    checked[name] = field.convert(value)
                except Misfit as misfit:
                    raise InvalidInput(f"input {name!r} {misfit}") from None
            elif self._others and name not in RESERVED:
                checked[name] = value
            else:
                raise InvalidInput(f"input {name!r} is unexpected; the program takes {self._accepted_inputs()}")
        for name, field in self._fields.items():
            if name not in checked:
                if field.default is MISSING:
                    raise InvalidInput(f"input {name!r} is missing; the program takes {self._accepted_inputs()}")
                if field.default is None:  # DSPy knows of no default for what may be None
                    checked[name] = None
        return checked

    def _accepted_inputs(self) -> str:
        names = [f"{name}: {field}" if field.typed else name for name, field in self._fields.items()]
        return ", ".join([*names, *(["any others"] if self._others else [])]) or "none"


def inputs_of(module: dspy.Module, signature: type[dspy.Signature] | None) -> Inputs:
    """How to check the inputs of `module`.

    The parameters of `forward` say what it takes, or of `aforward` where there is no `forward`. A parameter without
    annotation has the type of the signature's field of that name; `**kwargs` stands for the signature's input fields,
    or for anything where there is no signature. The signature is the specification's, else the module's own.

    Raises:
        InvalidSpec: The module cannot be called.
    """
    own = signature if signature is not None else getattr(module, "signature", None)
    found = own if isinstance(own, type) and issubclass(own, dspy.Signature) else None
    entry = entry_of(module)
    if entry.name in vars(module):
        return _inputs_of(type(module), entry.function, entry.skips, found)
    return _inputs(cast("Any", type(module)), cast("Any", entry.function), entry.skips, found)


@lru_cache(maxsize=1024)
def _inputs(cls: Any, function: Any, skips: int, signature: Any) -> Inputs:
    return _inputs_of(cls, function, skips, signature)


def _inputs_of(cls: type, function: Any, skips: int, signature: Any) -> Inputs:
    known: dict[str, FieldType] = {}
    if signature is not None:
        types = field_types(signature)
        known = {name: types[name] for name in signature.input_fields}
    try:
        parameters = list(inspect.signature(function).parameters.values())[skips:]
    except (TypeError, ValueError):  # what is written in C may tell nothing of what it takes
        return Inputs(known, others=True)
    takes_keywords = any(p.kind is p.VAR_KEYWORD for p in parameters)
    fields = dict(known) if takes_keywords else {}
    hints = _hints(function)
    for p in parameters:
        dspys_own = p.name in RESERVED and is_dspys(cls)  # RLM's interpreter_factory
        if p.kind in {p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY} and not dspys_own:
            default = MISSING if p.default is p.empty else p.default
            if p.name in known and p.name not in hints:
                fields[p.name] = known[p.name] if default is MISSING else known[p.name].with_default(default)
            else:
                fields[p.name] = FieldType(hints.get(p.name, MISSING), default)
    return Inputs(fields, others=takes_keywords and signature is None)


def _hints(function: Any) -> dict[str, Any]:
    try:
        return get_type_hints(function)
    except Exception:  # noqa: BLE001 - annotations may name what exists for type checkers alone
        return {}
