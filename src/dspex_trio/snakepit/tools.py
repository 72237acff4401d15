"""What the worker can be asked for by name: its own tools, and those that the operator registered."""

from __future__ import annotations

import difflib
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

from dspex_trio.errors import InvalidInput, ToolError
from dspex_trio.model import ToolParameter, ToolSpec
from dspex_trio.programs import catalogue
from dspex_trio.programs.yielding import Take
from dspex_trio.runtime import Runtime
from dspex_trio.snakepit import trial_tool
from dspex_trio.threads import run_in_loop


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
            _Own(ToolSpec("list_programs", "The registered programs"), _list_programs),
            _Own(ToolSpec("describe_program", "A registered program", named), _describe_program),
            _Own(ToolSpec("worker_status", "How the worker is"), status),
        )
        self._own = {each.spec.name: each for each in own}

    def specs(self) -> list[ToolSpec]:
        """All of them; an operator's tool with the name of one of the worker's own is not among them."""
        own = [trial_tool.SPEC, *(each.spec for each in self._own.values())]
        taken = {spec.name for spec in own}
        return own + [spec for spec in catalogue.tool_specs() if spec.name not in taken]

    async def call(self, name: str, arguments: Mapping[str, Any], take: Take | None = None) -> Any:
        """Call a tool other than `execute_program`; an operator's runs in a thread, in a slot like a trial.

        With `take`, values that the tool yields are given to that, and `STREAMED` comes back; else a list.

        Raises:
            ToolNotFound: There is none of that name.
            InvalidInput: One of the worker's own does not take these arguments.
            ToolError: From whatever an operator's tool raised.
            Overloaded, ShuttingDown, DeadlineExceeded: As a trial would end.
        """
        if (own := self._own.get(name)) is not None:
            _check(own.spec, arguments)
            made = own.run(**arguments)
            return await made if isinstance(made, Awaitable) else made
        if (function := catalogue.tool_function(name, run_in_loop, take)) is None:
            raise ToolNotFound(self._unknown(name))
        return await self._runtime.call_in_slot(name, partial(function, **arguments))

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


def _list_programs() -> dict[str, Any]:
    return {"programs": catalogue.programs()}


def _describe_program(name: Any) -> dict[str, Any]:
    if (found := catalogue.describe(name) if isinstance(name, str) else None) is None:
        known = ", ".join(each["name"] for each in catalogue.programs()) or "none"
        raise InvalidInput(f"no program is registered as {str(name)[:100]!r} (registered: {known})")
    return found
