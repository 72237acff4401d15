"""What a program starts that would outlive its trial: code interpreters and dspy.Parallel's queue end with it."""

from __future__ import annotations

import functools
import logging
import threading
from _thread import start_new_thread
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any, Final, cast

import dspy

from dspex_trio.model import Interrupt
from dspex_trio.programs.dspy.private import parallelizer
from dspex_trio.programs.record.recorder import current_recorder
from dspex_trio.threads import Patch, left_alone

logger: Final = logging.getLogger(__name__)

# What can be woken is left by then, in seconds: no interpreter bears being shut down while it starts.
_LEFT_WITHIN: Final = 0.5


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
    """An interpreter that was made for one call is shut down as ever, also when the trial is over by then.

    One whose code cannot even be left, since what it waits for cannot be woken, is shut down by another thread. Left
    alone are one that the caller passed in, and dspy.PythonInterpreter, which its first thread alone may use.
    """

    @functools.wraps(cast("Any", original))
    @contextmanager
    def interpreter_context(self: Any, *args: Any) -> Iterator[Any]:
        with ExitStack() as stack:
            shutting_down = stack.enter_context(ExitStack())
            interpreter = stack.enter_context(original(self, *args))  # type: ignore[misc]
            if (interrupt := current_interrupt()) is not None and all(arg is not interpreter for arg in args):
                stack.callback(shutting_down.enter_context, left_alone())
                if not isinstance(interpreter, dspy.PythonInterpreter):
                    left = threading.Event()
                    stack.callback(left.set)
                    end = functools.partial(start_new_thread, _end_if_stuck, (interpreter, left))
                    stack.callback(interrupt.on_cancel(end))
            yield interpreter

    return interpreter_context


def _end_if_stuck(interpreter: Any, left: threading.Event) -> None:
    if left.wait(_LEFT_WITHIN):
        return
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


_INTERPRETER: Final = "a code interpreter is shut down at the end of its trial"

ENDED: Final = (
    Patch(
        dspy.PythonInterpreter,
        "_health_check",
        "a code interpreter's process is killed at the end of its trial",
        _killable_sandbox,
    ),
    Patch(dspy.ProgramOfThought, "_interpreter_context", _INTERPRETER, _ended_interpreter),
    Patch(dspy.RLM, "_interpreter_context", _INTERPRETER, _ended_interpreter),
    Patch(
        parallelizer.ParallelExecutor,
        "execute",
        "dspy.Parallel begins nothing more after the end of its trial",
        _ended_parallel,
    ),
)
"""Methods of DSPy's that are changed while a runtime is open. Outside of trials they pass through."""

ENDING: Final = (_ended_parallel(None),)
"""Functions whose code is on the stack while they run what a program gave them."""
