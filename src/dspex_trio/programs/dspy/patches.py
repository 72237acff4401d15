"""The few process-wide changes to DSPy: made while a runtime is open, counted over runtimes, taken back afterwards."""

from __future__ import annotations

import ast
import contextvars
import functools
import hashlib
import math
import os
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from types import FrameType
from typing import Any, Final, cast

import dspy
import dspy.clients
from dspy.utils import DummyLM

from dspex_trio.model import Interrupt, TrialOptions
from dspex_trio.programs.dspy.adapters import CHANGED, marks_only_images
from dspex_trio.programs.dspy.private import (
    Cache,
    UnsupportedDspy,
    base_lm,
    capabilities,
    check_names,
    costs,
    dspy_settings,
    execution,
    is_parallel_worker,
    lm_module,
    parallelizer,
)
from dspex_trio.programs.endings import ENDED
from dspex_trio.programs.hydrate.parsing import FAILS_AT_ONCE, one_at_a_time
from dspex_trio.programs.record import lm_errors
from dspex_trio.programs.record.prices import ModelInfo
from dspex_trio.programs.record.recorder import RECORDER, Recorder, asked_lm, attempt_failed, current_recorder
from dspex_trio.programs.record.streaming import Unstreamed, streaming_attempt, streaming_completion
from dspex_trio.programs.session import cached_for
from dspex_trio.threads import Installed, Patch, PatchState

# Without it litellm fetches a price list over the network on its first import, and stalls for seconds where it cannot.
_LOCAL_PRICES: Final = "LITELLM_LOCAL_MODEL_COST_MAP"

# What DSPy leaves out of a cache key although the answer may depend on it (clients/execution.py, IGNORED_CACHE_KEYS).
_NOT_IN_KEY: Final = ("api_key", "api_base", "base_url")
_MEMORY_CACHE_ENTRIES: Final = 100_000

# The only thread that may call dspy.configure (dsp/utils/settings.py).
_OWNER: Final = "config_owner_thread_id"

_lock = threading.Lock()
_open = 0
_changes: ExitStack = ExitStack()


def interrupt_of_frame(frame: FrameType) -> Interrupt | None:
    """The interrupt of the trial for which dspy.Parallel runs a worker of its own in that frame; None for others."""
    if not is_parallel_worker(frame.f_code):
        return None
    recorder: Recorder | None = frame.f_locals.get("parent_overrides", {}).get(RECORDER)
    return None if recorder is None else recorder.interrupt


# ---- what takes the place of DSPy's own -----------------------------------------------------------------------------


class SaltedCache(Cache):  # type: ignore[misc]
    """DSPy's cache, with the endpoint and the session in the key.

    DSPy's own key ignores API key and base URL. And a reply that another session has paid for tells that it asked.
    """

    def cache_key(self, request: dict[str, Any], ignored_args_for_cache_key: list[str] | None = None) -> str:
        """The key of a request."""
        key = cast("str", super().cache_key(request, ignored_args_for_cache_key))
        lm = asked_lm()
        arguments = request if lm is None else {**lm.kwargs, **request}
        salt = [(name, repr(arguments[name])) for name in _NOT_IN_KEY if arguments.get(name) is not None]
        if (session := cached_for()) is not None:
            salt.append(("session", session))
        return f"{key}:{hashlib.sha256(repr(salt).encode()).hexdigest()}" if salt else key


class _NoHistory(list[Any]):
    """Takes the place of DSPy's process-wide list of the last 10,000 prompts, which nobody here reads."""

    def append(self, entry: Any) -> None:
        """Drop it."""


class _NoBar:
    """A progress bar that shows nothing, as dspy.Parallel uses one."""

    _instances: Final[set[Any]] = set()

    def __init__(self, *_args: Any, **_keywords: Any) -> None:
        pass

    def update(self) -> None:
        """Show nothing."""

    def set_description(self, _text: str) -> None:
        """Show nothing."""

    def close(self) -> None:
        """Show nothing."""


class _QuietProgress:
    """Takes the place of tqdm in dspy.Parallel, which in a trial shows no progress bar on the worker's output.

    Two of its bars at once may fail with a KeyError too, since it clears the list of all bars of the process.
    """

    def __init__(self, original: Any) -> None:
        self._original = original

    @property
    def tqdm(self) -> Any:
        return self._original.tqdm if current_recorder() is None else _NoBar


class _InContext(ThreadPoolExecutor):
    """Takes the place of the thread pool of dspy.Parallel, which hands on DSPy's settings and no context variables.

    With them go the correlation id, the current span, and whatever else a program keeps there.
    """

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        """Run it in a copy of the calling context."""
        return super().submit(contextvars.copy_context().run, fn, *args, **kwargs)


