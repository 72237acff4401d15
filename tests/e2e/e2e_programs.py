"""Programs that the worker under test loads: well-behaved ones, and ones that misbehave in every known way."""

import itertools

import dspy
from dspy.utils import DummyLM

import dspex_trio as dspex
from dspex_trio.testing.faults import misbehaving

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


for _program in (
    *(misbehaving.Raises, misbehaving.RaisesInConstructor, misbehaving.Exits, misbehaving.Sleeps),
    *(misbehaving.GivesTheUnserialisable, misbehaving.GivesTooMuch),
):
    dspex.register(_program.__name__)(_program)


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
