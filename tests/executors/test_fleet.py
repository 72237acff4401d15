"""Several executors: which one gets a trial, and when one is held, killed and replaced. All in virtual time."""

import inspect

import pytest
import trio

from dspex_trio.children import Child, ChildFailed, ChildLost
from dspex_trio.executors.fleet import FleetSettings

from .scripted import DYING, ENDING, PATIENCE, SAYING, STARTING, ScriptedChild, open_site

READY = STARTING + 0.001
TWO = FleetSettings(executors=2, slots=4, grace=2.0, max_stuck=2)
# A fleet looks after its executors ten times a second.
BEAT = 0.1


@pytest.fixture
async def site(virtual_clock):
    async with open_site(TWO) as site:
        await trio.sleep(READY)
        yield site


async def all_of(nursery, site, *trials):
    """Begin trials one after the other; what becomes of each is in the list that is returned, once it is known."""
    outcomes = [None] * len(trials)

    async def run(number, what, seconds):
        outcomes[number] = await site.trial(what, seconds)

    for number, (what, seconds) in enumerate(trials):
        nursery.start_soon(run, number, what, seconds)
        await trio.testing.wait_all_tasks_blocked()
    return outcomes


def given(site):
    return [child.requests for child in site.children]


@pytest.mark.parametrize("name", ["ending", "silent_for"])
def test_the_scripted_executor_has_the_properties_of_a_child(name):
    assert isinstance(getattr(Child, name), property)
    assert isinstance(getattr(ScriptedChild, name), property)


@pytest.mark.parametrize("name", ["begin", "stop", "ping", "kill"])
def test_the_scripted_executor_takes_what_a_child_takes(name):
    def taken(kind):
        return [*inspect.signature(getattr(kind, name)).parameters]

    assert taken(ScriptedChild) == taken(Child)


# ---- slots


async def test_a_trial_goes_to_the_executor_with_the_fewest(site, virtual_clock):
    async with trio.open_nursery() as nursery:
        await all_of(nursery, site, ("take 1", 9), ("take 5", 9), ("take 5", 9))
        assert given(site) == [["take 1", "take 5"], ["take 5"]]
        assert site.fleet.free == 1
        await trio.sleep(2)
        assert await site.trial("take 0") == "done"
        assert given(site) == [["take 1", "take 5", "take 0"], ["take 5"]]


async def test_the_slots_are_shared_out_and_all_of_them_used(virtual_clock):
    async with open_site(FleetSettings(executors=3, slots=8)) as site:
        assert await site.fleet.ready() in {b"slots 2", b"slots 3"}
        await trio.sleep(READY)
        slots = [site.fleet.acquire_nowait() for _ in range(8)]
        assert sorted(slot.executor.limit for slot in slots) == [2, 2, 3, 3, 3, 3, 3, 3]
        assert (site.fleet.free, site.fleet.capacity) == (0, 8)
        with pytest.raises(trio.WouldBlock):
            site.fleet.acquire_nowait()


async def test_there_are_no_more_executors_than_slots(virtual_clock):
    async with open_site(FleetSettings(executors=8, slots=2)) as site:
        await trio.sleep(READY)
        assert len(site.children) == 2


async def test_slots_are_handed_out_first_come_first_served(site, virtual_clock):
    order = []

    async def wait(name):
        slot = await site.fleet.acquire()
        order.append(name)
        await trio.sleep(1)
        slot.release()

    async with trio.open_nursery() as nursery:
        held = [site.fleet.acquire_nowait() for _ in range(4)]
        for name in "abcde":
            nursery.start_soon(wait, name)
            await trio.testing.wait_all_tasks_blocked()
        for slot in held:
            slot.release()
            with pytest.raises(trio.WouldBlock):  # a slot that is handed on is not free for whoever comes by
                site.fleet.acquire_nowait()
            await trio.testing.wait_all_tasks_blocked()
    assert order == [*"abcde"]
    assert site.fleet.free == 4


async def test_a_cancelled_wait_takes_no_slot(site, virtual_clock):
    held = [site.fleet.acquire_nowait() for _ in range(4)]
    with trio.move_on_after(1) as scope:
        await site.fleet.acquire()
    assert scope.cancelled_caught
    with trio.CancelScope() as scope:
        scope.cancel()
        await site.fleet.acquire()
    for slot in held:
        slot.release()
    assert site.fleet.free == 4


