"""From a job's thread to the loop and back."""

import contextvars
import threading
from functools import partial

import pytest
import trio
import trio.testing

from dspex_trio.threads import Job, Slots, current_job, open_threads, run_in_loop

variable = contextvars.ContextVar("variable")


async def run(threads, function, job=None):
    return await threads.run(function, job=job or Job(), slot=Slots(1).acquire_nowait())


async def test_a_thread_gets_what_the_loop_returns_or_raises(threads):
    async def double(value):
        await trio.lowlevel.checkpoint()
        return 2 * value

    async def fail():
        raise KeyError("gone")

    assert await run(threads, lambda: run_in_loop(double, 21)) == 42
    with pytest.raises(KeyError, match="gone"):
        await run(threads, lambda: run_in_loop(fail))


@pytest.mark.parametrize("error", [SystemExit(3), GeneratorExit()])
async def test_a_function_that_exits_in_the_loop_ends_its_job_and_not_the_loop(threads, error):
    """An asynchronous tool that calls `sys.exit` would end the worker with all other trials."""

    async def leaves():
        raise error

    with pytest.raises(type(error)):
        await run(threads, lambda: run_in_loop(leaves))


async def test_the_threads_context_goes_along_but_the_loop_is_not_the_jobs(threads):
    async def look():
        await trio.lowlevel.checkpoint()
        return variable.get(), current_job()

    def work():
        variable.set("set in the thread")
        return run_in_loop(look)

    assert await run(threads, work) == ("set in the thread", None)


async def test_a_cancelled_job_cancels_what_it_waits_for(threads):
    begun, ended, job = trio.Event(), trio.Event(), Job()

    async def wait():
        begun.set()
        try:
            await trio.sleep_forever()
        finally:
            ended.set()

    with trio.CancelScope() as scope:
        async with trio.open_nursery() as nursery:

            @nursery.start_soon
            async def cancel():
                await begun.wait()
                scope.cancel()

            await run(threads, lambda: run_in_loop(wait), job)
    assert job.details()["rung"] == "wake"
    await ended.wait()


async def test_it_is_for_the_threads_of_jobs():
    with pytest.raises(RuntimeError, match="threads of a job"):
        run_in_loop(trio.sleep, 0)
    async with open_threads():
        with pytest.raises(RuntimeError, match="threads of a job"):
            await trio.to_thread.run_sync(run_in_loop, trio.sleep, 0)


async def test_a_thread_that_comes_after_the_end_is_told_so_and_the_loop_survives():
    """Whoever closes the room while threads still run must not lose the loop to one of them."""
    left, told, slots = threading.Event(), [], Slots(1)

    def work():
        assert left.wait(10)
        try:
            run_in_loop(trio.sleep, 0)
        except RuntimeError as error:
            told.append(str(error))

    async with trio.open_nursery() as nursery:
        async with open_threads() as workers:
            nursery.start_soon(partial(workers.run, work, job=Job(), slot=slots.acquire_nowait()))
            await trio.testing.wait_all_tasks_blocked()
        left.set()
    assert told == ["the Trio loop is closing"]
