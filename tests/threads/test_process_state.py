"""What programs change in their process is told; in a process of our own it is put back when no program runs."""

import decimal
import gc
import io
import locale
import logging
import os
import resource
import signal
import socket
import sys
import threading
import warnings

import pytest

from dspex_trio.threads.ladder.fairness import Turns
from dspex_trio.threads.patches import process_state
from dspex_trio.threads.patches.process_state import ProcessState, put_back_what_programs_change


@pytest.fixture(autouse=True)
def _as_it_was():
    before = process_state._read()
    added = set(os.environ)
    yield
    for part, was in zip(process_state._PARTS, before, strict=True):
        part.write(was, part.read())
    for name in set(os.environ) - added:
        del os.environ[name]
    process_state._ours.clear()


@pytest.fixture
def ours():
    put_back_what_programs_change()


def replace_stdout():
    sys.stdout = io.StringIO()


def silence_the_log():
    logging.disable(logging.CRITICAL)
    logging.root.handlers.clear()


def lower_the_limit_of_files():
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft - 1, hard))


CHANGES = [
    (lambda: sys.setrecursionlimit(4321), sys.getrecursionlimit, "the recursion limit"),
    (gc.disable, gc.isenabled, "the garbage collector"),
    (lambda: gc.set_threshold(1), gc.get_threshold, "the garbage collector"),
    (lambda: threading.settrace(lambda *_: None), threading.gettrace, "tracing of threads"),
    (lambda: threading.setprofile(lambda *_: None), threading.getprofile, "tracing of threads"),
    (lambda: os.chdir("/"), os.getcwd, "the working directory"),
    (lambda: os.environ.update(HOME="/nowhere"), lambda: os.environ["HOME"], "the environment (HOME)"),
    (lambda: os.environ.pop("HOME"), lambda: os.environ.get("HOME"), "the environment (HOME)"),
    (lambda: locale.setlocale(locale.LC_ALL, "C.UTF-8"), lambda: locale.setlocale(locale.LC_ALL), "the locale"),
    (lambda: warnings.simplefilter("error"), lambda: list(warnings.filters), "the warnings filters"),
    (silence_the_log, lambda: (logging.root.manager.disable, *logging.root.handlers), "the root logger"),
    (lambda: socket.setdefaulttimeout(0.001), socket.getdefaulttimeout, "the default timeout of sockets"),
    (lambda: os.umask(0o125), process_state._umask, "the umask"),
    (lower_the_limit_of_files, lambda: resource.getrlimit(resource.RLIMIT_NOFILE), "a resource limit"),
    (lambda: signal.alarm(3600), lambda: signal.getitimer(signal.ITIMER_REAL) != (0, 0), "the alarm clock"),
    (replace_stdout, lambda: sys.stdout, "the standard streams"),
    (lambda: setattr(decimal.DefaultContext, "prec", 3), lambda: decimal.DefaultContext.prec, "decimal.DefaultContext"),
    (lambda: sys.setswitchinterval(0.03), sys.getswitchinterval, "the switch interval"),
]


@pytest.fixture
def _something_to_change(monkeypatch):
    warnings.filters[:] = [each for each in warnings.filters if each[0] != "error"]
    warnings._filters_mutated()
    locale.setlocale(locale.LC_ALL, "C")
    monkeypatch.setenv("HOME", "/home/of/somebody")


@pytest.mark.usefixtures("_something_to_change")
@pytest.mark.parametrize(("change", "look", "name"), CHANGES)
def test_a_change_is_told_and_put_back(ours, change, look, name):
    told = []
    before = look()
    with ProcessState().watching(told.append):
        change()
        assert look() != before
    assert told == [f"while the program ran, {name} of its process was changed"]
    assert look() == before


def test_nothing_is_told_of_a_program_that_changes_nothing(ours):
    told = []
    with ProcessState().watching(told.append):
        warnings.filterwarnings("ignore", message="nobody's business")
    assert told == []
    with warnings.catch_warnings():
        pass


def test_in_a_process_that_is_not_ours_it_is_told_alone():
    """Its other code may have changed it."""
    told = []
    with ProcessState().watching(told.append):
        sys.setrecursionlimit(4321)
    assert sys.getrecursionlimit() == 4321
    assert len(told) == 1


def test_while_another_program_runs_it_is_told_once_and_put_back_after_both(ours):
    """That one may need it."""
    state, first, second = ProcessState(), [], []
    before = sys.getrecursionlimit()
    one, other = state.watching(first.append), state.watching(second.append)
    one.__enter__()
    other.__enter__()
    sys.setrecursionlimit(4321)
    one.__exit__(None, None, None)
    assert sys.getrecursionlimit() == 4321
    other.__exit__(None, None, None)
    assert sys.getrecursionlimit() == before
    assert (len(first), second) == (1, [])


def test_variables_that_are_new_stay_since_modules_set_them_when_they_are_imported(ours):
    told = []
    with ProcessState().watching(told.append):
        os.environ["DSPEX_TEST_NEW"] = "secret"
    assert os.environ["DSPEX_TEST_NEW"] == "secret"
    assert told == ["while the program ran, the environment (DSPEX_TEST_NEW) of its process was changed"]


def test_a_directory_that_is_gone_is_no_error(ours, tmp_path):
    gone = tmp_path / "gone"
    gone.mkdir()
    os.chdir(gone)
    told = []
    with ProcessState().watching(told.append):
        os.chdir("/")
        gone.rmdir()
    assert len(told) == 1
    os.chdir("/")


def test_the_interval_that_is_wished_is_no_change_of_a_programs(ours):
    told = []
    with Turns(0.002) as turns:
        with ProcessState().watching(told.append):
            for _ in range(20):
                turns.sampled(computing=False)
        assert told == []
        sys.setswitchinterval(0.03)
        turns.sampled(computing=True)
        assert sys.getswitchinterval() == pytest.approx(0.002)
