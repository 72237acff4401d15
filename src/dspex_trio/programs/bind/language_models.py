"""Language models: one of DSPy's per specification, shared with its connections; a copy of it per trial."""

from __future__ import annotations

import importlib
import json
from collections import OrderedDict
from collections.abc import Mapping
from contextlib import suppress
from types import NoneType
from typing import Any

import dspy

from dspex_trio.interface.arguments import check_type
from dspex_trio.model import LanguageModel
from dspex_trio.model.errors import InvalidSpec
from dspex_trio.model.lm_arguments import SAMPLING, Refused, refusal
from dspex_trio.model.variable_types import show
from dspex_trio.programs.bind.model_names import ModelNames
from dspex_trio.programs.dspy.private import LM15Error, select_backend
from dspex_trio.programs.settings import ProgramSettings


def check_lm(lm: object) -> None:
    """Refuse what is no language model, before the first trial fails of it.

    Raises:
        TypeError: `lm` is neither a `dspy.BaseLM` nor None.
    """
    check_type("lm", lm, (dspy.BaseLM, NoneType), "a dspy.BaseLM; a name goes into Settings(lm=…)")


class LanguageModels:
    """Makes language models and keeps those in use.

    A `dspy.LM` pools its provider's connections and shares them with its copies, so the same specification gets the
    same one; the longest unused goes first when there are more than `settings.max_lms`.

    Args:
        settings: The operator's choice and rules.
        default: A ready model in place of `settings.lm`, for embedding and tests.
    """

    def __init__(self, settings: ProgramSettings, default: dspy.BaseLM | None = None) -> None:
        self._settings = settings
        self._default = default
        self._names = ModelNames(settings.allow_model)
        self._kept: OrderedDict[str, dspy.BaseLM] = OrderedDict()

    def for_trial(self, wanted: LanguageModel | None, *, no_cache: bool, where: str = "lm.model") -> dspy.BaseLM | None:
        """A copy for one trial: of the model that the program asks for, else of the operator's, else None.

        Args:
            wanted: What the program asks for.
            no_cache: Whether to ask the provider even where the cache has an answer.
            where: What to call the place of the model's name in an error.

        Raises:
            InvalidSpec: The program names a model, or sets an argument, that a request may not name or set; or DSPy
                refuses the arguments.
        """
        model = self._base(wanted, where)
        return None if model is None else copied(model, no_cache=no_cache)

    def check_name(self, name: Any) -> str:
        """`name`, if it is that of a model that a request may ask; else raises Refused."""
        lms = (self._default, dspy.settings.lm)
        configured = {lm.model for lm in lms if isinstance(lm, dspy.BaseLM)}
        if self._settings.lm is not None:
            configured.add(self._settings.lm.model)
        return self._names.check(name, configured)

    def preload(self) -> None:
        """Import what the operator's model needs: for many providers litellm, which takes seconds, once a process."""
        model = self._base(None, "")
        if isinstance(model, dspy.LM) and isinstance(model.engine, str):
            with suppress(ImportError, dspy.LMError, LM15Error):  # the first trial will say what is wrong
                if not select_backend(model).native:
                    importlib.import_module("litellm")

    def _base(self, wanted: LanguageModel | None, where: str) -> dspy.BaseLM | None:
        if wanted is None:
            if self._default is not None:
                return self._default
            if self._settings.lm is not None:
                return self._keep(self._settings.lm.model, self._settings.lm.params)
            configured: dspy.BaseLM | None = dspy.settings.lm  # by an operator's module, or the embedding program
            return configured
        if (why := refusal(wanted.params, self._settings.allow_lm_arg)) is not None:
            raise InvalidSpec(why)
        try:
            self.check_name(wanted.model)
        except Refused as refused:
            raise InvalidSpec(f"{where} {refused}; got {show(wanted.model)}") from None
        return self._keep(wanted.model, {**self._operators_arguments(wanted.model), **wanted.params})

    def _operators_arguments(self, model: str) -> Mapping[str, Any]:
        """The operator's connection arguments go to models of the operator's own provider and to no other."""
        lm = self._settings.lm
        if lm is None or lm.model.partition("/")[0] != model.partition("/")[0]:
            return {}
        return lm.params if lm.model == model else {k: v for k, v in lm.params.items() if k not in SAMPLING}

    def _keep(self, model: str, params: Mapping[str, Any]) -> dspy.BaseLM:
        try:
            key = json.dumps([model, params], sort_keys=True, default=lambda value: f"{type(value)}@{id(value)}")
        except (ValueError, TypeError) as error:
            raise InvalidSpec(f"the arguments of language model {model!r} cannot be read: {error}") from error
        if (kept := self._kept.get(key)) is None:
            try:
                kept = dspy.LM(model, **params)
            except (ValueError, TypeError, dspy.LMError) as error:
                raise InvalidSpec(f"DSPy refuses the language model {model!r}: {error}") from error
            self._kept[key] = kept
            while len(self._kept) > self._settings.max_lms:
                self._kept.popitem(last=False)
        self._kept.move_to_end(key)
        return kept


def copied(model: dspy.BaseLM, *, no_cache: bool) -> dspy.BaseLM:
    """A trial's own copy: its keywords and history are its own, its connections are shared."""
    copy = model.copy()
    if no_cache:
        copy.cache = False
    return copy