def _watched_lm(original: Callable[..., Any] | None) -> Callable[..., Any]:
    @functools.wraps(cast("Any", original))
    def call(self: Any, *args: Any, **kwargs: Any) -> Any:
        if (recorder := current_recorder()) is None:
            return original(self, *args, **kwargs)  # type: ignore[misc]
        with recorder.asking(self, _question(args, kwargs)):
            return _given(self, original(self, *args, **kwargs))  # type: ignore[misc]

    return call


def _given(lm: Any, answer: Any) -> Any:
    """The answer, if there is one: DSPy would fail later, with a StopIteration."""
    if isinstance(answer, list) and not answer:
        raise dspy.LMUnexpectedError("the language model gave no reply: there are no choices in it", model=lm.model)
    return answer


def _question(args: tuple[Any, ...], kwargs: dict[str, Any]) -> dict[str, Any]:
    """What an LM is called with: a prompt first or by name, messages by name, or one of DSPy's requests."""
    return {"prompt": args[0], **kwargs} if args else kwargs


def _watched_lm_async(original: Callable[..., Any] | None) -> Callable[..., Any]:
    @functools.wraps(cast("Any", original))
    async def acall(self: Any, *args: Any, **kwargs: Any) -> Any:
        if (recorder := current_recorder()) is None:
            return await original(self, *args, **kwargs)  # type: ignore[misc]
        with recorder.asking(self, _question(args, kwargs)):
            return _given(self, await original(self, *args, **kwargs))  # type: ignore[misc]

    return acall


def _watched_tool(original: Callable[..., Any] | None) -> Callable[..., Any]:
    @functools.wraps(cast("Any", original))
    def call(self: Any, *args: Any, **kwargs: Any) -> Any:
        if (recorder := current_recorder()) is None:
            return original(self, *args, **kwargs)  # type: ignore[misc]
        with recorder.calling(self.name, kwargs) as answered:
            return answered(original(self, *args, **kwargs))  # type: ignore[misc]

    return call


def _watched_tool_async(original: Callable[..., Any] | None) -> Callable[..., Any]:
    @functools.wraps(cast("Any", original))
    async def acall(self: Any, *args: Any, **kwargs: Any) -> Any:
        if (recorder := current_recorder()) is None:
            return await original(self, *args, **kwargs)  # type: ignore[misc]
        with recorder.calling(self.name, kwargs) as answered:
            return answered(await original(self, *args, **kwargs))  # type: ignore[misc]

    return acall


def _noted_attempt(original: Callable[..., Any]) -> Callable[..., Any]:
    """DSPy's attempt to get a reply: what it failed with is kept until the call ends."""

    @functools.wraps(original)
    def attempt(*args: Any) -> Any:
        try:
            return original(*args)
        except Exception as error:
            attempt_failed(error)
            raise

    return attempt


