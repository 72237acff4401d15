"""The patterns of ListVariables: `*` stands for anything, every other character for itself."""

from __future__ import annotations

from collections.abc import Callable


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
