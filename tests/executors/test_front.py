"""Programs in executor processes: nothing they do keeps the front from answering, or costs more than their executor."""

import logging
import os
import signal
from contextlib import suppress
from pathlib import Path

import pytest
import trio

import dspex_trio as dspex
from dspex_trio.model import LmFinished, LmStarted, StageStarted

from ..isolation.test_isolated_trials import BOUND, FAILING, comparable, make_session  # noqa: TID252 - no package
from ..snakepit.waiting import alive  # noqa: TID252 - as above
from .conftest import open_front

# What a trial gets that outlives it, in seconds.
SHORT = 1.0


@pytest.fixture
def session(front, in_threads, request):
    """A session of that name in both stores."""
    name = request.node.name
    for runtime in (front, in_threads):
        runtime.call(make_session, runtime.runtime, name)
    return name


@pytest.mark.parametrize(
    "what",
    [
        "answer",
        "give completions",
        "give what is no JSON",
        "give bytes and no number",
        "use the session",
        "use the session in parallel",
        "read what is not there",
        "raise",
        "exit politely",
        "no such way",
    ],
)
def test_an_outcome_is_the_same_as_from_a_thread(front, in_threads, session, what):
    """But for times, and for the frames of ours in a traceback."""
    outcomes = [
        comparable(runtime.trial(BOUND, {"what": what}, session=session, trial_id="t"))
        for runtime in (in_threads, front)
    ]
    assert outcomes[0] == outcomes[1]
    assert isinstance(outcomes[0], dspex.TrialSuccess) is (what not in FAILING)
    assert outcomes[0].variables["temperature"].value == 0.5


@pytest.mark.parametrize(("what", "rung"), [("sleep", "wake"), ("wait", "wake"), ("loop", "raise")])
def test_what_the_executor_can_end_it_ends_and_says_how(front, what, rung):
    before = front.pids()
    outcome = front.does(what, seconds=SHORT)
    assert (outcome.kind.name, outcome.stage.name) == ("DEADLINE_EXCEEDED", "EXECUTE")
    assert (outcome.details["rung"], outcome.details["stuck"]) == (rung, "false")
    assert "answered_by" not in outcome.details
    assert [entry.predictor for entry in outcome.partial_trace] == ["ask"]
    assert front.pids() == before


# ---- what stops an executor


def test_the_front_answers_for_an_executor_that_holds_the_gil_and_a_neighbour_is_not_disturbed(front):
    async def both():
        outcomes = []
        before = set(front.fleet.pids())
        async with trio.open_nursery() as nursery:

            @nursery.start_soon
            async def hangs():
                with trio.move_on_after(SHORT):
                    outcomes.append(await front.runtime.run_trial(dspex.Program("Does"), {"what": "hang in C"}))

            await trio.testing.wait_all_tasks_blocked()
            with trio.fail_after(60):
                near = [await front.runtime.run_trial(dspex.Program("Harms"), {"what": "print"}) for _ in range(3)]
        return outcomes, before, near

    (outcome,), before, near = front.call(both)
    assert (outcome.kind.name, outcome.stage.name) == ("DEADLINE_EXCEEDED", "EXECUTE")
    assert outcome.details["answered_by"] == "front"
    assert [(entry.predictor, entry.outputs) for entry in outcome.partial_trace] == [("ask", {"answer": "yes"})]
    assert (outcome.cost.lm_calls, outcome.cost.known) == (1, False)
    (other,) = {each.prediction["pid"] for each in near}
    front.until(lambda: not before <= set(front.fleet.pids()))  # the grace is over
    front.until_whole()
    assert other in front.pids()


@pytest.mark.parametrize(
    ("what", "how"),
    [
        ("exit", "exit code 7"),
        ("crash", "SIGSEGV"),
        ("be killed", "SIGKILL, most often sent by the kernel when memory runs out"),
    ],
)
def test_an_executor_that_dies_is_a_failure_that_says_how_and_can_be_tried_again(front, what, how):
    outcome = front.does(what, trial_id="t")
    assert (outcome.kind.name, outcome.stage.name, outcome.retryable) == ("WORKER_LOST", "EXECUTE", True)
    assert how in outcome.error_message
    assert [entry.predictor for entry in outcome.partial_trace] == ["ask"]
    assert (outcome.cost.lm_calls, outcome.trial_id) == (1, "t")


