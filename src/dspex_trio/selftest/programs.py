"""What the self-test runs, as a user's programs: one way of blocking each, and a note of how each was ended."""

from __future__ import annotations

import re
import socket
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from types import FunctionType
from typing import Any, ClassVar, Final, TypeVar
from urllib.parse import urlsplit

import dspy
import requests

import dspex_trio as dspex
from dspex_trio.testing.faults import misbehaving

Function = TypeVar("Function", bound=Callable[..., Any])

# Longer than any trial of the self-test, in seconds.
_LONG: Final = 60.0


@dataclass(frozen=True, slots=True)
class ProgramExit:
    """How and when a program's code ended.

    Attributes:
        at: When, on `time.monotonic`.
        by: The step of the ladder that the exception tells; for any other exception, its type's name.
    """

    at: float
    by: str


def _as_a_users(function: Function) -> Function:
    """Mark the function's code as not this package's own, which the last step of the ladder never interrupts."""
    assert isinstance(function, FunctionType)  # noqa: S101 - it decorates what is defined below
    function.__code__ = misbehaving.as_a_users(function.__code__)
    return function


@dspex.register("dspex_trio.Wait")
class Blocking(dspy.Module):  # type: ignore[misc] # mypy does not look into dspy
    """Blocks in one of the ways of `WAYS`.

    Args:
        way: Which.
        url: Where somebody listens who never answers.
    """

    endings: ClassVar[deque[ProgramExit]] = deque(maxlen=1000)

    def __init__(self, way: str, url: str = "") -> None:
        super().__init__()
        self.way = way
        self.url = url
        self.ask = dspy.Predict("question -> answer")

    @_as_a_users
    def forward(self, until: float) -> None:
        """Block; a program that does so by computing ends at `until`, on `time.monotonic`."""
        try:
            WAYS[self.way](self, until)
        except BaseException as error:
            self.endings.append(ProgramExit(time.monotonic(), getattr(error, "rung", type(error).__name__)))
            raise


class _Loop(dspy.Module):  # type: ignore[misc] # as above
    """For dspy.Parallel: keeps whatever is raised in it, as long as that is an Exception."""

    @_as_a_users
    def forward(self, **_inputs: str) -> None:
        try:
            misbehaving.KeepsEveryException()()
        except BaseException as error:
            Blocking.endings.append(ProgramExit(time.monotonic(), getattr(error, "rung", type(error).__name__)))
            raise


@_as_a_users
def _ask(module: Blocking, _until: float) -> None:
    module.ask(question="?")


@_as_a_users
def _stream(module: Blocking, _until: float) -> None:
    for _chunk in dspy.streamify(module.ask, async_streaming=False)(question="?"):
        pass


@_as_a_users
def _ask_late(module: Blocking, until: float) -> None:
    while time.monotonic() < until:
        pass
    module.ask(question="?")


@_as_a_users
def _requests(module: Blocking, _until: float) -> None:
    requests.get(module.url, timeout=_LONG)


@_as_a_users
def _misbehaving(program: type[misbehaving.Misbehaving]) -> Callable[[Blocking, float], None]:
    def way(_module: Blocking, _until: float) -> None:
        program()()

    return way


@_as_a_users
def _parallel(module: Blocking, _until: float) -> None:
    _in_parallel(module.ask)


@_as_a_users
def _parallel_loops(_module: Blocking, _until: float) -> None:
    _in_parallel(_Loop())


@_as_a_users
def _in_parallel(branch: dspy.Module) -> None:
    branches = [(branch, {"question": "?"}), (branch, {"question": "!"})]
    dspy.Parallel(num_threads=len(branches), disable_progress_bar=True)(branches)


@_as_a_users
def _hang(module: Blocking, _until: float) -> None:
    """Keep the interpreter from every other thread, and a connection open."""
    address = urlsplit(module.url)
    with socket.create_connection((address.hostname, address.port)) as connection:
        connection.sendall(b"GET / HTTP/1.1\r\n\r\n")
        re.match("(a+)+b", "a" * 64)


@_as_a_users
def _nothing(_module: Blocking, _until: float) -> None:
    pass


WAYS: Final[dict[str, Callable[[Blocking, float], None]]] = {
    "ask": _ask,
    "stream": _stream,
    "ask late": _ask_late,
    "requests": _requests,
    "sleep": _misbehaving(misbehaving.Sleeps),
    "queue": _misbehaving(misbehaving.WaitsForQueue),
    "asyncio": _misbehaving(misbehaving.RunsAsyncio),
    "trio": _misbehaving(misbehaving.RunsTrio),
    "subprocess": _misbehaving(misbehaving.RunsProcess),
    "pipe": _misbehaving(misbehaving.ReadsPipe),
    "short waits": _misbehaving(misbehaving.WaitsBriefly),
    "loop": _misbehaving(misbehaving.Loops),
    "keep every exception": _misbehaving(misbehaving.KeepsEveryException),
    "parallel": _parallel,
    "parallel loops": _parallel_loops,
    "hang": _hang,
    "nothing": _nothing,
}
