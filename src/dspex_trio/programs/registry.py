"""What operators register by name: program classes and tools."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Final, Literal, TypeAlias, TypeVar, overload

import dspy
import pydantic

from dspex_trio.programs.asynchronous import in_thread
from dspex_trio.programs.yielding_tools import callable_by_threads

Isolation: TypeAlias = Literal["thread", "process"]
"""Where a program runs."""

ModuleClass = TypeVar("ModuleClass", bound=type)
Function = TypeVar("Function", bound=Callable[..., Any])

MODULE_REGISTRY: Final[dict[str, type[dspy.Module]]] = {}
TOOL_REGISTRY: Final[dict[str, dspy.Tool]] = {}
_REUSABLE: Final[set[type]] = set()
_ISOLATION: Final[dict[type, Isolation]] = {}


def register(
    name: str, *, reusable: bool = False, isolation: Isolation | None = None
) -> Callable[[ModuleClass], ModuleClass]:
    """Make a `dspy.Module` subclass available to program specifications under `name`.

    Args:
        name: What `python_class` says.
        reusable: Promise that a `copy.deepcopy` of an instance is as good as a new one; trials then get copies of a
            prototype, which is faster. Not true of a class whose tools or callbacks close over `self`.
        isolation: `process` runs it in a child process, which is killed where it does not end; `thread` in a thread of
            the worker, where that runs programs itself: a front does not. By default the worker's setting decides.

    Raises:
        TypeError: The class is no `dspy.Module` subclass.
        ValueError: The name is taken.

    Example:
        @dspex.register("MyCustomReAct")
        class MyCustomReAct(dspy.ReAct): ...
    """

    def decorator(cls: ModuleClass) -> ModuleClass:
        if not (isinstance(cls, type) and issubclass(cls, dspy.Module)):
            raise TypeError("Only dspy.Module subclasses can be registered.")
        if name in MODULE_REGISTRY:
            raise ValueError(f"Module '{name}' is already registered.")
        MODULE_REGISTRY[name] = cls
        if reusable:
            _REUSABLE.add(cls)
        if isolation is not None:
            _ISOLATION[cls] = isolation
        return cls

    return decorator


def get_module_class(name: str) -> type[dspy.Module]:
    """The class registered under `name`; KeyError when there is none."""
    if name not in MODULE_REGISTRY:
        raise KeyError(f"No dspy.Module registered with name '{name}'.")
    return MODULE_REGISTRY[name]


def isolation_of(python_class: str) -> Isolation | None:
    """Where the class that a specification names is registered to run; None if that was not said."""
    cls = MODULE_REGISTRY.get(python_class)
    if cls is None:
        module, _, name = python_class.rpartition(".")
        # No getattr: a lazy module would import something because a request names it.
        cls = getattr(sys.modules.get(module), "__dict__", {}).get(name)
    return _ISOLATION.get(cls) if isinstance(cls, type) else None


@contextmanager
def not_isolated() -> Iterator[None]:
    """While the block runs, no class is isolated because it was registered so: for who must see what it does."""
    said = dict(_ISOLATION)
    _ISOLATION.clear()
    try:
        yield
    finally:
        _ISOLATION.update(said)


def any_isolated() -> bool:
    """Whether some class is registered to run in a child process."""
    return any(_ISOLATION.get(cls) == "process" for cls in MODULE_REGISTRY.values())


def homes() -> dict[str, list[str]]:
    """Module → the names of the programs and tools that are registered there."""
    found: dict[str, list[str]] = {}
    for name, cls in MODULE_REGISTRY.items():
        found.setdefault(cls.__module__, []).append(name)
    for name, registered in TOOL_REGISTRY.items():
        found.setdefault(registered.func.__module__, []).append(name)
    return found


def is_reusable(cls: type) -> bool:
    """Whether trials may get deep copies of one instance: DSPy's own classes, and those registered as reusable."""
    return cls in _REUSABLE or is_dspys(cls)


def is_dspys(cls: type) -> bool:
    """Whether it is one of DSPy's own classes."""
    return cls.__module__.partition(".")[0] == "dspy"


@overload
def tool(function: Function, /) -> Function: ...
@overload
def tool(*, name: str | None = None, description: str | None = None) -> Callable[[Function], Function]: ...
def tool(
    function: Function | None = None, /, *, name: str | None = None, description: str | None = None
) -> Function | Callable[[Function], Function]:
    """Make a function available to programs as a tool: `{"tool": "name"}` in a specification's dependencies.

    The argument schema comes from the annotations, the description from the docstring. A call that lacks a required
    argument is refused before the function runs. An asynchronous function runs in the worker's Trio loop while the
    program's thread waits; at the trial's end both are cancelled.

    A function that yields, asynchronous or not, gives a program, and whoever else calls it once, the list of its
    values, of 10,000 at the most; a snakepit pool that calls it as a streaming tool gets them one by one.

    Args:
        function: The function, when used as a bare decorator.
        name: The tool's name; the function's by default.
        description: What the language model reads; the docstring by default.

    Raises:
        ValueError: The name is taken.
    """

    def decorator(function: Function) -> Function:
        made = RegisteredTool(callable_by_threads(function), name=name, desc=description)
        made._waits = inspect.iscoroutinefunction(function)  # noqa: SLF001 - a field of ours
        if made.name in TOOL_REGISTRY:
            raise ValueError(f"Tool '{made.name}' is already registered.")
        TOOL_REGISTRY[made.name] = made
        return function

    return decorator if function is None else decorator(function)


class RegisteredTool(dspy.Tool):  # type: ignore[misc]
    """A tool that refuses a call without its required arguments; DSPy would run the function and see it fail.

    One object serves all trials: it may hold a connection, or keep a state of its own.
    """

    _waits: bool = pydantic.PrivateAttr(default=False)

    def __deepcopy__(self, memo: dict[int, Any] | None = None) -> RegisteredTool:
        return self

    def __call__(self, **arguments: Any) -> Any:
        """Run the function."""
        self._bind(arguments)
        return super().__call__(**arguments)

    async def acall(self, **arguments: Any) -> Any:
        """Run the function for a program that awaits it; an asynchronous one without holding up the program's loop."""
        self._bind(arguments)
        return await (in_thread(super().__call__, **arguments) if self._waits else super().acall(**arguments))

    def _bind(self, arguments: dict[str, Any]) -> None:
        try:
            inspect.signature(self.func).bind(**arguments)
        except TypeError as error:
            raise ValueError(f"tool {self.name!r} cannot be called like this: {error}") from None
