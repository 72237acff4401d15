import contextvars
import threading
import time

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from dspex_trio.threads import Job, JobCancelled, Slots, current_job, open_threads


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

    with pytest.raises(RuntimeError, match="'shared' was cancelled, but not by its caller"):
        await threads.run(work, job=job, slot=slot)
    slot.release()
    assert slots.free == 1


async def test_a_thread_that_cannot_be_started_takes_no_slot(threads, monkeypatch):
    def no_thread(*args, **kwargs):
        raise RuntimeError("can't start new thread")

    slots = Slots(1)
    slot = slots.acquire_nowait()
    monkeypatch.setattr(threading.Thread, "start", no_thread)
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


async def cancelled_in(threads, function):
    """Run `function` as a job and cancel it once it waits; its job."""
    job, slots = Job(), Slots(1)
    with trio.CancelScope() as scope:
        async with trio.open_nursery() as nursery:

            @nursery.start_soon
            async def cancel():
                while not (job._parked or job.cancelled):
                    await trio.lowlevel.checkpoint()
                scope.cancel()

            await threads.run(function, job=job, slot=slots.acquire_nowait())
    return job


async def test_a_thread_is_its_jobs_in_every_context(threads):
    """A program may run code in a context of its own making, where nothing tells whose it is."""

    def whose():
        return contextvars.Context().run(current_job)

    job = Job()
    assert await threads.run(whose, job=job, slot=Slots(1).acquire_nowait()) is job
    assert await trio.to_thread.run_sync(whose) is None  # in the same thread, now another one's
    job = await cancelled_in(threads, lambda: contextvars.Context().run(time.sleep, 60))
    assert job.details()["rung"] == "wake"


class Unlike(Exception):
    """Not to be compared, and not to be asked whether it is true."""

    def __eq__(self, other):
        raise AssertionError

    __hash__ = None

    def __bool__(self):
        raise AssertionError


@pytest.mark.parametrize("kind", [ValueError, Unlike])
async def test_a_thread_is_out_however_many_exceptions_lead_to_one_another(kind, threads):
    def work():
        last = kind()
        for _ in range(100_000):
            error = kind()
            error.__cause__ = last
            last = error
        try:
            raise last
        except kind:
            time.sleep(60)

    job = await cancelled_in(threads, work)
    assert (job.details()["rung"], job.details()["stuck"]) == ("wake", "false")


async def test_what_an_exception_met_on_its_way_goes_on(threads):
    """As a library's reader, which tells an error to whoever asked and reads on for the others."""

    def read():
        try:
            raise KeyError
        except KeyError as error:
            told = error
        yield told
        yield "another's"

    reader = read()

    def work():
        try:
            raise next(reader)
        except KeyError:
            time.sleep(60)

    await cancelled_in(threads, work)
    assert next(reader) == "another's"
