"""The few process-wide changes to DSPy: made while a runtime is open, counted over runtimes, taken back afterwards.

Each changed or private name is checked first, so that a DSPy that lacks one fails at the start with its name, and not
in the middle of a paid trial.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any, Final, cast

import dspy
import dspy.clients
from dspy.clients import base_lm, execution
from dspy.clients.cache import Cache
from dspy.dsp.utils.settings import thread_local_overrides
from dspy.primitives.module import Module
from dspy.utils import parallelizer
from dspy.utils.usage_tracker import UsageTracker

from dspex_trio.model import Interrupt

# Keys of DSPy's own settings: they reach copied modules and dspy.Parallel's threads, where a ContextVar alone does not.
INTERRUPT: Final = "_dspex_interrupt"
CACHE_SALT: Final = "_dspex_cache_salt"

# Without it litellm fetches a price list over the network on its first import, and stalls for seconds where it cannot.
_LOCAL_PRICES: Final = "LITELLM_LOCAL_MODEL_COST_MAP"

_MEMORY_CACHE_ENTRIES: Final = 100_000

_lock = threading.Lock()
_open = 0
_saved: dict[str, Any] = {}


class UnsupportedDspy(ImportError):
    """The installed DSPy lacks something that this version relies on."""


def current_interrupt() -> Interrupt | None:
    """The interrupt of the trial whose program the calling thread runs, in dspy.Parallel's threads too; else None."""
    return cast("Interrupt | None", thread_local_overrides.get().get(INTERRUPT))


def interrupt_of_frame(frame: FrameType) -> Interrupt | None:
    """The interrupt of the trial for which dspy.Parallel runs a worker of its own in that frame; None for others."""
    code = frame.f_code
    if code.co_name != "worker" or code.co_filename != parallelizer.__file__:
        return None
    return cast("Interrupt | None", frame.f_locals.get("parent_overrides", {}).get(INTERRUPT))


class SaltedCache(Cache):  # type: ignore[misc]
    """DSPy's cache, with the trial's endpoint in the key: DSPy's own key ignores API key and base URL."""

    def cache_key(self, request: dict[str, Any], ignored_args_for_cache_key: list[str] | None = None) -> str:
        """The key of a request."""
        salt = thread_local_overrides.get().get(CACHE_SALT, "")
        key = super().cache_key(request, ignored_args_for_cache_key)
        return f"{key}:{salt}" if salt else cast("str", key)


class _NoHistory(list[Any]):
    """Takes the place of DSPy's process-wide list of the last 10,000 prompts, which nobody here reads."""

    def append(self, entry: Any) -> None:
        """Drop it."""


def check_dspy() -> None:
    """Raise UnsupportedDspy, naming it, if a private name of DSPy that we rely on is gone."""
    relied_on: list[tuple[object, str]] = [
        (base_lm, "GLOBAL_HISTORY"),
        (base_lm, "record_history"),
        (execution, "finalize"),
        (execution, "time"),
        (UsageTracker, "add_usage"),
        (Module, "named_sub_modules"),
        (Cache, "cache_key"),
        (dspy, "_cache_lock"),
        (dspy.Predict("a -> b"), "stage"),
    ]
    missing = [
        f"{getattr(owner, '__name__', type(owner).__name__)}.{name}"
        for owner, name in relied_on
        if not hasattr(owner, name)
    ]
    if missing:
        raise UnsupportedDspy(
            f"this dspy ({dspy.__version__}) lacks {', '.join(missing)}; dspex_trio needs dspy>=3.4,<3.5"
        )


@contextmanager
def dspy_prepared(*, memory_cache: bool, disk_cache: bool) -> Iterator[None]:
    """DSPy as trials need it. The first runtime's wishes hold while several are open."""
    check_dspy()
    _enter(memory_cache=memory_cache, disk_cache=disk_cache)
    try:
        yield
    finally:
        _leave()


def _enter(*, memory_cache: bool, disk_cache: bool) -> None:
    global _open  # noqa: PLW0603 - DSPy's state is the process's, and so is the count of those who changed it
    with _lock:
        _open += 1
        if _open > 1:
            return
        _saved["environment"] = os.environ.get(_LOCAL_PRICES)
        os.environ.setdefault(_LOCAL_PRICES, "True")
        _saved["history"] = base_lm.GLOBAL_HISTORY
        _saved["our_history"] = base_lm.GLOBAL_HISTORY = _NoHistory()
        with dspy._cache_lock:  # noqa: SLF001 - the lock that DSPy's own configure_cache takes
            # DSPy makes its cache when it is first read; asking for it would create the one on disk.
            _saved["cache"] = vars(dspy).get("cache")
            _saved["our_cache"] = vars(dspy)["cache"] = SaltedCache(
                disk_cache,
                memory_cache,
                dspy.clients.DISK_CACHE_DIR,
                dspy.clients.DISK_CACHE_LIMIT,
                _MEMORY_CACHE_ENTRIES,
            )


def _leave() -> None:
    global _open  # noqa: PLW0603 - as above
    with _lock:
        _open -= 1
        if _open > 0:
            return
        if _saved["environment"] is None and os.environ.get(_LOCAL_PRICES) == "True":
            del os.environ[_LOCAL_PRICES]
        if base_lm.GLOBAL_HISTORY is _saved["our_history"]:
            base_lm.GLOBAL_HISTORY = _saved["history"]
        with dspy._cache_lock:  # noqa: SLF001 - as above
            if vars(dspy).get("cache") is _saved["our_cache"]:
                if _saved["cache"] is None:
                    del vars(dspy)["cache"]
                else:
                    vars(dspy)["cache"] = _saved["cache"]
        _saved.clear()
