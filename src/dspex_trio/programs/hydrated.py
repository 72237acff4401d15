"""A program instance of one trial: its language model, its call, and what became of it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import dspy
from dspy.adapters.types import tool as dspy_tool
from dspy.utils.exceptions import AdapterParseError, LMError, is_retryable_lm_error

from dspex_trio.errors import InvalidSpec, LmError, ToolError
from dspex_trio.model import BoundVariable, Interrupt, LanguageModel, Prediction, Recording, TrialOptions
from dspex_trio.programs.inputs import Inputs
from dspex_trio.programs.lms import LanguageModels, cache_salt
from dspex_trio.programs.mixin import VariableAwareMixin
from dspex_trio.programs.patches import CACHE_SALT, INTERRUPT
from dspex_trio.programs.recorder import Recorder
from dspex_trio.values import plain


class TrialModel:
    """The trial's own language model, and the changes that parameters make to it.

    Args:
        models: Where models come from.
        wanted: What the program asks for; None for the operator's.
        no_cache: Whether to ask the provider even where the cache has an answer.
    """

    def __init__(self, models: LanguageModels, wanted: LanguageModel | None, *, no_cache: bool) -> None:
        self._models = models
        self._no_cache = no_cache
        self._arguments: dict[str, Any] = {}
        self.lm = models.for_trial(wanted, no_cache=no_cache)

    def set_model(self, predictors: list[dspy.Predict], model: str, *, everywhere: bool) -> None:
        """Have these predictors, and with `everywhere` the whole program, ask another model."""
        lm = self._models.named(model, no_cache=self._no_cache)
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

    def give_states_models(self, module: dspy.Module, models: Mapping[str, LanguageModel]) -> None:
        """Give predictors the models that a loaded state asked for."""
        predictors = dict(module.named_predictors())
        for name, wanted in models.items():
            if name in predictors:
                predictors[name].lm = self._models.for_trial(wanted, no_cache=self._no_cache)

    def all(self, module: dspy.Module) -> Iterator[dspy.BaseLM]:
        """The trial's model and those of single predictors, each once."""
        found = {id(lm): lm for lm in (self.lm, *(p.lm for p in module.predictors())) if lm is not None}
        yield from found.values()


class Hydrated:
    """A `HydratedProgram` of DSPy; made by the loader."""

    def __init__(
        self,
        *,
        module: dspy.Module,
        model: TrialModel,
        inputs: Inputs,
        options: TrialOptions,
        chosen: Mapping[str, BoundVariable],
        redact: Callable[[str], str],
    ) -> None:
        self.module = module
        self._model = model
        self._inputs = inputs
        self._options = options
        self._chosen = chosen
        self._redact = redact
        self._recorder: Recorder | None = None

    async def sync_variables(self) -> dict[str, BoundVariable]:
        """Fetch, check and apply every bound variable."""
        assert isinstance(self.module, VariableAwareMixin)  # noqa: S101 - the loader made it one
        return {**self._chosen, **await self.module.sync_variables()}

    def call(self, inputs: Mapping[str, Any], interrupt: Interrupt) -> Prediction:
        """Run the program; as `HydratedProgram.call` says. Errors of LMs and tools have the original as their cause."""
        arguments = self._inputs.check(inputs)
        recorder = self._recorder = Recorder(self.module, self._options, interrupt, self._redact)
        for lm in self._model.all(self.module):
            lm.callbacks = [*lm.callbacks, recorder.callback]
        settings = {
            "lm": self._model.lm,
            "trace": recorder.trace,
            "caller_modules": [recorder],
            "usage_tracker": recorder.usage,
            "disable_history": False,
            "warn_on_type_mismatch": False,  # inputs are checked already
            INTERRUPT: interrupt,
            CACHE_SALT: cache_salt(self._model.lm),
        }
        with dspy.context(**settings):
            try:
                result = self.module(**arguments)
            except Exception as error:
                interrupt.check()
                blamed = _blamed(error, has_lm=self._model.lm is not None)
                if blamed is error:
                    raise
                raise blamed from error
        interrupt.check()
        return prediction_of(result)

    def recording(self) -> Recording:
        """What was seen until now."""
        return self._recorder.recording() if self._recorder is not None else Recording()


def _blamed(error: Exception, *, has_lm: bool) -> Exception:
    """Say whose fault an exception was; the program's own ones come back as they are."""
    if isinstance(error, LMError):
        return LmError(
            str(error),
            retryable=is_retryable_lm_error(error),
            retry_after=getattr(error, "retry_after", None),
        )
    if isinstance(error, AdapterParseError):
        return LmError(str(error))
    if not has_lm and isinstance(error, ValueError) and str(error).startswith("No LM is loaded"):
        return InvalidSpec("no language model: the program names none (lm) and the worker was started without --lm")
    if _came_through_a_tool(error):
        return ToolError(str(error))
    return error


def _came_through_a_tool(error: BaseException) -> bool:
    """Whether a tool raised it: the traceback then passes through DSPy's Tool."""
    step = error.__traceback__
    while step is not None:
        if step.tb_frame.f_code.co_filename == dspy_tool.__file__:
            return True
        step = step.tb_next
    return False


def prediction_of(result: Any) -> Prediction:
    """What a program returned, made plain.

    A `dspy.Prediction` gives its fields and completions, a dict its items; anything else is the one field `result`.
    """
    warnings: list[str] = []
    if isinstance(result, dspy.Example):  # Prediction is one
        fields, completions = dict(result.items()), _completions(result, warnings)
    elif isinstance(result, Mapping):
        fields, completions = dict(result), ()
    else:
        fields, completions = {"result": result}, ()
        warnings.append(f"the program returned a {type(result).__name__}, no dspy.Prediction; it is the field 'result'")
    return Prediction(
        fields={str(name): plain(value, warnings=warnings, path=str(name)) for name, value in fields.items()},
        completions=completions,
        warnings=tuple(warnings),
    )


def _completions(prediction: Any, warnings: list[str]) -> tuple[Mapping[str, Any], ...]:
    completions = getattr(prediction, "completions", None)
    if completions is None or len(completions) < 2:  # noqa: PLR2004 - one completion is the prediction itself
        return ()
    return tuple(
        {name: plain(value, warnings=warnings, path=f"completions[{index}].{name}") for name, value in one.items()}
        for index, one in enumerate(completions)
    )
