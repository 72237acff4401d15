"""What a trial can come to at one moment when its executor is lost, held or replaced then: one thing, once."""

import random
from collections import Counter

import pytest
import trio

import dspex_trio as dspex
from dspex_trio.executors import fleet as fleets
from dspex_trio.executors import places
from dspex_trio.executors.fleet import FleetSettings
from dspex_trio.executors.messages import decode_asked, encode_ending, encode_progress
from dspex_trio.executors.routing import Homes
from dspex_trio.executors.shared import NoJob, Shared
from dspex_trio.model import TrialOptions, TrialRequest
from dspex_trio.model.errors import Stage
from dspex_trio.testing import run_schedule, schedules
from dspex_trio.trials import Admission, Trials
from dspex_trio.trials.observer import Observer
from dspex_trio.wire.generated.program_pb2 import ExecuteProgramRequest

from .scripted import DYING, PATIENCE, STARTING, open_site

SETTINGS = FleetSettings(executors=2, slots=4, grace=2.0, max_stuck=1, max_answers=4)
DEADLINE = 5.0
# What happens, happens about then: a deadline passes, an executor that was silent since is killed, and replaced.
MOMENTS = (0, 1, DEADLINE, DEADLINE, DEADLINE + PATIENCE, DEADLINE + SETTINGS.grace, DEADLINE + SETTINGS.grace + DYING)
WHAT = ("take", "take", "take", "ignore", "block", "hang", "die")
SLOTS = 4


def script(request):
    _, _, data = decode_asked(request)
    return ExecuteProgramRequest.FromString(data).program_spec.python_class.replace(".", " ", 1)


def answer(text):
    outcome = dspex.TrialSuccess(prediction={"answer": text})
    return encode_ending(outcome, TrialOptions(), 1 << 20, trio.current_time)


class Seen(Observer):
    """Keeps the outcomes that it is told."""

    def __init__(self, timeline):
        self._timeline = timeline
        self.outcomes = {}
        self.late = Counter()

    def on_outcome(self, request, outcome):
        kind = "success" if isinstance(outcome, dspex.TrialSuccess) else outcome.kind.name
        self._timeline.record(f"{request.trial_id}:{kind}")
        self.outcomes.setdefault(request.trial_id, []).append(kind)

    def on_late_end(self, request, details):
        assert details == {"it": "ended"}
        self.late[request.trial_id] += 1


async def _no_reply(_data):
    raise AssertionError("scripted executors ask nothing")


def moment():
    return max(random.choice(MOMENTS) + random.choice((0, 0, -STARTING, STARTING, 0.3)), 0)


async def race(timeline):
    """Nine trials for four slots in two executors; kills, a silence, client cancels and a drain whenever they come."""
    seen = Seen(timeline)
    options = {"script": script, "answer": answer, "report": lambda _: encode_progress(Stage.EXECUTE)}
    async with open_site(SETTINGS, **options) as site:
        idle = site.tasks
        shared = Shared(
            dspex.Settings(), site.fleet, _no_reply, lambda _margin: PATIENCE, Homes(), on_late_end=seen.on_late_end
        )
        trials = Trials(runner=shared, job=lambda *_: NoJob(), admission=Admission(site.fleet, SLOTS), observer=seen)
        returned = {}

        async def trial(name, what, seconds, begin, cancelled):
            await trio.sleep_until(begin)
            program = dspex.Program(f"{what}.{seconds:.3f}")
            request = TrialRequest(
                program, {}, trial_id=name, arrived=trio.current_time(), deadline=max(DEADLINE, begin + 1)
            )
            with trio.CancelScope(deadline=cancelled):
                outcome = await trials.run(request)
                returned[name] = "success" if isinstance(outcome, dspex.TrialSuccess) else outcome.kind.name

        async def kill(begin):
            await trio.sleep_until(begin)
            if site.children:
                random.choice(site.children).kill("for the test")

        async def fall_silent(begin, seconds):
            await trio.sleep_until(begin)
            if site.children:
                random.choice(site.children).falls_silent(seconds)

        async def drain(begin):
            await trio.sleep_until(begin)
            await trials.drain(random.choice((0, 1)))

        async with trio.open_nursery() as nursery:
            for number in range(9):
                cancelled = moment() if random.random() < 0.3 else float("inf")
                seconds = max(moment(), 0.1)
                nursery.start_soon(trial, f"t{number}", random.choice(WHAT), seconds, moment(), cancelled)
            nursery.start_soon(kill, moment())
            nursery.start_soon(kill, moment())
            nursery.start_soon(fall_silent, moment(), random.choice((0.2, 1, 60)))
            if random.random() < 0.5:
                nursery.start_soon(drain, moment())
        await trio.sleep(20)
        _check(site, idle, seen, returned, timeline)
    return seen.outcomes


def _check(site, idle, seen, returned, timeline):
    told = f"{seen.outcomes}\n{timeline}"
    assert len(seen.outcomes) == 9, told
    assert all(len(each) == 1 for each in seen.outcomes.values()), told
    kinds = {name: kind for name, (kind,) in seen.outcomes.items()}
    assert returned == {name: kinds[name] for name in returned}, told
    assert set(kinds.values()) <= {
        "success", "DEADLINE_EXCEEDED", "CANCELLED", "WORKER_LOST", "OVERLOADED", "SHUTTING_DOWN",
    }, told  # fmt: skip
    assert all(kind in {"CANCELLED", "DEADLINE_EXCEEDED"} for name, kind in kinds.items() if name not in returned), told
    assert max(seen.late.values(), default=0) <= 1, told
    # Exactly: a slot that is given back twice is one too many.
    assert site.fleet.free == site.fleet.capacity == SLOTS, told
    for each in site.fleet._executors:
        assert (each.used, each.guests, len(each.stuck), len(each.overdue)) == (0, 0, 0, 0), told
    assert sum(not child.gone.is_set() for child in site.children) == SETTINGS.executors, told
    assert site.tasks == idle + SETTINGS.executors, told  # each executor is kept and watched, and nothing else is done


@schedules(150, replayed=15)
async def test_a_trial_in_an_executor_comes_to_one_thing_once(timeline):
    await race(timeline)


# ---- and is known to find what is wrong ------------------------------------------------------------------------------


def released_twice(original):
    """The last holder's release does not look whether it was the last one."""

    def release(self):
        self._holders -= 1
        if self._holders <= 1:
            self._freed(self.executor)

    return release


def stays_overdue(original):
    """An answer that comes late is not noticed."""

    async def late(self, executor, exchange):
        await trio.sleep_forever()

    return late


@pytest.mark.parametrize(
    ("owner", "name", "plant"),
    [
        (places.ExecutorSlot, "release", released_twice),
        (fleets.Fleet, "_answered_late", stays_overdue),
    ],
)
def test_a_planted_bug_is_found_within_100_schedules(monkeypatch, owner, name, plant):
    monkeypatch.setattr(owner, name, plant(getattr(owner, name)))
    assert any(run_schedule(race, seed).error is not None for seed in range(100))
