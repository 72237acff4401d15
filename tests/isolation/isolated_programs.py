"""Programs for child processes: well-behaved ones, and ones that only a kill ends, or that end their process."""

import logging
import os
import re
import subprocess
import sys

import dspy
from dspy.utils import DummyLM

import dspex_trio as dspex
from dspex_trio.testing.faults import misbehaving


class Opaque:
    pass


def _answering(*answers):
    return dspy.context(lm=DummyLM([{"answer": answer} for answer in answers]))


@dspex.register("Does")
class Does(dspy.Module):
    """Asks a model, then does what it is told."""

    def __init__(self):
        super().__init__()
        self.ask = dspy.Predict("question -> answer")

    def forward(self, what: str):
        with _answering("yes", "no"):
            asked = self.ask(question=what)
        return WAYS[what](self) or asked

    def do_pid(self):
        return dspy.Prediction(pid=os.getpid())

    def do_tell_the_span(self):
        from opentelemetry import trace

        return dspy.Prediction(span=f"{trace.get_current_span().get_span_context().span_id:016x}")

    def do_completions(self):
        return dspy.Prediction.from_completions({"answer": ["one", "two"]})

    def do_session(self):
        before = self.session.get("temp")
        self.session.set("temp", 0.9)
        return dspy.Prediction(before=before)

    def do_session_in_parallel(self):
        def get():
            return self.session.get("temp")

        found = dspy.Parallel(num_threads=2, disable_progress_bar=True)([(_Calls(get), {}), (_Calls(get), {})])
        return dspy.Prediction(found=found)

    def do_missing_variable(self):
        self.session.get("no such variable")

    def do_log(self):
        logging.getLogger("of.the.program").warning("something is %s", "odd")

    def do_start_a_process(self):
        process = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
        self.session.set("temp", float(process.pid))
        re.match("(a+)+b", "a" * 64)


WAYS = {
    "answer": lambda self: None,
    "give the pid": Does.do_pid,
    "give completions": Does.do_completions,
    "tell the span": Does.do_tell_the_span,
    "give what is no JSON": lambda self: dspy.Prediction(answer="fine", thing=Opaque()),
    "give bytes and no number": lambda self: dspy.Prediction(raw=b"\x00\xff", none=None, nan=float("nan")),
    "use the session": Does.do_session,
    "use the session in parallel": Does.do_session_in_parallel,
    "read what is not there": Does.do_missing_variable,
    "log": Does.do_log,
    "raise": lambda self: {}["key"],
    "exit politely": lambda self: misbehaving.Exits()(),
    "sleep": lambda self: misbehaving.Sleeps()(),
    "wait": lambda self: misbehaving.WaitsForQueue()(),
    "hang in C": lambda self: misbehaving.HangsInC()(),
    "loop": lambda self: misbehaving.Loops()(),
    "start a process": Does.do_start_a_process,
    "exit": lambda self: misbehaving.EndsProcess()(),
    "crash": lambda self: misbehaving.Crashes()(),
    "be killed": lambda self: misbehaving.KillsProcess()(),
}


class _Calls(dspy.Module):
    def __init__(self, function):
        super().__init__()
        self.function = function

    def forward(self):
        return self.function()


@dspex.register("Isolated", isolation="process")
class Isolated(dspy.Module):
    def forward(self):
        return dspy.Prediction(pid=os.getpid())


@dspex.register("Unisolated", isolation="thread")
class Unisolated(dspy.Module):
    def forward(self):
        return dspy.Prediction(pid=os.getpid())


@dspex.register("AsTheWorkerSays")
class AsTheWorkerSays(dspy.Module):
    def forward(self):
        return dspy.Prediction(pid=os.getpid())
