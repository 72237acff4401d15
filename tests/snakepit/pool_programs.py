"""Programs and tools that the worker under test loads."""

import json
import os
import pathlib
import re
import subprocess
import sys
import threading
import time

import dspy
import trio
import trio.lowlevel

import dspex_trio as dspex
from dspex_trio.testing.faults import misbehaving


@dspex.register("Echo")
class Echo(dspy.Module):
    """Answers with the question.

    Asks nobody.
    """

    def __init__(self, greeting: str = "hello"):
        super().__init__()
        self.greeting = greeting

    def forward(self, question: str):
        return dspy.Prediction(answer=f"{self.greeting}, {question}")


dspex.register("Raises")(misbehaving.Raises)
dspex.register("Sleeps")(misbehaving.Sleeps)


@dspex.register("GivesTooMuch")
class GivesTooMuch(dspy.Module):
    def forward(self, question: str):
        return dspy.Prediction(answer="\0" * 4_000_000)  # six times as long in JSON


@dspex.register("Crashes")
class Crashes(dspy.Module):
    def forward(self, question: str):
        os._exit(9)


@dspex.register("LeavesAProcess")
class LeavesAProcess(dspy.Module):
    """Starts a process that nobody waits for, and answers with its id."""

    def forward(self, question: str):
        child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(300)"])
        return dspy.Prediction(answer=child.pid)


@dspex.register("UsesATool")
class UsesATool(dspy.Module):
    """Answers with what a tool of Elixir's makes of a text."""

    def __init__(self, tool):
        super().__init__()
        self.tool = tool

    def forward(self, text: str):
        return dspy.Prediction(answer=self.tool(text=text))


_WORDS = [str(number * 7919 % 100_003) for number in range(100_000)]
_TEXT = json.dumps(_WORDS)
BURNERS = {
    "python": lambda: sum(number * number for number in range(20_000)),
    "sort": lambda: sorted(_WORDS),
    "json": lambda: json.loads(_TEXT),
    "regex": lambda: re.findall(r"(\d+)9(\d*)", _TEXT),
    "power": lambda: 7**200_000,
}


@dspex.register("Burns")
class Burns(dspy.Module):
    """Computes without a pause for a second, in Python or in C code that keeps the GIL."""

    def forward(self, what: str, seconds: float = 1.0):
        burn, ends = BURNERS[what], time.monotonic() + seconds
        rounds = 0
        while time.monotonic() < ends:
            burn()
            rounds += 1
        return dspy.Prediction(rounds=rounds)


@dspex.tool
def add(a: int, b: int = 1) -> int:
    """Adds two numbers."""
    return a + b


@dspex.tool
def fails(secret: str = "") -> str:
    """Never works."""
    raise LookupError(f"nothing found with sk-{'a' * 20}{secret}")


@dspex.tool
def waits() -> None:
    """Does not end by itself."""
    threading.Event().wait(60)


@dspex.tool
def nothing() -> None:
    """Returns nothing."""


@dspex.tool
def much() -> str:
    """Returns more than a message can hold."""
    return "x" * 20_000_000


@dspex.tool
def letters(count: int) -> str:
    """As many letters."""
    return "x" * count


@dspex.tool
def size(data) -> int:
    """How many bytes it was given."""
    return len(data)


@dspex.tool
async def later(text: str) -> str:
    """Answers in a moment."""
    await trio.lowlevel.checkpoint()
    return text


@dspex.tool
async def later_still() -> None:
    """Does not end by itself, and keeps no thread from ending."""
    await trio.sleep_forever()


@dspex.tool
def counts(count: int, fail_after: int = -1):
    """Yields as many numbers, and may fail on the way."""
    for number in range(count):
        if number == fail_after:
            raise LookupError("nothing more")
        yield {"number": number}


@dspex.tool
async def counts_later(count: int):
    """Yields as many numbers, from the loop."""
    for number in range(count):
        await trio.lowlevel.checkpoint()
        yield number


@dspex.tool
def counts_for_ever(mark: str):
    """Yields until it is closed, and leaves a file then."""
    try:
        yield from iter(int, 1)
    finally:
        pathlib.Path(mark).write_text("closed")
