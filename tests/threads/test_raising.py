"""The last rung: pure Python that never asks is ended, its thread's next job never."""

import asyncio
import concurrent.futures.thread
import contextvars
import gc
import importlib
import logging
import queue
import socket
import ssl
import sys
import threading

import pytest
import trio

from dspex_trio.threads import Job, Slots, add_frame_lookup, never_interrupt, open_threads
from dspex_trio.threads.ladder.interrupt import is_interruptible, raise_in, threads_of
from dspex_trio.threads.ladder.run import Run


async def end_when(started, scope):
    await started.wait()
    scope.cancel()


async def run_and_cancel(threads, function, job):
    """Cancel `function` once it has begun, then wait for all its threads; a quick one may have ended by then."""
    started, token = trio.Event(), trio.lowlevel.current_trio_token()
    slots = Slots(1)
    slot = slots.acquire_nowait()
    with trio.CancelScope() as scope:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(end_when, started, scope)
            await threads.run(function, lambda: token.run_sync_soon(started.set), job=job, slot=slot)
    slot.release()
    if job.details().get("rung") != "abandon":
        await slots.acquire()


async def test_a_loop_that_keeps_every_exception_is_ended(threads):
    def stubborn(started):
        started()
        while True:
            try:
                while True:
                    pass
            except Exception:  # noqa: BLE001, S110 - the point
                pass

    job = Job()
    await run_and_cancel(threads, stubborn, job)
    assert (job.details()["rung"], job.details()["stuck"]) == ("raise", "false")


@pytest.mark.parametrize("by", ["its end", "a cancel"])
async def test_a_loop_is_ended_with_the_threads_room_too(by):
    """By the time at which it may be, the room may be closing; afterwards nobody could end it."""
    ended, late, over = [], [], threading.Event()

    def stubborn(started):
        started()
        try:
            while not over.is_set():
                pass
        except BaseException:
            ended.append(by)
            raise

    job = Job()
    with trio.CancelScope() as scope:
        async with open_threads(on_late_end=late.append) as threads:
            await run_and_cancel(threads, stubborn, job)
            if by == "a cancel":
                scope.cancel()
                await trio.lowlevel.checkpoint()
    over.set()
    assert (ended, late) == ([by], [job])
    assert (job.details()["rung"], job.details()["stuck"]) == ("raise", "false")


async def test_it_can_be_switched_off():
    release = threading.Event()

    def stubborn(started):
        started()
        while not release.is_set():
            pass

    job = Job()
    async with open_threads(patience=lambda _job: 0.2, may_raise=False) as threads:
        await run_and_cancel(threads, stubborn, job)
        assert job.details()["rung"] == "abandon"
        release.set()


async def test_threads_that_a_library_started_for_the_job_are_ended_too(threads):
    """As dspy.Parallel's: they are known by a frame on their stack."""
    job, ended = Job(), []

    def librarys_worker(owner, started):
        started()
        try:
            while True:
                pass
        except BaseException as error:  # noqa: BLE001 - told below
            ended.append(type(error).__name__)

    def program(started):
        helper = threading.Thread(target=librarys_worker, args=(job, started), daemon=True)
        helper.start()
        while helper.is_alive():
            pass

    def lookup(frame):
        return frame.f_locals.get("owner") if frame.f_code is librarys_worker.__code__ else None

    take_back = add_frame_lookup(lookup)
    try:
        await run_and_cancel(threads, program, job)
    finally:
        take_back()
    assert job.details()["rung"] in {"raise", "returned"}
    assert ended == ["JobCancelled"]


async def test_a_librarys_thread_that_has_gone_on_to_another_job_is_left_alone():
    """Or has ended, and its number is the next one's: that is looked at in the same step as the exception is raised."""
    jobs, done, idents, hit = [Job("first"), Job("second")], threading.Event(), [], []

    def works_for(owner):
        idents.append(threading.get_ident())
        try:
            while not done.is_set():
                pass
        except BaseException as error:  # noqa: BLE001 - that is what must not happen
            hit.append(error)

    take_back = add_frame_lookup(
        lambda frame: frame.f_locals.get("owner") if frame.f_code is works_for.__code__ else None
    )
    thread = threading.Thread(target=works_for, args=(jobs[1],))
    thread.start()
    try:
        while not idents:
            await trio.lowlevel.checkpoint()
        assert [any(raise_in(idents[0], if_for=jobs[0]) for _ in range(1000)), hit] == [False, []]
        while not raise_in(idents[0], if_for=jobs[1]):
            await trio.lowlevel.checkpoint()
    finally:
        done.set()
        thread.join(10)
        take_back()
    assert len(hit) == 1


async def test_nothing_is_raised_into_logging(threads):
    """An exception in the middle of a handler could leave its lock or its stream half-done."""
    inside, release, ident = threading.Event(), threading.Event(), []

    class Handler(logging.Handler):
        def emit(self, record):
            ident.append(threading.get_ident())
            inside.set()
            while not release.is_set():
                pass

    logger = logging.getLogger("test_nothing_is_raised_into_logging")
    logger.propagate = False
    logger.addHandler(Handler())
    thread = threading.Thread(target=logger.warning, args=("x",))
    thread.start()
    assert inside.wait(10)
    assert not raise_in(ident[0])
    release.set()
    thread.join(10)


async def test_a_loop_inside_asyncio_is_ended(threads):
    """Its task cannot be cancelled while it never awaits; asyncio below it bears the exception."""

    def work(started):
        async def main():
            started()
            while True:
                pass

        asyncio.run(main())

    job = Job()
    await run_and_cancel(threads, work, job)
    assert job.details()["rung"] in {"raise", "wake"}  # asyncio passes it on to whoever waits for the task


