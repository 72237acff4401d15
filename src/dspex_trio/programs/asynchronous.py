"""Asynchronous programs: run to their end on an asyncio loop of their own, in the trial's thread."""

from __future__ import annotations

import asyncio
import inspect
import sys
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from typing import Any, Final, NamedTuple, cast

import dspy

from dspex_trio.model.errors import InvalidSpec, ProgramError

# Named, since another loop's wait, such as uvloop's, could not be ended.
_LOOP: Final[Callable[[], asyncio.AbstractEventLoop] | None] = (
    None if sys.platform == "win32" else asyncio.SelectorEventLoop
)


class Entry(NamedTuple):
    """What runs when a program is called.

    Attributes:
        name: `forward`, else `aforward`, else `__call__`.
        function: What it is called with tells the program's inputs.
        skips: How many of its parameters come before them.
    """

    name: str
    function: Any
    skips: int


def entry_of(module: dspy.Module) -> Entry:
    """What runs when the program is called.

    Raises:
        InvalidSpec: Nothing would.
    """
    cls = type(module)
    for name in ("forward", "aforward"):
        own = vars(module).get(name)  # not with getattr: DSPy warns of whoever asks for `forward`
        if callable(own):
            return Entry(name, own, 0)
        found = inspect.getattr_static(cls, name, None)
        if isinstance(found, staticmethod | classmethod):
            return Entry(name, found.__get__(module, cls), 0)
        if callable(found):
            return Entry(name, found, 1)
    if (call := cls.__call__) is not dspy.Module.__call__:
        return Entry("__call__", call, 1)
    raise InvalidSpec(f"{cls.__name__} cannot be called: it has neither forward nor aforward")


def run(module: dspy.Module, arguments: Mapping[str, Any]) -> Any:
    """Call the program, wait for what it returns if that is a coroutine or another awaitable, and return its result.

    The loop is made for this call and closed after it. At the trial's end its tasks are cancelled.

    Raises:
        ProgramError: It returned a generator, of which nothing has run.
    """
    asynchronous = entry_of(module).name == "aforward"
    result = module.acall(**arguments) if asynchronous else module(**arguments)
    if inspect.isawaitable(result):
        with asyncio.Runner(loop_factory=_LOOP) as runner:
            result = runner.run(_await(module, result, called=not asynchronous))
    if inspect.isgenerator(result) or inspect.isasyncgen(result):
        raise ProgramError("the program returned a generator, of which nothing has run; a trial has one result")
    return result


async def _await(module: dspy.Module, awaitable: Awaitable[Any], *, called: bool) -> Any:
    """Await as part of the module's call, which DSPy takes for ended once it has returned the coroutine."""
    if not called:
        return await awaitable
    with dspy.context(caller_modules=[*(dspy.settings.caller_modules or ()), module]):
        return await awaitable


async def in_thread(function: Callable[..., Any], /, **arguments: Any) -> Any:
    """Call a function that may wait, for a coroutine of a program's: its event loop goes on meanwhile.

    The thread has the caller's context, so that it is one of the trial's, and ends with it.
    """
    return await asyncio.to_thread(function, **arguments)


INTERRUPTIBLE: Final[tuple[Callable[..., Any], ...]] = (run, cast("Callable[..., Coroutine[Any, Any, Any]]", _await))
"""Functions of ours that are on the stack while a program's code runs."""
