"""What a program does, seen while it runs: its predictors' calls, its LM calls, tokens and cost.

DSPy's own lists are the hooks, since callbacks on every module cost half as much again as a Predict: `trace` gets every
finished predictor call, `caller_modules` every finished LM call, `usage_tracker` every billed one. Only the
trial's LM carries a callback, for the moment its calls begin and for those that fail. All of them reach copies of
modules and dspy.Parallel's threads, because DSPy hands its settings on.
"""

from __future__ import annotations

import json
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import dspy
from dspy.utils.callback import BaseCallback
from dspy.utils.callback_context import ACTIVE_CALL_ID
from dspy.utils.usage_tracker import UsageTracker

from dspex_trio.model import Cost, Interrupt, LmCall, Recording, TraceEntry, TrialOptions, Usage
from dspex_trio.programs.mixin import program_class
from dspex_trio.programs.settings import is_forbidden_lm_argument
from dspex_trio.values import plain


class Recorder:
    """Records one trial; readable from any thread while the program runs.

    Args:
        program: The program instance, for the predictors' names.
        options: What to leave out.
        interrupt: Checked at every LM call and predictor end.
        redact: Takes secrets out of prompts and replies.
    """

    def __init__(
        self, program: dspy.Module, options: TrialOptions, interrupt: Interrupt, redact: Callable[[str], str]
    ) -> None:
        self._options = options
        self._redact = redact
        self.interrupt = interrupt
        # Copies keep a predictor's `stage` (BestOfN, Refine), so it names them where identity does not.
        self._names = {predictor.stage: name for name, predictor in program.named_predictors()}
        self._began = time.monotonic()
        self._lock = threading.Lock()
        self._trace: list[TraceEntry] = []
        self._pending: defaultdict[tuple[int, int], list[tuple[Any, LmCall]]] = defaultdict(list)
        self._calls: list[LmCall] = []
        self._unpriced = 0
        self._thread = threading.local()
        self.trace = _Trace(self)
        self.history = _History(self)
        self.usage = _Usage(self)
        self.callback = _LmCallback(self)

    def recording(self) -> Recording:
        """What was seen until now."""
        with self._lock:
            calls, trace, unpriced = list(self._calls), list(self._trace), self._unpriced
            # Calls whose predictor has not ended: a parse failure, a deadline, or a program that asks its LM itself.
            loose = [(module, call) for entries in self._pending.values() for module, call in entries]
            usage = self.usage.total()
        by_module: dict[int, tuple[Any, list[LmCall]]] = {}
        for module, call in loose:
            by_module.setdefault(id(module), (module, []))[1].append(call)
        trace += [self._unfinished(module, made) for module, made in by_module.values()]
        return Recording(
            trace=() if self._options.omit_trace else tuple(trace),
            cost=Cost(
                total_usd=sum(call.cost_usd for call in calls),
                known=unpriced == 0,
                usage=usage,
                lm_calls=len(calls),
                cache_hits=sum(call.cache_hit for call in calls),
            ),
        )

    # What follows is called by the hooks, in whatever thread of the program.

    def predictor_ended(self, predictor: Any, inputs: Mapping[str, Any], prediction: Mapping[str, Any]) -> None:
        now = self._now()
        with self._lock:
            made = [call for _, call in self._pending.pop((id(predictor), threading.get_ident()), ())]
        began = min((call.started_ms for call in made), default=now)
        if not self._options.omit_trace:
            entry = TraceEntry(
                predictor=self._name(predictor),
                class_name=program_class(predictor).__name__,
                signature=_notation(predictor),
                inputs=_plain_fields(inputs),  # now, since programs change what they passed (ReActV2's history)
                outputs=_plain_fields(prediction),
                lm_calls=tuple(made),
                started_ms=began,
                latency_ms=now - began,
            )
            with self._lock:
                self._trace.append(entry)
        self.interrupt.check()

    def lm_began(self, call_id: str) -> None:
        self.interrupt.check()
        self._thread.began = (call_id, self._now())

    def lm_billed(self) -> None:
        self._thread.billed = True

    def lm_failed(self) -> None:
        """A call ended without a history entry; what it was billed for has no price."""
        if self._take_billed():
            with self._lock:
                self._unpriced += 1

    def lm_ended(self, entry: Mapping[str, Any]) -> None:
        now = self._now()
        billed = self._take_billed() or bool(entry.get("usage"))
        call_id, began = getattr(self._thread, "began", (None, now))
        if call_id != ACTIVE_CALL_ID.get():
            began = now  # not the trial's own LM: its beginning was not seen
        cost = entry.get("cost")
        call = LmCall(
            model=str(entry.get("response_model") or entry.get("model") or ""),
            usage=_usage(entry.get("usage") or {}) if billed else Usage(),
            cost_usd=float(cost) if billed and cost is not None else 0.0,
            cost_known=not billed or cost is not None,
            cache_hit=not billed,
            started_ms=began,
            latency_ms=now - began,
        )
        if not (self._options.omit_prompts or self._options.omit_trace):
            call = replace(call, messages_json=self._json(_messages(entry)), response_json=self._json(_response(entry)))
        module = _innermost_module()
        with self._lock:
            self._calls.append(call)
            self._unpriced += billed and cost is None
            self._pending[(id(module), threading.get_ident())].append((module, call))
        self.interrupt.check()

    def _now(self) -> float:
        return (time.monotonic() - self._began) * 1e3

    def _name(self, predictor: Any) -> str:
        name: str = self._names.get(getattr(predictor, "stage", None), "")
        return name

    def _take_billed(self) -> bool:
        billed: bool = getattr(self._thread, "billed", False)
        self._thread.billed = False
        return billed

    def _unfinished(self, module: Any, made: list[LmCall]) -> TraceEntry:
        return TraceEntry(
            predictor=self._name(module),
            class_name=program_class(module).__name__ if module is not None else "",
            signature=_notation(module),
            inputs={},
            outputs={},
            lm_calls=tuple(made),
            started_ms=made[0].started_ms,
            latency_ms=made[-1].started_ms + made[-1].latency_ms - made[0].started_ms,
        )

    def _json(self, value: Any) -> str:
        return self._redact(json.dumps(plain(value), ensure_ascii=False, default=_bytes))


