"""What a program starts that would outlive its trial: code interpreters and dspy.Parallel's queue end with it."""

from __future__ import annotations

import functools
import logging
from _thread import start_new_thread
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Final, cast

import dspy

from dspex_trio.model import Interrupt
from dspex_trio.programs.private import parallelizer
from dspex_trio.programs.recorder import current_recorder

logger: Final = logging.getLogger(__name__)


def current_interrupt() -> Interrupt | None:
    """The interrupt of the trial whose program the calling thread runs, in dspy.Parallel's threads too; else None."""
    recorder = current_recorder()
    return None if recorder is None else recorder.interrupt


def _killable_sandbox(original: Callable[..., Any] | None) -> Callable[..., Any]:
    """The first thing that an interpreter does with its new process; from here on the end of the trial kills it."""

    @functools.wraps(cast("Any", original))
    def check_health(self: Any) -> Any:
        if (interrupt := current_interrupt()) is not None:
            interrupt.on_cancel(self.deno_process.kill)
        return original(self)  # type: ignore[misc]

    return check_health


def _ended_interpreter(original: Callable[..., Any] | None) -> Callable[..., Any]:
    """An interpreter made for one call is shut down when the trial ends, in a thread that is none of the trial's.

    Its own `shutdown`, at the end of the call, is part of the trial and can speak to nobody any more. Left alone are an
    interpreter that the caller lends, and dspy.PythonInterpreter, which its first thread alone may use.
    """

    @functools.wraps(cast("Any", original))
    @contextmanager
    def interpreter_context(self: Any, *args: Any) -> Iterator[Any]:
        interrupt = current_interrupt()
        with original(self, *args) as interpreter:  # type: ignore[misc]
            lent = any(arg is interpreter for arg in args)
            if interrupt is None or lent or isinstance(interpreter, dspy.PythonInterpreter):
                yield interpreter
                return
            forget = interrupt.on_cancel(functools.partial(start_new_thread, _shut_down, (interpreter,)))
            try:
                yield interpreter
            finally:
                forget()

    return interpreter_context


def _shut_down(interpreter: Any) -> None:
    try:
        interpreter.shutdown()
    except Exception:
        logger.exception("a code interpreter could not be shut down at the end of its trial")


def _ended_parallel(original: Callable[..., Any] | None) -> Callable[..., Any]:
    """What dspy.Parallel has not begun when the trial ends, it does not begin."""

    @functools.wraps(cast("Any", original))
    def execute(self: Any, *args: Any, **kwargs: Any) -> Any:
        if (interrupt := current_interrupt()) is None:
            return original(self, *args, **kwargs)  # type: ignore[misc]
        forget = interrupt.on_cancel(self.cancel_jobs.set)
        try:
            return original(self, *args, **kwargs)  # type: ignore[misc]
        finally:
            forget()

    return execute


ENDED: Final = (
    (dspy.PythonInterpreter, "_health_check", _killable_sandbox),
    (dspy.ProgramOfThought, "_interpreter_context", _ended_interpreter),
    (dspy.RLM, "_interpreter_context", _ended_interpreter),
    (parallelizer.ParallelExecutor, "execute", _ended_parallel),
)
"""Methods of DSPy's and what takes their place while a runtime is open. Outside of trials they pass through."""

ENDING: Final = (_ended_parallel(None),)
"""Functions whose code is on the stack while they run what a program gave them."""
