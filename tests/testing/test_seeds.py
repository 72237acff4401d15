"""A seed decides who goes next, tasks and threads alike, and brings a schedule back that shows what most do not."""

import gc
import itertools
import random
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
import trio
from trio._core import _run

from dspex_trio.testing import (
    Answer,
    Endless,
    NotReplayable,
    Timeline,
    TrialEnvironment,
    VirtualClock,
    run_schedule,
    schedules,
)

SECOND = 1.0


async def threads_and_tasks():
    """Everything that can wait, in threads and tasks; who did what in which order."""
    done = []
    condition = threading.Condition()

    def work(name):
        for number in range(2):
            time.sleep(SECOND)
            with condition:
                done.append((name, number))
                condition.notify_all()
        with ThreadPoolExecutor(2) as pool:
            list(pool.map(lambda seconds: (time.sleep(seconds), done.append((name, seconds))), [2, 1, 2]))
        trio.from_thread.run(trio.sleep, SECOND)

    def watch():
        with condition:
            condition.wait_for(lambda: len(done) > 3)
        done.append("seen")

    async def task(name):
        for number in range(3):
            await trio.sleep(SECOND)
            done.append((name, number))

    async with trio.open_nursery() as nursery:
        for name in ("a", "b"):
            nursery.start_soon(trio.to_thread.run_sync, work, name)
            nursery.start_soon(task, name.upper())
        nursery.start_soon(trio.to_thread.run_sync, watch)
    return tuple(done)


def test_a_seed_brings_everything_back_and_other_seeds_go_other_ways():
    seen = [run_schedule(threads_and_tasks, seed) for seed in range(10)]
    again = [run_schedule(threads_and_tasks, seed) for seed in range(10)]
    assert [schedule.error for schedule in seen] == [None] * 10
    assert [(one.log, one.result) for one in seen] == [(one.log, one.result) for one in again]
    assert len({schedule.result for schedule in seen}) > 7


def test_what_the_run_changed_is_as_it_was():
    random.seed(7)
    before = random.getstate(), _run._ALLOW_DETERMINISTIC_SCHEDULING, _run._r, threading.Lock, gc.isenabled()

    async def draw():
        assert not gc.isenabled()
        return random.random()

    drawn = {run_schedule(draw, seed).result for seed in (1, 1, 2)}
    assert len(drawn) == 2
    assert (random.getstate(), _run._ALLOW_DETERMINISTIC_SCHEDULING, _run._r, threading.Lock, gc.isenabled()) == before


def test_a_version_of_trio_without_its_hook_is_named(monkeypatch):
    monkeypatch.delattr(_run, "_ALLOW_DETERMINISTIC_SCHEDULING")
    with pytest.raises(RuntimeError, match=rf"Trio {trio.__version__} has no _ALLOW_DETERMINISTIC_SCHEDULING"):
        VirtualClock(seed=1)


# ---- what is found ---------------------------------------------------------------------------------------------------


class Box:
    """Loses the wake-up of a `put` that comes between its look and its `clear`."""

    def __init__(self):
        self.items = []
        self.event = threading.Event()

    def put(self, item):
        self.items.append(item)
        self.event.set()

    def get(self):
        while not self.items:
            self.event.clear()
            self.event.wait()
        return self.items.pop()


async def lost_wakeup():
    box = Box()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(trio.to_thread.run_sync, box.get)
        nursery.start_soon(trio.to_thread.run_sync, box.put, "item")


async def locks_in_two_orders():
    one, other = threading.Lock(), threading.Lock()

    def take(first, second):
        with first, second:
            pass

    async with trio.open_nursery() as nursery:
        nursery.start_soon(trio.to_thread.run_sync, take, one, other)
        nursery.start_soon(trio.to_thread.run_sync, take, other, one)


async def unlocked_counter():
    counter = {"value": 0}

    def add():
        value = counter["value"]
        time.sleep(0)
        threading.Event().wait(SECOND)
        counter["value"] = value + 1

    async with trio.open_nursery() as nursery:
        nursery.start_soon(trio.to_thread.run_sync, add)
        await trio.sleep(SECOND)
        nursery.start_soon(trio.to_thread.run_sync, add)
    assert counter["value"] == 2


