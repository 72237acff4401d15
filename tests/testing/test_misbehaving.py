"""What a worker makes of programs that misbehave is what each of them says."""

import inspect

import pytest
import trio

import dspex_trio as dspex
from dspex_trio.testing import Answer, Leaked, Script, ScriptedLM, TrialEnvironment, no_leaks
from dspex_trio.testing.faults import misbehaving
from dspex_trio.trials.observer import Observer

ENDED = {
    "Sleeps": ("EXECUTE", "wake"),
    "WaitsForQueue": ("EXECUTE", "wake"),
    "ReadsSocket": ("EXECUTE", "wake"),
    "RunsAsyncio": ("EXECUTE", "wake"),
    "AsksForEver": ("EXECUTE", "wake"),
    "KeepsEverything": ("EXECUTE", "check"),
    "RaisesWithSlowText": ("EXECUTE", "wake"),
    "SleepsInConstructor": ("HYDRATE", "wake"),
}
RAISE_IN_IT, END_PROCESS = {"raise", "check"}, {"wake", "check"}  # where the deadline comes before it has begun
IN_REAL_TIME = {
    "Loops": RAISE_IN_IT,
    "KeepsEveryException": RAISE_IN_IT,
    "LoopsInParallel": RAISE_IN_IT,
    "RunsProcess": END_PROCESS,
    "ReadsPipe": END_PROCESS,
    "RunsTrio": END_PROCESS,
    "WaitsBriefly": END_PROCESS,
}
RAISE = {
    "Raises": ("EXECUTE", "ValueError", "cannot answer q"),
    "RaisesInConstructor": ("HYDRATE", "RuntimeError", "no constructor today"),
    "Exits": ("EXECUTE", "SystemExit", "3"),
    "Interrupts": ("EXECUTE", "KeyboardInterrupt", "q"),
    "RaisesCancelled": ("EXECUTE", "asyncio.exceptions.CancelledError", "q"),
    "Recurses": ("EXECUTE", "RecursionError", "maximum recursion depth exceeded"),
    "RaisesWithoutText": ("EXECUTE", "Wordless", "its text cannot be had: __str__ raised RuntimeError"),
    "ConfiguresDspy": ("EXECUTE", "RuntimeError", "can only be changed by the thread that"),
}
RETURN = {
    "GivesTheUnserialisable": "Opaque cannot be expressed as JSON",
    "GivesACycle": "refers to itself",
    "GivesNothing": "returned a NoneType",
}
# Tested here, but for what tests/isolation and tests/e2e run in processes of their own.
OTHERS = {"WaitsForLock", "StartsThread", "ChangesInputs"}
ELSEWHERE = {"GivesTooMuch", "HangsInC", "EndsProcess", "Crashes", "KillsProcess"}


def run(name, **environment):
    return TrialEnvironment(**environment).run_sync(getattr(misbehaving, name), question="q")


@pytest.mark.parametrize("name", ENDED)
def test_what_waits_without_end_is_ended_at_the_deadline(name):
    lm = ScriptedLM(script=Script(default=Answer(fields={"answer": "y"}, delay=1)))
    outcome = run(name, timeout=5.5, lm=lm)
    assert outcome.kind.name == "DEADLINE_EXCEEDED"
    assert (outcome.stage.name, outcome.details["rung"]) == ENDED[name]
    assert outcome.details["stuck"] == "false"


@pytest.mark.parametrize("name", IN_REAL_TIME)
async def test_what_is_busy_without_end_is_answered_and_then_ended(name):
    """In real time: virtual time stands still while a thread computes, or waits for another process."""
    ended = trio.Event()

    class Ends(Observer):
        def on_outcome(self, request, outcome):
            if outcome.details["stuck"] == "false":
                ended.set()

        def on_late_end(self, request, details):
            assert details["rung"] in IN_REAL_TIME[name]
            ended.set()

    settings = dspex.Settings(load=("dspex_trio.testing.faults.misbehaving",))
    async with dspex.open_runtime(settings, observers=[Ends()]) as runtime:
        program = {"python_class": f"dspex_trio.testing.faults.misbehaving.{name}"}
        outcome = await runtime.run_trial(program, {"question": "q"}, deadline=trio.current_time() + 0.1)
        assert outcome.kind.name == "DEADLINE_EXCEEDED"
        # On a busy machine its deadline may come when it is just made.
        allowed = IN_REAL_TIME[name] if outcome.stage.name == "EXECUTE" else {"check", "returned"}
        assert outcome.details["rung"] in {"abandon", *allowed}
        await ended.wait()


async def test_what_nothing_wakes_is_answered_and_its_slot_stays_taken():
    async with dspex.open_runtime(dspex.Settings(load=("dspex_trio.testing.faults.misbehaving",))) as runtime:
        program = {"python_class": "dspex_trio.testing.faults.misbehaving.WaitsForLock"}
        with misbehaving.WaitsForLock.lock:
            outcome = await runtime.run_trial(program, {"question": "q"}, deadline=trio.current_time() + 0.1)
            assert (outcome.kind.name, outcome.details["rung"]) == ("DEADLINE_EXCEEDED", "abandon")
            assert (outcome.details["stuck"], runtime.status().slots) == ("true", 1)


@pytest.mark.parametrize("name", RAISE)
def test_what_it_raises_is_a_failure_of_the_program(name):
    outcome = run(name)
    stage, error_type, text = RAISE[name]
    assert (outcome.kind.name, outcome.stage.name) == ("PROGRAM_ERROR", stage)
    assert outcome.error_type.endswith(error_type)
    assert text in outcome.error_message
    assert len(outcome.traceback) < 40_000


@pytest.mark.parametrize("name", RETURN)
def test_what_has_no_json_form_is_a_success_with_a_warning(name):
    outcome = run(name)
    assert isinstance(outcome, dspex.TrialSuccess)
    assert RETURN[name] in outcome.warnings[0]


def test_what_it_changes_is_its_own():
    items = ["a"]
    outcome = TrialEnvironment().run_sync(misbehaving.ChangesInputs, items=items)
    assert outcome.prediction == {"items": ["a", "mine"]}
    assert items == ["a"]


def test_a_thread_that_it_leaves_behind_is_found():
    with pytest.raises(Leaked, match="left behind by a program"), no_leaks(grace=0):
        assert isinstance(run("StartsThread"), dspex.TrialSuccess)
    misbehaving.StartsThread.stop.set()


def test_each_says_what_it_does_and_what_becomes_of_it():
    tested = {*ENDED, *IN_REAL_TIME, *RAISE, *RETURN, *OTHERS, *ELSEWHERE}
    names = {
        name
        for name, each in vars(misbehaving).items()
        if isinstance(each, type) and each is not misbehaving.Misbehaving
    }
    assert names == tested
    for name in names:
        first = inspect.getdoc(getattr(misbehaving, name)).splitlines()[0]
        assert first.count(". ") == 1, f"{name}: a sentence on what it does, one on what a worker does about it"
