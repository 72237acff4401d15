"""Stages with a limit of their own, beside the one deadline."""

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from dspex_trio.model import TrialSuccess
from dspex_trio.model.errors import FailureKind, Stage

from .fakes import FakeProgram, Told, request, sleeps, trials


async def forever(*_args):
    await trio.sleep_forever()


@pytest.mark.parametrize(
    ("stage", "program"),
    [
        (Stage.HYDRATE, forever),
        (Stage.SYNC, FakeProgram(lambda _inputs: None, variables=forever)),
        (Stage.EXECUTE, FakeProgram(forever)),
    ],
)
async def test_a_stage_that_takes_longer_than_its_budget_ends_the_trial_and_says_which_it_was(
    virtual_clock, stage, program
):
    outcome = await trials(program, budgets={stage: 2}).run(request(seconds=100))
    assert (outcome.kind, outcome.stage) == (FailureKind.DEADLINE_EXCEEDED, stage)
    assert outcome.details["budget"] == f"{stage.name.lower()}_timeout"
    assert outcome.error_message == (
        f"stage {stage.name} took longer than {stage.name.lower()}_timeout allows; "
        f"that was 2000 ms after the trial arrived"
    )
    assert trio.current_time() == 2


async def test_a_deadline_that_comes_first_is_told_as_the_deadline(virtual_clock):
    outcome = await trials(sleeps(100), budgets={Stage.EXECUTE: 5}).run(request(seconds=3))
    assert "the deadline passed in stage EXECUTE" in outcome.error_message
    assert "budget" not in outcome.details


async def test_each_stage_has_its_own_budget_and_time_left_over_is_not_handed_on(virtual_clock):
    async def read():
        await trio.sleep(3)
        return {}

    program = sleeps(3, answer=1)
    program.variables = read
    runner = trials(program, budgets={Stage.SYNC: 4, Stage.EXECUTE: 4})
    assert isinstance(await runner.run(request(seconds=100)), TrialSuccess)
    assert trio.current_time() == 6


async def test_a_budget_that_passes_while_the_deadline_does_is_told_as_what_was_to_come_first(virtual_clock):
    """When the thread is waited for beyond both, the earlier one was the reason."""
    told = []

    async def run():
        told.append(await trials(sleeps(100), budgets={Stage.EXECUTE: 2}).run(request(seconds=3)))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(run)
        await wait_all_tasks_blocked()
        virtual_clock.jump(4)  # nothing ran meanwhile
    assert told[0].details["budget"] == "execute_timeout"


async def test_a_caller_that_goes_away_within_a_budget_is_a_cancel(virtual_clock):
    told = Told()
    with trio.move_on_after(1) as caller:
        await trials(sleeps(100), budgets={Stage.EXECUTE: 2}, observer=told).run(request(seconds=50))
    assert caller.cancelled_caught
    assert [o.kind for o in told.outcomes] == [FailureKind.CANCELLED]


async def test_a_trial_that_waits_too_long_for_a_slot_is_overloaded_and_may_try_elsewhere(virtual_clock):
    """It has not begun; unlike a deadline, that is worth another try."""
    runner = trials(sleeps(10), max_wait=2)
    outcomes = []
    async with trio.open_nursery() as nursery:
        nursery.start_soon(runner.run, request())
        await wait_all_tasks_blocked()
        outcomes.append(await runner.run(request(seconds=100)))
        assert trio.current_time() == 2
    assert [(o.kind, o.stage, o.retryable) for o in outcomes] == [(FailureKind.OVERLOADED, Stage.ADMISSION, True)]
    assert outcomes[0].error_message == "no slot was free within 2 s (--queue-timeout)"
