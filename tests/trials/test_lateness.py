import logging

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from dspex_trio.model.errors import FailureKind
from dspex_trio.trials import LatenessWatch, LoopLateness, TrialLog, lateness

from .fakes import answers, request, sleeps, trials


@pytest.fixture
def seen():
    return []


@pytest.fixture
async def watch(nursery, seen, monkeypatch):
    monkeypatch.setattr(lateness, "time_is_real", lambda: True)  # these tests are about virtual time
    watch = LatenessWatch(seen.append)
    nursery.start_soon(watch.run)
    await wait_all_tasks_blocked()
    return watch


async def look(clock, late=0.0):
    """Let the watch's timer be due, and run that much later."""
    clock.jump(0.1 + late)
    await wait_all_tasks_blocked()


async def test_nothing_happens_while_no_trial_runs(virtual_clock, watch, seen):
    virtual_clock.jump(100)
    await wait_all_tasks_blocked()
    assert (seen, watch.summary()) == ([], LoopLateness())
    watch.begin()
    await wait_all_tasks_blocked()
    await look(virtual_clock)
    watch.end()
    await look(virtual_clock)
    assert len(seen) == 2  # one look more, and then no timer any more
    virtual_clock.jump(100)
    await wait_all_tasks_blocked()
    assert len(seen) == 2
    assert watch.worst_since(0) == pytest.approx(0)


async def test_how_late_it_was_is_summed_up_and_told_since_a_time(virtual_clock, watch, seen):
    watch.begin()
    await wait_all_tasks_blocked()
    for late in [0.002] * 60 + [0.03] + [0.001] * 40:
        await look(virtual_clock, late)
        if late == 0.03:
            after = trio.current_time() + 0.01
    assert len(seen) == 101
    summary = watch.summary()
    assert summary.samples == 101
    assert summary.p50_ms == pytest.approx(2)
    assert summary.p99_ms == pytest.approx(2)
    assert summary.max_ms == pytest.approx(30)
    assert watch.worst_since(0) == pytest.approx(0.03)
    assert watch.worst_since(after) == pytest.approx(0.001)


async def test_a_loop_that_is_late_just_now_is_told_before_the_watch_itself_has_its_turn(virtual_clock, watch):
    """A trial whose deadline has passed meanwhile may run first."""
    watch.begin()
    await wait_all_tasks_blocked()
    virtual_clock.jump(0.1 + 0.4)
    assert watch.worst_since(trio.current_time()) == pytest.approx(0.4)


async def test_a_loop_that_is_too_late_is_told_to_the_log_once_a_minute(virtual_clock, watch, caplog):
    watch.begin()
    await wait_all_tasks_blocked()
    with caplog.at_level(logging.WARNING):
        for _ in range(20):
            await look(virtual_clock, 0.2)
        [told] = [record.getMessage() for record in caplog.records]
        assert told.startswith(
            "the loop was 200 ms late (p99 200 ms, at most 200 ms over the last 1 samples): threads that"
        )
        virtual_clock.jump(60)
        await look(virtual_clock, 0.2)
        assert len(caplog.records) == 2


async def test_a_failure_says_how_late_the_loop_was_while_its_trial_ran(virtual_clock, watch):
    told = []

    async def run():
        told.append(await trials(sleeps(100), lateness=watch).run(request(seconds=1)))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(run)
        await wait_all_tasks_blocked()
        virtual_clock.jump(1.3)
    [outcome] = told
    assert outcome.kind is FailureKind.DEADLINE_EXCEEDED
    assert float(outcome.details["loop_late_ms"]) == pytest.approx(1200)


async def test_the_log_has_a_line_for_each_trial_and_one_for_threads_that_ended_late(caplog, virtual_clock):
    late = {"now": 0.0}
    log = TrialLog(lambda _since: late["now"])
    with caplog.at_level(logging.INFO, "dspex_trio.trials"):
        await trials(answers(a=1), observer=log).run(request())
        late["now"] = 0.08
        await trials(sleeps(1), observer=log).run(request(seconds=-1))
        log.on_late_end(request(), {"rung": "raise", "rung_ms": "700.0", "stuck": "false", "abandoned_ms": "900.0"})
    assert [record.getMessage() for record in caplog.records] == [
        "trial 't1' of 'Fake': OK after 0 ms",
        "trial 't1' of 'Fake': DEADLINE_EXCEEDED in ADMISSION after 0 ms; the loop was up to 80 ms late meanwhile",
        "trial 't1' of 'Fake': its threads have ended, by raise after 700.0 ms; the last one after 900.0 ms",
    ]
