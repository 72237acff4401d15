"""What a program does, seen while it runs: its predictors' calls, its LM calls, tokens and cost.

DSPy's own lists are the hooks, since callbacks on every module cost half as much again as a Predict: `trace` gets every
finished predictor call, `caller_modules` every finished LM call, `usage_tracker` what was billed. What begins, and what
is billed and then fails, is seen by the wrappers in `patches`. All of them reach copies of modules and dspy.Parallel's
threads, because DSPy hands its settings on.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, Final, cast

import dspy

from dspex_trio.model import Cost, Interrupt, LmCall, Recording, TraceEntry, TrialOptions, Usage
from dspex_trio.programs.entries import lm_call, plain_fields, usage_of
from dspex_trio.programs.mixin import program_class
from dspex_trio.programs.private import UsageTracker, thread_local_overrides

# A key of DSPy's own settings: it reaches dspy.Parallel's threads, where a ContextVar of ours does not.
RECORDER: Final = "_dspex_recorder"


def current_recorder() -> Recorder | None:
    """The recorder of the trial whose program the calling thread runs, in dspy.Parallel's threads too; else None."""
    return cast("Recorder | None", thread_local_overrides.get().get(RECORDER))


class _Asked:
    """An LM call under way: when it began, and what was billed for it."""

    __slots__ = ("began", "billed", "lm", "recorded")

    def __init__(self, lm: dspy.BaseLM, began: float) -> None:
        self.lm = lm
        self.began = began
        self.billed: list[Usage] = []
        self.recorded = False


class _Invocation:
    """One call of one module, known by the list that DSPy makes for it; the LM calls that it made so far."""

    __slots__ = ("calls", "key", "module")

    def __init__(self, key: list[Any], module: Any) -> None:
        self.key = key  # kept, so that its id stays its own
        self.module = module
        self.calls: list[LmCall] = []


_asked: Final[ContextVar[_Asked | None]] = ContextVar("dspex_trio.programs.asked", default=None)


def asked_lm() -> dspy.BaseLM | None:
    """The LM whose call is under way in the calling context of a trial."""
    return None if (asked := _asked.get()) is None else asked.lm


