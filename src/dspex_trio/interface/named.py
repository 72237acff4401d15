"""Enumerations that are numbers on the wire and names for people."""

from __future__ import annotations

import enum
from typing import Final

_FOR_NUMBERS: Final = ("b", "c", "d", "n", "o", "x", "X")


class NamedNumber(enum.IntEnum):
    """Equal to its number, and a number in JSON; printed, it is its name."""

    def __str__(self) -> str:
        return self.name

    def __format__(self, spec: str) -> str:
        """The name, aligned as text is; the number for a specification of numbers, such as `02d`."""
        return int.__format__(self, spec) if spec.endswith(_FOR_NUMBERS) else format(self.name, spec)
