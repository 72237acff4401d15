"""Time stands still while anybody runs, and jumps when everybody waits. Each test takes hours of it, and no time."""

import asyncio
import queue
import select
import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from dspex_trio.threads import Job, Slots, open_threads, run_in_loop

HOUR = 3600.0
MONOTONIC = time.monotonic


@pytest.fixture
async def threads(virtual_clock):
    async with open_threads(patience=lambda _job: 10) as threads:
        yield threads


async def run(threads, function, job=None):
    return await threads.run(function, job=job or Job(), slot=Slots(1).acquire_nowait())


def take_from_an_empty_queue(timeout):
    with pytest.raises(queue.Empty):
        queue.Queue().get(timeout=timeout)


async def test_tasks_sleep_in_virtual_time(virtual_clock):
    began = trio.current_time()
    await trio.sleep(HOUR)
    assert trio.current_time() - began == HOUR


async def test_deadlines_come_in_order(virtual_clock):
    order = []

    async def sleep(hours):
        await trio.sleep(hours * HOUR)
        order.append((hours, trio.current_time()))

    async with trio.open_nursery() as nursery:
        for hours in (3, 1, 2):
            nursery.start_soon(sleep, hours)
    assert order == [(1, HOUR), (2, 2 * HOUR), (3, 3 * HOUR)]


async def test_a_jump_makes_late_whatever_was_due_meanwhile(virtual_clock, threads):
    woke = []

    async def task():
        await trio.sleep(1)
        woke.append(("task", trio.current_time()))

    def thread():
        time.sleep(2)
        woke.append(("thread", virtual_clock.current_time()))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(task)
        nursery.start_soon(run, threads, thread)
        await trio.sleep(0.5)  # passes when the thread waits, too
        virtual_clock.jump(HOUR - 0.5)
        assert trio.current_time() == HOUR
    assert sorted(woke) == [("task", HOUR), ("thread", HOUR)]


async def test_time_does_not_go_back(virtual_clock):
    with pytest.raises(ValueError, match="does not go back"):
        virtual_clock.jump(-1)


async def test_time_stands_still_while_a_thread_runs(virtual_clock, threads):
    """Trio's own autojump clock would let the deadline pass here."""
    with trio.move_on_after(HOUR) as scope:
        await run(threads, lambda: sum(range(1_000_000)))
    assert not scope.cancelled_caught
    assert trio.current_time() == 0


@pytest.mark.parametrize(
    "wait",
    [
        lambda: time.sleep(HOUR),
        lambda: threading.Event().wait(HOUR),
        lambda: take_from_an_empty_queue(HOUR),
        lambda: threading.Semaphore(0).acquire(timeout=HOUR),
        lambda: run_in_loop(trio.sleep, HOUR),
    ],
)
async def test_a_threads_waits_take_virtual_time(virtual_clock, threads, wait):
    await run(threads, wait)
    assert trio.current_time() == HOUR


def join_a_thread_that_sleeps():
    thread = threading.Thread(target=time.sleep, args=(HOUR,))
    thread.start()
    thread.join()


def map_in_a_pool():
    with ThreadPoolExecutor(2) as pool:
        list(pool.map(time.sleep, [HOUR, HOUR]))


def run_a_loop():
    asyncio.run(asyncio.sleep(3600))


def receive_in_vain():
    one, other = socket.socketpair()
    one.settimeout(HOUR)
    with one, other, pytest.raises(TimeoutError, match="timed out"):
        one.recv(1)


def accept_in_vain():
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(HOUR)
        with pytest.raises(TimeoutError, match="timed out"):
            server.accept()


def select_in_vain():
    one, other = socket.socketpair()
    with one, other:
        assert select.select([one], [], [], HOUR) == ([], [], [])


@pytest.mark.parametrize(
    "wait",
    [
        lambda: time.sleep(HOUR),
        lambda: trio.from_thread.run(trio.sleep, HOUR),
        join_a_thread_that_sleeps,
        map_in_a_pool,
        run_a_loop,
        receive_in_vain,
        accept_in_vain,
        select_in_vain,
    ],
)
async def test_waits_of_trios_own_threads_take_virtual_time_and_those_of_what_they_start(virtual_clock, wait):
    await trio.to_thread.run_sync(wait)
    assert trio.current_time() == HOUR


def compute():
    return sum(range(1_000_000))


def compute_in_a_thread():
    thread = threading.Thread(target=compute)
    thread.start()
    thread.join()


def compute_in_a_pool():
    with ThreadPoolExecutor(2) as pool:
        assert len(list(pool.map(lambda _: compute(), range(4)))) == 4


@pytest.mark.parametrize("work", [compute, compute_in_a_thread, compute_in_a_pool])
async def test_time_stands_still_while_a_thread_computes_for_another_one(virtual_clock, work):
    with trio.fail_after(0.01):
        await trio.to_thread.run_sync(work)
    assert trio.current_time() == 0


