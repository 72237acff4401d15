"""The operator's modules, which register programs and tools: named by `--load`, or brought by installed packages."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib import metadata
from pathlib import Path
from typing import Final

ENTRY_POINTS: Final = "dspex_trio.programs"


class CannotLoad(ImportError):
    """A module of the operator cannot be imported, or the language model cannot be had; the text says what and why."""


@contextmanager
def operators_modules(names: Sequence[str], *, entry_points: bool = True) -> Iterator[tuple[str, ...]]:
    """Import the operator's modules, and give their names; those of installed packages too, unless excluded.

    Modules that `--load` names may lie in the working directory, and may import others from there whenever they like:
    it is on Python's path until the block is left.

    Raises:
        CannotLoad: One of them cannot be imported.
    """
    here = _Here(Path.cwd())
    if names:
        sys.path.insert(0, here)
    try:
        yield (*(_load(name, here) for name in names), *(_load_entry_points() if entry_points else ()))
    finally:
        sys.path[:] = [entry for entry in sys.path if entry is not here]


class _Here(str):
    """The working directory on Python's path; its own object, so that a runtime takes away only what it put there."""

    __slots__ = ()


def _load(name: str, here: str) -> str:
    try:
        importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name is not None and (name == error.name or name.startswith(f"{error.name}.")):
            raise CannotLoad(f"--load {name}: there is no module {error.name!r} (looked in {here} too)") from None
        raise CannotLoad(f"--load {name}: {error}") from error
    except (Exception, SystemExit) as error:  # a script without a guard exits
        raise CannotLoad(f"--load {name}: importing it raised {type(error).__name__}: {error}") from error
    return name


def _load_entry_points() -> list[str]:
    names = []
    for entry in metadata.entry_points(group=ENTRY_POINTS):
        try:
            entry.load()
        except (Exception, SystemExit) as error:
            why = f"{type(error).__name__}: {error}" if isinstance(error, SystemExit) else str(error)
            raise CannotLoad(f"entry point {entry.name!r} ({entry.value}) of group {ENTRY_POINTS}: {why}") from error
        names.append(entry.module)
    return names