def _noted_attempt_async(original: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(original)
    async def attempt(*args: Any) -> Any:
        try:
            return await original(*args)
        except Exception as error:
            attempt_failed(error)
            raise

    return attempt


def _delay_in_time(original: Callable[..., float]) -> Callable[..., float]:
    """How long DSPy waits before it tries again: where the trial is over by then, it fails now, as it has failed."""

    @functools.wraps(original)
    def delay(error: Exception, attempt: int) -> float:
        hint = lm_errors.retry_after(error)  # through litellm DSPy does not see it
        seconds = original(error, attempt) if hint is None else hint
        recorder = current_recorder()
        if recorder is not None and seconds >= recorder.interrupt.time_left():
            raise error
        return seconds

    return delay


WATCHERS: Final = (_watched_lm(None), _watched_lm_async(None), _watched_tool(None), _watched_tool_async(None))
"""Functions whose code is on the stack while a program's LM or tool runs."""


# ---- the table ------------------------------------------------------------------------------------------------------

_SEEN: Final = "a trial's calls of language models are recorded, whoever made the model"
_TOOLS: Final = "a trial's calls of tools are recorded, whoever made the tool"
_WHY: Final = "what an attempt to get a reply failed with is told in the trial's failure"
_STREAMS: Final = "a reply is read as it comes, so that a trial's end closes its connection"
_PRICES: Final = "what DSPy's list of models says of a model is looked up once, and not at each call"


def _there(value: Any) -> bool:
    return value is not None


def _table(*, memory_cache: bool = True, disk_cache: bool = False) -> Iterator[Patch]:
    """What is changed; wrappers of DSPy's functions pass through outside of trials."""
    yield Patch(
        os.environ, _LOCAL_PRICES, "litellm fetches no price list over the network", lambda _: "True", unless=_there
    )
    reason = "parsing in two threads at once fails in Python before 3.11.8"
    yield Patch(ast, "parse", reason, one_at_a_time, unless=lambda _: not FAILS_AT_ONCE)
    reason = "the last 10,000 prompts of the process are kept for nobody"
    yield Patch(base_lm, "GLOBAL_HISTORY", reason, lambda _: _NoHistory())
    # DSPy lets the first thread that asks change the settings of all: that must not be a trial's.
    reason = "no trial's thread may change the settings of all"
    yield Patch(dspy_settings, _OWNER, reason, lambda _: threading.get_ident(), unless=_there)
    yield Patch(parallelizer, "tqdm", "dspy.Parallel shows no progress bar on the worker's output", _QuietProgress)
    reason = "context variables, such as the current span, reach the threads of dspy.Parallel"
    yield Patch(parallelizer, "ThreadPoolExecutor", reason, lambda _: _InContext)
    for module in (costs, capabilities):
        yield Patch(module, "model_info", _PRICES, ModelInfo)
    unstreamed = Unstreamed()
    yield Patch(execution, "_attempt", _STREAMS, lambda there: _noted_attempt(streaming_attempt(there, unstreamed)))
    yield Patch(lm_module, "_get_stream_completion_fn", _STREAMS, lambda there: streaming_completion(there, unstreamed))
    yield Patch(dspy.BaseLM, "__call__", _SEEN, _watched_lm)
    yield Patch(dspy.BaseLM, "acall", _SEEN, _watched_lm_async)
    yield Patch(dspy.Tool, "__call__", _TOOLS, _watched_tool)
    yield Patch(dspy.Tool, "acall", _TOOLS, _watched_tool_async)
    yield Patch(execution, "_aattempt", _WHY, _noted_attempt_async)
    yield Patch(execution, "_delay", "no attempt is waited for that would begin after the trial's end", _delay_in_time)
    yield from ENDED
    yield from CHANGED
    reason = "a cached reply is no other endpoint's, and by default no other session's"
    yield Patch(dspy, "cache", reason, lambda _: _salted_cache(memory_cache=memory_cache, disk_cache=disk_cache))


def _salted_cache(*, memory_cache: bool, disk_cache: bool) -> SaltedCache:
    return SaltedCache(
        disk_cache, memory_cache, dspy.clients.DISK_CACHE_DIR, dspy.clients.DISK_CACHE_LIMIT, _MEMORY_CACHE_ENTRIES
    )


_installed: Final = Installed(_table)


def patches() -> list[PatchState]:
    """What this package changes in the process, with what has become of each."""
    return _installed.states("programs")


# ---- making and taking back -----------------------------------------------------------------------------------------


@contextmanager
def dspy_prepared(*, memory_cache: bool, disk_cache: bool) -> Iterator[None]:
    """DSPy as trials need it. The first runtime's wishes about caches hold while several are open.

    Raises:
        UnsupportedDspy: Something that is relied on is gone, or works otherwise.
    """
    global _open, _changes  # noqa: PLW0603 - DSPy's state is the process's, and so is the count of those who changed it
    with _lock:
        if _open == 0:
            _changes = _change_dspy(memory_cache=memory_cache, disk_cache=disk_cache)
        _open += 1
    try:
        yield
    finally:
        with _lock:
            _open -= 1
            if _open == 0:
                _changes.close()


def _change_dspy(*, memory_cache: bool, disk_cache: bool) -> ExitStack:
    check_names()
    with ExitStack() as stack:
        with dspy._cache_lock:  # noqa: SLF001 - the lock that DSPy's own configure_cache takes
            _installed.install(_table(memory_cache=memory_cache, disk_cache=disk_cache))
        if disk_cache:
            stack.callback(_installed.made[-1].replacement.disk_cache.close)
        stack.callback(_installed.take_back)
        _check_recording()
        return stack.pop_all()
    raise AssertionError  # ExitStack lets exceptions through


def _check_recording() -> None:
    """Run a predictor and look at the recording: names may stay where what they do has changed."""
    predictor = dspy.Predict("question -> answer")
    recorder = Recorder(predictor, {predictor.stage: "self"}, TrialOptions(), _Never())
    with dspy.context(lm=DummyLM([{"answer": "yes"}]), adapter=dspy.ChatAdapter(), callbacks=[], **recorder.settings()):
        predictor(question="recorded?")
        marked = marks_only_images(dspy.ChatAdapter())
    recording = recorder.recording()
    seen = [(entry.predictor, entry.outputs, len(entry.lm_calls)) for entry in recording.trace]
    if seen != [("self", {"answer": "yes"}, 1)] or recording.cost.lm_calls != 1:
        raise UnsupportedDspy.because(f"is not recorded as expected: {seen}")
    if not marked:
        raise UnsupportedDspy.because("marks images in prompts in another way")


class _Never:
    """The interrupt of a trial that is not interrupted."""

    def check(self) -> None:
        pass

    def time_left(self) -> float:
        return math.inf

    def on_cancel(self, _callback: Callable[[], object]) -> Callable[[], None]:
        return lambda: None
