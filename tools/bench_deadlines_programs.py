"""The programs of `tools/bench_deadlines.py`, as a user would write them: each waits for what never comes."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any, Final

import dspy
import httpx  # noqa: ASYNC127 - what programs use
import requests
from dspy.utils import DummyLM

import dspex_trio as dspex

QUESTION: Final = "question -> answer"
DRAFTS: Final = 3
# Longer than the benchmark takes, in seconds.
LONG: Final = 300.0


class Wrapped(dspy.Module):  # type: ignore[misc] # mypy does not look into dspy
    """A module of DSPy's that takes another one."""

    def __init__(self) -> None:
        super().__init__()
        self.ask = dspy.Predict(QUESTION)


@dspex.register("bench.BestOfN")
class BestOfN(Wrapped):
    """The best of three answers."""

    def forward(self, question: str) -> dspy.Prediction:
        """Ask."""
        best = dspy.BestOfN(self.ask, N=DRAFTS, reward_fn=lambda *_: 0.0, threshold=1.0)
        return best(question=question)


@dspex.register("bench.Refine")
class Refine(Wrapped):
    """An answer that is refined three times."""

    def forward(self, question: str) -> dspy.Prediction:
        """Ask."""
        refined = dspy.Refine(self.ask, N=DRAFTS, reward_fn=lambda *_: 0.0, threshold=1.0)
        return refined(question=question)


@dspex.register("bench.Parallel")
class Parallel(Wrapped):
    """Two questions at once."""

    def forward(self, question: str) -> dspy.Prediction:
        """Ask."""
        pairs = [(self.ask, {"question": f"{question} {number}"}) for number in range(2)]
        return dspy.Prediction(answer=dspy.Parallel(num_threads=2, disable_progress_bar=True)(pairs))


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


@dspex.register("bench.Stubborn")
class Stubborn(dspy.Module):  # type: ignore[misc] # as above
    """A loop in Python that keeps whatever is an Exception."""

    def forward(self, question: str) -> None:
        """Never return."""
        while True:
            with suppress(Exception):
                question.encode()


@dspex.register("bench.Sleep")
class Sleep(dspy.Module):  # type: ignore[misc] # as above
    """A trial that takes ten milliseconds."""

    def forward(self, question: str) -> dspy.Prediction:
        """Sleep."""
        time.sleep(0.010)
        return dspy.Prediction(answer=question)


REGISTERED: Final[tuple[Callable[..., Any], ...]] = (BestOfN, Refine, Parallel, Requests, Httpx, Stubborn, Sleep)