async def test_a_slot_that_comes_at_the_moment_of_the_cancel_is_not_lost(site, virtual_clock):
    held = [site.fleet.acquire_nowait() for _ in range(4)]
    with trio.CancelScope() as scope:
        async with trio.open_nursery() as nursery:

            @nursery.start_soon
            async def waits():
                slot = await site.fleet.acquire()
                slot.release()

            await trio.testing.wait_all_tasks_blocked()
            held.pop().release()
            scope.cancel()
    for slot in held:
        slot.release()
    assert site.fleet.free == 4


async def test_a_tool_beside_a_trial_takes_no_slot_and_keeps_its_executor(site, virtual_clock):
    """An executor that is replaced is not killed while a trial's tool runs in it, though no trial of its own does."""
    told = []
    async with trio.open_nursery() as nursery:

        @nursery.start_soon
        async def tool():
            told.append(await site.trial("take 3", slot=site.fleet.beside()))

        await trio.testing.wait_all_tasks_blocked()
        (used,) = [child for child in site.children if child.requests]
        assert site.fleet.free == 4
        site.memory[used.started.pid] = 1
        site.fleet._retire(next(each for each in site.fleet._executors if each.child is used), "for the test")
    assert told == ["done"]
    await trio.sleep(2 * BEAT)
    assert used.gone.is_set()


async def test_a_tool_has_no_place_where_no_executor_is(virtual_clock):
    async with open_site(TWO) as site:
        with pytest.raises(ChildLost, match="no executor"):
            site.fleet.beside()


# ---- signs of life


async def test_a_silent_executor_gets_trials_only_when_the_others_are_full(site, virtual_clock):
    async with trio.open_nursery() as nursery:
        await all_of(nursery, site, ("block 1.5", 9))
        await trio.sleep(0.5)
        await all_of(nursery, site, ("take 1", 9), ("take 1", 9), ("take 1", 9))
        assert given(site) == [["block 1.5", "take 1"], ["take 1", "take 1"]]


async def test_an_idle_executor_that_was_stopped_gets_nothing_while_another_has_room(site, virtual_clock):
    site.children[0].falls_silent(60)
    await trio.sleep(2)
    assert [await site.trial("take 0") for _ in range(4)] == ["done"] * 4
    assert given(site) == [[], ["take 0"] * 4]


async def test_an_executor_that_is_silent_past_a_deadline_is_held_and_released_again(site, virtual_clock):
    """Held: not even the last free slot of it is given away. It is alive again as soon as it says so."""
    async with trio.open_nursery() as nursery:
        outcomes = await all_of(nursery, site, ("block 2", 0.5), ("take 3", 9), ("take 3", 9))
        assert given(site)[0] == ["block 2", "take 3"]
        await trio.sleep(1)
        assert outcomes[0] == "unanswered"
        first, second = site.fleet._executors
        assert (first.held, second.held) == (True, False)
        assert site.fleet.free == 1
        site.fleet.acquire_nowait()
        nursery.start_soon(site.trial, "take 0.1")
        await trio.testing.wait_all_tasks_blocked()
        with pytest.raises(trio.WouldBlock):
            site.fleet.acquire_nowait()
        await trio.sleep(1.2)  # the program lets go, and the trial ends
        assert not first.held
        assert "take 0.1" in site.children[0].requests
    assert outcomes == ["unanswered", "done", "done"]
    assert len(site.children) == 2


async def test_an_executor_is_released_while_its_trial_still_does_not_end(site, virtual_clock):
    """What counts is a sign of life, not the end of the trial."""
    async with trio.open_nursery() as nursery:
        await all_of(nursery, site, ("hang", 0.5))
        await trio.sleep(0.3)
        site.children[0].falls_silent(1.5)
        await trio.sleep(1)
        (held,) = [each for each in site.fleet._executors if each.held]
        await trio.sleep(1)
        assert not held.held
        assert held.overdue


async def test_an_executor_that_stays_silent_is_killed_after_the_grace_and_replaced(site, virtual_clock):
    async with trio.open_nursery() as nursery:
        outcomes = await all_of(nursery, site, ("block 60", 0.5), ("take 60", 30), ("take 60", 30))
        neighbour = site.children[0].requests
        await trio.sleep(0.5 + TWO.grace + PATIENCE)
        assert neighbour == ["block 60", "take 60"]
        assert outcomes[0] == "unanswered"
        await trio.sleep(BEAT + DYING + SAYING)
        assert outcomes[1] is None  # the other executor is none of it
        assert outcomes[2].startswith("lost: it was held: it gave no sign of life for 2.")
        await trio.sleep(READY)
        assert [each.child for each in site.fleet._executors] == site.children[1:]
        assert site.fleet.free == 3
        nursery.cancel_scope.cancel()
    await trio.sleep(1)
    assert site.fleet.free == 4
    assert site.fleet.replaced == 1


