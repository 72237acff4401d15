"""What one job leaves in its thread no other one finds: each has a new one."""

import asyncio
import decimal
import sys
import threading

import pytest
import trio

from dspex_trio.threads import Job, Slots
from dspex_trio.threads.ladder.run import RunThread

LEFT = threading.local()


def leaves_a_closed_loop():
    loop = asyncio.new_event_loop()
    asyncio.set_event_loop(loop)
    loop.close()


def has_no_loop():
    with pytest.raises(RuntimeError):
        asyncio.get_event_loop()


def leaves_a_tracer():
    sys.settrace(lambda *_: None)
    sys.setprofile(lambda *_: None)


def has_no_tracer():
    assert (sys.gettrace(), sys.getprofile()) == (None, None)


def leaves_a_secret():
    LEFT.secret = "x"


def has_no_secret():
    assert not hasattr(LEFT, "secret")


def leaves_a_precision():
    decimal.getcontext().prec = 3


def has_the_usual_precision():
    assert decimal.getcontext().prec == decimal.DefaultContext.prec


@pytest.mark.parametrize(
    ("leaves", "innocent"),
    [
        (leaves_a_closed_loop, has_no_loop),
        (leaves_a_tracer, has_no_tracer),
        (leaves_a_secret, has_no_secret),
        (leaves_a_precision, has_the_usual_precision),
    ],
)
async def test_nothing_is_left_in_a_thread(threads, leaves, innocent):
    slots = Slots(1)
    for function in (leaves, innocent):
        slot = slots.acquire_nowait()
        await threads.run(function, job=Job(), slot=slot)
        slot.release()


async def test_a_thread_has_the_jobs_name_and_does_not_keep_the_process(threads):
    slot = Slots(1).acquire_nowait()
    thread = await threads.run(threading.current_thread, job=Job("trial 7"), slot=slot)
    slot.release()
    assert (thread.name, thread.daemon) == ("trial 7", True)


def test_whoever_starts_a_thread_does_not_wait_until_it_runs(monkeypatch):
    """Where others compute, that takes up to 150 ms, and no deadline is kept meanwhile."""

    def waits(self, timeout=None):
        raise AssertionError("nobody is to wait")

    monkeypatch.setattr(threading.Event, "wait", waits)
    ended = threading.Lock()
    ended.acquire()
    RunThread("x", lambda: None, lambda result: ended.release()).start()
    assert ended.acquire(timeout=30)


async def test_a_thread_is_gone_when_its_job_has_ended(threads):
    slot = Slots(1).acquire_nowait()
    thread = await threads.run(threading.current_thread, job=Job(), slot=slot)
    slot.release()
    await trio.to_thread.run_sync(thread.join)
    assert not thread.is_alive()
