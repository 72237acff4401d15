"""A reply is kept by whoever sends it alone: a slow reader's would be held several times over until a collection."""

import gc
import weakref

import pytest
import trio

from dspex_trio.children.exchange import ChildLost, Exchange
from dspex_trio.model import Recording, TrialSuccess
from dspex_trio.trials import Admission, Trials

from .fakes import FakeJob, FakeSlots, request


class Remote:
    """What knows a trial that runs elsewhere, and is known by it, as `RemoteTrial` is."""

    def __init__(self, trial):
        self.trial = trial
        trial.recording, trial.details = self.recording, self.details

    def recording(self):
        return Recording()

    def details(self):
        return {}


class Elsewhere:
    def __init__(self, ends):
        self.ends = ends
        self.seen = None

    async def run(self, trial, slot):
        remote = Remote(trial)
        self.seen = weakref.ref(remote)
        return await self.ends()


@pytest.fixture
def no_collections():
    gc.collect()
    gc.disable()
    yield
    gc.enable()


async def succeeds():
    return TrialSuccess(prediction={})


async def test_what_a_trial_knew_of_its_program_goes_with_it_and_not_with_a_collection(no_collections, virtual_clock):
    runner = Elsewhere(succeeds)
    trials = Trials(runner=runner, job=lambda _name, _request: FakeJob(), admission=Admission(FakeSlots(), max_queue=1))
    outcome = await trials.run(request())
    await trio.lowlevel.checkpoint()
    assert isinstance(outcome, TrialSuccess)
    assert runner.seen() is None


def test_an_exchange_whose_answer_was_taken_holds_it_no_more():
    exchange = Exchange()
    exchange.end(b"a large reply")
    assert exchange.take_answer() == b"a large reply"
    assert exchange.answer() == b""


def test_an_exchange_without_an_answer_says_so_as_often_as_it_is_asked():
    exchange = Exchange()
    exchange.end(ChildLost("killed"))
    for _ in range(2):
        with pytest.raises(ChildLost, match="killed"):
            exchange.take_answer()
