"""The tests of this project wait for what they need, and not for a time to pass."""

import ast
from functools import cache
from pathlib import Path

import pytest

TESTS = Path(__file__).parents[1]
SLEEPS = {("time", "sleep"), ("trio", "sleep"), ("trio", "sleep_until"), ("asyncio", "sleep"), ("anyio", "sleep")}
CLOCKS = {"virtual_clock"}  # of which the kit sees to it that it is taken
MAKERS = {"VirtualClock", "run_schedule", "schedules"}
TRIOS_OWN = {"autojump_clock", "mock_clock"}
ABOUT_TRIOS_OWN = {"trials/test_margin.py"}

# So long nobody sleeps in a test: such a sleep is there to be woken, cancelled or killed.
ENDLESS = 60
# Where time passes that is no test's to choose.
ALLOWED = {
    "e2e/conftest.py::Process": "a file that another process writes can only be looked for",
    "cli/test_signals.py::exists": "the same, where no log can be read",
    "children/test_starting.py::test_children_go_to_who_asked_for_them_though_others_gave_up": "grandchildren",
    "children/test_starting.py::test_who_waits_while_the_next_warm_parent_fails_waits_for_the_one_after_that": "a log",
    "children/test_starting.py::test_a_child_that_closed_its_connection_gets_nothing_more": "another process's end",
    "executors/conftest.py::Front": "what executors do, which are other processes",
    "executors/test_front.py::test_executors_that_are_killed_again_and_again_cost_their_trials_alone": "the same",
    "executors/scripted.py::ScriptedChild": "its tests run in virtual time",
    "executors/scripted.py::Site": "the same",
    "rpc/test_undelivered.py::closed": "its test runs in virtual time",
    "snakepit/waiting.py::wait_until": "what a process does that is no child of ours can only be looked for",
    "snakepit/soak.py::burn": "a soak is about real time",
    "threads/test_waking.py::test_a_process_that_a_job_forks_waits_as_without_the_seam": "no clock reaches a fork",
}


def sleeps_in(tree):
    """Each sleep that takes real time and is waited out: its outermost definition, and the line."""
    bare = {
        alias.asname or alias.name
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
        if (node.module, alias.name) in SLEEPS
    }
    scheduled = bool(names_in(tree) & {"run_schedule", "schedules"})  # what is no test is run by one of these
    for outer in tree.body:
        if is_function(outer) and in_virtual_time(outer):
            continue
        its_own = not getattr(outer, "name", "").startswith("test_")
        if its_own and scheduled:
            continue
        for node in ast.walk(outer):
            if isinstance(node, ast.Call) and is_sleep(node.func, bare) and not harmless(node, its_own):
                yield getattr(outer, "name", "<module>"), node.lineno


def is_function(node):
    return isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)


def in_virtual_time(function):
    """Whether it names a clock among its arguments, where alone pytest-trio looks for one, or makes one.

    A clock that only a fixture takes would be no clock of the test's.
    """
    return bool(arguments_of(function) & CLOCKS or names_in(function) & MAKERS)


def arguments_of(function):
    return {argument.arg for argument in (*function.args.args, *function.args.kwonlyargs)}


def names_in(tree):
    return {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)}


def is_sleep(function, bare):
    match function:
        case ast.Attribute(ast.Name(module), name):
            return (module, name) in SLEEPS
        case ast.Name(name):
            return name in bare
    return False


def harmless(call, caller_chooses):
    """A sleep of 0 is a checkpoint; and what a helper sleeps is no time of its own if it is told it."""
    match call.args:
        case [ast.Constant(int() | float() as seconds), *_]:
            return seconds == 0 or seconds >= ENDLESS
        case [ast.Name(name), *_] if name.isupper():
            return False
    return caller_chooses


@cache
def found():
    return {
        f"{path.relative_to(TESTS).as_posix()}::{name}": line
        for path in sorted(TESTS.rglob("*.py"))
        if "sleep" in (text := path.read_text(encoding="utf-8"))
        for name, line in sleeps_in(ast.parse(text))
    }


def test_no_test_sleeps_in_real_time():
    """What is only true after a while on one machine is false on another; and the suite's time is everybody's."""
    assert {where: line for where, line in found().items() if where not in ALLOWED} == {}


def test_virtual_time_is_the_kits():
    """Trio's own clock jumps while a thread is busy, and nobody says so where a fixture alone takes it."""
    used = {
        path.relative_to(TESTS).as_posix()
        for path in TESTS.rglob("*.py")
        if any(name in (text := path.read_text(encoding="utf-8")) for name in TRIOS_OWN)
        for node in ast.walk(ast.parse(text))
        if isinstance(node, ast.arg) and node.arg in TRIOS_OWN
    }
    assert used == ABOUT_TRIOS_OWN


def test_nothing_is_allowed_that_nobody_needs():
    assert set(ALLOWED) <= set(found())


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("async def test_a():\n    await trio.sleep(0.1)", [("test_a", 2)]),
        ("from time import sleep as nap\ndef test_a():\n    nap(1)", [("test_a", 3)]),
        ("class A:\n    def run(self):\n        time.sleep(0.1)", [("A", 3)]),
        ("class A:\n    def run(self):\n        time.sleep(self.seconds)", []),
        ("def test_a():\n    time.sleep(SHORT)", [("test_a", 2)]),
        (
            "@pytest.fixture\ndef late(virtual_clock): ...\nasync def test_a(late):\n    await trio.sleep(1)",
            [("test_a", 4)],
        ),
        ("def test_a():\n    trio.run(lambda: trio.sleep(1), clock=VirtualClock())", []),
        ("async def test_a(virtual_clock):\n    await trio.sleep(0.1)", []),
        ("@pytest.mark.usefixtures('virtual_clock')\nasync def test_a():\n    await trio.sleep(1)", [("test_a", 3)]),
        ("async def test_a():\n    await trio.sleep(0)", []),
        ("def test_a():\n    subject(lambda: time.sleep(600))", []),
        ("async def test_a():\n    await trio.sleep_forever()", []),
    ],
)
def test_the_rule_itself(source, expected):
    assert list(sleeps_in(ast.parse(source))) == expected