async def tasks_that_wait_for_each_other():
    one, other = trio.Event(), trio.Event()

    async def wait(first, second):
        await first.wait()
        second.set()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(wait, one, other)
        nursery.start_soon(wait, other, one)


@pytest.mark.parametrize(
    ("test", "error"),
    [
        (lost_wakeup, Endless),
        (locks_in_two_orders, Endless),
        (unlocked_counter, AssertionError),
        (tasks_that_wait_for_each_other, Endless),
    ],
)
def test_it_is_found_and_comes_back(test, error):
    found = next(one for one in (run_schedule(test, seed) for seed in range(200)) if one.error is not None)
    again = run_schedule(test, found.seed)
    assert isinstance(found.error, error)
    assert (found.log, type(again.error)) == (again.log, type(found.error))


def test_who_waits_for_nothing_is_named_with_the_line():
    error = next(one.error for one in (run_schedule(lost_wakeup, seed) for seed in range(200)) if one.error)
    assert "nothing can happen any more" in str(error)
    _, _, thread = str(error).partition("thread 1 'get from trio.to_thread.run_sync' waits at")
    assert thread.rstrip().endswith("self.event.wait()")


def test_what_never_ends_is_ended(monkeypatch):
    monkeypatch.setattr("dspex_trio.testing.time.clock.MAX_STEPS", 1_000)

    async def forever():
        for _ in itertools.count():
            await trio.sleep(SECOND)

    assert "1,000 steps have brought no end" in str(run_schedule(forever, 1).error)


# ---- locks -----------------------------------------------------------------------------------------------------------


async def under(lock):
    """Four threads that wait inside a lock; how many were inside at the same time at most."""
    inside, most = [], []

    def work():
        with lock:
            inside.append(1)
            time.sleep(SECOND)
            most.append(len(inside))
            inside.pop()

    async with trio.open_nursery() as nursery:
        for _ in range(4):
            nursery.start_soon(trio.to_thread.run_sync, work)
    return max(most), trio.current_time()


@pytest.mark.parametrize("name", ["Lock", "RLock", "Condition"])
def test_a_lock_is_one_and_who_waits_for_it_waits_in_virtual_time(name):
    async def test():
        return await under(getattr(threading, name)())

    assert {run_schedule(test, seed).result for seed in range(10)} == {(1, 4 * SECOND)}


async def test_locks_are_virtual_where_nobody_takes_turns_too(virtual_clock):
    assert await under(threading.Lock()) == (1, 4 * SECOND)


def test_a_lock_is_waited_for_as_long_as_was_said_and_a_reentrant_one_is_its_owners():
    async def test():
        lock, reentrant = threading.Lock(), threading.RLock()
        took = []

        def hold():
            with lock, reentrant, reentrant:
                time.sleep(10)

        def ask():
            time.sleep(1)
            took.append((lock.acquire(timeout=3), reentrant.acquire(blocking=False), trio.from_thread.run_sync(now)))

        now = trio.current_time
        async with trio.open_nursery() as nursery:
            nursery.start_soon(trio.to_thread.run_sync, hold)
            nursery.start_soon(trio.to_thread.run_sync, ask)
        return took

    assert run_schedule(test, 3).result == [(False, False, 4)]


def test_the_loop_takes_a_lock_that_a_thread_holds_which_waits_for_its_turn():
    async def test():
        lock = threading.Lock()

        def work():
            with lock:
                threading.Event().wait(0.0)

        async with trio.open_nursery() as nursery:
            for _ in range(3):
                nursery.start_soon(trio.to_thread.run_sync, work)
            for _ in range(20):
                with lock:
                    pass
                await trio.lowlevel.checkpoint()

    for seed in range(20):
        assert run_schedule(test, seed).error is None