def sleeping(front, nursery, count, seconds=60):
    """Begin trials that sleep; their outcomes come into the list, and who is returned waits until all of them run."""
    outcomes, running = [], []

    async def trial():
        begun = trio.Event()
        running.append(begun)

        def watch(event):
            if isinstance(event, LmFinished):
                begun.set()

        with trio.move_on_after(seconds):
            outcomes.append(await front.runtime.run_trial(dspex.Program("Does"), {"what": "sleep"}, watch=watch))

    async def all_run():
        await trio.testing.wait_all_tasks_blocked()
        for each in running:
            await each.wait()

    for _ in range(count):
        nursery.start_soon(trial)
    return outcomes, all_run


def test_a_stopped_executor_is_answered_for_then_killed_and_replaced(front):
    async def stopped():
        before = front.fleet.pids()
        async with trio.open_nursery() as nursery:
            outcomes, all_run = sleeping(front, nursery, 2, SHORT)
            await all_run()
            os.kill(before[0], signal.SIGSTOP)
        return before, outcomes

    before, outcomes = front.call(stopped)
    assert sorted(outcome.details.get("answered_by", "executor") for outcome in outcomes) == ["executor", "front"]
    assert {outcome.kind.name for outcome in outcomes} == {"DEADLINE_EXCEEDED"}
    front.until(lambda: before[0] not in front.fleet.pids())
    front.until_whole()
    assert before[1] in front.pids()


def test_all_executors_lost_with_their_warm_parent_come_back(front):
    async def killed():
        before = front.fleet.pids()
        async with trio.open_nursery() as nursery:
            outcomes, all_run = sleeping(front, nursery, 4)
            await all_run()
            (parent,) = {parent_of(pid) for pid in before}
            os.kill(parent, signal.SIGKILL)
        return before, outcomes

    before, outcomes = front.call(killed)
    assert [(outcome.kind.name, outcome.retryable) for outcome in outcomes] == [("WORKER_LOST", True)] * 4
    front.until_whole()
    assert not set(before) & set(front.pids())
    assert isinstance(front.does("answer"), dspex.TrialSuccess)


@pytest.mark.parametrize("by", [signal.SIGKILL, signal.SIGTERM, signal.SIGHUP])
def test_what_programs_started_ends_with_the_warm_parent(front, by):
    """Also in a session of its own; nobody is left who could know it as a child."""
    started = front.trial("Harms", {"what": "start", "count": 4}).prediction["done"]
    os.kill(parent_of(front.pids()[0]), by)
    front.until(lambda: not any(map(alive, started)))
    front.until_whole()


def test_executors_that_are_killed_again_and_again_cost_their_trials_alone(front):
    """Every trial has an outcome, and everything is whole again."""

    async def killed():
        outcomes = []
        async with trio.open_nursery() as nursery:
            for _ in range(12):
                nursery.start_soon(trial, outcomes)
            for _ in range(6):
                with trio.fail_after(30):
                    while len(pids := front.fleet.pids()) < 2:  # noqa: ASYNC110 - other processes set no events
                        await trio.sleep(0.01)
                for pid in pids:
                    with suppress(ProcessLookupError):  # the front has not been told yet of the last kill
                        os.kill(pid, signal.SIGKILL)
        return outcomes

    async def trial(outcomes):
        with trio.move_on_after(60):
            outcomes.append(await front.runtime.run_trial(dspex.Program("Does"), {"what": "answer"}))

    outcomes = front.call(killed)
    assert len(outcomes) == 12
    assert {"success" if isinstance(each, dspex.TrialSuccess) else each.kind.name for each in outcomes} <= {
        "success",
        "WORKER_LOST",
    }


def test_nothing_of_replaced_executors_stays_open(front):
    """Sockets, watches of processes, and what waits for them."""

    def replace():
        (pid, *_) = front.pids()
        os.kill(pid, signal.SIGKILL)
        front.until(lambda: pid not in front.fleet.pids())
        front.until_whole()

    async def answered():
        for _ in range(2):
            await front.runtime.run_trial(dspex.Program("Does"), {"what": "answer"})

    def held():
        async def tasks():
            return len(front.fleet._nursery.child_tasks)

        return len([*Path("/proc/self/fd").iterdir()]), front.call(tasks)

    replace()
    front.call(answered)
    before = held()
    for _ in range(10):
        front.call(answered)  # one that has answered nothing is not replaced at once
        replace()
    assert held() == before


