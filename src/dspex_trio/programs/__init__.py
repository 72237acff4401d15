"""DSPy programs: registered, resolved, constructed, bound, called and recorded. The only importer of dspy."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib import metadata
from pathlib import Path
from typing import Final

import dspy

from dspex_trio.programs.classes import import_module
from dspex_trio.programs.construct import construct
from dspex_trio.programs.hydrated import Hydrated
from dspex_trio.programs.lms import LanguageModels
from dspex_trio.programs.loader import Loader
from dspex_trio.programs.patches import WATCHERS, current_interrupt, dspy_prepared, interrupt_of_frame
from dspex_trio.programs.private import UnsupportedDspy
from dspex_trio.programs.registry import MODULE_REGISTRY, RegisteredTool, get_module_class, register, tool
from dspex_trio.programs.settings import ProgramSettings

__all__ = [
    "CARRIERS",
    "MODULE_REGISTRY",
    "CannotLoad",
    "Hydrated",
    "Loader",
    "ProgramSettings",
    "UnsupportedDspy",
    "current_interrupt",
    "get_module_class",
    "interrupt_of_frame",
    "open_programs",
    "register",
    "tool",
]

ENTRY_POINTS: Final = "dspex_trio.programs"


CARRIERS: Final = (Hydrated.call, Loader.build, construct, import_module, RegisteredTool.__call__, *WATCHERS)
"""Functions of ours that are on the stack while a program's code runs, and that bear being left at any point."""


class CannotLoad(ImportError):
    """A module of the operator cannot be imported; the text says which one and why."""


@contextmanager
def open_programs(
    settings: ProgramSettings, *, lm: dspy.BaseLM | None = None, redact: Callable[[str], str] = str
) -> Iterator[Loader]:
    """Import the operator's modules, prepare DSPy, and give the loader; on leaving, DSPy is as it was.

    Args:
        settings: What the operator decided.
        lm: A ready language model for programs that name none, in place of `settings.lm`.
        redact: Takes secrets out of what is recorded.

    Raises:
        CannotLoad: A module of the operator cannot be imported.
        UnsupportedDspy: The installed DSPy lacks something that is relied on.
    """
    with dspy_prepared(memory_cache=settings.memory_cache, disk_cache=settings.disk_cache):
        loaded = (*(_load(name) for name in settings.load), *_load_entry_points())
        yield Loader(settings, LanguageModels(settings, lm), loaded, redact)


def _load(name: str) -> str:
    """Import a module that `--load` names, from the working directory too."""
    here = str(Path.cwd())
    added = here not in sys.path and "" not in sys.path
    if added:
        sys.path.insert(0, here)
    try:
        importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name is not None and (name == error.name or name.startswith(f"{error.name}.")):
            raise CannotLoad(f"--load {name}: there is no module {error.name!r} (looked in {here} too)") from None
        raise CannotLoad(f"--load {name}: {error}") from error
    except Exception as error:
        raise CannotLoad(f"--load {name}: importing it raised {type(error).__name__}: {error}") from error
    finally:
        if added and here in sys.path:
            sys.path.remove(here)
    return name


def _load_entry_points() -> list[str]:
    names = []
    for entry in metadata.entry_points(group=ENTRY_POINTS):
        try:
            entry.load()
        except Exception as error:
            raise CannotLoad(f"entry point {entry.name!r} ({entry.value}) of group {ENTRY_POINTS}: {error}") from error
        names.append(entry.module)
    return names