def test_threads_that_outlive_the_run_go_on_in_real_time():
    left = []

    async def test():
        pool = await trio.to_thread.run_sync(ThreadPoolExecutor, 1)
        left.append((pool, await trio.to_thread.run_sync(pool.submit, len, "four")))
        await trio.sleep(SECOND)

    assert run_schedule(test, 1).error is None
    (pool, future), *_ = left
    assert future.result() == 4
    assert pool.submit(len, "three").result() == 5
    pool.shutdown()


# ---- as a decorator --------------------------------------------------------------------------------------------------

numbers = []


@schedules(5, first_seed=10, replayed=2)
async def test_each_schedule_has_a_clock_and_a_timeline_of_its_own(virtual_clock, timeline, tmp_path):
    assert trio.lowlevel.current_clock() is virtual_clock
    assert isinstance(timeline, Timeline)
    assert tmp_path.exists()
    numbers.append(virtual_clock.seed)
    await trio.sleep(SECOND)
    timeline.record("done")
    timeline.expect_exactly("done@1.0")


def test_it_ran_once_before_then_under_each_seed_and_twice_under_the_first_two():
    assert numbers == [10, *(10, 10), *(11, 11), 12, 13, 14]


@schedules(3, replayed=2)
async def test_each_has_a_system_of_its_own(virtual_clock, trial_system, scripted_lm, session_store, timeline):
    session_store.put({"heat": 0.7})
    scripted_lm.script.add(*[Answer(fields={"answer": "yes"}, delay=5)] * 2)
    program = {
        "python_class": "dspy.Predict",
        "signature": "question -> answer",
        "config_space": {"temperature": "heat"},
    }

    async def ask(seconds):
        await trial_system.client.execute(program, {"question": "?"}, session_id="test", timeout=seconds)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(ask, 5)
        nursery.start_soon(ask, 6)
    assert [asked.arguments["temperature"] for asked in scripted_lm.asked] == [0.7, 0.7]
    timeline.expect("deadline@5.0", "success@5.0")
    assert trial_system.counts["slots"]() == 0


def test_a_model_that_is_asked_for_what_nobody_wrote_fails_the_schedule_that_asks():
    @schedules(1)
    async def asks(scripted_lm):
        await TrialEnvironment(lm=scripted_lm).run({"python_class": "dspy.Predict", "signature": "q -> a"}, q="?")

    with pytest.raises(AssertionError, match="no reply"):
        asks()


def test_what_only_the_first_of_all_runs_does_is_said_to_be_that():
    calls = itertools.count()

    @schedules(3)
    async def imports_a_module():
        assert next(calls) > 0

    with pytest.raises(AssertionError) as raised:
        imports_a_module()
    assert "in the first schedule of all, and in none after it" in raised.value.__notes__[0]
    assert next(calls) == 5


class TestInAClass:
    @schedules(2)
    async def test_a_method_is_a_test_too(self, virtual_clock):
        assert isinstance(self, TestInAClass)


def test_what_depends_on_something_else_is_said_to():
    calls = itertools.count()

    @schedules(1)
    async def real_time(timeline):
        for _ in range(next(calls)):
            await trio.lowlevel.checkpoint()

    with pytest.raises(NotReplayable, match=r"seed 0 gave two schedules; after \d+ entries that are the same"):
        real_time()


CODE = """
import trio
from dspex_trio.testing import schedules

@schedules(30)
async def test_order(timeline):
    seen = []

    async def add(number):
        await trio.sleep(1)
        seen.append(number)

    async with trio.open_nursery() as nursery:
        for number in range(3):
            nursery.start_soon(add, number)
    assert seen != [2, 0, 1]
"""


def test_a_failure_tells_its_seed_and_the_command_that_brings_it_back(run_pytest):
    output = run_pytest(CODE)
    assert "assert [2, 0, 1] != [2, 0, 1]" in output
    assert "it does the same when it is run again" in output
    command, *_ = [line for line in output.splitlines() if "--dspex-seed" in line]
    _, node, option, seed = command.replace("E  ", "").split()
    assert node == "'test_it.py::test_order'"
    again = run_pytest(CODE, options=[option, seed])
    assert f"in the schedule of seed {seed}" in again
    assert "1 passed" in run_pytest(CODE, options=["--dspex-seeds", seed])
