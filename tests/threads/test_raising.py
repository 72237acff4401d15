"""The last rung: pure Python that never asks is ended, its thread's next job never."""

import logging
import threading

import trio

from dspex_trio.threads import Job, Slots, add_frame_lookup, open_threads
from dspex_trio.threads.raising import raise_in


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


async def test_it_can_be_switched_off():
    release = threading.Event()

    def stubborn(started):
        started()
        while not release.is_set():
            pass

    job = Job()
    async with open_threads(patience=lambda: 0.2, may_raise=False) as threads:
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
