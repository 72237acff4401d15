"""A store with faults: what trials make of one that is slow, refuses, lies or hangs."""

import dspy
import pytest
import trio

import dspex_trio as dspex
from dspex_trio import rpc
from dspex_trio.model.errors import VariableInvalid
from dspex_trio.programs import MODULE_REGISTRY
from dspex_trio.testing import Fault, FaultyStore, Timeline, TrialEnvironment, system

UNAVAILABLE = rpc.StatusCode.UNAVAILABLE
UNIMPLEMENTED = rpc.StatusCode.UNIMPLEMENTED
PROGRAM = {"python_class": "tests.Says", "config_space": {"heat": "heat", "word": "word"}}
VARIABLES = {"heat": 0.5, "word": "hello"}


class Says(dspy.Module):
    def __init__(self):
        super().__init__()
        self.heat = 0.0
        self.word = ""

    def forward(self):
        return dspy.Prediction(heat=self.heat, word=self.word)


@pytest.fixture(autouse=True)
def _registered():
    dspex.register("tests.Says")(Says)
    yield
    del MODULE_REGISTRY["tests.Says"]


@pytest.fixture(params=["system", "TrialEnvironment"])
def run(request, virtual_clock):
    """`run(store)` → a trial's outcome."""

    async def run(store, seconds=100):
        if request.param == "TrialEnvironment":
            environment = TrialEnvironment(store=store, variables=VARIABLES, timeout=seconds)
            return await environment.run(PROGRAM)
        async with system(store=store, variables=VARIABLES) as one:
            return await one.client.execute(PROGRAM, {}, session_id="test", timeout=seconds)

    return run


def kind(outcome):
    return outcome.kind.name, outcome.stage.name


async def test_without_faults_it_is_a_store(run, virtual_clock):
    store = FaultyStore()
    assert (await run(store)).prediction == VARIABLES
    [call] = [call for call in store.calls if call.method == "GetVariables"]
    assert call.keys == {"test", "heat", "word"}
    assert call.fault is None


async def test_a_delay_is_part_of_the_trials_time(run, virtual_clock):
    store = FaultyStore(Fault("GetVariables", delay=4))
    began = trio.current_time()
    assert (await run(store)).prediction == VARIABLES
    assert trio.current_time() - began == pytest.approx(4, abs=0.5)
    store.heal()
    store.add(Fault(key="heat", delay=4))
    assert kind(await run(store, seconds=3)) == ("DEADLINE_EXCEEDED", "SYNC")


async def test_a_fault_of_a_variable_befalls_the_calls_that_name_it(run, virtual_clock):
    """Asked for one by one, the variables are slow and quick at the same time."""
    store = FaultyStore(Fault("GetVariables", status=UNIMPLEMENTED), Fault(key="heat", delay=5))
    assert (await run(store)).prediction == VARIABLES
    single = {next(iter(call.keys - {"test"})): call for call in store.calls if call.method == "GetVariable"}
    assert single["heat"].fault == Fault(key="heat", delay=5)
    assert single["word"].fault is None
    assert single["heat"].at == single["word"].at


async def test_a_store_that_refuses_a_few_times_is_asked_again(run, virtual_clock):
    store = FaultyStore(Fault("GetVariables", status=UNAVAILABLE, times=2))
    assert (await run(store)).prediction == VARIABLES
    assert [call.fault is not None for call in store.calls if call.method == "GetVariables"] == [True, True, False]


async def test_a_store_that_goes_on_refusing_is_a_failure_that_may_be_retried(run, virtual_clock):
    outcome = await run(FaultyStore(Fault("GetVariables", status=UNAVAILABLE, message="down for repair")))
    assert kind(outcome) == ("STORE_UNAVAILABLE", "SYNC")
    assert outcome.retryable
    assert "down for repair" in outcome.error_message


async def test_a_store_that_hangs_costs_the_deadline(run, virtual_clock):
    store = FaultyStore(Fault("GetVariables", hang=True))
    assert kind(await run(store, seconds=5)) == ("DEADLINE_EXCEEDED", "SYNC")


