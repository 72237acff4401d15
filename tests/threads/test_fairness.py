import os
import sys
import threading
from functools import partial

import pytest
import trio

from dspex_trio.threads import Job, Slots, open_threads
from dspex_trio.threads.ladder.fairness import LongCollections, Turns


def test_the_shortest_wish_holds_and_the_last_one_to_go_takes_it_back():
    before = sys.getswitchinterval()
    with Turns(before / 2):
        assert sys.getswitchinterval() == before / 2
        with Turns(before / 10):
            assert round(before / sys.getswitchinterval()) == 10
        assert sys.getswitchinterval() == before / 2
        with Turns(before * 2):
            assert sys.getswitchinterval() == before / 2
    assert sys.getswitchinterval() == before


def interval_ms():
    return round(sys.getswitchinterval() * 1e3, 3)


def test_turns_are_longer_where_nobody_computes_and_short_at_once_where_somebody_does():
    before = sys.getswitchinterval()
    with Turns(0.0001) as turns:
        for _ in range(9):
            turns.sampled(computing=False)
            assert interval_ms() == 0.1
        turns.sampled(computing=False)
        assert interval_ms() == 1
        turns.sampled(computing=True)
        assert interval_ms() == 0.1
        with Turns(0.002) as longer:
            for _ in range(10):
                turns.sampled(computing=False)
                longer.sampled(computing=False)
            assert interval_ms() == 1
    turns.sampled(computing=True)
    assert sys.getswitchinterval() == before, "a look that comes late changes nothing any more"


def test_never_shorter_than_what_was_asked_for():
    with Turns(0.003) as turns:
        for _ in range(20):
            turns.sampled(computing=False)
            assert interval_ms() == 3


async def until(condition):
    with trio.fail_after(20):
        while not condition():
            await trio.lowlevel.checkpoint()


@pytest.fixture
async def threads():
    async with open_threads(switch_interval=0.0001) as threads:
        yield threads


async def test_threads_that_are_not_told_leave_the_interval_alone():
    before = sys.getswitchinterval()
    async with open_threads() as threads:
        assert sys.getswitchinterval() == before
        for late in [0] * 20 + [1]:
            threads.loop_was_late(late)
            assert sys.getswitchinterval() == before


async def test_a_program_that_computes_is_told_from_one_that_waits(threads, nursery):
    slots, release, stop = Slots(2), threading.Event(), []

    def compute():
        while not stop:
            pass

    def start(function):
        job = Job()
        nursery.start_soon(partial(threads.run, function, job=job, slot=slots.acquire_nowait()))
        return job

    def look(times):
        for _ in range(times):
            threads.loop_was_late(0)
        return interval_ms()

    waiting = start(release.wait)
    await until(lambda: waiting.waits)
    assert (look(9), look(1)) == (0.1, 1)
    start(compute)
    await until(lambda: len(threads._running) == 2)
    assert (look(1), look(1)) == (1, 0.1), "it may have been about to wait when it was looked at first"
    stop.append("now")
    await until(lambda: len(threads._running) == 1)
    assert (look(9), look(1)) == (0.1, 1)
    threads.loop_was_late(0.03)
    assert interval_ms() == 0.1, "whoever it is that computes"
    release.set()


def test_what_makes_a_full_collection_long_is_spared_from_the_next():
    now, frozen = 0.0, []
    watch = LongCollections(lambda: frozen.append(now), clock=lambda: now)

    def collect(generation, seconds):
        nonlocal now
        watch("start", {"generation": generation})
        now += seconds
        watch("stop", {"generation": generation})

    collect(2, 0.01)
    collect(1, 0.1)
    assert frozen == [], "short, or not full"
    collect(2, 0.1)
    assert len(frozen) == 1
    for _ in range(100):
        collect(2, 0.1)
    assert len(frozen) == 16, "what grows all the time would never be collected otherwise"


PROGRAM = """
import gc
from dspex_trio.threads import keep_collections_short

imported = [[] for _ in range(1000)]
keep_collections_short()
before = gc.get_freeze_count()
assert before > 1000
cycle = []
cycle.append(cycle)
del cycle
assert gc.collect() > 0, "what comes later is collected"
large = [[number] for number in range(2_000_000)]
gc.collect()
assert gc.get_freeze_count() > before + 1_000_000, "all but what came since the last long one"
"""


def test_a_process_of_ours_spares_what_it_has_imported(preloaded, tmp_path):
    script = tmp_path / "program.py"
    script.write_text(PROGRAM)
    done = preloaded([str(script)], tmp_path, dict(os.environ))
    assert done.returncode == 0, done.stderr
