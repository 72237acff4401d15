"""Hydration: from a request to an instance that is ready to be synchronised and called."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any, cast

import dspy

from dspex_trio.model import (
    MODULE_CHOICE,
    Binding,
    BoundVariable,
    LanguageModel,
    Program,
    RunInLoop,
    RunInThread,
    Signature,
    ToolSpec,
    TrialRequest,
    TrialSession,
    Variable,
)
from dspex_trio.model.errors import InvalidSpec
from dspex_trio.model.lm_arguments import Refused
from dspex_trio.model.variable_types import show
from dspex_trio.programs.bind.language_models import LanguageModels
from dspex_trio.programs.bind.mixin import Bindings, make_variable_aware, variable_aware
from dspex_trio.programs.bind.parameters import Parameters
from dspex_trio.programs.bind.trial_model import TrialModel
from dspex_trio.programs.hydrate.choices import chosen_classes, replace_submodule, submodule_choices
from dspex_trio.programs.hydrate.classes import ImportPolicy, resolve_class
from dspex_trio.programs.hydrate.construct import construct
from dspex_trio.programs.hydrate.prototypes import Prototypes
from dspex_trio.programs.hydrate.signatures import make_signature
from dspex_trio.programs.hydrate.states import load_state
from dspex_trio.programs.hydrated import Hydrated
from dspex_trio.programs.inputs import inputs_of
from dspex_trio.programs.registry import is_reusable
from dspex_trio.programs.session import ProgramSession, read_at_once, read_bound
from dspex_trio.programs.settings import ProgramSettings
from dspex_trio.programs.tools import wants_elixir_tools


@dataclass(frozen=True, slots=True)
class _Built:
    """A constructed program before anything of a trial is on it.

    Attributes:
        module: The instance.
        signature: The specification's signature.
        asked: Predictor's name → the language model that a loaded state asked for.
        own: Language models that the program gave its predictors.
        names: Predictors' stages → their names; copies keep the stage.
    """

    module: dspy.Module
    signature: type[dspy.Signature] | None
    asked: Mapping[str, LanguageModel]
    own: tuple[dspy.BaseLM, ...]
    names: Mapping[str, str]

    def clone(self) -> dspy.Module:
        """A deep copy, but for language models: their copies share connections, deep copies would open their own."""
        return copy.deepcopy(self.module, {id(model): model.copy() for model in self.own})


@dataclass(frozen=True, slots=True)
class _Unfinished:
    """A constructed program whose submodules' classes are not known yet.

    Attributes:
        program: Its specification.
        module: The instance.
        signature: The specification's signature.
        choices: The bindings that pick submodules' classes.
    """

    program: Program
    module: dspy.Module
    signature: type[dspy.Signature] | None
    choices: tuple[Binding, ...]


class Loader:
    """Makes program instances; the runtime's ProgramLoader.

    DSPy's own classes and those registered as reusable are constructed once per specification and copied for each trial
    (`copy.deepcopy`: DSPy's `Module.deepcopy` silently shares what it cannot copy). Any other class is constructed anew
    for each trial, exactly once.

    Args:
        settings: What the operator decided.
        models: The language models.
        loaded: Names of the operator's modules that were imported.
        redact: Takes secrets out of what is recorded.
        run_in_loop: Has a program's thread wait for its session.
    """

    def __init__(
        self,
        settings: ProgramSettings,
        models: LanguageModels,
        loaded: tuple[str, ...],
        redact: Callable[[str], str],
        run_in_loop: RunInLoop,
    ) -> None:
        self._settings = settings
        self._models = models
        self._redact = redact
        self._run_in_loop = run_in_loop
        self._policy = ImportPolicy(loaded, settings.allow_import)
        self._prototypes: Prototypes[_Built] = Prototypes(settings.max_prototypes)

        @lru_cache(maxsize=settings.max_prototypes)
        def signature(specified: Signature) -> type[dspy.Signature]:
            return make_signature(specified, self._policy, loaded)

        self._signature = signature

    async def hydrate(self, request: TrialRequest, session: TrialSession, run_in_thread: RunInThread) -> Hydrated:
        """Resolve, construct and bind the program of `request`; as `ProgramLoader.hydrate` says."""
        program = request.program
        of_class = [binding for binding in program.config_space if binding.parameter == MODULE_CHOICE]
        tools = wants_elixir_tools(program.dependencies)
        known: Mapping[str, Variable | None] = {}
        offered: Sequence[ToolSpec] = ()
        if of_class or tools:
            known, offered = await read_at_once(session, program.config_space, tools=tools)
        chosen = chosen_classes(of_class, known)
        if MODULE_CHOICE in chosen:
            program = replace(program, python_class=chosen[MODULE_CHOICE].value)

        model = TrialModel(self._models, program.lm, no_cache=request.options.no_cache)
        key = self._prototypes.key(program, offered)
        choices: tuple[Binding, ...] = ()
        if (built := self._prototypes.get(key)) is not None:
            module = built.clone()
        else:
            made = await run_in_thread(self.build, program, key, offered)
            if isinstance(made, _Unfinished):
                choices = made.choices
                known = known or await read_bound(session, program.config_space)
                chosen |= (picked := chosen_classes(choices, known))
                made = await run_in_thread(self.finish, made, picked)
            built, module = made

        if built.asked or built.own:
            model.adopt(module, built.asked)
        parameters = Parameters(module, self._settings, model)
        bindings = Bindings(session, parameters.find, known)
        of_program = ProgramSession(session, self._run_in_loop, request.deadline)
        make_variable_aware(module, bindings, of_program)
        _set_parameters(parameters, program.parameters)
        for binding in program.config_space:
            if binding not in of_class and binding not in choices:
                await module.bind_to_variable(
                    binding.parameter, binding.variable, optional=binding.optional, default=binding.default
                )
        return Hydrated(
            module=module,
            model=model,
            inputs=inputs_of(module, built.signature),
            names=built.names,
            request=request,
            chosen=chosen,
            session=of_program,
            warnings=bindings.warnings,
            redact=self._redact,
            allow_repr=self._settings.allow_repr,
            shared_cache=self._settings.shared_cache,
        )

    def build(
        self, program: Program, key: str | None, elixir_tools: Sequence[ToolSpec] = ()
    ) -> tuple[_Built, dspy.Module] | _Unfinished:
        """What the program is made of, and an instance for this trial. Runs user code: for a worker thread.

        Unfinished where variables pick classes of submodules, which are known by name only now.
        """
        cls = resolve_class(program.python_class, self._policy)
        signature = None if program.signature is None else self._signature(cast("Any", program.signature))
        module = construct(cls, program, signature, self._settings, elixir_tools)
        unfinished = _Unfinished(program, module, signature, submodule_choices(module, program))
        if unfinished.choices:
            return unfinished
        built, module = self.finish(unfinished, {})
        if key is None or not is_reusable(type(module)):
            return built, module
        try:
            clone = built.clone()
        except Exception:  # noqa: BLE001 - what was given as a dependency may not be copied: then it is made anew
            return built, module
        self._prototypes.keep(key, built)
        return built, clone

    def finish(self, made: _Unfinished, chosen: Mapping[str, BoundVariable]) -> tuple[_Built, dspy.Module]:
        """The program with its submodules as chosen, and its state loaded. Runs user code: for a worker thread."""
        program, module = made.program, made.module
        for path, bound in chosen.items():
            replace_submodule(module, path, bound.value, self._policy, self._settings)
        asked = load_state(module, program.state, self._settings) if program.state is not None else {}
        predictors = module.named_predictors()
        built = _Built(
            module=module,
            signature=made.signature,
            asked=asked,
            own=tuple(p.lm for _, p in predictors if isinstance(p.lm, dspy.BaseLM)),
            names={p.stage: name for name, p in predictors},
        )
        variable_aware(cast("Any", type(module)))
        return built, module


def _set_parameters(parameters: Parameters, values: Mapping[str, Any]) -> None:
    for path, value in values.items():
        parameter = parameters.find(path)
        try:
            parameter.apply(parameter.check(value))
        except Refused as refused:
            raise InvalidSpec(f"parameter {path!r} {refused}; got {show(value)}") from None
