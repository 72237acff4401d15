"""A whole system in memory: what users of a worker see when the network, the store or the worker fails."""

import time

import dspy
import pytest
import trio
import trio.lowlevel

import dspex_trio as dspex
from dspex_trio import rpc
from dspex_trio.programs import MODULE_REGISTRY
from dspex_trio.testing import Leaked, no_leaks, system

GREETING = {"python_class": "Greets", "config_space": {"greeting": "greeting"}}
SLOW = {"python_class": "Greets", "parameters": {"seconds": 3600.0}}
QUESTION = {"name": "Ada"}


class Greets(dspy.Module):
    def __init__(self, greeting="hello", seconds=0.0):
        super().__init__()
        self.greeting = greeting
        self.seconds = seconds

    def forward(self, name):
        time.sleep(self.seconds)
        return dspy.Prediction(answer=f"{self.greeting} {name}")


@pytest.fixture(autouse=True)
def _registered():
    before = dict(MODULE_REGISTRY)
    dspex.register("Greets")(Greets)
    yield
    MODULE_REGISTRY.clear()
    MODULE_REGISTRY.update(before)


def greeted(outcome):
    assert isinstance(outcome, dspex.TrialSuccess), outcome
    return outcome.prediction["answer"]


def kind(outcome):
    return outcome.kind.name, outcome.stage.name


async def test_a_trial_goes_its_way_through_all_parts(virtual_clock):
    with no_leaks():
        async with system(variables={"greeting": "hi"}) as one:
            outcome = await one.client.execute(GREETING, QUESTION, session_id="test")
            assert greeted(outcome) == "hi Ada"
            one.timeline.expect_exactly(
                *("store:InitializeSession@0.0", "store:RegisterVariable@0.0"),
                *("ADMISSION@0.0", "SESSION@0.0", "HYDRATE@0.0", "SYNC@0.0", "store:GetVariables@0.0"),
                *("EXECUTE@0.0", "SERIALIZE@0.0", "success@0.0", "reply@0.0"),
            )
            assert one.links.worker.connections == 1


async def test_a_deadline_ends_the_trial_at_its_time_and_says_by_which_rung(virtual_clock):
    async with system() as one:
        outcome = await one.client.execute(SLOW, QUESTION, timeout=5)
        assert kind(outcome) == ("DEADLINE_EXCEEDED", "EXECUTE")
        one.timeline.expect("EXECUTE@0.0", "rung:wake@5.0", "deadline@5.0", "reply@5.0")
        assert one.runtime.running == 0


async def test_what_a_system_holds_is_counted_and_given_back(virtual_clock):
    async with system(settings=dspex.Settings(max_trials=2)) as one:
        await one.client.execute({"python_class": "Greets"}, QUESTION, timeout=60)  # connected
        with no_leaks(**one.counts):
            assert greeted(await one.client.execute({"python_class": "Greets"}, QUESTION, timeout=60)) == "hello Ada"
            assert kind(await one.client.execute(SLOW, QUESTION, timeout=5)) == ("DEADLINE_EXCEEDED", "EXECUTE")
        async with trio.open_nursery() as nursery:
            nursery.start_soon(one.client.execute, SLOW, QUESTION)
            await trio.sleep(1)
            counted = {name: count() for name, count in one.counts.items()}
            nursery.cancel_scope.cancel()
        assert (counted["trials"], counted["slots"], counted["sessions"]) == (1, 1, 1)
        with pytest.raises(Leaked, match="sessions: 2, and 1 before"), no_leaks(**one.counts):
            await one.client.initialize_session("another")


async def test_bytes_one_at_a_time_make_no_difference(virtual_clock):
    async with system(variables={"greeting": "hi"}) as one:
        for link in (one.links.worker, one.links.store):
            link.to_server.piece = link.to_client.piece = 1
        assert greeted(await one.client.execute(GREETING, QUESTION, session_id="test")) == "hi Ada"


