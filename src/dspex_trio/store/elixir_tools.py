"""Python functions that stand in for the Elixir tools of a session, where the session store is ours."""

from __future__ import annotations

import inspect
import types
import typing
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, Final, TypeVar, overload

from dspex_trio import threads
from dspex_trio.model import MISSING, ToolParameter, ToolSpec
from dspex_trio.model.errors import ToolError

Function = TypeVar("Function", bound=Callable[..., Any])

MAX_CALLS: Final = 16
"""Calls whose functions run in threads at the same time; further ones wait."""


@dataclass(frozen=True, slots=True)
class ElixirTool:
    """A function and how it is described."""

    spec: ToolSpec
    function: Callable[..., Any]


ELIXIR_TOOLS: Final[dict[str, ElixirTool]] = {}


@overload
def elixir_tool(function: Function, /) -> Function: ...
@overload
def elixir_tool(*, name: str | None = None, description: str | None = None) -> Callable[[Function], Function]: ...
def elixir_tool(
    function: Function | None = None, /, *, name: str | None = None, description: str | None = None
) -> Function | Callable[[Function], Function]:
    """Have a function stand in for an Elixir tool, in every session of an embedded or stand-alone store of ours.

    Programs use it as they use the real one: `{"elixir_tool": "name"}`. A function runs in a thread; an `async` one on
    the Trio loop. What it returns must have a JSON form, or be bytes; what it raises is the tool's failure.

    Args:
        function: The function, when used as a bare decorator.
        name: The tool's name; the function's by default.
        description: What the language model reads; the docstring by default.

    Raises:
        TypeError: A parameter cannot be given by name; or the function yields, and a tool of Elixir's answers once.
        ValueError: The name is taken.
    """

    def decorator(function: Function) -> Function:
        tool = describe(function, name, description)
        if tool.spec.name in ELIXIR_TOOLS:
            raise ValueError(f"Elixir tool '{tool.spec.name}' is already registered.")
        ELIXIR_TOOLS[tool.spec.name] = tool
        return function

    return decorator if function is None else decorator(function)


def describe(function: Callable[..., Any], name: str | None = None, description: str | None = None) -> ElixirTool:
    """A function as a tool: its parameters from the annotations, what it does from the docstring."""
    named = name or function.__name__
    if inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(function):
        raise TypeError(f"Elixir tool {named!r} yields, and such a tool answers once: return a list of the values.")
    parameters = []
    for each in inspect.signature(function).parameters.values():
        if each.kind in (each.POSITIONAL_ONLY, each.VAR_POSITIONAL):
            raise TypeError(f"Elixir tool {named!r} cannot be called: its parameter {each.name!r} has no name.")
        if each.kind is each.VAR_KEYWORD:
            continue
        default = MISSING if each.default is each.empty else each.default
        parameters.append(
            ToolParameter(
                each.name, _type_of(function, each.name), required=each.default is each.empty, default=default
            )
        )
    told = description if description is not None else inspect.getdoc(function) or ""
    return ElixirTool(ToolSpec(named, told, tuple(parameters)), function)


class StandIns:
    """Calls the functions that stand in.

    Args:
        workers: Where functions run that block.
        tools: Tool name → tool; what is added to it later counts too.
    """

    def __init__(self, workers: threads.Threads, tools: Mapping[str, ElixirTool] = ELIXIR_TOOLS) -> None:
        self._workers = workers
        self._tools = tools
        self._slots = threads.Slots(MAX_CALLS)

    def specs(self) -> Iterable[ToolSpec]:
        """How the tools are described."""
        return [tool.spec for tool in self._tools.values()]

    def __contains__(self, name: str) -> bool:
        return name in self._tools

    async def call(self, name: str, arguments: Mapping[str, Any]) -> Any:
        """Call the tool of that name; raises the Exception that its function raises.

        A cancel stops a function as it stops a trial.

        Raises:
            TypeError: The arguments are not those of the function.
            ToolError: The function exited.
        """
        function = self._tools[name].function
        inspect.signature(function).bind(**arguments)
        if inspect.iscoroutinefunction(function):
            try:
                return await function(**arguments)
            except SystemExit as error:
                raise ToolError(_exited(error)) from None
        slot = await self._slots.acquire()
        try:
            job = threads.Job(name)
            return await self._workers.run(_contained, job, partial(function, **arguments), job=job, slot=slot)
        finally:
            slot.release()


def _contained(job: threads.Job, function: Callable[[], Any]) -> Any:
    """In a thread: a function that exits has failed, and the store goes on."""
    try:
        return function()
    except BaseException as error:
        if job.cancelled or isinstance(error, Exception):
            raise
        raise ToolError(_exited(error)) from None  # noqa: ASYNC104 - in a thread, where nothing is Cancelled


threads.carries_programs(_contained)


def _exited(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}"


_TYPES: Final[Mapping[Any, str]] = {
    str: "string",
    bool: "boolean",
    int: "integer",
    float: "float",
    list: "list",
    tuple: "list",
    set: "list",
    dict: "map",
    Mapping: "map",
}


def _type_of(function: Callable[..., Any], parameter: str) -> str:
    """The name of a parameter's type in a tool's description; `any` where no name says it."""
    try:
        hint = typing.get_type_hints(function).get(parameter)
    except Exception:  # noqa: BLE001 - annotations may be any code
        return "any"
    if typing.get_origin(hint) in (typing.Union, types.UnionType):
        options = [option for option in typing.get_args(hint) if option is not types.NoneType]
        hint = options[0] if len(options) == 1 else None
    return _TYPES.get(typing.get_origin(hint) or hint, "any")
