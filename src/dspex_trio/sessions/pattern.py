"""The patterns of ListVariables: `*` stands for anything, every other character for itself."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Final

_SPECIAL: Final = re.compile(r"[^A-Za-z0-9_*]")


def matcher(pattern: str) -> Callable[[str], bool]:
    """What tells whether a whole name matches; an empty pattern matches all. Never goes back over a name."""
    if not pattern:
        return lambda _name: True
    first, *middle = pattern.split("*")
    if not middle:
        return lambda name: name == pattern
    last = middle.pop()

    def matches(name: str) -> bool:
        if len(name) < len(first) + len(last) or not name.startswith(first) or not name.endswith(last):
            return False
        at, end = len(first), len(name) - len(last)
        for piece in middle:
            at = name.find(piece, at, end)
            if at < 0:
                return False
            at += len(piece)
        return True

    return matches


def loosened(pattern: str) -> str:
    """A pattern that matches at least the same names, also where it is taken for a regular expression.

    As snakepit 0.4 does, which finds it anywhere in a name, and fails on one that is wrong.
    """
    return _SPECIAL.sub("*", pattern)
