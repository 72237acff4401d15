"""What tests of runs share: trials, outcomes, and a worker that answers with them."""

import json

import trio

from dspex_trio.model import Cost, LmCall, Timings, TraceEntry, TrialFailure, TrialSuccess, Usage
from dspex_trio.model.errors import FailureKind, Stage
from dspex_trio.runs import read_plan
from dspex_trio.wire import encode_json

PROGRAM = {"python_class": "dspy.Predict", "signature": "question -> answer"}
GOOD = TrialSuccess(
    {"answer": "four"}, timings=Timings(total_ms=20.0), cost=Cost(0.5, known=True, usage=Usage(3, 2, 5), lm_calls=1)
)
BUSY = TrialFailure(FailureKind.OVERLOADED, Stage.ADMISSION, "E", "busy", retryable=True, retry_after=7.0)
BROKEN = TrialFailure(FailureKind.PROGRAM_ERROR, Stage.EXECUTE, "E", "broken")


def lines(*objects):
    return [encode_json(each).decode() for each in objects]


def plan(count=1, program=PROGRAM, **given):
    return read_plan(
        lines(*({"id": f"t{n}", "inputs": {"question": str(n)}, **given} for n in range(count))), program=program
    )


def traced(model):
    """A call of that model, as a trace has it."""
    return (TraceEntry("self", "Predict", "q -> a", {}, {}, lm_calls=(LmCall(model, messages_json='"long"'),)),)


class Worker:
    """Answers with what it is given, one after the other; the last one for ever."""

    def __init__(self, *answers, name="w"):
        self.name = name
        self.answers = list(answers)
        self.ran = []

    async def run(self, trial, timeout):  # noqa: ASYNC109 - as in the Protocol
        await trio.lowlevel.checkpoint()
        self.ran.append((trial.id, trio.current_time(), timeout))
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if isinstance(answer, Exception):
            raise answer
        return answer


def in_file(path):
    """The lines of a file of results."""
    return [json.loads(line) for line in path.read_text().splitlines()]