async def test_a_far_away_store_is_where_the_time_went(virtual_clock):
    async with system(variables={"greeting": "hi"}) as one:
        await one.client.execute(GREETING, QUESTION, session_id="test")  # connected
        one.links.store.delay(10)
        outcome = await one.client.execute(GREETING, QUESTION, session_id="test", timeout=5)
        assert kind(outcome) == ("DEADLINE_EXCEEDED", "SYNC")
        one.links.store.delay(1)
        with trio.fail_after(30):
            outcome = await one.client.execute(GREETING, QUESTION, session_id="test")
        assert greeted(outcome) == "hi Ada"


async def test_a_store_that_is_cut_off_in_the_middle_of_a_read_is_asked_again(virtual_clock):
    async with system(variables={"greeting": "hi"}) as one:
        await one.client.execute(GREETING, QUESTION, session_id="test")
        one.links.store.to_client.cut(after=5)
        outcome = await one.client.execute(GREETING, QUESTION, session_id="test", timeout=30)
        assert greeted(outcome) == "hi Ada"
        assert one.links.store.connections == 2


async def test_a_store_that_cannot_be_reached_is_a_failure_that_may_be_retried(virtual_clock):
    async with system(variables={"greeting": "hi"}) as one:
        one.links.store.cut()
        one.links.store.refuse()
        outcome = await one.client.execute(GREETING, QUESTION, session_id="test", timeout=5)
        assert kind(outcome) == ("STORE_UNAVAILABLE", "SYNC")
        assert outcome.retryable
        one.links.store.refuse(refusing=False)
        outcome = await one.client.execute(GREETING, QUESTION, session_id="test", timeout=60)
        assert greeted(outcome) == "hi Ada"


async def test_trials_that_get_no_slot_while_others_wait_for_the_store_fail_for_that_reason(virtual_clock):
    """A caller is told what is the matter; one whose program needs no store is told what that means for it."""
    async with system(variables={"greeting": "hi"}, settings=dspex.Settings(max_trials=1, max_queue=1)) as one:
        await one.client.execute(GREETING, QUESTION, session_id="test")
        one.links.store.cut()
        one.links.store.refuse()
        found = []

        async def trial(program, seconds):
            outcome = await one.client.execute(program, QUESTION, session_id="test", timeout=seconds)
            found.append((kind(outcome), round(trio.current_time() - began, 1)))

        async with trio.open_nursery() as nursery:
            began = trio.current_time()
            nursery.start_soon(trial, GREETING, 20)
            await trio.sleep(1)
            nursery.start_soon(trial, GREETING, 5)  # waits
            await trio.sleep(1)
            nursery.start_soon(trial, GREETING, 5)  # is turned away
            nursery.start_soon(trial, {"python_class": "Greets"}, 5)
        assert sorted(found) == [
            (("OVERLOADED", "ADMISSION"), 2.0),
            (("STORE_UNAVAILABLE", "SYNC"), 2.0),
            (("STORE_UNAVAILABLE", "SYNC"), 6.0),
            (("STORE_UNAVAILABLE", "SYNC"), 19.5),
        ]


async def test_a_store_that_has_gone_silent_is_noticed_and_left_for_a_new_connection(virtual_clock):
    """Nothing tells of a machine that was switched off but that it does not answer pings."""
    async with system(variables={"greeting": "hi"}) as one:
        await one.client.execute(GREETING, QUESTION, session_id="test")
        one.links.store.to_client.stall()
        async with trio.open_nursery() as nursery:

            async def trial():
                outcome = await one.client.execute(GREETING, QUESTION, session_id="test", timeout=100)
                assert greeted(outcome) == "hi Ada"

            nursery.start_soon(trial)
            await trio.sleep(16)  # ten seconds without a byte, five for the ping
            assert one.links.store.connections == 2
            one.links.store.to_client.resume()
        assert trio.current_time() < 100


