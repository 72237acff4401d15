"""What an operator has registered, described for callers: programs and tools."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any, Final

from dspex_trio.model import MISSING, RunInLoop, ToolParameter, ToolSpec
from dspex_trio.model.values import plain
from dspex_trio.programs.registry import MODULE_REGISTRY, TOOL_REGISTRY, is_reusable, isolation_of
from dspex_trio.programs.yielding_tools import Take, called_outside, yields

# No inputs: the instance, and what takes everything else.
_OWN: Final = frozenset({"self", "args", "kwargs"})


def programs() -> list[dict[str, Any]]:
    """The registered programs by name: class, docstring, constructor keywords and inputs of each."""
    return [_described(name, cls) for name, cls in sorted(MODULE_REGISTRY.items())]


def _described(name: str, cls: Any) -> dict[str, Any]:
    return {
        "name": name,
        "python_class": _path(cls),
        "description": inspect.getdoc(cls) or "",
        "reusable": is_reusable(cls),
        "dependencies": _parameters(cls.__init__),
        "inputs": _parameters(cls.forward) if hasattr(cls, "forward") else [],
    }


def isolated() -> list[str]:
    """The registered programs, and their classes' paths, that ask for a process of their own."""
    found = [(name, cls) for name, cls in MODULE_REGISTRY.items() if isolation_of(name) == "process"]
    return [each for name, cls in found for each in (name, _path(cls))]


def tool_specs() -> list[ToolSpec]:
    """The registered tools, by name."""
    return [
        ToolSpec(
            name=name,
            description=tool.desc or "",
            parameters=tuple(_argument(tool.func, argument, schema) for argument, schema in (tool.args or {}).items()),
            streams=yields(tool.func),
        )
        for name, tool in sorted(TOOL_REGISTRY.items())
    ]


def tool_function(name: str, run_in_loop: RunInLoop, take: Take | None = None) -> Callable[..., Any] | None:
    """What calls a registered tool with keyword arguments; None if there is none.

    It blocks, and is for a thread from which `run_in_loop` works: asynchronous tools run in the loop. With `take`,
    values that the tool yields are given to that in the loop, each when the one before is taken, and the call returns
    STREAMED.
    """
    tool = TOOL_REGISTRY.get(name)
    return None if tool is None else called_outside(tool, run_in_loop, take)


def _argument(function: Callable[..., Any], name: str, schema: Any) -> ToolParameter:
    known = inspect.signature(function).parameters.get(name)
    default = MISSING if known is None or known.default is inspect.Parameter.empty else plain(known.default)
    of_schema = schema if isinstance(schema, dict) else {}
    return ToolParameter(
        name=name,
        type=str(of_schema.get("type") or ""),
        description=str(of_schema.get("description") or ""),
        required=known is not None and default is MISSING,
        default=default,
    )


def _parameters(function: Callable[..., Any]) -> list[dict[str, Any]]:
    return [
        {
            "name": each.name,
            "type": _type(each.annotation),
            "required": each.default is each.empty,
        }
        for each in inspect.signature(function).parameters.values()
        if each.name not in _OWN
    ]


def _type(annotation: Any) -> str:
    if annotation is inspect.Parameter.empty:
        return ""
    return annotation if isinstance(annotation, str) else inspect.formatannotation(annotation)


def _path(cls: type) -> str:
    return f"{cls.__module__}.{cls.__qualname__}"
