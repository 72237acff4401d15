"""What a program does, seen while it runs: its predictors' calls, its LM calls, tokens and cost.

DSPy's own lists are the hooks, since callbacks on every module cost half as much again as a Predict: `trace` gets every
finished predictor call, `caller_modules` every finished LM call, `usage_tracker` what was billed. What begins, and what
is billed and then fails, is seen by the wrappers in `patches`. All of them reach copies of modules and dspy.Parallel's
threads, because DSPy hands its settings on.
"""

from __future__ import annotations

import secrets
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from contextvars import ContextVar
from dataclasses import replace
from functools import partial
from typing import Any, Final, cast

import dspy

from dspex_trio.model import (
    Cost,
    Interrupt,
    LmCall,
    Recording,
    TraceEntry,
    TrialOptions,
    Usage,
    Watch,
)
from dspex_trio.programs.bind.mixin import program_class
from dspex_trio.programs.dspy.private import thread_local_overrides
from dspex_trio.programs.record import lm_errors
from dspex_trio.programs.record.entries import cut_by, lm_call, plain_fields, plus, total, unanswered, usage_of
from dspex_trio.programs.record.events import ProgramWatch
from dspex_trio.programs.record.lm_hooks import History, Trace, Usages

MAX_ENTRIES: Final = 10_000
"""The most entries and LM calls that are kept of one trial; the cost counts all of them."""
MAX_PROMPT_CHARS: Final = 64 * 1024 * 1024
"""The most characters of messages and responses that are kept of one trial; later calls are kept without."""
_MAX_HISTORY: Final = 1_000
_MAX_WARNINGS: Final = 20
_MOST_SAID: Final = 4_096  # characters of what a provider says of an error
_UNWATCHED: Final = nullcontext(lambda result: result)

# A key of DSPy's own settings: it reaches dspy.Parallel's threads, where a ContextVar of ours does not.
RECORDER: Final = "_dspex_recorder"


def current_recorder() -> Recorder | None:
    """The recorder of the trial whose program the calling thread runs, in dspy.Parallel's threads too; else None."""
    return cast("Recorder | None", thread_local_overrides.get().get(RECORDER))


class _PendingLmCall:
    """An LM call under way: what was asked, by whom, when it began, and what was billed for it."""

    __slots__ = ("answer", "began", "billed", "key", "lm", "lost", "question", "said")

    def __init__(self, lm: dspy.BaseLM, question: Mapping[str, Any], key: list[Any], began: float) -> None:
        self.lm = lm
        self.question = question
        self.key = key
        self.began = began
        self.billed: list[Usage] = []
        self.answer: LmCall | None = None
        self.lost = False  # a reply that may be billed was given up
        self.said = ""  # by the last attempt that failed


class _Invocation:
    """One call of one module, known by the list that DSPy makes for it; the LM calls that it made so far."""

    __slots__ = ("calls", "key", "module")

    def __init__(self, key: list[Any], module: Any) -> None:
        self.key = key  # kept, so that its id stays its own
        self.module = module
        self.calls: list[LmCall] = []


_asked: Final[ContextVar[_PendingLmCall | None]] = ContextVar("dspex_trio.programs.asked", default=None)


def asked_lm() -> dspy.BaseLM | None:
    """The LM whose call is under way in the calling context of a trial."""
    return None if (asked := _asked.get()) is None else asked.lm


def attempt_failed(error: Exception) -> None:
    """An attempt of the LM call that is under way in the calling context has failed; DSPy may try again."""
    if (asked := _asked.get()) is not None:
        asked.said = lm_errors.said(error)


def asking_predictor() -> str:
    """The name of the predictor whose LM call is under way in the calling context of a trial.

    Empty for the program's own code, and outside of trials.
    """
    asked, recorder = _asked.get(), current_recorder()
    return "" if asked is None or recorder is None else recorder.name_of(_module(asked.key))