async def test_a_store_that_went_silent_while_nobody_asked_it_is_noticed_when_the_next_trial_does(virtual_clock):
    async with system(variables={"greeting": "hi"}) as one:
        await one.client.execute(GREETING, QUESTION, session_id="test")
        await trio.sleep(100)
        one.links.store.to_client.stall()
        async with trio.open_nursery() as nursery:

            async def trial():
                outcome = await one.client.execute(GREETING, QUESTION, session_id="test", timeout=10)
                assert greeted(outcome) == "hi Ada"

            nursery.start_soon(trial)
            await trio.sleep(6)  # five for the ping
            assert one.links.store.connections == 2
            one.links.store.to_client.resume()


async def test_a_caller_whose_connection_is_cut_ends_its_trial_and_frees_the_slot(virtual_clock):
    async with system(settings=dspex.Settings(max_trials=1)) as one:
        async with trio.open_nursery() as nursery:

            async def lost():
                with pytest.raises(rpc.RpcError) as caught:
                    await one.client.execute(SLOW, QUESTION)
                assert caught.value.status is rpc.StatusCode.UNAVAILABLE

            nursery.start_soon(lost)
            await trio.sleep(7)
            assert one.runtime.running == 1
            one.links.worker.cut()
        assert greeted(await one.client.execute({"python_class": "Greets"}, QUESTION, timeout=60)) == "hello Ada"
        one.timeline.expect("cancelled@7.0", "caller_gone@7.0", "success")


async def test_bytes_that_a_store_sent_and_that_are_lost_cost_a_trial_its_deadline_and_not_more(virtual_clock):
    """What is left of the frames makes the reader wait for the rest of one; TCP loses none, so nothing mends that."""
    async with system(variables={"greeting": "hi"}) as one:
        await one.client.execute(GREETING, QUESTION, session_id="test")
        one.links.store.to_client.lose(4)
        outcome = await one.client.execute(GREETING, QUESTION, session_id="test", timeout=60)
        assert kind(outcome) == ("DEADLINE_EXCEEDED", "SYNC")
        one.links.store.cut()
        assert greeted(await one.client.execute(GREETING, QUESTION, session_id="test", timeout=60)) == "hi Ada"


async def test_changed_bytes_are_an_error_of_the_calls_they_hit_and_of_no_other(virtual_clock):
    async with system(variables={"greeting": "hi"}) as one:
        await one.client.execute(GREETING, QUESTION, session_id="test")
        one.links.worker.to_client.corrupt(4)
        with pytest.raises(rpc.RpcError) as caught, trio.fail_after(60):
            await one.client.execute(GREETING, QUESTION, session_id="test")
        assert caught.value.status in {rpc.StatusCode.UNAVAILABLE, rpc.StatusCode.INTERNAL}
        with trio.fail_after(60):
            assert greeted(await one.client.execute(GREETING, QUESTION, session_id="test")) == "hi Ada"


async def test_a_worker_that_stops_gives_what_runs_its_grace(virtual_clock):
    async with system(settings=dspex.Settings(grace_seconds=5)) as one, trio.open_nursery() as nursery:
        outcomes = []

        async def trial():
            outcomes.append(await one.client.execute(SLOW, QUESTION))

        nursery.start_soon(trial)
        await trio.sleep(1)
        one.stop()
        await trio.lowlevel.checkpoint()
        with trio.fail_after(10):
            async with one.open_client() as late:
                refused = await late.execute({"python_class": "Greets"}, QUESTION)
        assert kind(refused) == ("SHUTTING_DOWN", "ADMISSION")
        await trio.sleep(10)
        assert [kind(outcome) for outcome in outcomes] == [("SHUTTING_DOWN", "EXECUTE")]
        one.timeline.expect("shutting_down@1.0", "shutting_down@6.0")


async def test_another_store_can_stand_in_its_place(virtual_clock):
    from dspex_trio.store.memory import MemoryStore
    from dspex_trio.store.servicer import SessionStore

    class Counting(SessionStore):
        asked = 0

        async def GetVariables(self, message, call):
            self.asked += 1
            return await super().GetVariables(message, call)

    store = Counting(MemoryStore())
    async with system(store=store, variables={"greeting": "hi"}) as one:
        assert greeted(await one.client.execute(GREETING, QUESTION, session_id="test")) == "hi Ada"
    assert store.asked == 1