async def test_an_executor_that_is_silent_before_any_deadline_is_left_alone(site, virtual_clock):
    """A program may compute for as long as its caller waits."""
    assert await site.trial("block 60", 90) == "done"
    assert len(site.children) == 2


async def test_an_executor_costs_a_trial_that_it_does_not_end_though_it_is_alive(site, virtual_clock):
    assert await site.trial("hang", 1) == "unanswered"
    await trio.sleep(9)
    assert site.fleet.free == 3
    await trio.sleep(1.5)
    assert site.children[0].lost_because.startswith("it did not end a trial that was 10.")
    assert (len(site.children), site.fleet.free) == (3, 4)


async def test_nothing_is_reported_after_the_end_of_a_trial(site, virtual_clock):
    """Whoever answered the caller listens no more; what raised there would be taken for the executor's fault."""
    seen = []
    with trio.move_on_after(0.5):
        slot = site.fleet.acquire_nowait()
        exchanges = site.children[0]._open
        await site.fleet.run(
            slot, b"block 2", patience=lambda: PATIENCE, on_answer=lambda _: None, on_report=seen.append
        )
    (exchange,) = exchanges.values()
    exchange.on_report(b"later")
    assert seen == [b"began block"]
    slot.release()


async def test_a_slot_comes_back_though_the_executor_is_stopped_in_the_middle_of_an_answer(site, virtual_clock):
    assert await site.trial("half 60") == "half"
    assert site.fleet.free == 3
    await trio.sleep(TWO.grace + 1)
    assert (len(site.children), site.fleet.free) == (3, 4)


# ---- abandoned threads


async def test_an_abandoned_thread_keeps_its_slot_until_it_ends(site, virtual_clock):
    told = []
    assert await site.trial("ignore 3", 1, told=told) == "abandoned"
    assert (site.fleet.free, told) == (3, [])
    await trio.sleep(2)
    assert (site.fleet.free, told) == (4, [b'{"it": "ended"}'])
    assert len(site.children) == 2


async def test_stuck_threads_cost_an_executor_and_its_other_trials_end_first(site, virtual_clock):
    async with trio.open_nursery() as nursery:
        outcomes = await all_of(nursery, site, ("ignore 600", 1), ("take 1", 9), ("ignore 600", 3), ("take 9", 20))
        assert given(site) == [["ignore 600", "ignore 600"], ["take 1", "take 9"]]
        await trio.sleep(2)
        assert len(site.children) == 2
        await trio.sleep(1 + ENDING + BEAT + DYING + READY)
    await trio.sleep(1)
    assert outcomes == ["abandoned", "done", "abandoned", "done"]
    assert site.children[0].lost_because == "it was replaced"
    assert (len(site.children), site.fleet.free) == (3, 4)


async def test_a_retired_executor_ends_with_its_last_trial(virtual_clock):
    async with open_site(FleetSettings(executors=2, slots=6, max_stuck=1)) as site:
        await trio.sleep(READY)
        async with trio.open_nursery() as nursery:
            outcomes = await all_of(nursery, site, ("ignore 600", 1), ("take 0", 9), ("take 9", 20), ("take 0", 9))
            await trio.sleep(2)
            assert len(site.children) == 3
            assert not site.children[0].ending
            assert site.fleet.free == 6  # none of them in the one that is retired
            await trio.sleep(9)
            assert site.children[0].gone.is_set()
        assert outcomes == ["abandoned", "done", "done", "done"]


async def test_an_answer_that_comes_late_and_leaves_a_thread_counts_as_stuck_too(virtual_clock):
    async with open_site(FleetSettings(executors=1, slots=2, max_stuck=1)) as site:
        await trio.sleep(READY)
        async with trio.open_nursery() as nursery:
            outcomes = await all_of(nursery, site, ("ignore 600", 1))
            await trio.sleep(0.9)
            site.children[0].falls_silent(1)
            await trio.sleep(0.5)
            assert outcomes == ["unanswered"]
            await trio.sleep(1)
            assert site.children[0].gone.is_set()
            assert site.fleet.free == 2


# ---- replacement