async def test_a_loop_inside_trio_is_ended(threads):
    """Its task never comes to a checkpoint; Trio below it bears the exception, but not in its own code."""

    def work(started):
        async def main():
            started()
            while True:
                pass

        trio.run(main)

    job = Job()
    await run_and_cancel(threads, work, job)
    assert job.details()["rung"] == "raise"
    run = trio.run.__wrapped__
    assert not is_interruptible(stack_of("def unrolled_run():\n    stop()\nunrolled_run()", run.__code__.co_filename))


def stack_of(source, name):
    """The innermost frame of a function that is stopped inside of `source`, a file called `name`."""
    frames = []
    exec(compile(source, name, "exec"), {"stop": lambda: frames.append(sys._getframe(1))})  # noqa: S102 - a file of ours
    return frames[0]


def test_modules_that_keep_shared_state_can_be_named(tmp_path, monkeypatch):
    """A connection pool that an exception leaves halfway would cost every later trial."""
    package, module = tmp_path / "test_pool" / "__init__.py", tmp_path / "test_pool_too.py"
    package.parent.mkdir()
    for file in (package, module):
        file.touch()
    inside, beside = str(package.with_name("connections.py")), str(tmp_path / "test_pool_three.py")
    monkeypatch.syspath_prepend(tmp_path)
    assert is_interruptible(stack_of("stop()", inside))
    with never_interrupt("test_pool"):
        with never_interrupt("test_pool", "test_pool_too", "test_pool_absent", "test_pool_absent.below"):
            assert not is_interruptible(stack_of("stop()", inside))
            assert not is_interruptible(stack_of("stop()", str(module)))
            assert is_interruptible(stack_of("stop()", beside))
        assert not is_interruptible(stack_of("stop()", inside))
        assert is_interruptible(stack_of("stop()", str(module)))
    assert is_interruptible(stack_of("stop()", inside))


@pytest.mark.parametrize("module", [importlib, logging, threading, queue, socket, ssl, concurrent.futures.thread])
def test_what_the_standard_library_keeps_is_kept_whole(module):
    assert not is_interruptible(stack_of("def acquire():\n    stop()\nacquire()", module.__file__))


async def test_code_that_was_told_is_unwinding_and_gets_longer(threads, monkeypatch):
    raised = []
    monkeypatch.setattr("dspex_trio.threads.ladder.run.raise_in", lambda ident: raised.append(ident) or True)
    job = Job()
    run = Run(job)
    run.ident = 1
    job.cancel()
    run.interrupt()
    assert raised == []  # the first two rungs have had no time yet
    job._cancelled_at -= 0.1
    job._raised_at[1] = job._cancelled_at
    run.interrupt()
    assert raised == []
    job._raised_at[1] -= 1
    run.interrupt()
    assert raised == [1]
    run.interrupt()
    assert raised == [1]  # and longer still between two times


async def test_no_exception_is_left_over_for_the_threads_next_job(threads):
    """Many short jobs cancelled at their very end, on few threads; then jobs that must not be hit."""
    stray = []

    def short(started):
        started()
        sum(range(300))

    def innocent():
        try:
            for _ in range(50):
                sum(range(100))
        except BaseException as error:  # noqa: BLE001 - that is what must not happen
            stray.append(error)

    for _ in range(100):
        await run_and_cancel(threads, short, Job())
        await threads.run(innocent, job=Job(), slot=Slots(1).acquire_nowait())
    assert stray == []


async def test_the_carriers_own_code_is_not_interrupted(threads):
    """Where it calls the program it may be left at any point; its own clean-up is never cut."""
    at_home, on_top = [], []

    class Observing:
        def __enter__(self):
            at_home.append(is_interruptible(sys._getframe().f_back))

        def __exit__(self, *error):
            pass

    def program():
        on_top.append(is_interruptible(sys._getframe()))

    job = Job()
    await threads.run(program, job=job, slot=Slots(1).acquire_nowait())
    run = Run(job)
    run._mine = Observing()
    thread = threading.Thread(target=run.body, args=(contextvars.copy_context(), program, ()))
    thread.start()
    thread.join(10)
    assert (on_top, at_home) == ([True, True], [False])


_PROFILED = """
import sys, trio
from dspex_trio.threads import Job, Slots, open_threads
from dspex_trio.threads.ladder.interrupt import take_back
from _thread import get_ident

async def main():
    async with open_threads() as threads:
        await threads.run(len, (), job=Job(), slot=Slots(1).acquire_nowait())
        take_back(get_ident())

trio.run(main)
sys.setprofile(lambda *event: None)
(lambda: None)()
sys.setprofile(None)
print("ended")
"""


async def test_a_profiled_process_goes_on_after_a_job():
    """CPython 3.11 begins no profiled function while the flag for asynchronous exceptions is up: it spins for ever."""
    with trio.fail_after(30):
        ended = await trio.run_process([sys.executable, "-c", _PROFILED], capture_stdout=True)
    assert ended.stdout == b"ended\n"


async def test_nothing_is_collected_while_frames_of_other_threads_are_looked_at():
    """CPython 3.11 may collect while it makes a frame's object; the other thread runs meanwhile, and leaves it."""
    collecting = []
    take_back = add_frame_lookup(lambda _frame: collecting.append(gc.isenabled()))
    try:
        threads_of(Job())
    finally:
        take_back()
    assert (set(collecting), gc.isenabled()) == ({False}, True)
