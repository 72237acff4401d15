"""The language models of one trial: copies of its own, and the changes that parameters make to them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import dspy

from dspex_trio.model import LanguageModel
from dspex_trio.programs.bind.language_models import LanguageModels, copied


class TrialModel:
    """A trial's own language model; the `Target` of parameters.

    Args:
        models: Where models come from.
        wanted: What the program asks for; None for the operator's.
        no_cache: Whether to ask the provider even where the cache has an answer.

    Raises:
        InvalidSpec: A request may not ask for that model.
    """

    def __init__(self, models: LanguageModels, wanted: LanguageModel | None, *, no_cache: bool) -> None:
        self._models = models
        self._params = {} if wanted is None else wanted.params
        self._no_cache = no_cache
        self._arguments: dict[str, Any] = {}
        self.lm = models.for_trial(wanted, no_cache=no_cache)

    def check_model(self, name: Any) -> str:
        """`name`, if it is that of a model that a request may ask; else raises Refused."""
        return self._models.check_name(name)

    def set_model(self, predictors: list[dspy.Predict], model: str, *, everywhere: bool) -> None:
        """Have these predictors, and with `everywhere` the whole program, ask another model with the same keywords."""
        lm = self._models.for_trial(LanguageModel(model, self._params), no_cache=self._no_cache)
        assert lm is not None  # noqa: S101 - it was named
        for predictor in predictors:
            predictor.lm = lm
        if everywhere:
            self.lm = lm
            lm.kwargs.update(self._arguments)

    def set_argument(self, name: str, value: Any) -> None:
        """Give the trial's language model a keyword, for predictors that are made while the program runs."""
        self._arguments[name] = value
        if self.lm is not None:
            self.lm.kwargs[name] = value

    def adopt(self, module: dspy.Module, asked: Mapping[str, LanguageModel]) -> None:
        """Give predictors the models that a loaded state asked for, and copies of those that the program set.

        A model that a program keeps may be shared with other trials, and so would its history be.
        """
        copies: dict[int, dspy.BaseLM] = {}
        for name, predictor in module.named_predictors():
            if name in asked:
                predictor.lm = self._models.for_trial(
                    asked[name], no_cache=self._no_cache, where=f"the state's lm.model of {name!r}"
                )
            elif isinstance(lm := predictor.lm, dspy.BaseLM):
                predictor.lm = copies.setdefault(id(lm), copied(lm, no_cache=self._no_cache))
