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
        wrapped = ProgramError(type_name(type(error)))
        wrapped.__cause__ = error
        description = describe(wrapped, redact, interrupt.check)
    raise Described(description)


def raising_as(error_class: type[TrialError], function: Callable[..., Any], *args: Any) -> Any:
    """Call user code: an exception that is no TrialError yet is raised as `error_class`, caused by it."""
    try:
        return function(*args)
    except TrialError:
        raise
    except Exception as error:
        raise error_class(type_name(type(error))) from error


INTERRUPTIBLE: Final = (contained, raising_as, *DESCRIBERS)
"""Functions of this package that may be interrupted: they stay on the stack while a program's code runs."""
