"""Programs that raise what they should not."""

from __future__ import annotations

import asyncio
import sys
import time
from typing import NoReturn

import dspy

from dspex_trio.testing.faults.misbehaving.base import Misbehaving
from dspex_trio.testing.faults.misbehaving.endless import LONG


class Raises(Misbehaving):
    """Raises an exception from another one. It is a PROGRAM_ERROR, with both of them."""

    def forward(self, question: str = "") -> str:
        """Raise it."""
        nothing: dict[str, str] = {}
        try:
            question = nothing["inner"]
        except KeyError as error:
            raise ValueError(f"cannot answer {question}") from error
        return question


class RaisesInConstructor(Misbehaving):
    """Raises before it is made. It is a PROGRAM_ERROR in the stage HYDRATE."""

    def __init__(self) -> None:
        raise RuntimeError("no constructor today")


class Exits(Misbehaving):
    """Calls `sys.exit`. It is a PROGRAM_ERROR; the worker goes on."""

    def forward(self, question: str = "") -> NoReturn:
        """Exit."""
        del question
        sys.exit(3)


class Interrupts(Misbehaving):
    """Raises KeyboardInterrupt. It is a PROGRAM_ERROR; the worker goes on."""

    def forward(self, question: str = "") -> NoReturn:
        """Raise it."""
        raise KeyboardInterrupt(question)


class RaisesCancelled(Misbehaving):
    """Raises asyncio's CancelledError. It is a PROGRAM_ERROR: nobody has cancelled the trial."""

    def forward(self, question: str = "") -> NoReturn:
        """Raise it."""
        raise asyncio.CancelledError(question)


class Recurses(Misbehaving):
    """Calls itself without end. It is a PROGRAM_ERROR, with a traceback that is cut."""

    def forward(self, question: str = "") -> str:
        """Recurse."""

        def deeper(text: str) -> str:
            return deeper(text + "?")

        return deeper(question)


class RaisesWithoutText(Misbehaving):
    """Raises an exception whose `__str__` raises. It is a PROGRAM_ERROR that says so."""

    def forward(self, question: str = "") -> NoReturn:
        """Raise it."""

        class Wordless(Exception):
            def __str__(self) -> str:
                raise RuntimeError(question)

        raise Wordless


class RaisesWithSlowText(Misbehaving):
    """Raises an exception whose `__str__` sleeps for an hour. It is woken at the deadline."""

    def forward(self, question: str = "") -> NoReturn:
        """Raise it."""

        class Slow(Exception):
            def __str__(self) -> str:
                time.sleep(LONG)
                return question

        raise Slow


class ConfiguresDspy(Misbehaving):
    """Changes DSPy's settings for the whole process. DSPy refuses it, and it is a PROGRAM_ERROR."""

    def forward(self, question: str = "") -> dict[str, str]:
        """Change them."""
        dspy.configure(lm=None)
        return {"answer": question}
