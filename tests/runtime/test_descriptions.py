"""What a program raises is code of its own too: describing it takes time, which is the trial's and not the loop's."""

import threading

import dspy
import pytest
import trio

import dspex_trio as dspex
from dspex_trio.programs import MODULE_REGISTRY

SETTINGS = dspex.Settings(max_trials=1, max_trial_seconds=1e6)
HOUR = 3600.0


@pytest.fixture
def raising():
    """A program that raises what it is given."""
    before = dict(MODULE_REGISTRY)

    def make(error):
        class Raises(dspy.Module):
            def forward(self):
                raise error

        MODULE_REGISTRY.pop("Raises", None)
        dspex.register("Raises")(Raises)
        return dspex.Program("Raises")

    yield make
    MODULE_REGISTRY.clear()
    MODULE_REGISTRY.update(before)


class Waits(Exception):
    def __str__(self):
        threading.Event().wait()
        return "never"


class Computes(Exception):
    def __str__(self):
        while self.args == ():
            pass
        return "never"


def behind(error):
    front = ValueError("in front")
    front.__cause__ = error
    return front


@pytest.mark.parametrize("error", [Waits(), behind(Waits())], ids=["its own text", "that of its cause"])
async def test_a_text_that_waits_for_ever_is_ended_by_the_deadline_as_the_program_would_be(
    virtual_clock, raising, error
):
    async with dspex.open_runtime(SETTINGS) as runtime:
        with trio.fail_after(HOUR):
            outcome = await runtime.run_trial(raising(error), {})
        assert (outcome.kind, outcome.stage) == (dspex.FailureKind.DEADLINE_EXCEEDED, dspex.Stage.EXECUTE)
        assert (outcome.details["rung"], outcome.details["stuck"]) == ("wake", "false")


async def test_a_text_that_computes_for_ever_is_ended_by_an_exception_as_the_program_would_be(raising):
    """Real time: a thread that computes does not let virtual time pass."""
    async with dspex.open_runtime(dspex.Settings(max_trials=1, reply_margin_ms=500)) as runtime:
        with trio.fail_after(1):
            outcome = await runtime.run_trial(raising(Computes()), {})
        assert (outcome.kind.name, outcome.details["rung"]) == ("DEADLINE_EXCEEDED", "raise")
        outcome = await runtime.run_trial(raising(ValueError("quick")), {})  # in the only slot
        assert (outcome.kind.name, outcome.error_message) == ("PROGRAM_ERROR", "quick")


async def test_nothing_of_what_a_program_raised_reaches_the_loop(virtual_clock, raising):
    """Its own code would run there."""
    threads_that_asked = []

    class Asks(Exception):
        def __str__(self):
            threads_that_asked.append(threading.current_thread())
            return "told"

    async with dspex.open_runtime(SETTINGS) as runtime:
        outcome = await runtime.run_trial(raising(Asks()), {})
    assert (outcome.error_message, outcome.error_type.rpartition(".")[2]) == ("told", "Asks")
    assert threads_that_asked
    assert threading.current_thread() not in threads_that_asked