class _Trace(list[Any]):
    """DSPy's `trace` setting. A real list too: BestOfN and Refine read theirs back and extend this one with it."""

    def __init__(self, recorder: Recorder) -> None:
        super().__init__()
        self._recorder = recorder

    def append(self, entry: Any) -> None:
        super().append(entry)
        predictor, inputs, prediction = entry
        self._recorder.predictor_ended(predictor, inputs, prediction)

    def extend(self, entries: Any) -> None:
        for entry in entries:
            self.append(entry)


class _History(list[Any]):
    """Stands in `caller_modules` as a module's history. Looks empty, so that DSPy never makes room in it."""

    def __init__(self, recorder: Recorder) -> None:
        super().__init__()
        self._recorder = recorder

    def __len__(self) -> int:
        return 0

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
        self._recorder.lm_billed()

    def total(self) -> Usage:
        found = [_usage(entry) for entries in list(self.usage_data.values()) for entry in list(entries)]
        return Usage(*(sum(getattr(usage, name) for usage in found) for name in Usage.__slots__))


class _LmCallback(BaseCallback):  # type: ignore[misc]
    """On the trial's LM alone: when its calls begin, and that they failed."""

    def __init__(self, recorder: Recorder) -> None:
        self._recorder = recorder

    def __deepcopy__(self, memo: dict[int, Any]) -> _LmCallback:
        return self

    def on_lm_start(self, call_id: str, instance: Any, inputs: dict[str, Any]) -> None:
        self._recorder.lm_began(call_id)

    def on_lm_end(self, call_id: str, outputs: Any, exception: BaseException | None = None) -> None:
        if exception is not None:
            self._recorder.lm_failed()


def _innermost_module() -> Any:
    modules = dspy.settings.caller_modules or ()
    return modules[-1] if modules and isinstance(modules[-1], dspy.Module) else None


def _notation(module: Any) -> str:
    return getattr(getattr(module, "signature", None), "signature", "")


def _plain_fields(fields: Mapping[str, Any]) -> dict[str, Any]:
    return {name: plain(value) for name, value in fields.items()}


def _messages(entry: Mapping[str, Any]) -> Any:
    if entry.get("messages") is not None:
        return entry["messages"]
    if entry.get("prompt") is not None:
        return [{"role": "user", "content": entry["prompt"]}]
    return entry.get("request")


def _response(entry: Mapping[str, Any]) -> Any:
    """The reply without what could hold a header or a key."""
    return _without_connection(plain({"outputs": entry.get("outputs"), "response": entry.get("response")}))


def _without_connection(value: Any) -> Any:
    match value:
        case dict():
            return {k: _without_connection(v) for k, v in value.items() if not (is_forbidden_lm_argument(k) and v)}
        case list():
            return [_without_connection(item) for item in value]
    return value


def _bytes(value: object) -> object:
    return f"<{len(value)} bytes>" if isinstance(value, bytes) else str(type(value))


def _usage(entry: Mapping[str, Any]) -> Usage:
    prompt, completion = _count(entry, "prompt_tokens"), _count(entry, "completion_tokens")
    return Usage(
        prompt_tokens=prompt,
        completion_tokens=completion,
        total_tokens=_count(entry, "total_tokens") or prompt + completion,
        cached_tokens=_count(entry.get("prompt_tokens_details"), "cached_tokens"),
        reasoning_tokens=_count(entry.get("completion_tokens_details"), "reasoning_tokens"),
    )


def _count(entry: Any, name: str) -> int:
    value = entry.get(name) if isinstance(entry, Mapping) else getattr(entry, name, None)
    return value if isinstance(value, int) and not isinstance(value, bool) and value > 0 else 0
