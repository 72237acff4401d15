import threading

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from dspex_trio.threads import Job, JobCancelled, Slots, open_threads


async def test_slots_are_handed_out_in_order_and_a_cancelled_wait_takes_none():
    slots, order = Slots(1), []
    first = slots.acquire_nowait()
    with pytest.raises(trio.WouldBlock):
        slots.acquire_nowait()

    async def wait(name, scope):
        with scope:
            slot = await slots.acquire()
            order.append(name)
            slot.release()

    scopes = [trio.CancelScope() for _ in range(4)]
    async with trio.open_nursery() as nursery:
        for name, scope in enumerate(scopes):
            nursery.start_soon(wait, name, scope)
            await wait_all_tasks_blocked()
        scopes[1].cancel()
        await wait_all_tasks_blocked()
        first.release()
    assert (order, slots.free) == ([0, 2, 3], 1)


async def test_what_a_function_returns_or_raises_comes_back(threads):
    slots = Slots(1)
    slot = slots.acquire_nowait()
    assert await threads.run(lambda a, b: (a, b), 1, 2, job=Job(), slot=slot) == (1, 2)
    with pytest.raises(ZeroDivisionError):
        await threads.run(lambda: 1 / 0, job=Job(), slot=slot)
    slot.release()
    assert slots.free == 1


async def test_a_slot_is_free_only_when_its_thread_has_really_ended():
    """A bare lock cannot be woken; without patience and the last rung its thread is abandoned."""
    slots, stubborn_lock = Slots(1), threading.Lock()
    stubborn_lock.acquire()
    slot, job, started = slots.acquire_nowait(), Job("stubborn"), trio.Event()
    token = trio.lowlevel.current_trio_token()

    def stubborn():
        token.run_sync_soon(started.set)
        stubborn_lock.acquire()

    async with open_threads(may_raise=False) as threads:
        with trio.CancelScope() as scope:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(cancel_when, started, scope)
                await threads.run(stubborn, job=job, slot=slot)
        assert scope.cancelled_caught
        slot.release()
        with pytest.raises(trio.WouldBlock):
            slots.acquire_nowait()
        [stuck] = threads.stuck()
        assert stuck.name == "stubborn"
        assert "in stubborn" in stuck.stack
        assert (job.details()["rung"], job.details()["stuck"]) == ("abandon", "true")
        stubborn_lock.release()
        assert await slots.acquire()
        assert threads.stuck() == []
        assert (job.details()["rung"], job.details()["stuck"]) == ("returned", "false")


async def cancel_when(event, scope):
    await event.wait()
    scope.cancel()


async def test_a_cancelled_job_ends_its_code_at_the_next_check(threads):
    slots, job = Slots(1), Job()
    started, seen = trio.Event(), []
    token = trio.lowlevel.current_trio_token()
    told = threading.Event()

    def work():
        job.on_cancel(told.set)
        token.run_sync_soon(started.set)
        while not told.is_set():
            pass
        try:
            job.check()
        except JobCancelled:
            seen.append("cancelled")
            raise

    with trio.CancelScope() as scope:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(cancel_when, started, scope)
            await threads.run(work, job=job, slot=slots.acquire_nowait())
    assert (scope.cancelled_caught, seen, threads.stuck()) == (True, ["cancelled"], [])
    assert (job.details()["rung"], job.details()["stuck"]) == ("check", "false")


async def test_context_variables_of_the_caller_reach_the_thread(threads):
    import contextvars

    variable = contextvars.ContextVar("v")
    variable.set("here")
    assert await threads.run(variable.get, job=Job(), slot=Slots(1).acquire_nowait()) == "here"


async def test_a_job_that_is_over_runs_nothing_more(threads):
    job, slot, called = Job("done"), Slots(1).acquire_nowait(), []
    job.cancel()
    with pytest.raises(RuntimeError, match="'done' is over"):
        await threads.run(called.append, 1, job=job, slot=slot)
    with trio.CancelScope() as scope:
        scope.cancel()
        await threads.run(called.append, 1, job=Job(), slot=slot)
    assert scope.cancelled_caught
    assert called == []


async def test_a_cancel_by_somebody_else_than_the_caller_is_an_error_of_the_runs(threads):
    """JobCancelled is no exception that a caller could make sense of."""
    job, slots = Job("shared"), Slots(1)
    slot = slots.acquire_nowait()

    def work():
        job.cancel()
        job.check()

    with pytest.raises(RuntimeError, match="'shared' was cancelled by somebody else"):
        await threads.run(work, job=job, slot=slot)
    slot.release()
    assert slots.free == 1


async def test_a_thread_that_cannot_be_started_takes_no_slot(threads, monkeypatch):
    def no_thread(*args, **kwargs):
        raise RuntimeError("can't start new thread")

    slots = Slots(1)
    slot = slots.acquire_nowait()
    monkeypatch.setattr(trio.lowlevel, "start_thread_soon", no_thread)
    with pytest.raises(RuntimeError, match="can't start"):
        await threads.run(print, job=Job(), slot=slot)
    slot.release()
    assert (slots.free, threads.stuck()) == (1, [])


async def test_an_abandoned_thread_is_told_about_when_it_ends():
    """What happens after the answer has left goes to the record."""
    lock, late, started = threading.Lock(), [], trio.Event()
    lock.acquire()
    token = trio.lowlevel.current_trio_token()
    job, slots = Job("late"), Slots(1)
    slot = slots.acquire_nowait()

    def work():
        token.run_sync_soon(started.set)
        lock.acquire()

    async with open_threads(may_raise=False, on_late_end=late.append) as threads:
        with trio.CancelScope() as scope:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(cancel_when, started, scope)
                await threads.run(work, job=job, slot=slot)
        slot.release()
        assert late == []
        lock.release()
        await slots.acquire()
    assert late == [job]


async def test_a_thread_that_ends_in_the_very_turn_of_its_cancel_is_not_taken_for_stuck(threads):
    """It could not be told any more, and nobody would ever say that it has ended."""
    token, slots = trio.lowlevel.current_trio_token(), Slots(1)
    for _ in range(50):
        job, slot = Job(), slots.acquire_nowait()
        with trio.CancelScope() as scope:
            await threads.run(token.run_sync_soon, scope.cancel, job=job, slot=slot)
            await trio.lowlevel.checkpoint()
        slot.release()
        assert job.details().get("stuck", "false") == "false"
        assert slots.free == 1
