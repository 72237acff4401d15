"""Deadlines of whole trials: what a program waits for takes virtual time; what computes takes real time, but little."""

import sys
import threading
import time

import dspy
import pytest
import trio
import trio.testing
from dspy.utils import DummyLM

import dspex_trio as dspex
from dspex_trio.programs import MODULE_REGISTRY, interrupt_of_frame

SETTINGS = dspex.Settings(max_trials=1, max_queue=1, max_trial_seconds=1e6)
PREDICT = dspex.Program("dspy.Predict", dspex.Signature("question -> answer"))
QUESTION = {"question": "?"}
HOUR = 3600.0


@pytest.fixture(autouse=True)
def registered():
    """Classes that a test registers are gone afterwards."""
    before = dict(MODULE_REGISTRY)
    yield
    MODULE_REGISTRY.clear()
    MODULE_REGISTRY.update(before)


def program(forward):
    """A registered program with that `forward`."""
    dspex.register("Test")(type("Test", (dspy.Module,), {"forward": lambda self, question: forward()}))
    return dspex.Program("Test")


def answering():
    return DummyLM([{"answer": "42"}] * 100)


async def test_the_callers_scope_is_the_deadline_and_the_outcome_comes_before_it_raises(virtual_clock):
    async with dspex.open_runtime(SETTINGS) as runtime:
        with trio.fail_after(HOUR):
            outcome = await runtime.run_trial(program(lambda: time.sleep(2 * HOUR)), QUESTION)
        assert (outcome.kind, outcome.stage) == (dspex.FailureKind.DEADLINE_EXCEEDED, dspex.Stage.EXECUTE)
        assert (outcome.details["rung"], outcome.details["stuck"]) == ("wake", "false")
        margin = HOUR - trio.current_time()
        assert margin == pytest.approx(0.5)
        assert outcome.timings.execute_ms == pytest.approx((HOUR - margin) * 1e3)


async def test_every_thread_of_a_hundred_timed_out_trials_ends_and_its_slot_is_free_at_once(virtual_clock):
    async with dspex.open_runtime(SETTINGS, lm=answering()) as runtime:
        waiting = program(threading.Event().wait)
        for _ in range(100):
            with trio.fail_after(HOUR):
                outcome = await runtime.run_trial(waiting, QUESTION)
            assert outcome.details["stuck"] == "false"
            began = trio.current_time()
            assert isinstance(await runtime.run_trial(PREDICT, QUESTION), dspex.TrialSuccess)
            assert trio.current_time() == began


async def test_a_trial_that_waits_for_a_slot_dies_in_admission_while_the_other_goes_on(virtual_clock):
    async with dspex.open_runtime(SETTINGS) as runtime, trio.open_nursery() as nursery:
        outcomes = []

        async def run(seconds):
            with trio.fail_after(seconds):
                outcomes.append(await runtime.run_trial(waiting, QUESTION))

        def wait():
            time.sleep(3 * HOUR)
            return dspy.Prediction(answer="late")

        waiting = program(wait)
        nursery.start_soon(run, 4 * HOUR)
        await trio.testing.wait_all_tasks_blocked()
        nursery.start_soon(run, HOUR)
    late, done = outcomes
    assert (late.kind, late.stage) == (dspex.FailureKind.DEADLINE_EXCEEDED, dspex.Stage.ADMISSION)
    assert isinstance(done, dspex.TrialSuccess)


async def test_a_drain_wakes_what_its_grace_was_too_short_for(virtual_clock):
    async with dspex.open_runtime(SETTINGS) as runtime, trio.open_nursery() as nursery:
        outcomes = []

        @nursery.start_soon
        async def run():
            outcomes.append(await runtime.run_trial(program(lambda: time.sleep(3 * HOUR)), QUESTION))

        await trio.testing.wait_all_tasks_blocked()
        await runtime.drain(grace=60)
        assert trio.current_time() == 60
    [outcome] = outcomes
    assert (outcome.kind, outcome.details["rung"]) == (dspex.FailureKind.SHUTTING_DOWN, "wake")


async def test_a_caller_that_goes_away_wakes_its_trial(virtual_clock):
    ended = []

    def wait():
        try:
            time.sleep(3 * HOUR)
        finally:
            ended.append(virtual_clock.current_time())

    async with dspex.open_runtime(SETTINGS) as runtime:
        with trio.CancelScope() as scope:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(runtime.run_trial, program(wait), QUESTION)
                await trio.sleep(HOUR)
                scope.cancel()
        assert ended == [HOUR]


