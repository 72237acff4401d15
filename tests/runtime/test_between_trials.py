"""What one trial leaves behind does not reach another one, nor the loop."""

import os
import sys
import threading

import dspy
import pytest
import trio

import dspex_trio as dspex
from dspex_trio.programs import MODULE_REGISTRY

SETTINGS = dspex.Settings(max_trials=1, max_trial_seconds=1e6)


@pytest.fixture(autouse=True)
def registered():
    """Classes that a test registers are gone afterwards, and the environment is as it was."""
    before, limit = dict(MODULE_REGISTRY), sys.getrecursionlimit()
    yield
    MODULE_REGISTRY.clear()
    MODULE_REGISTRY.update(before)
    os.environ.pop("DSPEX_TEST_LEFT", None)
    sys.setrecursionlimit(limit)


@pytest.mark.parametrize("fails", [False, True])
async def test_an_outcome_tells_what_its_program_changed_in_the_process(virtual_clock, fails):
    @dspex.register("Changes")
    class Changes(dspy.Module):
        def forward(self):
            os.environ["DSPEX_TEST_LEFT"] = "secret"
            sys.setrecursionlimit(4321)
            if fails:
                raise LookupError("after all that")
            return {"done": True}

    async with dspex.open_runtime(SETTINGS) as runtime:
        outcome = await runtime.run_trial(dspex.Program("Changes"), {})
    told = outcome.details["process_changes"].split("\n") if fails else list(outcome.warnings)
    assert told == [
        "while the program ran, the recursion limit of its process was changed",
        "while the program ran, the environment (DSPEX_TEST_LEFT) of its process was changed",
    ]


@pytest.mark.parametrize("ends", ["well", "badly", "late"])
async def test_an_instance_is_finalised_in_the_threads_of_its_own_trial(virtual_clock, ends):
    """In the loop, a finaliser that waits would keep every deadline waiting."""
    where = []

    @dspex.register("Finalised")
    class Finalised(dspy.Module):
        def __init__(self):
            super().__init__()
            self.generate = dspy.Predict("question -> answer")
            self.limit = 3

        def forward(self):
            where.append(threading.get_ident())
            if ends == "badly":
                raise LookupError("no")
            if ends == "late":
                threading.Event().wait()
            return {"done": True}

        def __del__(self):
            where.append(threading.get_ident())

    async with dspex.open_runtime(SETTINGS) as runtime:
        session = runtime.session("s")
        await session.initialize()
        await session.register("limit", "integer", 4)
        program = dspex.Program("Finalised", config_space=(dspex.Binding("limit", "limit"),))
        with trio.move_on_after(3600):
            await runtime.run_trial(program, {}, session=session)
        ran, finalised = where
    assert finalised == ran


async def test_a_finaliser_that_waits_takes_its_own_trials_time_and_ends_with_it(virtual_clock):
    @dspex.register("Lingers")
    class Lingers(dspy.Module):
        def forward(self):
            return {"done": True}

        def __del__(self):
            threading.Event().wait()

    @dspex.register("Innocent")
    class Innocent(dspy.Module):
        def forward(self):
            return {"done": True}

    async with dspex.open_runtime(SETTINGS) as runtime:
        with trio.fail_after(3600):
            outcome = await runtime.run_trial(dspex.Program("Lingers"), {})
        assert (outcome.kind.name, outcome.details["stuck"]) == ("DEADLINE_EXCEEDED", "false")
        began = trio.current_time()
        assert isinstance(await runtime.run_trial(dspex.Program("Innocent"), {}), dspex.TrialSuccess)
        assert trio.current_time() == began