@pytest.mark.parametrize("batch", [True, False])
async def test_a_variable_that_is_said_to_be_missing_is_missing(run, virtual_clock, batch):
    first = [] if batch else [Fault("GetVariables", status=UNIMPLEMENTED)]
    outcome = await run(FaultyStore(*first, Fault(key="word", missing=True)))
    assert kind(outcome) == ("VARIABLE_NOT_FOUND", "SYNC")
    assert "word" in outcome.error_message


@pytest.mark.parametrize("batch", [True, False])
async def test_a_lie_is_believed_where_it_fits_and_refused_where_it_does_not(run, virtual_clock, batch):
    first = [] if batch else [Fault("GetVariables", status=UNIMPLEMENTED)]
    store = FaultyStore(*first, Fault(key="heat", value=1.5, times=1), Fault(key="heat", value="hot"))
    assert (await run(store)).prediction == {"heat": 1.5, "word": "hello"}
    outcome = await run(store)
    assert kind(outcome) == ("VARIABLE_INVALID", "SYNC")
    assert "heat" in outcome.error_message
    assert store.values() == VARIABLES


async def test_what_a_program_writes_is_there_and_can_be_refused(virtual_clock):
    class Writes(dspy.Module):
        def forward(self):
            self.session.set("heat", 0.9)
            return dspy.Prediction(done=True)

    store = FaultyStore(Fault("SetVariable", status=UNAVAILABLE, times=1))
    environment = TrialEnvironment(store=store, variables=VARIABLES, timeout=60)
    assert kind(await environment.run(Writes)) == ("STORE_UNAVAILABLE", "SYNC")
    assert store.values()["heat"] == 0.5
    await environment.run(Writes)
    assert store.values()["heat"] == 0.9


async def test_who_watches_variables_is_befallen_too(virtual_clock):
    store = FaultyStore(Fault("WatchVariables", status=UNAVAILABLE, message="no watching today"))
    async with system(store=store, variables=VARIABLES) as one:
        session = one.client.session("test")
        with pytest.raises(dspex.TrialError, match="no watching today"):
            async with session.watch(["heat"]) as changes:
                await anext(changes)


async def test_sessions_age_on_the_given_clock(virtual_clock):
    store = FaultyStore(clock=virtual_clock)
    store.memory.initialize("short", idle_seconds=60)
    await trio.sleep(61)
    assert len(store.memory) == 1
    store.put({"a": 1}, session_id="other")
    assert len(store.memory) == 1, "one has ended, one has begun"


def test_values_are_put_where_no_fault_befalls_it_and_changed_where_they_are():
    store = FaultyStore(Fault(status=UNAVAILABLE))
    store.put({"a": 1, "b": "two"})
    store.put({"a": 3})
    assert store.values() == {"a": 3, "b": "two"}
    with pytest.raises(VariableInvalid, match="a"):
        store.put({"a": dspex.Variable("a", "integer", "x")})


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: Fault(status=UNAVAILABLE, hang=True), "one of status"),
        (lambda: Fault(missing=True), "of which variable"),
        (lambda: Fault(delay=-1), "delay"),
        (lambda: FaultyStore(Fault("GetVariabels")), "no method 'GetVariabels'; it has .*GetVariables"),
    ],
)
def test_what_makes_no_sense_is_refused(make, said):
    with pytest.raises(ValueError, match=said):
        make()


async def test_the_timeline_of_a_system_shows_when_calls_came(virtual_clock):
    timeline = Timeline()
    store = FaultyStore(Fault("GetVariables", status=UNAVAILABLE, delay=2, times=1))
    async with system(store=store, variables=VARIABLES, timeline=timeline) as one:
        await one.client.execute(PROGRAM, {}, session_id="test", timeout=60)
    timeline.expect("store:GetVariables@0.0", "store:GetVariables@2.0", "success")
