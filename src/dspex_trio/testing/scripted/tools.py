"""Tools whose results are scripted, and that know how they were called."""

from __future__ import annotations

import functools
import inspect
import math
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final, TypeAlias, assert_never

from dspex_trio.model import MISSING
from dspex_trio.testing.scripted.replies import Hang
from dspex_trio.testing.scripted.script import now

_UNUSED: Final = "the tool {!r} has no result for call {}: those that it was given are used up"


@dataclass(frozen=True, slots=True)
class Returns:
    """The tool returns.

    Attributes:
        value: What.
        delay: Seconds that pass before.
    """

    value: Any
    delay: float = 0.0

    def __post_init__(self) -> None:
        _check_seconds(self.delay)


@dataclass(frozen=True, slots=True)
class Fails:
    """The tool raises.

    Attributes:
        error: What.
        delay: Seconds that pass before.
    """

    error: BaseException
    delay: float = 0.0

    def __post_init__(self) -> None:
        _check_seconds(self.delay)


Result: TypeAlias = Returns | Fails | Hang


@dataclass(frozen=True, slots=True)
class ToolUse:
    """A call of a tool.

    Attributes:
        arguments: What it was called with, by name.
        at: When, as `Asked.at`.
        result: What it got; None where there was nothing left.
    """

    arguments: Mapping[str, Any]
    at: float
    result: Result | None


class ScriptedTool:
    """A tool that looks like `like` and returns what it is told to.

    Args:
        like: The real tool, or a function without a body that has its name, parameters and docstring.
        results: One for each call, one after another: a `Returns`, a `Fails`, a `Hang`; an exception is what it raises,
            and anything else what it returns.
        default: For every other call; by default they fail.

    Attributes:
        function: Give it to programs, as `dspy.ReAct(tools=[tool.function])` or `TrialEnvironment(tools={…})`.
    """

    def __init__(self, like: Callable[..., Any], *results: Any, default: Any = MISSING) -> None:
        self._results = deque(map(_result, results))
        self._default = None if default is MISSING else _result(default)
        self._lock = threading.Lock()
        self._calls: list[ToolUse] = []
        signature = inspect.signature(like)

        @functools.wraps(like)
        def function(*args: Any, **kwargs: Any) -> Any:
            bound = signature.bind(*args, **kwargs)
            return self._answer(like.__name__, bound.arguments)

        self.function = function

    @property
    def calls(self) -> tuple[ToolUse, ...]:
        """The calls until now."""
        with self._lock:
            return tuple(self._calls)

    @property
    def unused(self) -> int:
        """How many results have not been asked for."""
        with self._lock:
            return len(self._results)

    def _answer(self, name: str, arguments: Mapping[str, Any]) -> Any:
        at = now()
        with self._lock:
            result = self._results.popleft() if self._results else self._default
            self._calls.append(ToolUse(dict(arguments), at, result))
            number = len(self._calls)
        match result:
            case None:
                raise LookupError(_UNUSED.format(name, number))
            case Returns(value, delay):
                time.sleep(delay)
                return value
            case Fails(error, delay):
                time.sleep(delay)
                raise error
            case Hang():
                threading.Event().wait()
                raise AssertionError
            case _:
                assert_never(result)


def _result(given: Any) -> Result:
    if isinstance(given, Returns | Fails | Hang):
        return given
    return Fails(given) if isinstance(given, BaseException) else Returns(given)


def _check_seconds(seconds: float) -> None:
    if not 0 <= seconds < math.inf:
        raise ValueError(f"delay is in seconds, from 0; got {seconds} (a Hang never answers)")