async def test_threads_talk_over_sockets_in_virtual_time(virtual_clock):
    """A wait for what another thread will send is a wait; it ends when that is sent and not a moment later."""
    heard = []

    def serve(server):
        connection, _ = server.accept()
        with connection:
            for _ in range(3):
                time.sleep(HOUR)
                connection.sendall(b"x")

    def talk():
        with socket.create_server(("127.0.0.1", 0)) as server:
            thread = threading.Thread(target=serve, args=(server,))
            thread.start()
            with socket.create_connection(server.getsockname()) as connection:
                while connection.recv(1):
                    heard.append(trio.from_thread.run_sync(trio.current_time))
            thread.join()

    await trio.to_thread.run_sync(talk)
    assert heard == [HOUR, 2 * HOUR, 3 * HOUR]


async def test_a_thread_that_waits_for_a_server_of_the_loops_waits(virtual_clock):
    (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
    address = listener.socket.getsockname()

    async def serve(stream):
        await trio.sleep(HOUR)
        await stream.send_all(b"late")

    def ask():
        with socket.create_connection(address) as connection:
            return connection.recv(4)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(trio.serve_listeners, serve, [listener])
        assert await trio.to_thread.run_sync(ask) == b"late"
        nursery.cancel_scope.cancel()
    assert trio.current_time() == HOUR


MODULES_OWN = threading.Lock()


async def test_a_thread_that_waits_for_a_lock_of_one_that_sleeps_holds_nobody_up(virtual_clock):
    """The clock cannot see a bare lock, but that the thread does nothing."""

    def work():
        with MODULES_OWN:
            time.sleep(HOUR)

    async with trio.open_nursery() as nursery:
        for _ in range(2):
            nursery.start_soon(trio.to_thread.run_sync, work)
    assert trio.current_time() == 2 * HOUR


async def test_a_computation_that_is_declared_to_have_no_end_is_ended_at_its_deadline(virtual_clock, threads):
    job = Job()

    def burn():
        with virtual_clock.blocked():
            while True:
                pass

    with trio.move_on_after(HOUR) as scope:
        await run(threads, burn, job)
    assert scope.cancelled_caught
    assert job.details()["rung"] == "raise"
    assert HOUR < trio.current_time() < HOUR + 1


async def test_a_thread_and_a_task_take_turns(virtual_clock, threads):
    seen = []

    def work():
        for _ in range(3):
            time.sleep(2 * HOUR)
            seen.append("thread")

    async with trio.open_nursery() as nursery:
        nursery.start_soon(run, threads, work)
        await trio.sleep(HOUR)
        for _ in range(3):
            seen.append("task")
            await trio.sleep(2 * HOUR)
    assert seen == ["task", "thread"] * 3


async def test_the_deadline_wakes_a_thread_that_sleeps(virtual_clock, threads):
    job = Job()
    with trio.move_on_after(HOUR) as scope:
        await run(threads, lambda: time.sleep(2 * HOUR), job)
    assert scope.cancelled_caught
    assert (trio.current_time(), job.details()["rung"]) == (HOUR, "wake")


async def test_one_thread_wakes_another(virtual_clock, threads):
    """The one that was notified runs again at once, whenever it gets to it: time must not jump before."""
    event, slots = threading.Event(), Slots(2)
    times = []

    def waiter():
        assert event.wait(10 * HOUR)
        times.append(trio.from_thread.run_sync(trio.current_time, trio_token=token))

    def setter():
        time.sleep(HOUR)
        event.set()

    token = trio.lowlevel.current_trio_token()
    async with trio.open_nursery() as nursery:
        for function in (waiter, setter):

            @nursery.start_soon
            async def _(function=function):
                await threads.run(function, job=Job(), slot=slots.acquire_nowait())

    assert times == [HOUR]


async def test_a_wait_that_the_clock_cannot_see_can_be_declared(virtual_clock, threads):
    """Here a bare lock, which no cancel ends: the thread is abandoned when the patience is over."""
    lock, job = threading.Lock(), Job()
    lock.acquire()

    def work():
        with virtual_clock.blocked():
            lock.acquire()

    with trio.move_on_after(HOUR) as scope:
        await run(threads, work, job)
    assert scope.cancelled_caught
    assert (trio.current_time(), job.details()["rung"]) == (HOUR + 10, "abandon")
    lock.release()


async def test_whoever_waits_for_idleness_goes_first(virtual_clock):
    seen = []

    async with trio.open_nursery() as nursery:

        @nursery.start_soon
        async def sleeper():
            await trio.sleep(HOUR)
            seen.append("slept")

        await wait_all_tasks_blocked()
        seen.append("idle")
    assert seen == ["idle", "slept"]


async def test_the_same_thing_happens_every_time(virtual_clock, threads):
    """Two hundred rounds of threads and tasks that time each other; one jump too early would show."""
    slots = Slots(4)
    seen = []

    def work(n):
        for _ in range(50):
            time.sleep(4)
            seen.append((n, trio.from_thread.run_sync(trio.current_time, trio_token=token) % 4))

    token = trio.lowlevel.current_trio_token()
    async with trio.open_nursery() as nursery:
        for n in range(4):
            slot = slots.acquire_nowait()

            @nursery.start_soon
            async def _(n=n, slot=slot):
                await threads.run(work, n, job=Job(), slot=slot)

            await trio.sleep(1)
    assert sorted(seen) == [(n, n) for n in range(4) for _ in range(50)]


async def test_the_real_monotonic_clock_is_back_after_the_run():
    assert (time.monotonic, queue.time, threading._time) == (MONOTONIC,) * 3
