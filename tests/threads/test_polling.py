"""Code that asks again and again and hardly ever waits is ended too; what polls once, for somebody else, is let."""

import asyncio
import contextlib
import queue
import select
import selectors
import socket
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from functools import partial

import pytest
import requests
import trio
from requests.adapters import HTTPAdapter

from dspex_trio.threads import Job, JobCancelled, Slots, left_alone

# An exception from outside may leave a coroutine that was made and not begun, or a socket, to the garbage collector.
pytestmark = [
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
    pytest.mark.usefixtures("collected_here"),
]


@pytest.fixture
def over():
    """Set when the test is over, so that nothing goes on if what it tests does not work."""
    event = threading.Event()
    yield event
    event.set()


@pytest.fixture
def silent():
    ours, theirs = socket.socketpair()
    with ours, theirs:
        yield ours


async def ended(threads, function):
    """Cancel a job once `function` has begun; how it ended."""
    job, started, token = Job(), trio.Event(), trio.lowlevel.current_trio_token()
    slots = Slots(1)
    slot = slots.acquire_nowait()
    with trio.CancelScope() as scope:
        async with trio.open_nursery() as nursery:

            @nursery.start_soon
            async def cancel():
                await started.wait()
                scope.cancel()

            await threads.run(function, lambda: token.run_sync_soon(started.set), job=job, slot=slot)
    slot.release()
    return job.details()


def again_and_again(look, over, started):
    started()
    while not over.is_set():
        look()


def keeping_exceptions(look):
    with contextlib.suppress(Exception):
        look()


def sleep(seconds, _silent):
    return lambda: time.sleep(seconds)


def wait_for_event(seconds, _silent):
    event = threading.Event()
    return lambda: event.wait(seconds)


def wait_in_select(seconds, silent):
    return lambda: select.select([silent], [], [], seconds)


def wait_in_poll(seconds, silent):
    poll = select.poll()
    poll.register(silent, select.POLLIN)
    return lambda: poll.poll(seconds * 1e3)


def wait_in_a_selector(seconds, silent):
    selector = selectors.SelectSelector()  # without a descriptor of its own
    selector.register(silent, selectors.EVENT_READ)
    return lambda: selector.select(seconds)


def join(seconds, _silent):
    return lambda: threading.main_thread().join(seconds)


@pytest.mark.parametrize("seconds", [0, 0.001, 0.01])
@pytest.mark.parametrize("way", [sleep, wait_for_event, wait_in_select, wait_in_poll, wait_in_a_selector, join])
async def test_a_loop_of_short_waits_is_ended(way, seconds, threads, silent, over):
    def work(started):
        again_and_again(way(seconds, silent), over, started)

    details = await ended(threads, work)
    assert details["stuck"] == "false"
    assert details["rung"] in {"check", "wake", "raise"}


async def test_a_loop_of_short_waits_for_a_process_is_ended_and_so_is_the_process(threads, over):
    started_one = []

    def work(started):
        process = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
        started_one.append(process)
        again_and_again(partial(keeping_exceptions, partial(process.wait, 0.01)), over, started)

    assert (await ended(threads, work))["rung"] == "wake"
    assert started_one[0].wait() == -9


async def test_a_job_that_is_over_starts_no_process(threads):
    """A loop of processes that end at once would go on: nothing in it waits for long."""
    job = Job()
    job.cancel()

    def work():
        with pytest.raises(JobCancelled):
            subprocess.run([sys.executable, "-c", ""], check=True)

    await _in_job(job, work)


@pytest.mark.parametrize("operation", ["recv", "send"])
async def test_a_loop_that_asks_a_socket_which_does_not_block_is_ended(operation, threads, silent, over):
    """It is passed on and not looked at, so the last rung has to reach it: there it is nearly all the time."""
    silent.setblocking(False)

    def work(started):
        call = partial(silent.recv, 1) if operation == "recv" else partial(silent.send, b"x" * 100_000)
        again_and_again(partial(keeping_exceptions, call), over, started)

    assert (await ended(threads, work))["rung"] == "raise"


