"""Trials in child processes: as in a thread where all goes well, and ended where nothing inside could end them."""

import dataclasses
import logging
import os
from functools import partial

import pytest
import trio

import dspex_trio as dspex
from dspex_trio.model import LmFinished, LmStarted, StageStarted
from dspex_trio.programs import MODULE_REGISTRY

from .conftest import running

# What a trial gets that outlives it, in seconds: more than it takes to get as far as that on a busy machine.
SHORT = 2.0


@pytest.fixture
def session(isolated, unisolated, request):
    """A session of that name in both stores."""
    name = request.node.name
    for runtime in (isolated, unisolated):
        runtime.call(make_session, runtime.runtime, name)
    return name


async def make_session(runtime, name):
    session = runtime.session(name)
    await session.initialize()
    await session.register("temp", "float", 0.5)


async def temp_of(runtime, name):
    return await runtime.session(name).get("temp")


BOUND = dspex.Program(
    "Does", config_space=(dspex.Binding("temperature", "temp"), dspex.Binding("ask.max_tokens", "n", default=9))
)


FAILING = {"read what is not there", "raise", "exit politely", "no such way"}


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
def test_an_outcome_is_the_same_as_from_a_thread(isolated, unisolated, session, what):
    """But for times, and for the frames of ours in a traceback."""
    outcomes = [
        comparable(runtime.trial(BOUND, {"what": what}, session=session, trial_id="t"))
        for runtime in (unisolated, isolated)
    ]
    assert outcomes[0] == outcomes[1]
    assert isinstance(outcomes[0], dspex.TrialSuccess) is (what not in FAILING)
    assert outcomes[0].variables["temperature"].value == 0.5


def comparable(outcome):
    def without_times(entry):
        calls = tuple(dataclasses.replace(call, started_ms=0, latency_ms=0) for call in entry.lm_calls)
        return dataclasses.replace(entry, lm_calls=calls, started_ms=0, latency_ms=0)

    if isinstance(outcome, dspex.TrialSuccess):
        trace = tuple(map(without_times, outcome.trace))
        prediction = {name: repr(value) for name, value in outcome.prediction.items()}
        return dataclasses.replace(outcome, trace=trace, prediction=prediction, latency_ms=0, timings=None)
    trace = tuple(map(without_times, outcome.partial_trace))
    details = {key: value for key, value in outcome.details.items() if key != "loop_late_ms"}
    return dataclasses.replace(outcome, partial_trace=trace, details=details, traceback="", causes=(), timings=None)


def test_the_program_runs_in_another_process(isolated):
    outcome = isolated.does("give the pid")
    assert outcome.prediction["pid"] != os.getpid()
    assert outcome.timings.total_ms >= outcome.timings.execute_ms > 0


def test_a_trial_that_its_child_can_end_costs_no_child(isolated):
    """Sleeping, waiting and asking a provider end as in the worker itself."""
    before = {isolated.does("give the pid").prediction["pid"] for _ in range(4)}
    for what, rung in (("sleep", "wake"), ("wait", "wake"), ("loop", "raise")):
        outcome = isolated.does(what, seconds=SHORT)
        assert (outcome.kind.name, outcome.stage.name) == ("DEADLINE_EXCEEDED", "EXECUTE")
        assert (outcome.details["rung"], outcome.details["stuck"]) == (rung, "false")
        assert [entry.predictor for entry in outcome.partial_trace] == ["ask"]
    for pid in before:
        os.kill(pid, 0)


def test_what_its_child_cannot_end_in_time_is_killed(isolated, session):
    """What was seen until then is told all the same."""
    outcome = isolated.trial(BOUND, {"what": "hang in C"}, session=session, seconds=SHORT)
    assert (outcome.kind.name, outcome.stage.name) == ("DEADLINE_EXCEEDED", "EXECUTE")
    assert (outcome.details["rung"], outcome.details["stuck"]) == ("kill", "false")
    assert float(outcome.details["rung_ms"]) > 0
    assert [(entry.predictor, entry.outputs) for entry in outcome.partial_trace] == [("ask", {"answer": "yes"})]
    assert (outcome.cost.lm_calls, outcome.cost.known) == (1, False)
    assert outcome.variables["temperature"].value == 0.5
    assert isinstance(isolated.does("answer"), dspex.TrialSuccess)


def test_the_processes_that_a_program_started_are_killed_with_it(isolated, session):
    outcome = isolated.trial("Does", {"what": "start a process"}, session=session, seconds=SHORT)
    assert outcome.details["rung"] == "kill"
    pid = int(isolated.call(temp_of, isolated.runtime, session))
    isolated.call(ended, pid)


@pytest.mark.parametrize(
    ("what", "how"),
    [
        ("exit", "exit code 7"),
        ("crash", "SIGSEGV"),
        ("be killed", "SIGKILL, most often sent by the kernel when memory runs out"),
    ],
)
def test_a_child_that_dies_is_a_failure_that_says_how_and_can_be_tried_again(isolated, what, how):
    outcome = isolated.does(what, trial_id="t")
    assert (outcome.kind.name, outcome.stage.name, outcome.retryable) == ("WORKER_LOST", "EXECUTE", True)
    assert how in outcome.error_message
    assert [entry.predictor for entry in outcome.partial_trace] == ["ask"]
    assert (outcome.cost.lm_calls, outcome.trial_id) == (1, "t")


