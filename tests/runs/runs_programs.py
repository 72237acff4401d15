"""Programs without a language model, and a metric, for runs in processes of their own."""

import threading

import dspy

import dspex_trio as dspex


@dspex.register("runs.Shout")
class Shout(dspy.Module):
    """Answers in capitals; says on standard output when it has been called a hundred times."""

    calls = 0

    def __init__(self):
        super().__init__()
        self.mark = "!"

    def forward(self, question: str):
        Shout.calls += 1
        if Shout.calls == 100:
            print("a hundred", flush=True)  # noqa: T201 - told to the test
        return dspy.Prediction(answer=question.upper() + self.mark)


def hangs(expected, prediction):
    print("scoring", flush=True)  # noqa: T201 - told to the test
    threading.Event().wait()


def length(expected, prediction):
    return len(prediction["answer"]) / 10
