"""Programs for executors: ones that do to their process what would harm others in it."""

import logging
import os
import subprocess
import sys
import threading
import time
import warnings

import dspy
from dspy.utils import DummyLM

import dspex_trio as dspex


@dspex.elixir_tool
def shout(text: str) -> str:
    """Text in capitals."""
    return text.upper()


@dspex.tool
def process_of() -> int:
    """The number of the process."""
    return os.getpid()


@dspex.tool
def refuse() -> None:
    """Raise."""
    raise ValueError("about this")


@dspex.register("Harms")
class Harms(dspy.Module):
    """Does what it is told; returns what is left of it, and where."""

    def __init__(self, shout=None):
        super().__init__()
        self.shout = shout

    def forward(self, what: str, count: int = 1):
        return dspy.Prediction(pid=os.getpid(), done=WAYS[what](self, count))


def _print(_self, count):
    for _ in range(count):
        sys.stdout.write("noise on stdout\n")
        sys.stderr.write("noise on stderr\n")
        os.write(1, b"noise on 1\n")


def _close_streams(_self, _count):
    sys.stdout.close()
    sys.stderr.close()
    os.closerange(0, 3)


def _fork(_self, count):
    """Forks that go on, each in a session of its own, with all descriptors that it inherits."""
    pids = []
    for _ in range(count):
        if (pid := os.fork()) == 0:
            os.setsid()
            time.sleep(600)
            os._exit(0)
        pids.append(pid)
    return pids


def _start(_self, count):
    """Processes that nobody waits for; every second one has a session of its own."""
    command = [sys.executable, "-c", "import time; time.sleep(600)"]
    return [subprocess.Popen(command, start_new_session=bool(number % 2)).pid for number in range(count)]


def _bomb(_self, count):
    """Every process forks, for so many generations, and none of them ends."""
    for _ in range(count):
        os.fork()
    threading.Event().wait(600)


def _log(_self, count):
    for number in range(count):
        logging.getLogger("noise").warning("line %d", number)


def _print_past_the_log(_self, _count):
    logging.getLogger("dspy.some.module").warning("dspy says it")
    warnings.warn("python says it", stacklevel=1)
    thread = threading.Thread(target=lambda: 1 / 0)
    thread.start()
    thread.join()


def _log_much(_self, count):
    logging.getLogger("noise").warning("x" * count)


def _switch_seldom(_self, _count):
    sys.setswitchinterval(20)


def _write_to_descriptors(_self, _count):
    for descriptor in range(3, 64):
        try:
            os.write(descriptor, b"garbage" * 100)
        except OSError:
            continue


def _raise(_self, count):
    raise ValueError("x" * count)


def _be_answered(_self, count):
    with dspy.context(lm=DummyLM([{"answer": "x" * count}])):
        return len(dspy.Predict("question -> answer")(question="?").answer)


WAYS = {
    "start": _start,
    "print": _print,
    "close the streams": _close_streams,
    "close every descriptor": lambda _self, _count: os.closerange(3, 1000),
    "write to every descriptor": _write_to_descriptors,
    "fork": _fork,
    "bomb": _bomb,
    "log": _log,
    "log much": _log_much,
    "print past the log": _print_past_the_log,
    "switch seldom": _switch_seldom,
    "raise": _raise,
    "be answered": _be_answered,
    "write to the session": lambda self, count: self.session.set("temp", "x" * count),
    "return": lambda _self, count: "x" * count,
    "shout": lambda self, _count: self.shout(text="hello"),
    "leave the group": lambda _self, _count: os.setpgid(0, os.getpgid(os.getppid())) or time.sleep(600),
}
