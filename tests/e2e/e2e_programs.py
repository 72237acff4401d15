"""Programs that the worker under test loads: well-behaved ones, and ones that misbehave in every known way."""

import itertools
import sys
import threading

import dspy
from dspy.utils import DummyLM

import dspex_trio as dspex

_started = itertools.count()


@dspex.register("Echo")
class Echo(dspy.Module):
    """Asks a model of its own, so that no provider is needed."""

    def __init__(self, greeting: str = "hello"):
        super().__init__()
        self.greeting = greeting
        self.temperature = 0.0
        self.generate = dspy.Predict("question -> answer")

    def forward(self, question: str):
        with dspy.context(lm=DummyLM([{"answer": f"{self.greeting}, {question}"}])):
            return self.generate(question=question)


@dspex.register("Reports")
class Reports(dspy.Module):
    """Tells what it was configured with, and how often a constructor ran."""

    def __init__(self, signature="question -> answer"):
        super().__init__()
        self.constructed = next(_started)
        self.generate = dspy.Predict(signature)
        self.flavour = "plain"
        self.rounds = 1

    def forward(self, question: str):
        return dspy.Prediction(
            answer=question,
            config=dict(self.generate.config),
            flavour=self.flavour,
            rounds=self.rounds,
            instructions=self.generate.signature.instructions,
        )


@dspex.register("Raises")
class Raises(dspy.Module):
    def forward(self, question: str):
        try:
            {}["inner"]
        except KeyError as error:
            raise ValueError(f"cannot answer {question}") from error


@dspex.register("Exits")
class Exits(dspy.Module):
    def forward(self, question: str):
        sys.exit(3)


@dspex.register("RaisesInConstructor")
class RaisesInConstructor(dspy.Module):
    def __init__(self):
        raise RuntimeError("no constructor today")


@dspex.register("Sleeps")
class Sleeps(dspy.Module):
    """Blocks until the deadline ends it, or until a minute is over where nothing does."""

    def forward(self, question: str):
        threading.Event().wait(60)


class Opaque:
    pass


@dspex.register("GivesTheUnserialisable")
class GivesTheUnserialisable(dspy.Module):
    def forward(self, question: str):
        return dspy.Prediction(answer="fine", thing=Opaque())


@dspex.register("GivesTooMuch")
class GivesTooMuch(dspy.Module):
    def forward(self, question: str):
        return dspy.Prediction(answer="x" * 20_000_000)


@dspex.tool
def fails_always(question: str) -> str:
    """A tool that never works."""
    raise OSError(f"the tool cannot look up {question}")


@dspex.register("LetsToolsFail")
class LetsToolsFail(dspy.Module):
    def __init__(self, tools):
        super().__init__()
        self.helpers = tools

    def forward(self, question: str):
        return dspy.Prediction(answer=self.helpers[0](question=question))
