import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from dspex_trio.trials import StuckLimit
from dspex_trio.trials.stuck import STUCK_AFTER


@pytest.fixture
def limit(nursery):
    return StuckLimit(2, nursery)


async def test_a_thread_counts_once_it_has_been_stuck_for_a_while_and_no_longer_than_it_is(virtual_clock, limit):
    limit.abandoned("a")
    await trio.sleep(STUCK_AFTER / 2)
    assert limit.count == 0
    await trio.sleep(STUCK_AFTER)
    assert limit.count == 1
    limit.ended("a")
    await wait_all_tasks_blocked()
    assert limit.count == 0


async def test_a_thread_that_ends_in_time_never_counts(virtual_clock, limit):
    for job in "abc":
        limit.abandoned(job)
        limit.ended(job)
    limit.ended("one that nobody abandoned")
    await trio.sleep(STUCK_AFTER * 2)
    assert (limit.count, limit.reason) == (0, None)


async def test_the_limit_is_reached_by_as_many_at_the_same_time_and_stays_so(virtual_clock, limit):
    """Whoever was told that the process is to be replaced acts on it: it cannot be taken back."""
    limit.abandoned("a")
    await trio.sleep(STUCK_AFTER + 1)
    limit.ended("a")
    for job in "bc":
        limit.abandoned(job)
    assert limit.reason is None
    await limit.reached()
    assert "the threads of 2 trials ignore that these are over" in limit.reason
    limit.ended("b")
    await wait_all_tasks_blocked()
    assert limit.count == 1
    assert limit.reason is not None
