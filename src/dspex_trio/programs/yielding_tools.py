"""Tools that yield: their values as a stream, one at a time as its reader takes them, or all of them as a list."""

from __future__ import annotations

import functools
import inspect
from collections.abc import AsyncGenerator, Awaitable, Callable, Generator
from contextlib import aclosing, closing
from contextvars import ContextVar
from typing import Any, Final, TypeAlias

from dspex_trio.model import RunInLoop
from dspex_trio.model.errors import ToolError
from dspex_trio.programs.session import current_session, no_loop

Take: TypeAlias = Callable[[Any], Awaitable[None]]
"""Takes one value of a stream, in the loop; returns once the next one may follow."""

MAX_YIELDED: Final = 10_000
"""The most values of one call that are gathered in a list."""

STREAMED: Final = object()
"""What a call returns whose values went to its stream."""

_LOOP: Final[ContextVar[RunInLoop | None]] = ContextVar("_LOOP", default=None)
"""What leads to the loop in a thread that calls a tool and runs no program."""
_TAKE: Final[ContextVar[Take | None]] = ContextVar("_TAKE", default=None)
"""What takes the values of the next tool that is called, where its caller wants them one by one."""


def callable_by_threads(function: Callable[..., Any]) -> Callable[..., Any]:
    """A tool's function as threads can call it, whether it is asynchronous, and whether it yields.

    Values that are yielded go to the stream of `called_outside`, else into a list. Whatever ends the call closes the
    generator, in the thread or the loop that it runs in.
    """
    named = inspect.isroutine(function) or isinstance(function, functools.partial)
    called = function if named else function.__call__  # type: ignore[operator]
    made = _awaited(called) if inspect.iscoroutinefunction(called) else _gathered(called)
    made.__name__ = getattr(function, "__name__", type(function).__name__)
    made.__doc__ = getattr(function, "__doc__", None)
    made.__annotations__ = getattr(called, "__annotations__", {})  # a partial has none
    return made


def yields(function: Callable[..., Any]) -> bool:
    """Whether a function is known to yield."""
    found = inspect.unwrap(function)
    return inspect.isgeneratorfunction(found) or inspect.isasyncgenfunction(found)


def called_outside(function: Callable[..., Any], run_in_loop: RunInLoop, take: Take | None) -> Callable[..., Any]:
    """What calls `function`, which calls a tool, for those who run no program; blocking, for a thread of a job.

    Args:
        function: What to call.
        run_in_loop: Leads to the loop from that thread.
        take: Takes the values that the tool yields; the call then returns STREAMED. None gathers them in a list.
    """

    def call(**arguments: Any) -> Any:
        loop, taking = _LOOP.set(run_in_loop), _TAKE.set(take)
        try:
            return function(**arguments)
        finally:
            _TAKE.reset(taking)
            _LOOP.reset(loop)

    return call


def _awaited(function: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(function)
    def call(*args: Any, **kwargs: Any) -> Any:
        return _in_loop(functools.partial(function, *args, **kwargs))

    return call


def _gathered(function: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(function)
    def call(*args: Any, **kwargs: Any) -> Any:
        take = _TAKE.get()
        token = _TAKE.set(None)  # a tool that it calls is another one
        try:
            made = function(*args, **kwargs)
            if isinstance(made, Generator):
                return _drained(made, take)
            if isinstance(made, AsyncGenerator):
                return _in_loop(functools.partial(_drained_in_loop, made, take))
            return made
        finally:
            _TAKE.reset(token)

    return call


def _in_loop(function: Callable[[], Awaitable[Any]]) -> Any:
    run_in_loop = _LOOP.get()
    return current_session().wait_for(function) if run_in_loop is None else run_in_loop(function)


def _drained(generator: Generator[Any], take: Take | None) -> Any:
    gathered: list[Any] = []
    with closing(generator):
        for value in generator:
            if take is not None:
                _in_loop(functools.partial(take, value))
            else:
                _gather(gathered, value)
    return gathered if take is None else STREAMED


async def _drained_in_loop(generator: AsyncGenerator[Any], take: Take | None) -> Any:
    gathered: list[Any] = []
    async with aclosing(generator):
        async for value in generator:
            if take is not None:
                await take(value)
            else:
                _gather(gathered, value)
    return gathered if take is None else STREAMED


def _gather(gathered: list[Any], value: Any) -> None:
    if len(gathered) >= MAX_YIELDED:
        raise ToolError(f"the tool yields more than {MAX_YIELDED} values, which only a stream can take")
    gathered.append(value)


INTERRUPTIBLE: Final = (called_outside(len, no_loop, None), _gathered(len), _drained)
"""Functions whose code is on the stack while a tool runs."""
