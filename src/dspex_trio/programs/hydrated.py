"""A program instance of one trial: its call, and what became of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, Final

import dspy

from dspex_trio.model import BoundVariable, Interrupt, Prediction, Recording, TrialRequest
from dspex_trio.model.errors import InvalidSpec, LmError, ToolError, TrialError
from dspex_trio.model.values import plain, type_name
from dspex_trio.programs import asynchronous as awaited
from dspex_trio.programs import registry
from dspex_trio.programs.bind.mixin import VariableAwareMixin
from dspex_trio.programs.bind.trial_model import TrialModel
from dspex_trio.programs.dspy.private import tool_module
from dspex_trio.programs.inputs import Inputs
from dspex_trio.programs.record import lm_errors
from dspex_trio.programs.record.recorder import Recorder
from dspex_trio.programs.session import CACHED_FOR, SESSION, ProgramSession

_TOOL_FILES: Final = frozenset({tool_module.__file__, registry.__file__})


class Hydrated:
    """A `HydratedProgram` of DSPy; made by the loader.

    Args:
        module: The program instance, variable-aware.
        model: Its language models.
        inputs: Checks its inputs.
        names: Its predictors' stages → their names.
        request: What was asked: what to leave out of the recording, and who watches.
        chosen: Parameter → the variable that picked its class, or a submodule's.
        session: The trial's session.
        warnings: What synchronising has to say; filled until the call.
        redact: Takes secrets out of what is recorded.
        allow_repr: Whether what is no JSON is shown by its `repr`.
        shared_cache: Whether its replies may come from what other sessions have asked, and theirs from it.
    """

    def __init__(
        self,
        *,
        module: dspy.Module,
        model: TrialModel,
        inputs: Inputs,
        names: Mapping[str, str],
        request: TrialRequest,
        chosen: Mapping[str, BoundVariable],
        session: ProgramSession,
        warnings: Sequence[str],
        redact: Callable[[str], str],
        allow_repr: bool,
        shared_cache: bool,
    ) -> None:
        self.module: dspy.Module | None = module
        self._model = model
        self._inputs = inputs
        self._names = names
        self._request = request
        self._chosen = chosen
        self._session = session
        self._warnings = warnings
        self._redact = redact
        self._allow_repr = allow_repr
        self._shared_cache = shared_cache
        self._recorder: Recorder | None = None
        self._seen = Recording()

    async def sync_variables(self) -> dict[str, BoundVariable]:
        """Fetch, check and apply every bound variable."""
        assert isinstance(self.module, VariableAwareMixin)  # noqa: S101 - the loader made it one
        return {**self._chosen, **await self.module.sync_variables()}

    def call(self, inputs: Mapping[str, Any], interrupt: Interrupt) -> Prediction:
        """Run the program; as `HydratedProgram.call` says. Errors of LMs and tools have the original as their cause.

        The instance is let go of in here: what its finalisers do is done in the program's thread, in its time.
        """
        try:
            return self._call(inputs, interrupt)
        finally:
            self._let_go()

    def _call(self, inputs: Mapping[str, Any], interrupt: Interrupt) -> Prediction:
        assert self.module is not None  # noqa: S101 - it is called once
        arguments = self._inputs.check(inputs)
        recorder = self._recorder = Recorder(
            self.module,
            self._names,
            self._request.options,
            interrupt,
            self._redact,
            watch=self._request.watch,
            stream_output=self._request.stream_output,
        )
        self._session.begin()
        settings = {**recorder.settings(), SESSION: self._session}
        if not self._shared_cache:
            settings[CACHED_FOR] = self._request.session_id
        with dspy.context(lm=self._model.lm, warn_on_type_mismatch=False, **settings):
            try:
                result = awaited.run(self.module, arguments)
            except Exception as error:
                interrupt.check()  # an interrupted trial ends with the interrupt, whatever else was raised
                if (translated := _translated(error, recorder.last_cut, has_lm=self._model.lm is not None)) is None:
                    raise
                raise translated from error
        interrupt.check()
        return self._prediction(result)

    def recording(self) -> Recording:
        """What was seen until now."""
        recorder = self._recorder
        seen = recorder.recording() if recorder is not None else self._seen
        return replace(seen, written=written) if (written := self._session.written()) else seen

    def _let_go(self) -> None:
        """Keep what was recorded, and nothing that leads to the instance."""
        if (recorder := self._recorder) is not None:
            self._seen = recorder.recording()
            self._recorder = None
        if isinstance(self.module, VariableAwareMixin):
            self.module._dspex_bindings.forget()  # noqa: SLF001 - the mixin's
        self.module, self._inputs = None, Inputs({})

    def _prediction(self, result: Any) -> Prediction:
        """What a program returned, made plain.

        A `dspy.Prediction` gives its fields and completions, a mapping its items; anything else is the field `result`.
        """
        warnings = list(self._warnings)
        completions: list[Mapping[str, Any]] = []
        if isinstance(result, dspy.Example):  # Prediction is one
            fields = dict(result.items())
            several = getattr(result, "completions", None)
            # One completion is the prediction itself.
            completions = list(several) if several is not None and len(several) > 1 else []
        elif isinstance(result, Mapping):
            fields = dict(result)
        else:
            fields = {"result": result}
            warnings.append(
                f"the program returned a {type(result).__name__}, no dspy.Prediction; it is the field 'result'"
            )
        return Prediction(
            fields=self._plain(fields, "", warnings),
            completions=tuple(self._plain(one, f"completions[{i}].", warnings) for i, one in enumerate(completions)),
            warnings=tuple(map(self._redact, warnings)),
        )

    def _plain(self, fields: Mapping[Any, Any], path: str, warnings: list[str]) -> dict[str, Any]:
        return {
            str(name): plain(
                value, warnings=warnings, path=f"{path}{name}", allow_repr=self._allow_repr, redact=self._redact
            )
            for name, value in fields.items()
        }


def _translated(error: Exception, cut: str, *, has_lm: bool) -> Exception | None:
    """The LmError, ToolError or InvalidSpec that an exception stands for; None to leave it as it is."""
    if isinstance(error, TrialError):
        return None  # a session or an Elixir tool
    if isinstance(error, dspy.AdapterParseError):
        return LmError(str(error), note=cut)
    if isinstance(error, dspy.LMError) or lm_errors.came_through_an_lm(error):
        passes, after = lm_errors.passes(error), lm_errors.retry_after(error)
        return LmError(type_name(type(error)), retryable=passes, retry_after=after, note=cut)
    if not has_lm and isinstance(error, ValueError) and str(error).startswith("No LM is loaded"):
        return InvalidSpec("no language model: the program names none (lm) and the worker was started without --lm")
    if _came_through_a_tool(error):
        return ToolError(str(error))
    return None


def _came_through_a_tool(error: BaseException) -> bool:
    """Whether a tool raised it: the traceback then passes through DSPy's Tool, or ours."""
    step = error.__traceback__
    while step is not None:
        if step.tb_frame.f_code.co_filename in _TOOL_FILES:
            return True
        step = step.tb_next
    return False
