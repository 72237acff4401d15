"""Load a `dump_state` document, without what a request may not bring: settings, endpoints, code.

DSPy's own loading sets whatever attribute the document names (predict/predict.py, `load_state`), the keywords of the
language model's calls among them; so the document is checked first.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from typing import Any, Final

import dspy

from dspex_trio.model import LanguageModel
from dspex_trio.model.errors import InvalidSpec
from dspex_trio.model.lm_arguments import Refused, refusal, text
from dspex_trio.model.variable_types import show
from dspex_trio.programs.hydrate.fields import Misfit, field_types, is_saved
from dspex_trio.programs.settings import ProgramSettings

_PREDICTOR: Final = frozenset({"traces", "train", "demos", "signature", "lm", "fields"})
_LISTS: Final = ("traces", "train", "demos")
_METADATA: Final = "metadata"  # which versions saved it; `Module.save` adds it

# What a state says of a language model beside sampling keywords; ours decides all of it.
_LM_IGNORED: Final = frozenset(
    {"model", "cache", "num_retries", "_dspy_lm_class", "engine", "async_engine", "launch_kwargs"}
    | {"train_kwargs", "finetuning_model", "provider", "use_developer_role"}
)


def load_state(module: dspy.Module, state: Mapping[str, Any], settings: ProgramSettings) -> dict[str, LanguageModel]:
    """Load `state` into `module`, except for its language models.

    Returns:
        Predictor's name → the language model that the state asks for.

    Raises:
        InvalidSpec: The state does not fit the program, or sets what a request may not set.
    """
    parts = {name: part for name, part in state.items() if name != _METADATA}
    if isinstance(module, dspy.Predict):  # its own state is not named
        parts = {"self": parts}
    parameters = dict(module.named_parameters())
    if strangers := parts.keys() - parameters.keys():
        raise InvalidSpec(
            f"the state has {', '.join(map(repr, sorted(strangers)))}, which the program has not; it has "
            f"{', '.join(parameters) or 'no predictors'}"
        )
    if missing := parameters.keys() - parts.keys():
        raise InvalidSpec(f"the state lacks {', '.join(map(repr, sorted(missing)))}")
    models = {}
    for name, part in parts.items():
        if not isinstance(part, Mapping):
            raise InvalidSpec(f"the state of {name!r} is no object")
        _check_part(name, part, parameters[name])
        if part.get("lm") is not None:
            models[name] = _language_model(name, part["lm"], settings)
    try:
        for name, part in parts.items():
            parameters[name].load_state({**part, "lm": None} if "lm" in part else dict(part))
            if isinstance(parameters[name], dspy.Predict):
                parameters[name].demos = [_with_types(demo, parameters[name]) for demo in parameters[name].demos]
    except Exception as error:
        raise InvalidSpec(f"the state does not load: {type(error).__name__}: {error}") from error
    return models


def _check_part(name: str, part: Mapping[str, Any], parameter: Any) -> None:
    known = _PREDICTOR if isinstance(parameter, dspy.Predict) else frozenset(parameter.dump_state()) - {"module_src"}
    if strangers := part.keys() - known:
        raise InvalidSpec(
            f"the state of {name!r} sets {', '.join(map(repr, sorted(strangers)))}; it can hold "
            f"{', '.join(sorted(known))}"
        )
    if not isinstance(parameter, dspy.Predict):
        return
    for key in ("signature", "lm"):
        if key not in part:
            raise InvalidSpec(f"the state of {name!r} lacks {key!r}")
    for key in _LISTS:
        if not isinstance(part.get(key, []), list) or not all(isinstance(item, dict) for item in part.get(key, [])):
            raise InvalidSpec(f"the state of {name!r} has {key!r}, which takes a list of objects")
    signature, fields = part["signature"], len(parameter.signature.fields)
    described = signature.get("fields") if isinstance(signature, Mapping) else None
    if not isinstance(described, list) or not isinstance(signature.get("instructions"), str):
        raise InvalidSpec(f"the state of {name!r} has a signature without instructions and a list of fields")
    if len(described) != fields:
        raise InvalidSpec(f"the state of {name!r} describes {len(described)} fields; the signature has {fields}")


def _with_types(demo: Mapping[str, Any], predictor: dspy.Predict) -> dict[str, Any]:
    """A demo with its images and the like as such: DSPy saves them as marked text, which is text in a trial."""
    types = field_types(predictor.signature)
    made = dict(demo)
    for name in demo.keys() & types.keys():
        if types[name].typed and is_saved(demo[name]):
            with suppress(Misfit):
                made[name] = types[name].convert(demo[name])
    return made


def _language_model(name: str, lm: Any, settings: ProgramSettings) -> LanguageModel:
    if not isinstance(lm, Mapping):
        raise InvalidSpec(f"the state's lm of {name!r} is no object")
    try:
        model = text(lm.get("model"))  # whether it may be asked is decided in each trial
    except Refused as refused:
        raise InvalidSpec(f"the state's lm.model of {name!r} {refused}; got {show(lm.get('model'))}") from None
    if lm.get("_dspy_lm_class") not in {None, "dspy.clients.lm.LM"}:
        raise InvalidSpec(f"the state's lm of {name!r} is of the class {lm['_dspy_lm_class']!r}; only dspy.LM loads")
    params = {key: value for key, value in lm.items() if value is not None and key not in _LM_IGNORED}
    if (why := refusal(params, settings.allow_lm_arg)) is not None:
        raise InvalidSpec(f"the state's lm of {name!r}: {why}")
    return LanguageModel(model, params)