def parent_of(pid):
    return int(stat(pid)[1])


def stat(pid):
    return Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()


def is_there(pid):
    """Whether a process runs; one that has ended and is not waited for does not."""
    try:
        return stat(pid)[0] != "Z"
    except OSError:
        return False


# ---- what programs do to their process


@pytest.mark.parametrize("what", ["print", "close the streams", "switch seldom"])
def test_what_a_program_does_to_the_streams_and_the_interpreter_harms_nobody(front, what):
    def harm():
        return front.trial("Harms", {"what": what})

    assert isinstance(harm(), dspex.TrialSuccess)
    assert [type(front.does("answer")) for _ in range(4)] == [dspex.TrialSuccess] * 4
    assert isinstance(harm(), dspex.TrialSuccess)


@pytest.mark.parametrize("what", ["close every descriptor", "write to every descriptor"])
def test_a_program_that_cuts_its_executor_off_costs_that_executor(front, what):
    before = set(front.pids())
    outcome = front.trial("Harms", {"what": what})
    assert (outcome.kind.name, outcome.retryable) == ("WORKER_LOST", True)
    front.until_whole()
    assert len(before & set(front.pids())) == 1
    assert isinstance(front.does("answer"), dspex.TrialSuccess)


def test_processes_that_a_program_forked_end_with_its_executor(front):
    """Also those that left its process group; they keep no connection open either."""
    outcome = front.trial("Harms", {"what": "fork", "count": 3})
    pid, forked = outcome.prediction["pid"], outcome.prediction["done"]
    assert [is_there(each) for each in forked] == [True] * 3
    os.kill(pid, signal.SIGKILL)
    front.until(lambda: pid not in front.fleet.pids())
    front.until(lambda: not any(map(is_there, forked)))


def test_a_fork_bomb_ends_with_its_executor(front):
    outcome = front.trial("Harms", {"what": "bomb", "count": 5}, seconds=SHORT)
    assert outcome.kind.name == "DEADLINE_EXCEEDED"
    pids = front.pids()
    groups = {pid: [each for each in processes() if group_of(each) == pid] for pid in pids}
    (bombed,) = [pid for pid in pids if len(groups[pid]) > 1]
    assert len(groups[bombed]) == 32
    os.kill(bombed, signal.SIGKILL)
    front.until(lambda: not any(map(is_there, groups[bombed])))


def test_a_program_that_moves_its_executor_to_another_group_is_killed_all_the_same(front):
    outcome = front.trial("Harms", {"what": "leave the group"}, seconds=SHORT)
    assert outcome.kind.name == "DEADLINE_EXCEEDED"
    here = os.getpgid(0)
    (moved,) = [pid for pid in front.pids() if os.getpgid(pid) != pid]
    assert os.getpgid(moved) != here

    async def kill():
        for each in front.fleet._executors:
            if each.child.started.pid == moved:
                each.child.kill("for the test")

    front.call(kill)
    front.until(lambda: not is_there(moved))


def processes():
    return [int(each.name) for each in Path("/proc").iterdir() if each.name.isdigit()]


def group_of(pid):
    try:
        return os.getpgid(pid)
    except ProcessLookupError:
        return 0


def test_a_line_of_the_log_that_is_too_long_is_cut(front, caplog):
    before = front.pids()
    with caplog.at_level(logging.WARNING):
        assert isinstance(front.trial("Harms", {"what": "log much", "count": 40_000_000}), dspex.TrialSuccess)
    ((line,),) = [[message] for name, _, message in caplog.record_tuples if name == "noise"]
    assert len(line) < 100_000
    assert line.startswith("xxx")
    assert front.pids() == before


