"""DSPy programs: registered, resolved, constructed, bound, called and recorded. The only importer of dspy."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final

import dspy

from dspex_trio.model import RunInLoop
from dspex_trio.model.errors import InvalidSpec, UnsupportedDspy
from dspex_trio.programs import asynchronous as awaited
from dspex_trio.programs.bind.language_models import LanguageModels, check_lm
from dspex_trio.programs.dspy.patches import WATCHERS, dspy_prepared, interrupt_of_frame, patches
from dspex_trio.programs.endings import ENDING, current_interrupt
from dspex_trio.programs.hydrate.choices import replace_submodule
from dspex_trio.programs.hydrate.classes import import_module
from dspex_trio.programs.hydrate.construct import construct
from dspex_trio.programs.hydrate.loader import Loader
from dspex_trio.programs.hydrated import Hydrated
from dspex_trio.programs.registry import (
    MODULE_REGISTRY,
    RegisteredTool,
    any_isolated,
    get_module_class,
    homes,
    isolation_of,
    register,
    tool,
)
from dspex_trio.programs.session import no_loop
from dspex_trio.programs.settings import ProgramSettings
from dspex_trio.programs.yielding_tools import INTERRUPTIBLE as YIELDING
from dspex_trio.runtime.loading import CannotLoad, operators_modules

__all__ = [
    "INTERRUPTIBLE",
    "MODULE_REGISTRY",
    "NEVER_INTERRUPTED",
    "CannotLoad",
    "Hydrated",
    "Loader",
    "ProgramSettings",
    "UnsupportedDspy",
    "any_isolated",
    "check_lm",
    "current_interrupt",
    "dspy_prepared",
    "get_module_class",
    "homes",
    "interrupt_of_frame",
    "isolation_of",
    "open_programs",
    "patches",
    "register",
    "tool",
]


INTERRUPTIBLE: Final[tuple[Callable[..., object], ...]] = (
    Hydrated.call,
    Hydrated._call,  # noqa: SLF001 - of this package
    Hydrated._let_go,  # noqa: SLF001 - as above
    Loader.build,
    Loader.finish,
    construct,
    replace_submodule,
    import_module,
    RegisteredTool.__call__,
    *YIELDING,
    *awaited.INTERRUPTIBLE,
    *WATCHERS,
    *ENDING,
)
"""Functions of ours that are on the stack while a program's code runs, and that bear being left at any point."""

NEVER_INTERRUPTED: Final = ("dspy._vendor.lm15", "dspy.clients.cache", "cachetools", "diskcache", "litellm", "openai")
"""What trials share and must not be left halfway: engines with their connections, and caches."""


@contextmanager
def open_programs(
    settings: ProgramSettings,
    *,
    run_in_loop: RunInLoop = no_loop,
    lm: dspy.BaseLM | None = None,
    redact: Callable[[str], str] = str,
) -> Iterator[Loader]:
    """Import the operator's modules, prepare DSPy, and give the loader; on leaving, DSPy is as it was.

    Args:
        settings: What the operator decided.
        run_in_loop: Has a program's thread wait for its session; without it, programs have none.
        lm: A ready language model for programs that name none, in place of `settings.lm`.
        redact: Takes secrets out of what is recorded.

    Raises:
        CannotLoad: A module of the operator cannot be imported, or DSPy refuses the operator's language model.
        UnsupportedDspy: The installed DSPy lacks something that is relied on.
    """
    with (
        dspy_prepared(memory_cache=settings.memory_cache, disk_cache=settings.disk_cache),
        operators_modules(settings.load) as loaded,
    ):
        models = LanguageModels(settings, lm)
        try:
            models.preload()
        except InvalidSpec as error:
            raise CannotLoad(f"--lm: {error}") from error
        yield Loader(settings, models, loaded, redact, run_in_loop)
