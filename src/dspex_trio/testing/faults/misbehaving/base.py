"""What misbehaving programs have in common."""

from __future__ import annotations

from types import CodeType, FunctionType
from typing import Any

import dspy


def as_a_users(code: CodeType) -> CodeType:
    """The code, said to be a user's: the last step of the ladder never interrupts this package's own code."""
    constants = tuple(as_a_users(each) if isinstance(each, CodeType) else each for each in code.co_consts)
    return code.replace(co_filename="<a misbehaving program>", co_consts=constants)


class Misbehaving(dspy.Module):  # type: ignore[misc] # mypy does not look into dspy
    """What they have in common."""

    def __init_subclass__(cls, **keywords: Any) -> None:
        super().__init_subclass__(**keywords)
        for each in vars(cls).values():
            if isinstance(each, FunctionType):
                each.__code__ = as_a_users(each.__code__)
