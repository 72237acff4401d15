"""An exception of ours is nobody's news: not while a runtime is open, and not from what goes on after it has closed."""

import asyncio
import gc
import sys
import threading
import time
from _thread import allocate_lock
from contextvars import copy_context
from functools import partial

import pytest
import trio

from dspex_trio.threads import Job, JobCancelled, Slots, open_threads
from dspex_trio.threads.patches.excepthooks import quiet


@pytest.fixture(autouse=True)
def nothing_of_other_tests():
    """What these have left to the garbage collector may hold one of our exceptions, and so the hooks."""
    gc.collect()


def shown():
    return threading.excepthook, sys.unraisablehook, asyncio.BaseEventLoop.call_exception_handler


class RaisesWhenCollected:
    def __del__(self):
        raise JobCancelled


def ends_a_thread():
    raise JobCancelled


def ends_a_thread_in_a_group():
    raise BaseExceptionGroup("of a nursery", [JobCancelled(), BaseExceptionGroup("inner", [JobCancelled()])])


def ends_a_finaliser():
    RaisesWhenCollected()


def ends_a_callback():
    async def main():
        asyncio.get_running_loop().call_soon(ends_a_thread)
        await asyncio.sleep(0)

    asyncio.run(main())


def ends_a_task_that_nobody_asks():
    async def fail():
        raise JobCancelled

    async def main():
        task = asyncio.ensure_future(fail())
        await asyncio.wait([task])

    asyncio.run(main())
    gc.collect()


ENDS = [ends_a_thread, ends_a_thread_in_a_group, ends_a_finaliser, ends_a_callback, ends_a_task_that_nobody_asks]


@pytest.mark.parametrize("end", ENDS)
async def test_what_goes_on_after_the_runtime_has_closed_ends_without_a_word_and_leaves_no_hook(
    end, capfd, caplog, collected_here
):
    """As the thread that dspy.streamify fills its queue from."""
    before, closed, helpers = shown(), threading.Event(), []

    def go_on():
        closed.wait()
        end()

    async with open_threads() as threads:
        assert not set(shown()) & set(before)
        helpers.append(threading.Thread(target=go_on))
        await threads.run(helpers[0].start, job=Job(), slot=Slots(1).acquire_nowait())
    assert shown() == before
    closed.set()
    await trio.to_thread.run_sync(helpers[0].join)
    gc.collect()
    assert (*capfd.readouterr(), caplog.text) == ("", "", "")
    assert shown() == before


async def test_what_was_ended_before_the_runtime_closed_may_say_so_afterwards(capfd, collected_here):
    """Hooks that went with the runtime would be gone when the thread has wound up."""
    before, closed, helpers, ending = shown(), allocate_lock(), [], threading.Event()
    closed.acquire()

    def slow_to_end():
        try:
            time.sleep(60)
        finally:
            ending.set()
            closed.acquire()

    job = Job()

    def work():
        helpers.append(threading.Thread(target=copy_context().run, args=(slow_to_end,)))
        helpers[0].start()
        job.cancel()

    async with open_threads() as threads:
        with pytest.raises(RuntimeError, match="cancelled by somebody else"):
            await threads.run(work, job=job, slot=Slots(1).acquire_nowait())
        while not ending.is_set():
            job.wake()
            await trio.lowlevel.checkpoint()
    assert not set(shown()) & set(before)
    closed.release()
    await trio.to_thread.run_sync(helpers[0].join)
    gc.collect()
    assert capfd.readouterr() == ("", "")
    assert shown() == before


@pytest.mark.parametrize(
    "ends", [lambda: time.sleep(60), lambda: threading.Event().wait(), lambda: asyncio.run(asyncio.sleep(60))]
)
async def test_the_hooks_of_an_ended_job_need_no_garbage_collector_to_be_taken_back(ends):
    """An exception that was held by a frame of its own traceback would keep them for as long as nobody collects."""
    before, job, entered = shown(), Job(), threading.Event()

    def work():
        entered.set()
        ends()

    gc.disable()
    try:
        async with open_threads(patience=lambda _job: 10) as threads, trio.open_nursery() as nursery:
            nursery.start_soon(partial(threads.run, work, job=job, slot=Slots(1).acquire_nowait()))
            await trio.to_thread.run_sync(entered.wait)
            nursery.cancel_scope.cancel()
        assert job.details()["rung"] in {"check", "wake"}
        assert shown() == before
    finally:
        gc.enable()


@pytest.mark.parametrize(("owner", "name"), [(threading, "excepthook"), (sys, "unraisablehook")])
def test_all_other_exceptions_are_shown(owner, name, monkeypatch):
    told = []
    monkeypatch.setattr(owner, name, lambda news: told.append(news.exc_value))
    other = ValueError()
    mixed = BaseExceptionGroup("mixed", [JobCancelled(), other])
    with quiet():
        for error in (JobCancelled(), other, mixed):
            getattr(owner, name)(threading.ExceptHookArgs((type(error), error, None, None)))
    assert told == [other, mixed]


def test_a_hook_that_somebody_put_over_ours_stays_his(monkeypatch):
    """It calls ours, which passes on everything once nothing of ours is under way."""
    monkeypatch.setattr(threading, "excepthook", threading.excepthook)

    def theirs(news):
        return None

    with quiet():
        threading.excepthook = theirs
    assert threading.excepthook is theirs
    with quiet():
        assert threading.excepthook is not theirs
    assert threading.excepthook is theirs
