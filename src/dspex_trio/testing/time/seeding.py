"""Trio's own hook for tests: in which order it runs the tasks that can run, by a seed."""

from __future__ import annotations

import gc
import random
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

import trio
from trio._core import _run

# What Trio has for Hypothesis, and where it keeps who waits for idleness. Private, and so looked for.
_HOOKS: Final = ("_ALLOW_DETERMINISTIC_SCHEDULING", "_r", "GLOBAL_RUN_CONTEXT")


def check_trio() -> None:
    """See whether this version can be told the order of its tasks.

    Raises:
        RuntimeError: It cannot.
    """
    missing = [name for name in _HOOKS if not hasattr(_run, name)]
    if missing:
        raise RuntimeError(
            f"Trio {trio.__version__} has no {', '.join(missing)}: schedules by seed need its hook for deterministic "
            "scheduling, which the versions from 0.27 to 0.35 have"
        )


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Let the seed decide the order of tasks, and what the global `random` gives.

    The garbage collector rests meanwhile: what it finalises, and when, depends on everything that was before.
    """
    module: Any = _run
    before = module._ALLOW_DETERMINISTIC_SCHEDULING, module._r  # noqa: SLF001 - see above
    state, collecting = random.getstate(), gc.isenabled()
    module._ALLOW_DETERMINISTIC_SCHEDULING, module._r = True, random.Random(seed)  # noqa: S311, SLF001 - no secret
    random.seed(seed)
    gc.disable()
    try:
        yield
    finally:
        if collecting:
            gc.enable()
        random.setstate(state)
        module._ALLOW_DETERMINISTIC_SCHEDULING, module._r = before  # noqa: SLF001 - as above


def nobody_waits_for_idleness() -> bool:
    """Whether no task is in `trio.testing.wait_all_tasks_blocked`; asked in the loop of a seeded run."""
    return not _run.GLOBAL_RUN_CONTEXT.runner.waiting_for_idle
