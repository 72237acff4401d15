"""What a trial can come to at one and the same moment, under many schedules: it comes to one thing, once."""

import random
import time
from collections import Counter

import dspy
import pytest
import trio

import dspex_trio as dspex
from dspex_trio import rpc, threads
from dspex_trio.programs import MODULE_REGISTRY, ProgramSettings, open_programs
from dspex_trio.runtime.servicer import ProgramExecutor
from dspex_trio.testing import no_leaks, run_schedule, schedules, system
from dspex_trio.threads.ladder.run import Run
from dspex_trio.trials import Trials

SETTINGS = dspex.Settings(max_trials=2, grace_seconds=0)
OUTCOMES = {"success", "deadline", "cancelled", "shutting_down"}
TIMEOUT = 5.0
# When the worker ends a trial of that timeout, so that its answer is there in time.
DEADLINE = TIMEOUT - 0.01
HELD = {"trials": 0, "slots": 0, "sessions": 1}
MOMENTS = (DEADLINE, DEADLINE, TIMEOUT, TIMEOUT - 1, TIMEOUT + 1)


class Waits(dspy.Module):
    def __init__(self):
        super().__init__()
        self.seconds = 0.0
        self.greeting = "hello"

    def forward(self, name):
        time.sleep(self.seconds)
        return dspy.Prediction(answer=f"{self.greeting} {name}")


@pytest.fixture(autouse=True)
def _prepared():
    """What every runtime would do anew."""
    before = dict(MODULE_REGISTRY)
    dspex.register("Waits")(Waits)
    with open_programs(ProgramSettings()):
        yield
    MODULE_REGISTRY.clear()
    MODULE_REGISTRY.update(before)


async def executed(client, seconds, scope):
    """What a client has of its trial: an outcome or a status, unless it went away."""
    program = {"python_class": "Waits", "config_space": {"greeting": "greeting"}, "parameters": {"seconds": seconds}}
    with scope:
        try:
            outcome = await client.execute(program, {"name": "Ada"}, session_id="test", timeout=TIMEOUT)
        except rpc.RpcError as error:
            return f"status {error.status.name}"
        if isinstance(outcome, dspex.TrialSuccess):
            return "success"
        return f"{outcome.kind.name} in {outcome.stage.name}"
    return "gone"


async def race(timeline):
    """Three trials for two slots, of which one is cancelled, and a drain, all about the moment when time is up."""
    answers = {}
    with no_leaks():
        async with system(settings=SETTINGS, timeline=timeline, variables={"greeting": "hi"}) as one:
            scope = trio.CancelScope()

            async def trial(name, begin, scope):
                await trio.sleep_until(begin)
                answers[name] = await executed(one.client, random.choice(MOMENTS), scope)

            async def at(moment, act):
                await trio.sleep_until(moment)
                act()

            async with trio.open_nursery() as nursery:
                nursery.start_soon(trial, "first", 0, scope)
                nursery.start_soon(trial, "second", 0, trio.CancelScope())
                nursery.start_soon(trial, "late", random.choice(MOMENTS), trio.CancelScope())
                nursery.start_soon(at, random.choice(MOMENTS), scope.cancel)
                nursery.start_soon(at, random.choice((*MOMENTS, 20)), one.stop)
            await trio.sleep(10)
            told = Counter({name: timeline.count(name) for name in OUTCOMES})
            got = Counter(answers.values())
            seen = f"{got}, {told}\n{timeline}"
            too_late = got["status UNAVAILABLE"]  # for a worker that has ended
            assert too_late <= (answers["late"] == "status UNAVAILABLE"), seen
            assert got.total() == told.total() + too_late == 3, seen
            assert timeline.count("reply") + timeline.count("caller_gone") == told.total(), seen
            assert told["cancelled"] <= timeline.count("caller_gone") <= got["gone"], seen
            assert got["success"] <= told["success"] <= got["success"] + got["gone"], seen
            # Nothing else takes time.
            assert all("EXECUTE" in answer for answer in got if "DEADLINE_EXCEEDED" in answer), seen
            assert one.runtime.stuck() == []
            # Exactly: a slot that is given back twice is one too many.
            assert {name: one.counts[name]() for name in ("trials", "slots", "sessions")} == HELD, seen
    return answers


@schedules(150, replayed=15)  # `just test-races` runs a thousand
async def test_a_trial_comes_to_one_thing_once(timeline):
    await race(timeline)


# ---- and is known to find what is wrong ------------------------------------------------------------------------------


def ignored_cancel(original):
    """A handler goes on after its caller went away."""

    async def ignoring(self, request, call):
        try:
            return await original(self, request, call)
        except trio.Cancelled:
            return None

    return ignoring


def double_reply(original):
    """A trial that ends at the very moment of its deadline ends once more by it."""

    async def run(self, request):
        outcome = await original(self, request)
        if isinstance(outcome, dspex.TrialSuccess) and trio.current_time() >= request.deadline - 1e-9:
            self._observer.on_outcome(request, outcome)
        return outcome

    return run


def slot_freed_twice(original):
    """Who is cancelled when its thread has just ended gives its slot back, and so does the thread."""

    async def run(self, function, *args, job, slot):
        try:
            return await original(self, function, *args, job=job, slot=slot)
        except trio.Cancelled:
            if job.details()["rung"] == "returned":
                slot.release()
            raise

    return run


class Pulse:
    """Wakes those who wait already, and nobody who is about to."""

    def __init__(self):
        self._event = trio.Event()
        self._told = False

    def set(self):
        self._told = True
        self._event.set()
        self._event = trio.Event()

    def is_set(self):
        return self._told

    async def wait(self):
        await trio.lowlevel.checkpoint()
        await self._event.wait()


def lost_wakeup(original):
    """Whoever waits for a thread that has just ended waits for ever."""

    def init(self, job):
        original(self, job)
        self.done = Pulse()

    return init


@pytest.mark.parametrize(
    ("owner", "name", "plant"),
    [
        (ProgramExecutor, "ExecuteProgram", ignored_cancel),
        (Trials, "run", double_reply),
        (threads.Threads, "run", slot_freed_twice),
        (Run, "__init__", lost_wakeup),
    ],
)
def test_a_planted_bug_is_found_within_200_schedules(monkeypatch, owner, name, plant):
    monkeypatch.setattr(owner, name, plant(getattr(owner, name)))
    assert any(run_schedule(race, seed).error is not None for seed in range(200))
