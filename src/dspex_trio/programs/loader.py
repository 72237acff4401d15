"""Hydration: from a request to an instance that is ready to be synchronised and called."""

from __future__ import annotations

import copy
import json
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import dspy

from dspex_trio.errors import InvalidSpec, VariableInvalid
from dspex_trio.model import BoundVariable, LanguageModel, Program, RunInThread, TrialRequest, Variable, VariableSource
from dspex_trio.programs.bindings import Refused, find_parameter
from dspex_trio.programs.classes import ImportPolicy, resolve_class
from dspex_trio.programs.construct import construct, load_state
from dspex_trio.programs.hydrated import Hydrated, TrialModel
from dspex_trio.programs.inputs import inputs_of
from dspex_trio.programs.lms import LanguageModels
from dspex_trio.programs.mixin import MODULE_CHOICE, Bindings, bound_value, make_variable_aware
from dspex_trio.programs.registry import is_reusable
from dspex_trio.programs.settings import ProgramSettings
from dspex_trio.programs.signatures import make_signature


@dataclass(frozen=True, slots=True)
class _Built:
    """A constructed program before anything of a trial is on it."""

    module: dspy.Module
    signature: type[dspy.Signature] | None
    models: Mapping[str, LanguageModel]


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
    """

    def __init__(
        self,
        settings: ProgramSettings,
        models: LanguageModels,
        loaded: tuple[str, ...] = (),
        redact: Callable[[str], str] = str,
    ) -> None:
        self._settings = settings
        self._models = models
        self._loaded = loaded
        self._redact = redact
        self._policy = ImportPolicy((*loaded, *settings.allow_import))
        self._prototypes: OrderedDict[str, _Built] = OrderedDict()

    async def hydrate(self, request: TrialRequest, source: VariableSource, run_in_thread: RunInThread) -> Hydrated:
        """Resolve, construct and bind the program of `request`; as `ProgramLoader.hydrate` says."""
        program = request.program
        chosen: dict[str, BoundVariable] = {}
        known: Mapping[str, Variable | None] = {}
        if any(binding.parameter == MODULE_CHOICE for binding in program.config_space):
            program, chosen, known = await self._choose_class(request, source)

        key = _content(program)
        if (built := self._prototypes.get(key)) is None:
            built = await run_in_thread(self._build, program)
            if is_reusable(type(built.module)):
                self._keep(key, built)
                module = copy.deepcopy(built.module)
            else:
                module = built.module
        else:
            self._prototypes.move_to_end(key)
            module = copy.deepcopy(built.module)

        model = TrialModel(self._models, program.lm, no_cache=request.options.no_cache)
        bindings = Bindings(source, lambda path: find_parameter(module, path, self._settings, model), request.arrived)
        bindings.known = dict(known)
        make_variable_aware(module, bindings)
        model.give_states_models(module, built.models)
        self._set_parameters(module, program, model)
        for binding in program.config_space:
            if binding.parameter != MODULE_CHOICE:
                await module.bind_to_variable(
                    binding.parameter, binding.variable, optional=binding.optional, default=binding.default
                )
        return Hydrated(
            module=module,
            model=model,
            inputs=inputs_of(module, built.signature),
            options=request.options,
            chosen=chosen,
            redact=self._redact,
        )

    def _build(self, program: Program) -> _Built:
        cls = resolve_class(program.python_class, self._policy)
        signature = None
        if program.signature is not None:
            signature = make_signature(program.signature, self._policy, self._loaded)
        module = construct(cls, program, signature)
        models = load_state(module, program.state, self._settings) if program.state is not None else {}
        return _Built(module, signature, models)

    def _keep(self, key: str, built: _Built) -> None:
        self._prototypes[key] = built
        while len(self._prototypes) > self._settings.max_prototypes:
            self._prototypes.popitem(last=False)

    def _set_parameters(self, module: dspy.Module, program: Program, model: TrialModel) -> None:
        for path, value in program.parameters.items():
            parameter = find_parameter(module, path, self._settings, model)
            try:
                parameter.apply(parameter.check(value))
            except Refused as refused:
                raise InvalidSpec(f"parameter {path!r} {refused}; got {value!r}") from None

    async def _choose_class(
        self, request: TrialRequest, source: VariableSource
    ) -> tuple[Program, dict[str, BoundVariable], Mapping[str, Variable | None]]:
        """Read every variable at once, since the one that picks the class must be of the same moment as the rest."""
        program = request.program
        wanted = list(dict.fromkeys(binding.variable for binding in program.config_space))
        known = await source.get_variables(wanted, not_before=request.arrived)
        for binding in program.config_space:
            if binding.parameter != MODULE_CHOICE or (bound := bound_value(binding, known)) is None:
                continue
            if not isinstance(bound.value, str):
                raise VariableInvalid(
                    f"variable {binding.variable!r} is {bound.value!r}, but parameter {MODULE_CHOICE!r} takes the name "
                    f"of a program class"
                )
            return replace(program, python_class=bound.value), {MODULE_CHOICE: bound}, known
        return program, {}, known


def _content(program: Program) -> str:
    """What a prototype depends on; parameters and bindings are applied to copies."""
    return json.dumps(
        [program.python_class, repr(program.signature), program.dependencies, program.state],
        sort_keys=True,
        default=repr,
    )
