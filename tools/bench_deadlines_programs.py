"""The programs of `tools/bench_deadlines.py`, as a user would write them: each waits for what never comes."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, Final

import dspy
import httpx  # noqa: ASYNC127 - what programs use
import requests
from dspy.primitives.local_interpreter import LocalInterpreter
from dspy.utils import DummyLM

import dspex_trio as dspex
from dspex_trio.testing.faults.misbehaving import KeepsEveryException

QUESTION: Final = "question -> answer"
DRAFTS: Final = 3
# Longer than the benchmark takes, in seconds.
LONG: Final = 300.0


class Streamed(dspy.Module):  # type: ignore[misc] # mypy does not look into dspy
    """A module whose model is asked for a stream."""

    def __init__(self, asking: dspy.Module) -> None:
        super().__init__()
        self.asking = asking

    def forward(self, question: str) -> dspy.Prediction:
        """Ask, and take what comes."""
        last = dspy.Prediction()
        for last in dspy.streamify(self.asking, async_streaming=False)(question=question):  # noqa: B007 - the last counts
            pass
        return last


class InParallel(dspy.Module):  # type: ignore[misc] # as above
    """Two questions at once."""

    def __init__(self, asking: dspy.Module) -> None:
        super().__init__()
        self.asking = asking

    def forward(self, question: str) -> dspy.Prediction:
        """Ask."""
        pairs = [(self.asking, {"question": f"{question} {number}"}) for number in range(2)]
        return dspy.Prediction(answer=dspy.Parallel(num_threads=2, disable_progress_bar=True)(pairs))


def drafts(of: Callable[..., dspy.Module]) -> dspy.Module:
    """BestOfN or Refine of a Predict."""
    return of(dspy.Predict(QUESTION), N=DRAFTS, reward_fn=lambda *_: 0.0, threshold=1.0)


MODULES: Final[dict[str, Callable[[], dspy.Module]]] = {
    "Predict": lambda: dspy.Predict(QUESTION),
    "ChainOfThought": lambda: dspy.ChainOfThought(QUESTION),
    "ReAct": lambda: dspy.ReAct(QUESTION, tools=[]),
    "BestOfN": lambda: drafts(dspy.BestOfN),
    "Refine": lambda: drafts(dspy.Refine),
    "Parallel": lambda: InParallel(dspy.Predict(QUESTION)),
    "ProgramOfThought": lambda: dspy.ProgramOfThought(QUESTION, interpreter_factory=LocalInterpreter),
}


@dspex.register("bench.Asks")
class Asks(dspy.Module):  # type: ignore[misc] # as above
    """One of DSPy's modules, which asks a model that never answers."""

    def __init__(self, module: str, *, streaming: bool) -> None:
        super().__init__()
        asking = MODULES[module]()
        if not streaming:
            self.asking = asking
        elif isinstance(asking, InParallel):  # a stream needs the thread that it was begun in
            self.asking = InParallel(Streamed(asking.asking))
        else:
            self.asking = Streamed(asking)

    def forward(self, question: str) -> dspy.Prediction:
        """Ask."""
        return self.asking(question=question)


@dspex.register("bench.RunsCode")
class RunsCode(dspy.Module):  # type: ignore[misc] # as above
    """A ProgramOfThought whose code, in a process of its own, never ends."""

    def forward(self, question: str) -> dspy.Prediction:
        """Write the code and run it."""
        thought = {"reasoning": "Try.", "generated_code": "```python\nwhile True: pass\n```"}
        with dspy.context(lm=DummyLM([thought] * 5)):
            return dspy.ProgramOfThought(QUESTION, interpreter_factory=LocalInterpreter)(question=question)


class Agent(dspy.Module):  # type: ignore[misc] # as above
    """A ReAct whose model always calls its one tool, which asks somebody who never answers."""

    def __init__(self, url: str) -> None:
        super().__init__()
        self.url = url

    def forward(self, question: str) -> dspy.Prediction:
        """Call the tool."""
        step = {"next_thought": "Look it up.", "next_tool_name": "look_up", "next_tool_args": "{}"}
        agent = dspy.ReAct(QUESTION, tools=[dspy.Tool(self.look_up, name="look_up")], max_iters=5)
        with dspy.context(lm=DummyLM([step] * 5)):
            return agent(question=question)

    def look_up(self) -> str:
        """Look something up."""
        raise NotImplementedError


@dspex.register("bench.Requests")
class Requests(Agent):
    """With requests."""

    def look_up(self) -> str:
        """Look something up."""
        return requests.get(self.url, timeout=LONG).text


@dspex.register("bench.Httpx")
class Httpx(Agent):
    """With httpx."""

    def look_up(self) -> str:
        """Look something up."""
        return httpx.get(self.url, timeout=LONG).text


dspex.register("bench.Stubborn")(KeepsEveryException)


@dspex.register("bench.Sleep")
class Sleep(dspy.Module):  # type: ignore[misc] # as above
    """A trial that takes ten milliseconds."""

    def forward(self, question: str) -> dspy.Prediction:
        """Sleep."""
        time.sleep(0.010)
        return dspy.Prediction(answer=question)


REGISTERED: Final[tuple[Callable[..., Any], ...]] = (Asks, RunsCode, Requests, Httpx, KeepsEveryException, Sleep)
