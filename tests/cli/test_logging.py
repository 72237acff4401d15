"""What the commands log, in a process of its own, as it sets up logging for all of it."""

import json
import subprocess
import sys

import pytest

SET_UP = """
import logging, sys, threading, warnings
from dspex_trio.cli.log.setup import set_up_logging
set_up_logging("info", ["the-secret"], "json")
"""


def logged(program):
    done = subprocess.run(
        [sys.executable, "-c", SET_UP + program], capture_output=True, text=True, timeout=60, check=True
    )
    return [json.loads(line) for line in done.stderr.splitlines()]


def test_the_last_lines_before_the_end_are_written_and_in_order():
    program = """
for number in range(1000):
    logging.getLogger("dspex_trio.some" if number % 2 else "another").info("%d", number)
"""
    assert [line["event"] for line in logged(program)] == [str(number) for number in range(1000)]


@pytest.mark.parametrize(
    ("program", "event"),
    [
        ("threading.Thread(target=lambda: 1 / 0, name='t').start()", "the thread 't' ended by an exception"),
        ("def fail(self): raise ValueError('the-secret')\ntype('Odd', (), {'__del__': fail})()", "ignored in"),
        ("warnings.warn('of the-secret')", "of [redacted]"),
    ],
)
def test_what_python_itself_would_print_is_logged_without_secrets(program, event):
    """Printing waits for standard error, in whichever thread it is, and knows of no secrets."""
    [line] = logged(program)
    assert event in line["event"]
    assert "the-secret" not in json.dumps(line)


def test_a_thread_that_exits_says_nothing():
    assert logged("threading.Thread(target=sys.exit).start()") == []


def test_our_own_records_reach_a_handler_on_the_root_logger_through_a_thread_and_are_logged_once():
    program = """
import _thread
own, came = _thread.get_ident(), threading.Event()
class Theirs(logging.Handler):
    def emit(self, record):
        sys.stdout.write(f"{record.getMessage()} {_thread.get_ident() == own}")
        came.set()
logging.root.addHandler(Theirs())
logging.getLogger("dspex_trio.some").info("said")
came.wait()
"""
    done = subprocess.run(
        [sys.executable, "-c", SET_UP + program], capture_output=True, text=True, timeout=60, check=True
    )
    assert done.stdout == "said False"
    assert done.stderr.count("said") == 1
