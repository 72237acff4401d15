import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from dspex_trio.model.errors import Overloaded, ShuttingDown
from dspex_trio.trials import Admission

from .fakes import FakeSlots


async def hold(admission, order, name, release):
    async with admission.admit():
        order.append(name)
        await release.wait()


async def test_trials_are_admitted_in_the_order_in_which_they_came():
    admission, order, release = Admission(FakeSlots(1), 8), [], trio.Event()
    async with trio.open_nursery() as nursery:
        for name in range(5):
            nursery.start_soon(hold, admission, order, name, release)
            await wait_all_tasks_blocked()
        assert (order, admission.queued) == ([0], 4)
        release.set()
    assert order == [0, 1, 2, 3, 4]


async def test_one_more_than_the_queue_holds_is_overloaded_at_once():
    admission, release = Admission(FakeSlots(1), 1), trio.Event()
    async with trio.open_nursery() as nursery:
        for name in range(2):
            nursery.start_soon(hold, admission, [], name, release)
            await wait_all_tasks_blocked()
        with pytest.raises(Overloaded, match=r"all 1 slots are taken and 1 trials wait already"):
            await admission.admit().__aenter__()
        release.set()


async def test_a_wait_that_cannot_fit_is_overloaded_at_once_and_says_when_to_come_again(virtual_clock):
    """Ten-second trials were seen; a trial with one second left need not wait to learn that it came too late."""
    admission, release = Admission(FakeSlots(1), 8), trio.Event()
    for _ in range(40):
        async with admission.admit():
            await trio.sleep(10)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(hold, admission, [], "running", release)
        await wait_all_tasks_blocked()
        began = trio.current_time()
        with trio.fail_after(1), pytest.raises(Overloaded, match=r"the trial can wait 1\.0 s") as caught:
            await admission.admit().__aenter__()
        assert trio.current_time() == began
        assert caught.value.retry_after == pytest.approx(10, rel=0.01)
        release.set()


async def test_a_cancelled_wait_leaves_the_queue_and_takes_no_slot():
    slots = FakeSlots(1)
    admission, release = Admission(slots, 8), trio.Event()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(hold, admission, [], "running", release)
        await wait_all_tasks_blocked()
        waiting = trio.CancelScope()

        async def wait():
            with waiting:
                await hold(admission, [], "behind", release)

        nursery.start_soon(wait)
        await wait_all_tasks_blocked()
        assert admission.queued == 1
        waiting.cancel()
        await wait_all_tasks_blocked()
        assert admission.queued == 0
        release.set()
    assert slots.semaphore.value == 1


async def test_closing_turns_away_who_waits_and_who_comes():
    admission, release, failures = Admission(FakeSlots(1), 8), trio.Event(), []

    async def turned_away():
        with pytest.raises(ShuttingDown) as caught:
            await admission.admit().__aenter__()
        failures.append(str(caught.value))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(hold, admission, [], "running", release)
        await wait_all_tasks_blocked()
        nursery.start_soon(turned_away)
        await wait_all_tasks_blocked()
        admission.close()
        await wait_all_tasks_blocked()
        nursery.start_soon(turned_away)
        await wait_all_tasks_blocked()
        release.set()
    assert failures == [
        "the worker began to shut down while the trial waited for a slot",
        "the worker is shutting down and takes no more trials",
    ]


async def test_a_reason_to_refuse_is_told():
    admission = Admission(FakeSlots(1), 8, refuse=lambda: "8 threads are stuck")
    with pytest.raises(Overloaded, match="8 threads are stuck"):
        await admission.admit().__aenter__()
