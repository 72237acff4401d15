"""The hard ends of calls, kept by one task."""

import trio
from trio.testing import wait_all_tasks_blocked

from dspex_trio.rpc.server.deadlines import DeadlineWatch


async def test_everything_happens_at_its_time(virtual_clock, nursery):
    watch, seen = DeadlineWatch(), []
    start = trio.current_time()

    def note(name):
        return lambda: seen.append((name, round(trio.current_time() - start, 6)))

    watch.add(start + 5, note("five"))
    nursery.start_soon(watch.run)
    await wait_all_tasks_blocked()
    watch.add(start + 9, note("nine"))
    watch.add(start + 2, note("two"))  # earlier than what the task waits for
    cancelled = watch.add(start + 3, note("three"))
    cancelled.cancel()
    cancelled.cancel()
    await trio.sleep(20)
    assert seen == [("two", 2), ("five", 5), ("nine", 9)]


async def test_the_deadlines_of_calls_that_are_over_do_not_pile_up(virtual_clock):
    """A thousand calls a second with ten minutes each would be 600,000 entries."""
    watch = DeadlineWatch()
    far = trio.current_time() + 600
    kept = [watch.add(far, lambda: None) for _ in range(10)]
    for _ in range(10_000):
        watch.add(far, lambda: None).cancel()
    assert len(watch._heap) < 200
    assert all(any(entry is item[2] for item in watch._heap) for entry in kept)


async def test_what_is_past_happens_at_once(virtual_clock, nursery):
    watch, seen = DeadlineWatch(), []
    nursery.start_soon(watch.run)
    watch.add(trio.current_time() - 1, lambda: seen.append("past"))
    await wait_all_tasks_blocked()
    assert seen == ["past"]