async def test_what_a_loaded_module_imported_by_name_is_woken_too(virtual_clock, tmp_path, monkeypatch):
    (tmp_path / "loaded_by_name.py").write_text(
        "from time import sleep\nimport dspy\nimport dspex_trio as dspex\n@dspex.register('ByName')\n"
        "class ByName(dspy.Module):\n    def forward(self, question):\n        sleep(7200)\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    settings = dspex.Settings(max_trials=1, max_trial_seconds=1e6, load=("loaded_by_name",))
    async with dspex.open_runtime(settings) as runtime:
        with trio.fail_after(HOUR):
            outcome = await runtime.run_trial(dspex.Program("ByName"), QUESTION)
        assert outcome.details["rung"] == "wake"


class Interpreter:
    """A user's own, which runs code on some rented machine and waits for it."""

    def __init__(self, wait, stop=lambda: None):
        self.tools = {}
        self.wait = wait
        self.stop = stop
        self.given_back = 0

    def start(self):
        pass

    def execute(self, code, variables=None):
        self.wait()

    def shutdown(self):
        threading.Event().wait(0.001)  # it says so to the one who lends it
        self.given_back += 1
        self.stop()


async def outcome_of_thinking(lend, interpreter):
    def think():
        if lend:
            return dspy.ProgramOfThought("question -> answer")(interpreter, question="?")
        return dspy.ProgramOfThought("question -> answer", interpreter_factory=lambda: interpreter)(question="?")

    lm = DummyLM([{"reasoning": "r", "generated_code": "```python\nprint(1)\n```"}] * 9)
    async with dspex.open_runtime(SETTINGS, lm=lm) as runtime:
        with trio.fail_after(HOUR):
            return await runtime.run_trial(program(think), QUESTION)


@pytest.mark.filterwarnings("ignore:ProgramOfThought is deprecated")
@pytest.mark.parametrize("lend", [False, True])
async def test_a_code_interpreter_is_shut_down_as_ever_but_by_whoever_owns_it(virtual_clock, lend):
    """With its trial over it may still speak, else the machine would be paid for ever."""
    interpreter = Interpreter(threading.Event().wait)
    assert (await outcome_of_thinking(lend, interpreter)).details["rung"] == "wake"
    assert interpreter.given_back == (not lend)


@pytest.mark.filterwarnings("ignore:ProgramOfThought is deprecated")
async def test_a_code_interpreter_whose_code_cannot_be_left_is_shut_down_by_another_thread(virtual_clock):
    lock, gone = threading.Lock(), threading.Event()
    lock.acquire()

    def wait():
        try:
            with virtual_clock.blocked():
                lock.acquire()
        finally:
            gone.set()

    assert (await outcome_of_thinking(False, Interpreter(wait, lock.release))).details["rung"] == "abandon"
    assert await trio.to_thread.run_sync(gone.wait)


# ---- in real time: threads that compute ------------------------------------------------------------------------------


# Nobody waits with a timer of his own, who would be too early for a machine that is busy otherwise.
HALF_A_SECOND = dspex.Settings(max_trials=1, max_queue=1, max_trial_seconds=0.5)


async def slot_comes_free(runtime):
    """Within twenty trials, each of which waits for it for as long as it may."""
    for _ in range(20):
        if isinstance(await runtime.run_trial(PREDICT, QUESTION), dspex.TrialSuccess):
            return True
    return False


def busy_in_parallel():
    """Threads in which dspy.Parallel works for some trial."""
    found = 0
    for top in sys._current_frames().values():
        frame = top
        while frame is not None and interrupt_of_frame(frame) is None:
            frame = frame.f_back
        found += frame is not None
    return found


async def test_parallels_own_loops_are_ended_and_what_it_has_queued_does_not_begin():
    """Until then the slot is taken, and the failure says that threads still run."""
    begun, ended = [], []

    class Loop(dspy.Module):
        def forward(self, question):
            begun.append(question)
            try:
                while True:
                    pass
            except BaseException as error:
                ended.append(error.rung)
                raise

    def work():
        pairs = [(Loop(), {"question": str(n)}) for n in range(6)]
        dspy.Parallel(num_threads=2, disable_progress_bar=True)(pairs)

    async with dspex.open_runtime(HALF_A_SECOND, lm=answering()) as runtime:
        outcome = await runtime.run_trial(program(work), QUESTION)
        assert (outcome.kind, outcome.details["rung"]) == (dspex.FailureKind.DEADLINE_EXCEEDED, "abandon")
        assert outcome.details["stuck"] == "true"
        assert await slot_comes_free(runtime)
        assert (sorted(begun), ended) == (["0", "1"], ["raise", "raise"])
        assert busy_in_parallel() == 0


async def test_a_loop_that_computes_is_answered_for_before_the_callers_own_timer_and_ended_after_it():
    """The caller cannot be kept waiting for the last rung; the slot is."""
    ended = []

    def loop():
        try:
            while True:
                try:
                    while True:
                        pass
                except Exception:  # noqa: BLE001, S110 - the point
                    pass
        except BaseException as error:
            ended.append(error.rung)
            raise

    async with dspex.open_runtime(HALF_A_SECOND, lm=answering()) as runtime:
        outcome = await runtime.run_trial(program(loop), QUESTION)
        assert (outcome.kind, outcome.details["rung"]) == (dspex.FailureKind.DEADLINE_EXCEEDED, "abandon")
        assert outcome.details["stuck"] == "true"
        assert await slot_comes_free(runtime)
        assert ended == ["raise"]