@pytest.mark.parametrize(
    ("what", "kind"),
    [
        ("return", "SERIALIZATION_ERROR"),
        ("raise", "PROGRAM_ERROR"),
        ("be answered", "success"),
        ("write to the session", "VARIABLE_INVALID"),
    ],
)
def test_what_is_too_large_costs_its_own_trial(front, session, what, kind):
    """The front keeps no connection on which more comes than it takes; so the executor must not send it."""
    before = front.pids()
    outcome = front.trial("Harms", {"what": what, "count": 40_000_000}, session=session)
    assert (outcome.kind.name if isinstance(outcome, dspex.TrialFailure) else "success") == kind, outcome.error_message
    assert front.pids() == before


# ---- what comes through


def test_what_a_program_logs_is_in_the_fronts_log(front, caplog):
    with caplog.at_level(logging.WARNING):
        front.does("log")
    assert ("of.the.program", logging.WARNING, "something is odd") in caplog.record_tuples


def test_what_libraries_and_python_would_print_in_an_executor_is_in_the_fronts_log(front, caplog):
    """On standard error of their own it would be neither JSON nor redacted."""
    with caplog.at_level(logging.WARNING):
        assert isinstance(front.trial("Harms", {"what": "print past the log"}), dspex.TrialSuccess)
    for text in ("dspy says it", "UserWarning: python says it", "ZeroDivisionError"):
        assert caplog.text.count(text) == 1


def test_whoever_watches_is_told_what_happens_in_the_executor(front):
    seen = []
    front.does("answer", watch=seen.append)
    told = [event.stage.name if isinstance(event, StageStarted) else type(event) for event in seen]
    assert told == ["ADMISSION", "SESSION", "HYDRATE", "SYNC", "EXECUTE", LmStarted, LmFinished, "SERIALIZE"]
    assert (seen[5].predictor, seen[6].lm_call.model) == ("ask", "dummy")


def test_a_watch_that_raises_costs_no_executor(front, caplog):
    def watch(event):
        if isinstance(event, LmStarted):
            raise KeyError("of the watch")

    before = front.pids()
    assert isinstance(front.does("answer", watch=watch), dspex.TrialSuccess)
    assert front.pids() == before
    assert "whoever watches a trial raised" in caplog.text


def test_a_tool_of_the_operator_is_called_in_an_executor(front):
    async def call(name):
        with trio.fail_after(60):
            return await front.runtime.call_tool(name, {})

    from dspex_trio.executors.shared import RemoteFailure
    from dspex_trio.wire import decode_any

    assert {spec.name for spec in front.runtime.tool_specs()} >= {"process_of", "refuse"}
    assert decode_any(front.call(call, "process_of")) in front.pids()
    with pytest.raises(RemoteFailure, match="about this") as raised:
        front.call(call, "refuse")
    assert raised.value.failure.kind.name == "TOOL_ERROR"


def test_a_function_that_stands_in_for_an_elixir_tool_is_called_in_an_executor(front, session):
    program = dspex.Program("Harms", dependencies={"shout": {"elixir_tool": "shout"}})
    outcome = front.trial(program, {"what": "shout"}, session=session)
    assert outcome.prediction["done"] == "HELLO"


def test_a_program_that_logs_without_end_loses_lines_and_nothing_else(front, caplog):
    """The rest is counted: what it costs the front is bounded."""
    with caplog.at_level(logging.WARNING):
        outcome = front.trial("Harms", {"what": "log", "count": 50_000})
        assert isinstance(outcome, dspex.TrialSuccess)
        front.trial("Harms", {"what": "log", "count": 1})
    lines = [message for name, _, message in caplog.record_tuples if name == "noise"]
    assert 0 < len(lines) < 25_000
    assert lines[:3] == ["line 0", "line 1", "line 2"]


def test_trials_are_recorded_and_have_spans(loadable, tmp_path):
    from ..telemetry.seen import Seen  # noqa: TID252 - tests are no package

    seen = Seen()
    with open_front(seen.telemetry, otel=True, max_trials=2, record=tmp_path) as front:
        outcome = front.does("tell the span", trial_id="first")
        assert outcome.prediction["span"] == f"{seen.span('trial').context.span_id:016x}"
        assert "trial/EXECUTE/chat dummy" in seen.paths()
        late = front.does("hang in C", seconds=SHORT, trial_id="second")
        assert late.details["answered_by"] == "front"
    (file,) = tmp_path.iterdir()
    lines = file.read_text().splitlines()
    assert [sum(name in line for line in lines) for name in ("first", "second")] == [1, 1]
