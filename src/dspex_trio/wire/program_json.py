"""A program, and a trial's options, as JSON objects: the form in which the Elixir side and trial files hold them."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from dataclasses import fields
from typing import Any, Final

from dspex_trio.model import MISSING, Binding, Field, LanguageModel, Program, Signature, TrialOptions
from dspex_trio.model.errors import InvalidSpec
from dspex_trio.model.variable_types import show

# Each is found, checked and applied on the loop, where other trials wait their turn.
MAX_PARAMETERS: Final = 1_000

_PROGRAM_KEYS: Final = (
    "name",
    "python_class",
    "signature",
    "config_space",
    "dependencies",
    "description",
    "lm",
    "parameters",
    "state",
)
_SIGNATURE_KEYS: Final = ("inputs", "outputs", "instructions", "name")
_FIELD_KEYS: Final = ("name", "type", "description")
_BINDING_KEYS: Final = ("parameter", "variable", "optional", "default")
_LM_KEYS: Final = ("model", "params")
_OPTIONS: Final = {each.name: type(getattr(TrialOptions(), each.name)) for each in fields(TrialOptions)}


# ---- reading --------------------------------------------------------------------------------------------------------


def program_from_json(spec: Mapping[str, Any]) -> Program:
    """A program from its JSON form; null stands for an absent key.

    Raises:
        InvalidSpec: A key is unknown or a value has the wrong type; the text names it and says what would be right.
    """
    found = _keys(spec, "program_spec", _PROGRAM_KEYS)
    state = found.get("state")
    program = Program(
        python_class=_text(found, "python_class", "program_spec"),
        signature=_signature(found["signature"]) if "signature" in found else None,
        config_space=_bindings(found.get("config_space", ())),
        dependencies=_object(found.get("dependencies", {}), "dependencies"),
        parameters=_object(found.get("parameters", {}), "parameters"),
        state=None if state is None else _object(state, "state"),
        lm=_language_model(found["lm"]) if "lm" in found else None,
        name=_text(found, "name", "program_spec"),
        description=_text(found, "description", "program_spec"),
    )
    check_program(program)
    return program


def check_program(program: Program) -> None:
    """Refuse what no class could make good: no class at all, nameless or repeated fields and bindings.

    Raises:
        InvalidSpec: The text names the offending part.
    """
    for name, entries in (("config_space", program.config_space), ("parameters", program.parameters)):
        if len(entries) > MAX_PARAMETERS:
            raise InvalidSpec(f"{name} has {len(entries)} entries; a program may have {MAX_PARAMETERS}")
    parameters = [binding.parameter for binding in program.config_space]
    if not program.python_class and "python_class" not in parameters:
        raise InvalidSpec("python_class is empty; it takes a registered name or a dotted path such as dspy.Predict")
    for binding in program.config_space:
        if not binding.parameter or not binding.variable:
            raise InvalidSpec(f"config_space has a binding without {'variable' if binding.parameter else 'parameter'}")
    _check_once(parameters, "config_space binds the parameter")
    if program.signature is not None:
        _check_signature(program.signature)
    if program.lm is not None and not program.lm.model:
        raise InvalidSpec("lm.model is empty; leave lm out for the worker's own, and set its keywords in parameters")


def _check_signature(signature: Signature) -> None:
    names = [field.name for field in (*signature.inputs, *signature.outputs)]
    if not signature.text.strip() and not names:
        raise InvalidSpec('signature is empty; it takes text such as "question -> answer", or inputs and outputs')
    if not all(names):
        raise InvalidSpec("signature has a field without a name")
    _check_once(names, "signature has the field")


def _check_once(names: Sequence[str], what: str) -> None:
    seen: set[str] = set()
    for name in names:
        if name in seen:
            raise InvalidSpec(f"{what} {name!r} more than once")
        seen.add(name)


def _signature(value: Any) -> Signature:
    if isinstance(value, str):
        return Signature(text=value)
    found = _keys(value, "signature", _SIGNATURE_KEYS, alternative='text such as "question -> answer"')
    return Signature(
        inputs=_fields(found.get("inputs", ()), "signature.inputs"),
        outputs=_fields(found.get("outputs", ()), "signature.outputs"),
        instructions=_text(found, "instructions", "signature"),
        name=_text(found, "name", "signature"),
    )


def _fields(value: Any, path: str) -> tuple[Field, ...]:
    """Fields as a list of names or objects, or as an object of name → type or object."""
    if isinstance(value, Mapping):
        return tuple(_named_field(name, given, f"{path}.{name}") for name, given in value.items())
    if isinstance(value, (list, tuple)):
        return tuple(
            Field(name=given) if isinstance(given, str) else _field(given, f"{path}[{index}]")
            for index, given in enumerate(value)
        )
    raise _wrong(path, value, "a list of fields, or an object of name and type")


def _named_field(name: str, given: Any, path: str) -> Field:
    if given is None or isinstance(given, str):
        return Field(name=name, type=given or "str")
    return _field({"name": name, **given} if isinstance(given, Mapping) else given, path)


def _field(given: Any, path: str) -> Field:
    found = _keys(given, path, _FIELD_KEYS)
    return Field(
        name=_text(found, "name", path),
        type=_text(found, "type", path) or "str",
        description=_text(found, "description", path),
    )


def _bindings(value: Any) -> tuple[Binding, ...]:
    """Bindings as a list of objects, or as an object of parameter → variable or object."""
    if isinstance(value, Mapping):
        return tuple(_named_binding(parameter, given) for parameter, given in value.items())
    if isinstance(value, (list, tuple)):
        return tuple(_binding(given, f"config_space[{index}]") for index, given in enumerate(value))
    raise _wrong("config_space", value, "a list of bindings, or an object of parameter and variable")


def _named_binding(parameter: str, given: Any) -> Binding:
    if isinstance(given, str):
        return Binding(parameter=parameter, variable=given)
    path = f"config_space.{parameter}"
    return _binding({"parameter": parameter, **given} if isinstance(given, Mapping) else given, path)


def _binding(given: Any, path: str) -> Binding:
    found = _keys(given, path, _BINDING_KEYS)
    optional = found.get("optional", False)
    if not isinstance(optional, bool):
        raise _wrong(f"{path}.optional", optional, "true or false")
    return Binding(
        parameter=_text(found, "parameter", path),
        variable=_text(found, "variable", path),
        optional=optional,
        default=found.get("default", MISSING),
    )


def _language_model(value: Any) -> LanguageModel:
    if isinstance(value, str):
        return LanguageModel(model=value)
    found = _keys(value, "lm", _LM_KEYS, alternative="the model's name")
    return LanguageModel(model=_text(found, "model", "lm"), params=_object(found.get("params", {}), "lm.params"))


def _keys(value: Any, path: str, known: Sequence[str], alternative: str = "") -> dict[str, Any]:
    """The keys of an object that have a value, all of them known."""
    if not isinstance(value, Mapping):
        raise _wrong(path, value, f"{alternative + ', or ' if alternative else ''}an object with {', '.join(known)}")
    for key in value:
        if key not in known:
            close = difflib.get_close_matches(str(key)[:100], known, n=1)
            hint = f"did you mean {close[0]}? " if close else ""
            raise InvalidSpec(f"{path} has no key {str(key)[:100]!r}; {hint}the keys are {', '.join(known)}")
    return {key: given for key, given in value.items() if given is not None}


def _text(found: Mapping[str, Any], key: str, path: str) -> str:
    value = found.get(key, "")
    if not isinstance(value, str):
        raise _wrong(f"{path}.{key}", value, "text")
    return value


def _object(value: Any, path: str) -> dict[str, Any]:
    if not isinstance(value, Mapping) or not all(isinstance(key, str) for key in value):
        raise _wrong(path, value, "an object")
    return dict(value)


def _wrong(path: str, value: Any, wanted: str) -> InvalidSpec:
    return InvalidSpec(f"{path} is {show(value)}; it takes {wanted}")


# ---- writing --------------------------------------------------------------------------------------------------------


def options_from_json(value: Any) -> TrialOptions:
    """The options of a trial, in their JSON form; None stands for the defaults.

    Raises:
        InvalidSpec: A key is unknown, or a value is not what it takes.
    """
    if value is None:
        return TrialOptions()
    if not isinstance(value, Mapping):
        raise InvalidSpec(f"options is {show(value)}; it takes an object with {', '.join(_OPTIONS)}")
    for name, given in value.items():
        if name not in _OPTIONS:
            raise InvalidSpec(f"options has no key {str(name)[:100]!r}; the keys are {', '.join(_OPTIONS)}")
        if type(given) is not _OPTIONS[name] or given < 0:
            wanted = "true or false" if _OPTIONS[name] is bool else "a count of bytes"
            raise InvalidSpec(f"options.{name} is {show(given)}; it takes {wanted}")
    return TrialOptions(**value)


def program_to_json(program: Program) -> dict[str, Any]:
    """The JSON form of a program, without the keys that say nothing."""
    spec: dict[str, Any] = {"python_class": program.python_class}
    if program.signature is not None:
        spec["signature"] = _signature_to_json(program.signature)
    if program.config_space:
        spec["config_space"] = [_binding_to_json(binding) for binding in program.config_space]
    for key in ("dependencies", "parameters"):
        if given := getattr(program, key):
            spec[key] = dict(given)
    if program.state is not None:
        spec["state"] = dict(program.state)
    if program.lm is not None:
        spec["lm"] = {"model": program.lm.model, "params": dict(program.lm.params)}
    for key in ("name", "description"):
        if given := getattr(program, key):
            spec[key] = given
    return spec


def _signature_to_json(signature: Signature) -> Any:
    if signature.text:
        return signature.text
    return {
        "inputs": [_field_to_json(field) for field in signature.inputs],
        "outputs": [_field_to_json(field) for field in signature.outputs],
        "instructions": signature.instructions,
        "name": signature.name,
    }


def _field_to_json(field: Field) -> dict[str, Any]:
    return {"name": field.name, "type": field.type, "description": field.description}


def _binding_to_json(binding: Binding) -> dict[str, Any]:
    spec = {"parameter": binding.parameter, "variable": binding.variable, "optional": binding.optional}
    return spec if binding.default is MISSING else {**spec, "default": binding.default}
