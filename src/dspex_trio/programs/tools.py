"""Tools in dependencies: registered Python functions, and Elixir functions of the trial's session."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

import dspy

from dspex_trio.model import MISSING, ToolParameter, ToolSpec
from dspex_trio.model.errors import InvalidSpec
from dspex_trio.programs.asynchronous import in_thread
from dspex_trio.programs.registry import TOOL_REGISTRY
from dspex_trio.programs.session import current_session


class ElixirTool(dspy.Tool):  # type: ignore[misc]
    """An Elixir function as DSPy's programs and language models know tools.

    It belongs to no trial: a call goes to the session of the trial whose program makes it. Arguments are checked
    against the schema first; those that may be left out get their defaults.

    Args:
        spec: The tool as the session describes it.
    """

    def __init__(self, spec: ToolSpec) -> None:
        super().__init__(
            _ElixirCall(spec),
            name=spec.name,
            desc=spec.description,
            args={parameter.name: _schema(parameter) for parameter in spec.parameters},
            arg_types={},
        )

    def __deepcopy__(self, memo: dict[int, Any] | None = None) -> ElixirTool:
        return self

    async def acall(self, **arguments: Any) -> Any:
        """As a call, for a program that awaits it: its loop is not held up meanwhile."""
        return await in_thread(self, **arguments)


class _ElixirCall:
    """What DSPy calls, once it has checked the arguments' types."""

    def __init__(self, spec: ToolSpec) -> None:
        self._spec = spec

    def __call__(self, **arguments: Any) -> Any:
        """Ask the session of the trial that the calling thread works for."""
        spec = self._spec
        takes = {parameter.name: parameter for parameter in spec.parameters}
        if takes:
            problems = [f"{name!r} is missing" for name, p in takes.items() if p.required and name not in arguments]
            problems += [f"{name!r} is unexpected" for name in arguments if name not in takes]
            if problems:
                raise ValueError(
                    f"tool {spec.name!r} cannot be called like this: {', '.join(problems)}; it takes "
                    f"{', '.join(name if p.required else f'{name} (optional)' for name, p in takes.items())}"
                )
        given = {name: p.default for name, p in takes.items() if p.default is not MISSING}
        # None stands for an optional argument that the caller had nothing for.
        given |= {
            name: value
            for name, value in arguments.items()
            if value is not None or name not in takes or takes[name].required
        }
        return current_session().call_tool(spec.name, given)


# ---- schemas ---------------------------------------------------------------------------------------------------------

_TYPES: Final[Mapping[str, str]] = {
    "string": "string",
    "str": "string",
    "text": "string",
    "atom": "string",
    "module": "string",
    "integer": "integer",
    "int": "integer",
    "float": "number",
    "number": "number",
    "double": "number",
    "boolean": "boolean",
    "bool": "boolean",
    "list": "array",
    "array": "array",
    "embedding": "array",
    "map": "object",
    "object": "object",
    "dict": "object",
}
_LENGTHS: Final = {"string": "Length", "array": "Items", "object": "Properties"}


def _schema(parameter: ToolParameter) -> dict[str, Any]:
    """JSON Schema of an argument. DSPy takes for required what has no default."""
    kind = _TYPES.get(parameter.type.lower(), "")
    schema: dict[str, Any] = {}
    if kind:
        schema["type"] = kind
    schema |= _constraints(parameter.constraints, kind)
    if parameter.description:
        schema["description"] = parameter.description
    if not parameter.required:
        schema["default"] = None if parameter.default is MISSING else parameter.default
        if kind and schema["default"] is None:
            schema["type"] = [kind, "null"]
            if "enum" in schema:
                schema["enum"] = [*schema["enum"], None]
    return schema


def _constraints(constraints: Mapping[str, Any], kind: str) -> dict[str, Any]:
    """Those that a call can be checked against early; the tool itself knows them all."""
    found: dict[str, Any] = {}
    for name, asked in constraints.items():
        match name:
            case "min" | "minimum" | "max" | "maximum" if type(asked) in {int, float}:
                found["minimum" if name.startswith("min") else "maximum"] = asked
            case "choices" | "enum" if isinstance(asked, list) and asked:
                found["enum"] = asked
            case "min_length" | "max_length" if type(asked) is int and asked >= 0 and kind in _LENGTHS:
                found[name[:3] + _LENGTHS[kind]] = asked
            case "minLength" | "maxLength" if type(asked) is int and asked >= 0:
                found[name] = asked
    return found


# ---- dependencies ----------------------------------------------------------------------------------------------------


def wants_elixir_tools(value: Any) -> bool:
    """Whether `{"elixir_tool": …}` or `{"elixir_tools": …}` stands anywhere in it."""
    match value:
        case {"elixir_tool": _, **rest} | {"elixir_tools": _, **rest} if not rest:
            return True
        case dict():
            return any(map(wants_elixir_tools, value.values()))
        case list():
            return any(map(wants_elixir_tools, value))
    return False


class Dependencies:
    """Puts tools where a specification names them.

    Args:
        offered: The session's Elixir tools.
    """

    def __init__(self, offered: Sequence[ToolSpec] = ()) -> None:
        self._offered = {spec.name: spec for spec in offered}
        self._made: dict[str, ElixirTool] = {}

    def resolve(self, value: Any, where: str) -> Any:
        """The dependency with tools in it, at any depth.

        `{"tool": "name"}` is a registered tool, `{"elixir_tool": "name"}` one of the session, and
        `{"elixir_tools": "*"}` or `{"elixir_tools": ["name", …]}` several, which inside of a list become its items.

        Raises:
            InvalidSpec: There is no such tool.
        """
        match value:
            case {"tool": str(name), **rest} if not rest:
                return _registered(name, where)
            case {"elixir_tool": name, **rest} if not rest:
                return self._elixir(name, where)
            case {"elixir_tools": names, **rest} if not rest:
                return self._several(names, where)
            case dict():
                return {key: self.resolve(item, f"{where}.{key}") for key, item in value.items()}
            case list():
                items: list[Any] = []
                for index, item in enumerate(value):
                    made = self.resolve(item, f"{where}[{index}]")
                    several = isinstance(item, dict) and item.keys() == {"elixir_tools"}
                    items += made if several else [made]
                return items
        return value

    def _several(self, names: Any, where: str) -> list[ElixirTool]:
        match names:
            case "*":
                return [self._elixir(name, where) for name in self._offered]
            case list():
                return [self._elixir(name, where) for name in names]
        raise InvalidSpec(f'dependency {where!r}: elixir_tools takes "*" for all tools of the session, or their names')

    def _elixir(self, name: Any, where: str) -> ElixirTool:
        if not isinstance(name, str):
            raise InvalidSpec(f"dependency {where!r}: an Elixir tool is given by its name")
        if (spec := self._offered.get(name)) is None:
            offered = ", ".join(sorted(self._offered)) or "none"
            raise InvalidSpec(f"dependency {where!r}: the session has no Elixir tool {name!r} (it has: {offered})")
        if name not in self._made:
            self._made[name] = ElixirTool(spec)
        return self._made[name]


def _registered(name: str, where: str) -> dspy.Tool:
    if (tool := TOOL_REGISTRY.get(name)) is None:
        known = ", ".join(sorted(TOOL_REGISTRY)) or "none"
        raise InvalidSpec(f"dependency {where!r}: no tool is registered as {name!r} (registered: {known})")
    return tool