class Recorder:
    """Records one trial; readable from any thread while the program runs.

    Attributes:
        marker: A number that only this trial knows; its prompts mark images with it.

    Args:
        program: The program instance.
        names: Its predictors' stages → their names; another predictor is looked for in `program`.
        options: What to leave out.
        interrupt: Checked at every LM call, tool call and predictor end.
        redact: Takes secrets out of what is recorded.
        watch: Told of LM and tool calls when they begin and end.
        stream_output: Whether it is told of output while that comes.
    """

    def __init__(
        self,
        program: dspy.Module,
        names: Mapping[str, str],
        options: TrialOptions,
        interrupt: Interrupt,
        redact: Callable[[str], str] = str,
        *,
        watch: Watch | None = None,
        stream_output: bool = True,
    ) -> None:
        self.interrupt = interrupt
        self.marker = secrets.token_hex(8)
        self._program = program
        self._options = options
        self._redact = redact
        self._watch = None if watch is None else ProgramWatch(watch, redact, stream_output=stream_output)
        self._keep_prompts = not (options.omit_prompts or options.omit_trace)
        self._prompt_chars = self._kept = 0
        self._truncated = False
        self._names = names
        self._began = time.monotonic()
        self._lock = threading.Lock()
        self._trace: list[TraceEntry] = []
        self._open: dict[int, _Invocation] = {}
        self._cost = Cost()
        self._asking: dict[int, _PendingLmCall] = {}
        self._warnings: dict[str, None] = {}
        self._last_cut = self._interrupted = ""

    def __deepcopy__(self, memo: dict[int, Any]) -> Recorder:
        return self

    def settings(self) -> dict[str, Any]:
        """What `dspy.context` must be given for the program to be recorded."""
        return {
            RECORDER: self,
            "trace": Trace(self),
            "caller_modules": [self],
            "usage_tracker": Usages(self),
            "disable_history": False,
            "max_history_size": min(max(dspy.settings.max_history_size, 1), _MAX_HISTORY),
            "max_trace_size": MAX_ENTRIES,
        }

    @property
    def history(self) -> History:
        """What DSPy takes for the history of a module that calls others."""
        return History(
            self
        )  # hooks know their recorder, but not it them: what a trial leaves goes without a collection

    def recording(self) -> Recording:
        """What was seen until now."""
        with self._lock:
            trace, cost, truncated = list(self._trace), self._cost, self._truncated
            # Made by what did not end, or ended in failure; or by a module that asks its LM itself.
            loose = {key: (found.module, list(found.calls)) for key, found in self._open.items()}
            asking = [asked for asked in self._asking.values() if asked.answer is None]
            warnings = tuple(self._warnings)
            said = next((asked.said for asked in asking if asked.said), self._interrupted)
        for asked in asking:
            call = self._unanswered(asked, free=False)
            cost = plus(cost, call, answered=False)
            loose.setdefault(id(asked.key), (_module(asked.key), []))[1].append(call)
        if not self._options.omit_trace:
            trace += [self._unfinished(module, made) for module, made in loose.values()]
        details = {"lm_error": self._redact(said)[:_MOST_SAID]} if said else {}
        if warnings:
            details["cut_answers"] = "\n".join(warnings)
        return Recording(tuple(trace), cost, truncated, warnings=warnings, details=details)

    # The hooks call what follows, from any thread of the program; see `ProgramEvents`.

    @contextmanager
    def asking(self, lm: dspy.BaseLM, question: Mapping[str, Any]) -> Iterator[None]:
        """An LM is called with `prompt` or `messages`; raises what the interrupt raises before the call begins."""
        self.interrupt.check()
        asked = _PendingLmCall(lm, question, dspy.settings.caller_modules, self._now())
        token = _asked.set(asked)
        self._asking[id(asked)] = asked
        free = False
        try:
            if self._watch is None:
                yield
            else:
                module = _module(asked.key)
                with self._watch.lm(
                    module,
                    self.name_of(module),
                    lm,
                    question,
                    answer=partial(self._answer, asked),
                    lost=partial(setattr, asked, "lost", True),
                    said=lambda: asked.said,
                ):
                    yield
        except Exception as error:
            free = lm_errors.refused(error) and not asked.billed and not asked.lost
            raise
        except BaseException:
            if asked.answer is None:
                self._interrupted = asked.said or self._interrupted
            raise
        finally:
            _asked.reset(token)
            call = None if asked.answer is not None else self._unanswered(asked, free=free)
            with self._lock:
                del self._asking[id(asked)]
                if call is not None:
                    self._cost = plus(self._cost, call, answered=False)
                    self._keep(call, asked.key)

    def calling(self, tool: str, arguments: Mapping[str, Any]) -> AbstractContextManager[Callable[[Any], Any]]:
        """A tool is called; the context gives what is to be given its result, and returns it.

        Raises what the interrupt raises before the call begins.
        """
        self.interrupt.check()
        return _UNWATCHED if self._watch is None else self._watch.tool(tool, arguments)

    def _answer(self, asked: _PendingLmCall, *, free: bool = False) -> LmCall:
        return asked.answer or self._unanswered(asked, free=free)

    @property
    def last_cut(self) -> str:
        """Of the answer that came last, how it was cut; empty if it was not."""
        return self._last_cut

    def billed(self, usage: Mapping[str, Any]) -> None:
        if (asked := _asked.get()) is not None:
            asked.billed.append(usage_of(usage))

    def lm_ended(self, entry: Mapping[str, Any]) -> None:
        now = self._now()
        asked = _asked.get()
        billed = bool(entry.get("usage")) or (asked is not None and bool(asked.billed))
        call = lm_call(
            entry,
            billed=billed,
            lost=asked is not None and asked.lost,
            began=now if asked is None else asked.began,
            ended=now,
            redact=self._redact if self._keep_prompts else None,
        )
        if asked is not None:
            asked.answer = call
        self._last_cut = self._cut(entry, asked)
        with self._lock:
            if self._last_cut and len(self._warnings) < _MAX_WARNINGS:
                self._warnings[self._last_cut] = None
            self._cost = plus(self._cost, call)
            self._keep(call, dspy.settings.caller_modules)
        self.interrupt.check()

    def _cut(self, entry: Mapping[str, Any], asked: _PendingLmCall | None) -> str:
        if not (reason := cut_by(entry)):
            return ""
        name = self.name_of(_module(dspy.settings.caller_modules))
        arguments = {**({} if asked is None else asked.lm.kwargs), **entry.get("kwargs", {})}
        most = arguments.get("max_tokens") or arguments.get("max_completion_tokens")
        limit = "" if reason == "content_filter" else f": it reached max_tokens{f' ({most})' if most else ''}"
        who = f"predictor {name!r}" if name else "the program"
        return f"{who}: an answer of {entry.get('model')} was cut (finish_reason {reason!r}){limit}"

    def predictor_ended(
        self, predictor: Any, inputs: Mapping[str, Any], prediction: Mapping[str, Any], *, late: bool
    ) -> None:
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
                predictor=self.name_of(predictor),
                class_name=program_class(predictor).__name__,
                signature=_notation(predictor),
                inputs=plain_fields(inputs, self._redact),  # now, since programs change what they passed (ReActV2)
                outputs=plain_fields(prediction, self._redact),
                lm_calls=calls,
                started_ms=began,
                latency_ms=now - began,
            )
            with self._lock:
                if len(self._trace) < MAX_ENTRIES:
                    self._trace.append(entry)
                else:
                    self._truncated = True
        self.interrupt.check()

    def _keep(self, call: LmCall, key: list[Any]) -> None:
        """Keep the call with the invocation that `key` stands for, within the limits."""
        if self._options.omit_trace:
            return
        if self._kept == MAX_ENTRIES:
            self._truncated = True
            return
        self._kept += 1
        self._prompt_chars += len(call.messages_json) + len(call.response_json)
        if self._prompt_chars > MAX_PROMPT_CHARS:
            self._keep_prompts, self._truncated = False, True
            call = replace(call, messages_json="", response_json="")
        if (invocation := self._open.get(id(key))) is None:
            invocation = self._open[id(key)] = _Invocation(key, _module(key))
        invocation.calls.append(call)

    def _unanswered(self, asked: _PendingLmCall, *, free: bool) -> LmCall:
        """A call without an answer: under way, ended by the interrupt, or failed. It may be billed all the same."""
        return unanswered(
            asked.question,
            model=asked.lm.model,
            usage=total(asked.billed),
            free=free,
            began=asked.began,
            ended=self._now(),
            redact=self._redact if self._keep_prompts else None,
        )

    def _take(self, predictor: Any) -> _Invocation | None:
        """The oldest invocation of that very predictor that has not been reported yet."""
        for key, invocation in self._open.items():
            if invocation.module is predictor:
                return self._open.pop(key)
        return None

    def _now(self) -> float:
        return (time.monotonic() - self._began) * 1e3

    def name_of(self, predictor: Any) -> str:
        """The dotted name of a predictor inside the program; empty for what is none of it."""
        # Copies keep a predictor's `stage` (BestOfN, Refine), so it names them where identity does not.
        if not isinstance(stage := getattr(predictor, "stage", None), str):
            return ""
        if (name := self._names.get(stage)) is None:
            # It is in a compiled submodule, which DSPy's list leaves out, or was made while the program runs.
            found = self._program.named_sub_modules(dspy.Predict)
            names = {p.stage: name.removeprefix("self.") for name, p in found}
            name = names.get(stage, "")
            self._names = {**names, **self._names, stage: name}
        return name

    def _unfinished(self, module: Any, made: list[LmCall]) -> TraceEntry:
        began = min(call.started_ms for call in made)
        return TraceEntry(
            predictor=self.name_of(module),
            class_name=program_class(module).__name__ if module is not None else "",
            signature=_notation(module),
            inputs={},
            outputs={},
            lm_calls=tuple(made),
            started_ms=began,
            latency_ms=max(call.started_ms + call.latency_ms for call in made) - began,
        )


def _module(key: list[Any]) -> Any:
    """The module that DSPy made this list of callers for; the first one is the recorder."""
    return key[-1] if len(key) > 1 else None


def _notation(module: Any) -> str:
    return getattr(getattr(module, "signature", None), "signature", "")