async def test_a_loop_that_looks_up_what_is_no_name_is_ended(threads, over):
    def work(started):
        again_and_again(partial(socket.getaddrinfo, "127.0.0.1", 80), over, started)

    assert (await ended(threads, work))["rung"] == "check"


async def test_an_event_loop_that_never_waits_and_keeps_its_cancel_is_ended(threads, over):
    async def wait(seconds):
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await asyncio.Event().wait()

    async def main(started, step):
        started()
        while not over.is_set():
            with contextlib.suppress(asyncio.CancelledError):
                await step()

    for step in (partial(asyncio.sleep, 0), partial(wait, 0.001)):
        details = await ended(threads, lambda started, step=step: asyncio.run(main(started, step)))
        assert details["rung"] in {"wake", "raise"}
        assert details["stuck"] == "false"


def long_over():
    """A job that was cancelled a minute ago."""
    job = Job()
    job.cancel()
    job._cancelled_at -= 60
    return job


async def test_what_a_pool_looks_at_while_it_lends_a_connection_is_not_ended(threads):
    """It would be lost to all: nobody gives back what nobody has got."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        base = f"http://127.0.0.1:{listener.getsockname()[1]}/"

        def answer(times):
            connection, _ = listener.accept()
            with connection:
                for _ in range(times):
                    connection.recv(65536)
                    connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")

        session = requests.Session()
        session.mount("http://", HTTPAdapter(pool_maxsize=1, pool_block=True))
        async with trio.open_nursery() as nursery:
            nursery.start_soon(trio.to_thread.run_sync, answer, 1)
            await trio.to_thread.run_sync(session.get, base)
        job = long_over()

        def work():
            with pytest.raises(JobCancelled):
                session.get(base)

        await _in_job(job, work)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(trio.to_thread.run_sync, answer, 1)
            response = await trio.to_thread.run_sync(partial(session.get, base, timeout=10))
        assert response.text == "ok"
        session.close()


async def _in_job(job, work):
    """Run `work` with what it calls taken for a part of `job`."""
    from dspex_trio.threads.ladder.job import enter_job

    def in_its_context():
        enter_job(job)
        work()

    await trio.to_thread.run_sync(in_its_context)


async def test_a_pool_that_looks_for_an_idle_thread_gets_one_for_its_work(threads):
    """Left in between, its work would lie there until somebody else's comes."""
    pool, job = ThreadPoolExecutor(1), long_over()
    done = []
    await _in_job(job, lambda: done.append(pool.submit(int)))
    await trio.to_thread.run_sync(pool.shutdown)
    assert done[0].result() == 0


async def test_code_on_a_pools_thread_that_only_asks_is_ended(threads):
    job = long_over()

    def work():
        # What waits here is the test; the thread itself has the job's context alone.
        with left_alone(), ThreadPoolExecutor(1) as pool, pytest.raises(JobCancelled):
            pool.submit(copy_context().run, threading.Event().wait, 0).result()

    await _in_job(job, work)


async def test_one_look_that_does_not_wait_is_let_after_the_end_too(threads):
    """As clean-up code takes one."""
    seen, begun, token = [], trio.Event(), trio.lowlevel.current_trio_token()

    def work():
        try:
            token.run_sync_soon(begun.set)
            time.sleep(60)
        finally:
            seen.append(threading.Event().wait(0))
            seen.append(select.select([], [], [], 0))
            threading.main_thread().join(0)
            with contextlib.suppress(queue.Empty):
                queue.Queue().get_nowait()
            seen.append("all")

    job = Job()
    with trio.CancelScope() as scope:
        async with trio.open_nursery() as nursery:

            @nursery.start_soon
            async def cancel():
                await begun.wait()
                scope.cancel()

            await threads.run(work, job=job, slot=Slots(1).acquire_nowait())
    assert seen == [False, ([], [], []), "all"]