def test_a_cancel_from_outside_kills_and_goes_on(isolated, session):
    async def cancelled():
        runtime = isolated.runtime
        async with runtime.session(session).watch() as changes:
            with trio.CancelScope() as scope:
                async with trio.open_nursery() as nursery:

                    async def trial():
                        await runtime.run_trial(dspex.Program("Does"), {"what": "start a process"}, session=session)

                    nursery.start_soon(trial)
                    with trio.fail_after(60):
                        await anext(changes)
                        await anext(changes)
                    scope.cancel()
            return scope.cancelled_caught

    assert isolated.call(cancelled)
    isolated.call(ended, int(isolated.call(temp_of, isolated.runtime, session)))


def test_what_a_program_logs_is_in_the_workers_log(isolated, caplog):
    with caplog.at_level(logging.WARNING):
        isolated.does("log")
    assert ("of.the.program", logging.WARNING, "something is odd") in caplog.record_tuples


def test_whoever_watches_is_told_what_happens_in_the_child(isolated):
    seen = []
    isolated.does("answer", watch=seen.append)
    told = [event.stage.name if isinstance(event, StageStarted) else type(event) for event in seen]
    assert told == ["ADMISSION", "SESSION", "HYDRATE", "SYNC", "EXECUTE", LmStarted, LmFinished, "SERIALIZE"]
    assert (seen[5].predictor, seen[6].lm_call.model) == ("ask", "dummy")


def test_inputs_that_have_no_json_form_are_refused(isolated):
    outcome = isolated.trial("Does", {"what": object()})
    assert outcome.kind.name == "INVALID_INPUT"
    assert "what" in outcome.error_message


def test_a_program_that_a_child_cannot_import_is_named_with_the_remedy(isolated):
    import dspy

    class Elsewhere(dspy.Module):
        def forward(self):
            return dspy.Prediction()

    Elsewhere.__module__ = "__main__"
    MODULE_REGISTRY["Elsewhere"] = Elsewhere
    try:
        outcome = isolated.trial("Elsewhere", {})
    finally:
        del MODULE_REGISTRY["Elsewhere"]
    assert outcome.kind.name == "CLASS_NOT_FOUND"
    assert "'Elsewhere' is registered in '__main__'" in outcome.error_message
    assert "--load" in outcome.error_message


# ---- which programs


def test_registration_says_where_a_program_runs_and_else_the_worker(unisolated, isolated):
    here = os.getpid()
    assert unisolated.trial("Isolated", {}).prediction["pid"] != here
    assert unisolated.trial("Unisolated", {}).prediction["pid"] == here
    assert unisolated.trial("isolated_programs.Isolated", {}).prediction["pid"] != here
    assert unisolated.does("give the pid").prediction["pid"] == here
    assert isolated.trial("Unisolated", {}).prediction["pid"] == here
    assert isolated.trial("Isolated", {}).prediction["pid"] != here


def test_the_setting_isolate_names_programs_and_each_gets_a_process_of_its_own_where_that_is_asked(unisolated):
    first, second = (unisolated.trial("AsTheWorkerSays", {}).prediction["pid"] for _ in range(2))
    assert os.getpid() != first != second != os.getpid()


def test_a_program_whose_class_a_variable_picks_is_isolated_where_any_is(unisolated, session):
    """Which one it is becomes known inside."""

    async def choose():
        await unisolated.runtime.session(session).register("class", "string", "Isolated")

    unisolated.call(choose)
    program = dspex.Program("Unisolated", config_space=(dspex.Binding("python_class", "class"),))
    outcome = unisolated.trial(program, {}, session=session)
    assert outcome.prediction["pid"] != os.getpid()


# ---- opening and closing


def test_no_child_is_left_when_the_runtime_closes(loadable):
    with running(isolation="process", max_trials=1) as runtime:
        pid = runtime.does("give the pid").prediction["pid"]
        os.kill(pid, 0)
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


def test_a_module_that_only_children_cannot_import_is_told_at_the_start(loadable, tmp_path, monkeypatch):
    (tmp_path / "not_in_children.py").write_text(
        "import sys\nif 'dspex_trio.executors.child' in sys.modules:\n    1 / 0\n"
    )
    monkeypatch.syspath_prepend(tmp_path)

    async def main():
        settings = dspex.Settings(isolation="process", load=("not_in_children",))
        async with dspex.open_runtime(settings):
            pass

    with pytest.raises(ImportError, match="not_in_children"):
        trio.run(main)


def test_settings_that_cannot_be_handed_to_a_child_are_told_at_the_start_and_do_no_harm_without_one(
    loadable, monkeypatch
):
    monkeypatch.delitem(MODULE_REGISTRY, "Isolated", raising=False)

    async def main(**settings):
        async with dspex.open_runtime(dspex.Settings(lm_args={"engine": object()}, **settings)):
            pass

    trio.run(main)
    with pytest.raises(ImportError, match=r"no child process can be started: .*serialize"):
        trio.run(partial(main, isolation="process"))


def test_a_ready_language_model_cannot_be_handed_over(loadable):
    async def main():
        async with dspex.open_runtime(dspex.Settings(isolation="process"), lm=object()):
            pass

    with pytest.raises(dspex.InvalidSettings, match="lm_args"):
        trio.run(main)


async def ended(pid):
    """Wait until the process is gone, for ten seconds at most."""
    try:
        descriptor = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    try:
        with trio.fail_after(10):
            await trio.lowlevel.wait_readable(descriptor)
    finally:
        os.close(descriptor)
