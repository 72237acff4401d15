"""Everything that an open runtime changes in its process: the tables of all packages, joined."""

from __future__ import annotations

import itertools
from collections.abc import Iterable

from dspex_trio import programs, threads
from dspex_trio.threads import PatchState


def list_patches() -> list[PatchState]:
    """Each change of the standard library and of DSPy, its reason, and whether it is in place now and still ours."""
    return [*threads.patches(), *programs.patches()]


def as_markdown(patches: Iterable[PatchState]) -> str:
    """The table of the documents: what is changed, by package and reason."""
    lines = ["| package | what is changed | why |", "|---|---|---|"]
    for (package, reason), each in itertools.groupby(patches, lambda patch: (patch.package, patch.reason)):
        changed = ", ".join(f"`{patch.where}`" for patch in each)
        lines.append(f"| `{package}` | {changed} | {reason} |")
    return "\n".join(lines) + "\n"
