"""Calls a program's code in its thread: nothing that it raises comes out of there, only its description."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from dspex_trio.model import Interrupt
from dspex_trio.model.errors import ProgramError, TrialError
from dspex_trio.model.values import type_name
from dspex_trio.trials.failures import DESCRIBERS, Described, describe


def contained(interrupt: Interrupt, redact: Callable[[str], str], function: Callable[..., Any], *args: Any) -> Any:
    """Call user code in its thread; what it raises is described there, and nothing of it comes out of the thread.

    A SystemExit or KeyboardInterrupt of its own ends the trial, not the worker.
    """
    try:
        return function(*args)
    except Exception as error:  # noqa: BLE001 - every exception of a trial is its outcome
        description = describe(error, redact, interrupt.check)
    except BaseException as error:  # noqa: ASYNC103, BLE001 - in a thread nothing is Cancelled
        interrupt.check()  # what comes out of an interrupted trial is the interrupt
        blamed = ProgramError(type_name(type(error)))
        blamed.__cause__ = error
        description = describe(blamed, redact, interrupt.check)
    raise Described(description)


def blaming(blamed: type[TrialError], function: Callable[..., Any], *args: Any) -> Any:
    """Call user code: what it raises is told as `blamed`, unless somebody else has been blamed."""
    try:
        return function(*args)
    except TrialError:
        raise
    except Exception as error:
        raise blamed(type_name(type(error))) from error


INTERRUPTIBLE: Final = (contained, blaming, *DESCRIBERS)
"""What of this room stays on the stack while a program's code runs."""