class Recorder:
    """Records one trial; readable from any thread while the program runs.

    Args:
        program: The program instance, for the predictors' names.
        options: What to leave out.
        interrupt: Checked at every LM call, tool call and predictor end.
        redact: Takes secrets out of what is recorded.
    """

    def __init__(
        self, program: dspy.Module, options: TrialOptions, interrupt: Interrupt, redact: Callable[[str], str] = str
    ) -> None:
        self.interrupt = interrupt
        self._program = program
        self._options = options
        self._redact = redact
        self._keep_prompts = not (options.omit_prompts or options.omit_trace)
        self._names: dict[Any, str] | None = None
        self._began = time.monotonic()
        self._lock = threading.Lock()
        self._trace: list[TraceEntry] = []
        self._open: dict[int, _Invocation] = {}
        self._calls: list[LmCall] = []
        self._lost: list[Usage] = []
        self._trace_hook = _Trace(self)
        self.history = _History(self)
        self._usage_hook = _Usage(self)

    def __deepcopy__(self, memo: dict[int, Any]) -> Recorder:
        return self

    def settings(self) -> dict[str, Any]:
        """What `dspy.context` must be given for the program to be recorded."""
        return {
            RECORDER: self,
            "trace": self._trace_hook,
            "caller_modules": [self],
            "usage_tracker": self._usage_hook,
            "disable_history": False,
            "max_history_size": 10_000,
            "max_trace_size": 10_000,
        }

    def recording(self) -> Recording:
        """What was seen until now."""
        with self._lock:
            calls, trace, lost = list(self._calls), list(self._trace), list(self._lost)
            # Made by what did not end, or ended in failure; or by a module that asks its LM itself.
            loose = [(invocation.module, list(invocation.calls)) for invocation in self._open.values()]
        if not self._options.omit_trace:
            trace += [self._unfinished(module, made) for module, made in loose]
        billed = [call.usage for call in calls if not call.cache_hit] + lost
        return Recording(
            trace=tuple(trace),
            cost=Cost(
                total_usd=sum(call.cost_usd for call in calls),
                known=not lost and all(call.cost_known for call in calls),
                usage=Usage(*(sum(getattr(usage, name) for usage in billed) for name in Usage.__slots__)),
                lm_calls=len(calls),
                cache_hits=sum(call.cache_hit for call in calls),
            ),
        )

    # What follows is called by the hooks, in whatever thread of the program.

    @contextmanager
    def asking(self, lm: dspy.BaseLM) -> Iterator[None]:
        """An LM is called; raises what the interrupt raises before the call begins."""
        self.interrupt.check()
        asked = _Asked(lm, self._now())
        token = _asked.set(asked)
        try:
            yield
        finally:
            _asked.reset(token)
            if asked.billed and not asked.recorded:  # it failed after the provider had answered
                with self._lock:
                    self._lost += asked.billed

    def billed(self, usage: Mapping[str, Any]) -> None:
        """A provider's answer was billed; DSPy says so right before it records the call, or when the call fails."""
        if (asked := _asked.get()) is not None:
            asked.billed.append(usage_of(usage))

    def lm_ended(self, entry: Mapping[str, Any]) -> None:
        """An LM call ended; `entry` is what DSPy keeps in histories."""
        now = self._now()
        asked = _asked.get()
        billed = bool(entry.get("usage")) or (asked is not None and bool(asked.billed))
        call = lm_call(
            entry,
            billed=billed,
            began=now if asked is None else asked.began,
            ended=now,
            redact=self._redact if self._keep_prompts else None,
        )
        if asked is not None:
            asked.recorded = True
        key = dspy.settings.caller_modules
        with self._lock:
            self._calls.append(call)
            if (invocation := self._open.get(id(key))) is None:
                invocation = self._open[id(key)] = _Invocation(key, key[-1] if len(key) > 1 else None)
            invocation.calls.append(call)
        self.interrupt.check()

    def predictor_ended(
        self, predictor: Any, inputs: Mapping[str, Any], prediction: Mapping[str, Any], *, late: bool
    ) -> None:
        """A predictor ended well; `late` when BestOfN or Refine tell of it afterwards, as part of the best attempt."""
        now = self._now()
        key = dspy.settings.caller_modules
        with self._lock:
            made = self._take(predictor) if late else self._open.pop(id(key), None)
        calls = () if made is None else tuple(made.calls)
        began = min((call.started_ms for call in calls), default=now)
        if late and calls:
            now = max(call.started_ms + call.latency_ms for call in calls)
        if not self._options.omit_trace:
            entry = TraceEntry(
                predictor=self._name(predictor),
                class_name=program_class(predictor).__name__,
                signature=_notation(predictor),
                inputs=plain_fields(inputs, self._redact),  # now, since programs change what they passed (ReActV2)
                outputs=plain_fields(prediction, self._redact),
                lm_calls=calls,
                started_ms=began,
                latency_ms=now - began,
            )
            with self._lock:
                self._trace.append(entry)
        self.interrupt.check()

    def _take(self, predictor: Any) -> _Invocation | None:
        """The oldest invocation of that very predictor that has not been told of."""
        for key, invocation in self._open.items():
            if invocation.module is predictor:
                return self._open.pop(key)
        return None

    def _now(self) -> float:
        return (time.monotonic() - self._began) * 1e3

    def _name(self, predictor: Any) -> str:
        # Copies keep a predictor's `stage` (BestOfN, Refine), so it names them where identity does not.
        stage = getattr(predictor, "stage", None)
        if self._names is None:
            self._names = {p.stage: name for name, p in self._program.named_predictors()}
        if (name := self._names.get(stage)) is None and isinstance(stage, str):
            # It is in a compiled submodule, which DSPy's list leaves out, or was made while the program runs.
            found = self._program.named_sub_modules(dspy.Predict)
            names = {p.stage: name.removeprefix("self.") for name, p in found}
            self._names = {**names, **self._names}
            name = self._names.setdefault(stage, "")
        return name or ""

    def _unfinished(self, module: Any, made: list[LmCall]) -> TraceEntry:
        began = min(call.started_ms for call in made)
        return TraceEntry(
            predictor=self._name(module),
            class_name=program_class(module).__name__ if module is not None else "",
            signature=_notation(module),
            inputs={},
            outputs={},
            lm_calls=tuple(made),
            started_ms=began,
            latency_ms=max(call.started_ms + call.latency_ms for call in made) - began,
        )


class _Trace(list[Any]):
    """DSPy's `trace` setting. A real list too: BestOfN and Refine read theirs back and extend this one with it."""

    def __init__(self, recorder: Recorder) -> None:
        super().__init__()
        self._recorder = recorder

    def append(self, entry: Any) -> None:
        super().append(entry)
        predictor, inputs, prediction = entry
        self._recorder.predictor_ended(predictor, inputs, prediction, late=False)

    def extend(self, entries: Any) -> None:
        for entry in entries:
            super().append(entry)
            predictor, inputs, prediction = entry
            self._recorder.predictor_ended(predictor, inputs, prediction, late=True)


class _History(list[Any]):
    """Stands in `caller_modules` as a module's history. Stays empty, so that DSPy never makes room in it."""

    def __init__(self, recorder: Recorder) -> None:
        super().__init__()
        self._recorder = recorder

    def append(self, entry: Any) -> None:
        self._recorder.lm_ended(entry)


class _Usage(UsageTracker):  # type: ignore[misc]
    """DSPy's usage tracker for one trial. Parallel deep-copies the tracker into its threads: one must serve all."""

    def __init__(self, recorder: Recorder) -> None:
        super().__init__()
        self._recorder = recorder

    def __deepcopy__(self, memo: dict[int, Any]) -> _Usage:
        return self

    def add_usage(self, lm: str, usage_entry: dict[str, Any]) -> None:
        super().add_usage(lm, usage_entry)
        self._recorder.billed(usage_entry)


def _notation(module: Any) -> str:
    return getattr(getattr(module, "signature", None), "signature", "")