async def test_a_lost_executor_is_replaced_and_its_trials_are_told_why(site, virtual_clock):
    async with trio.open_nursery() as nursery:
        outcomes = await all_of(nursery, site, ("die 1", 9), ("take 3", 9), ("take 3", 9))
        await trio.sleep(1 + SAYING + DYING)
        assert outcomes == ["lost: it died", None, "lost: it died"]
        assert site.fleet.free == 1
        await trio.sleep(READY)
        assert site.fleet.free == 3
    assert outcomes[1] == "done"


async def test_who_waits_gets_no_slot_of_an_executor_that_has_just_died(virtual_clock):
    """Its slots come free as it ends; they are worth nothing."""
    async with open_site(FleetSettings(executors=1, slots=2)) as site:
        await trio.sleep(READY)
        async with trio.open_nursery() as nursery:
            outcomes = await all_of(nursery, site, ("die 1", 9), ("take 5", 9), ("take 1", 9), ("take 1", 9))
        assert outcomes == ["lost: it died", "lost: it died", "done", "done"]


async def test_nobody_is_sent_to_an_executor_that_is_being_killed(site, virtual_clock):
    site.children[0].kill("for the test")
    assert [await site.trial("take 0"), await site.trial("take 0")] == ["done", "done"]
    assert given(site)[:2] == [[], ["take 0", "take 0"]]


async def test_an_executor_is_replaced_after_so_many_answers(virtual_clock):
    async with open_site(FleetSettings(executors=1, slots=1, max_answers=3)) as site:
        await trio.sleep(READY)
        assert [await site.trial("take 0") for _ in range(7)] == ["done"] * 7
        assert [len(child.requests) for child in site.children] == [3, 3, 1]


async def test_an_executor_that_uses_too_much_memory_is_replaced_when_its_trials_have_ended(virtual_clock):
    async with open_site(FleetSettings(executors=2, slots=4, max_memory=1 << 30)) as site:
        await trio.sleep(READY)
        async with trio.open_nursery() as nursery:
            outcomes = await all_of(nursery, site, ("take 4", 9), ("take 4", 9))
            site.memory[0] = 1 << 30
            await trio.sleep(2)
            assert len(site.children) == 2
            site.memory[0] += 1
            await trio.sleep(1.5)
            assert len(site.children) == 3
            assert not site.children[0].ending
        await trio.sleep(2 * BEAT)
        assert outcomes == ["done", "done"]
        assert [child.gone.is_set() for child in site.children] == [True, False, False]
        assert site.fleet.free == 4


async def test_an_executor_that_does_not_start_is_tried_again_more_and_more_slowly(site, virtual_clock):
    await trio.sleep(2)
    site.attempts.clear()
    site.fails += [ChildLost("no memory")] * 3 + [ChildFailed("a.B", "text", "traceback"), ValueError("no JSON")]
    began = trio.current_time()
    site.children[0].kill()
    await trio.sleep(5)
    assert site.fleet.free == 4
    gaps = [later - one for one, later in zip([began, *site.attempts], site.attempts, strict=False)]
    slept = [round(gap - STARTING, 3) for gap in gaps[1:]]
    assert slept == [0.1, 0.2, 0.4, 0.8, 1.6]


async def test_executors_that_die_at_once_are_not_started_without_end(virtual_clock):
    async with open_site(FleetSettings(executors=1, slots=1)) as site:
        for _ in range(600):
            await trio.sleep(0.1)
            site.children[-1].kill("it dies at once")
        assert 50 < len(site.children) < 80
        await trio.sleep(5)
        assert await site.trial("take 0") == "done"


@pytest.mark.parametrize("error", [ChildLost("no memory"), ChildFailed("a.B", "text", "traceback"), ValueError("no")])
async def test_ready_raises_why_the_first_executor_did_not_start(virtual_clock, error):
    async with open_site(FleetSettings(executors=1, slots=1)) as site:
        site.fails.append(error)
        with pytest.raises(type(error)) as raised:
            await site.fleet.ready()
        assert raised.value is error
        await trio.sleep(1)  # it came up after all
        assert await site.fleet.ready() == b"slots 1"


async def test_who_waits_for_the_first_executor_may_be_cancelled(virtual_clock):
    async with open_site(FleetSettings(executors=1, slots=1)) as site:
        with trio.move_on_after(STARTING / 2) as scope:
            await site.fleet.ready()
        assert scope.cancelled_caught
        assert await site.trial("take 0") == "done"
