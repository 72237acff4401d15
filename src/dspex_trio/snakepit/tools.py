"""What the worker can be asked for by name: its own tools, and those that the operator registered."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from dspex_trio.model import ToolParameter, ToolSpec
from dspex_trio.model.errors import InvalidInput, ToolError
from dspex_trio.runtime.embedded import Runtime, Take
from dspex_trio.snakepit import trial_tool
from dspex_trio.wire import encode_any
from dspex_trio.wire.generated.any_pb2 import Any as AnyMessage


class ToolNotFound(ToolError):
    """The worker has no tool of that name."""


@dataclass(frozen=True, slots=True)
class _Own:
    spec: ToolSpec
    run: Callable[..., Any]


class Tools:
    """The worker's tools.

    Args:
        runtime: Where they run.
        status: What `worker_status` answers.
    """

    def __init__(self, runtime: Runtime, status: Callable[[], dict[str, Any]]) -> None:
        self._runtime = runtime
        named = (ToolParameter("name", "string", "a registered program", required=True),)
        own = (
            _Own(ToolSpec("ping", "Answers its message", (ToolParameter("message", "string"),)), _ping),
            _Own(ToolSpec("list_programs", "The registered programs"), self._list_programs),
            _Own(ToolSpec("describe_program", "A registered program", named), self._describe_program),
            _Own(ToolSpec("worker_status", "How the worker is"), status),
        )
        self._own = {each.spec.name: each for each in own}

    def specs(self) -> list[ToolSpec]:
        """All of them; an operator's tool with the name of one of the worker's own is not among them."""
        own = [trial_tool.SPEC, *(each.spec for each in self._own.values())]
        taken = {spec.name for spec in own}
        return own + [spec for spec in self._runtime.tool_specs() if spec.name not in taken]

    async def call(self, name: str, arguments: Mapping[str, Any], take: Take | None = None) -> AnyMessage | None:
        """Call a tool other than `execute_program`; an operator's runs in a slot like a trial. Returns its result.

        With `take`, values that the tool yields are given to that, and None comes back; else a list.

        Raises:
            ToolNotFound: There is none of that name.
            InvalidInput: One of the worker's own does not take these arguments.
            ToolError: From whatever an operator's tool raised.
            Overloaded, ShuttingDown, DeadlineExceeded: As a trial would end.
        """
        if (own := self._own.get(name)) is not None:
            _check(own.spec, arguments)
            return encode_any(own.run(**arguments))
        if all(spec.name != name for spec in self._runtime.tool_specs()):
            raise ToolNotFound(self._unknown(name))
        return await self._runtime.call_tool(name, arguments, take)

    def _list_programs(self) -> dict[str, Any]:
        return {
            "programs": [
                {
                    "name": each["name"],
                    "python_class": each["python_class"],
                    "description": each["description"].partition("\n")[0],
                }
                for each in self._runtime.programs()
            ]
        }

    def _describe_program(self, name: Any) -> dict[str, Any]:
        programs = {each["name"]: each for each in self._runtime.programs()}
        if not isinstance(name, str) or name not in programs:
            known = ", ".join(programs) or "none"
            raise InvalidInput(f"no program is registered as {str(name)[:100]!r} (registered: {known})")
        return programs[name]

    def _unknown(self, name: str) -> str:
        known = [spec.name for spec in self.specs()]
        close = difflib.get_close_matches(name, known, n=1)
        hint = f"did you mean {close[0]}? " if close else ""
        return f"the worker has no tool {name[:100]!r}; {hint}it has {', '.join(known)}"


def _check(spec: ToolSpec, arguments: Mapping[str, Any]) -> None:
    known = [each.name for each in spec.parameters]
    for name in arguments:
        if name not in known:
            raise InvalidInput(f"{spec.name} has no parameter {name[:100]!r}; it takes {', '.join(known) or 'none'}")
    for each in spec.parameters:
        if each.required and each.name not in arguments:
            raise InvalidInput(f"{spec.name} needs the parameter {each.name}")


def _ping(message: Any = "") -> dict[str, Any]:
    return {"status": "ok", "message": message}
