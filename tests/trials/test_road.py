import math
import random
import re
from dataclasses import replace

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from dspex_trio.model import Binding, Prediction, TraceEntry, TrialFailure, TrialSuccess
from dspex_trio.model.errors import (
    DeadlineExceeded,
    FailureKind,
    InvalidSpec,
    LmError,
    ShuttingDown,
    Stage,
    StoreUnavailable,
)
from dspex_trio.trials import MarginRules, ReplyMargin
from dspex_trio.trials.ids import trial_ids
from dspex_trio.trials.observer import Observer

from .fakes import FakeProgram, Told, answers, bound, raises, request, sleeps, trials


async def test_a_trial_that_succeeds_tells_everything(virtual_clock):
    async def read():
        await trio.sleep(0.25)
        return {"temperature": bound("temperature", 0.3)}

    async def run(inputs):
        await trio.sleep(2)
        return Prediction({"answer": inputs["question"]}, ({"answer": 1}, {"answer": 2}), ("odd",))

    entry = TraceEntry("self", "Predict", "question -> answer", {}, {})
    outcome = await trials(FakeProgram(run, variables=read, trace=(entry,))).run(request(question="why"))

    assert isinstance(outcome, TrialSuccess)
    assert outcome.prediction == {"answer": "why"}
    assert outcome.completions == ({"answer": 1}, {"answer": 2})
    assert outcome.warnings == ("odd",)
    assert outcome.trace == (entry,)
    assert outcome.variables["temperature"].value == 0.3
    assert (outcome.trial_id, outcome.latency_ms) == ("t1", pytest.approx(2000))
    assert outcome.timings.sync_ms == pytest.approx(250)
    assert outcome.timings.total_ms == pytest.approx(2250)


async def test_the_deadline_names_the_stage_it_struck_in_and_keeps_what_is_known(virtual_clock):
    entry = TraceEntry("self", "Predict", "q -> a", {}, {})
    program = sleeps(100)
    program.trace, program.variables = (entry,), {"max_iters": bound("max_iters", 3)}
    outcome = await trials(program).run(request(seconds=5))

    assert isinstance(outcome, TrialFailure)
    assert (outcome.kind, outcome.stage) == (FailureKind.DEADLINE_EXCEEDED, Stage.EXECUTE)
    assert outcome.error_message == "the deadline passed in stage EXECUTE, 5000 ms after the trial arrived"
    assert outcome.partial_trace == (entry,)
    assert outcome.variables["max_iters"].value == 3
    assert outcome.details == {"rung": "wake", "rung_ms": "0.3", "stuck": "false"}
    assert outcome.timings.execute_ms == pytest.approx(5000)
    assert trio.current_time() == pytest.approx(outcome.timings.total_ms / 1000)


@pytest.mark.parametrize("stage", ["ADMISSION", "HYDRATE", "SYNC", "EXECUTE"])
async def test_the_one_deadline_covers_every_stage(virtual_clock, stage):
    async def forever(*_args):
        await trio.sleep_forever()

    program = {
        "ADMISSION": sleeps(100),
        "HYDRATE": forever,
        "SYNC": FakeProgram(lambda _inputs: None, variables=forever),
        "EXECUTE": FakeProgram(forever),
    }[stage]
    runner = trials(program)
    async with trio.open_nursery() as nursery:
        if stage == "ADMISSION":
            nursery.start_soon(runner.run, request())
            await wait_all_tasks_blocked()
        outcome = await runner.run(request(seconds=1))
        assert (outcome.kind, outcome.stage.name) == (FailureKind.DEADLINE_EXCEEDED, stage)
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize(
    ("stage", "sync_seconds", "blamed"),
    [("ADMISSION", 0, True), ("SYNC", 9, True), ("EXECUTE", 0.6, True), ("EXECUTE", 0.4, False)],
)
async def test_a_deadline_that_passes_because_the_store_was_away_is_not_the_programs(
    virtual_clock, stage, sync_seconds, blamed
):
    """Whether the trial itself waited for the store, for most of its time, or for those that did."""

    async def read():
        await trio.sleep(sync_seconds)
        return {}

    program = sleeps(100)
    program.variables = read
    runner = trials(program, why_away="the store is away")
    async with trio.open_nursery() as nursery:
        if stage == "ADMISSION":
            nursery.start_soon(runner.run, request())
            await wait_all_tasks_blocked()
        outcome = await runner.run(request(seconds=1, config_space=(Binding("a", "b"),)))
        nursery.cancel_scope.cancel()
    if not blamed:
        assert (outcome.kind, outcome.stage.name) == (FailureKind.DEADLINE_EXCEEDED, stage)
    else:
        assert (outcome.kind, outcome.stage) == (FailureKind.STORE_UNAVAILABLE, Stage.SYNC)
        assert outcome.error_message == (
            f"the store is away, and the deadline passed in stage {stage}, 1000 ms after the trial arrived"
        )
        assert outcome.retryable


async def test_a_trial_that_is_turned_away_while_its_store_is_away_is_told_so(virtual_clock):
    for config_space, kind in [((Binding("a", "b"),), FailureKind.STORE_UNAVAILABLE), ((), FailureKind.OVERLOADED)]:
        runner = trials(sleeps(100), max_queue=0, why_away="the store is away")
        async with trio.open_nursery() as nursery:
            nursery.start_soon(runner.run, request())
            await wait_all_tasks_blocked()
            outcome = await runner.run(request(config_space=config_space))
            assert outcome.kind is kind
            assert "all 1 slots are taken" in outcome.error_message
            nursery.cancel_scope.cancel()


async def test_a_deadline_that_is_already_past_runs_nothing():
    ran = []
    outcome = await trials(FakeProgram(ran.append)).run(request(seconds=-1))
    assert (outcome.kind, outcome.stage, ran) == (FailureKind.DEADLINE_EXCEEDED, Stage.ADMISSION, [])


async def test_a_caller_that_goes_away_is_not_answered_but_the_trial_is_told_as_cancelled(virtual_clock):
    told = Told()
    runner = trials(sleeps(100), observer=told)
    with trio.move_on_after(3) as caller:
        await runner.run(request())
        pytest.fail("a cancel from outside must stay a cancel")
    assert caller.cancelled_caught
    assert [(o.kind, o.stage, o.timings.execute_ms) for o in told.outcomes] == [
        (FailureKind.CANCELLED, Stage.EXECUTE, pytest.approx(3000))
    ]
    assert runner.running == 0


async def test_trials_under_way_end_earlier_when_the_margin_has_grown(virtual_clock):
    """They arrived before the loop was known to be late, and their answers would come as late as the loop."""
    margin, told = ReplyMargin(MarginRules()), Told()
    runner = trials(sleeps(100), observer=told)
    began = trio.current_time()
    ends = margin.deadline(began, began + 4)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(runner.run, replace(request(), deadline=ends.at, margin=ends.margin))
        await trio.sleep(1)
        runner.hasten(margin)  # nothing was learnt
        margin.loop_was_late(0.3)
        runner.hasten(margin)
    assert trio.current_time() - began == pytest.approx(4 - 0.9)
    assert [outcome.kind for outcome in told.outcomes] == [FailureKind.DEADLINE_EXCEEDED]


async def test_a_cancel_after_the_deadline_is_told_as_the_deadline(virtual_clock):
    """The caller's own timer beat the answer: the reply margin learns from it, and CANCELLED would be a lie."""
    told = Told()
    runner = trials(sleeps(100), observer=told)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(runner.run, request(seconds=3))
        await wait_all_tasks_blocked()
        virtual_clock.jump(3.5)  # nothing ran at the deadline itself
        nursery.cancel_scope.cancel()
    assert [(o.kind, o.stage) for o in told.outcomes] == [(FailureKind.DEADLINE_EXCEEDED, Stage.EXECUTE)]


@pytest.mark.parametrize(
    ("error", "kind", "stage", "told"),
    [
        (ValueError("x"), FailureKind.PROGRAM_ERROR, Stage.EXECUTE, "ValueError"),
        (SystemExit(3), FailureKind.PROGRAM_ERROR, Stage.EXECUTE, "SystemExit"),
        (KeyboardInterrupt(), FailureKind.PROGRAM_ERROR, Stage.EXECUTE, "KeyboardInterrupt"),
        (BaseExceptionGroup("g", [SystemExit(1)]), FailureKind.PROGRAM_ERROR, Stage.EXECUTE, "BaseExceptionGroup"),
        (LmError("down"), FailureKind.LM_ERROR, Stage.EXECUTE, "dspex_trio.model.errors.LmError"),
    ],
)
async def test_whatever_a_program_raises_is_a_failure(error, kind, stage, told):
    outcome = await trials(raises(error)).run(request())
    assert (outcome.kind, outcome.stage, outcome.error_type) == (kind, stage, told)


async def test_an_error_on_the_way_to_the_program_keeps_its_own_stage():
    def unreachable():
        raise StoreUnavailable("the store at 127.0.0.1:1 cannot be reached")

    outcome = await trials(InvalidSpec("no such parameter")).run(request())
    assert (outcome.kind, outcome.stage) == (FailureKind.INVALID_SPEC, Stage.HYDRATE)
    outcome = await trials(FakeProgram(lambda _inputs: None, variables=unreachable)).run(request())
    assert (outcome.kind, outcome.stage, outcome.retryable) == (FailureKind.STORE_UNAVAILABLE, Stage.SYNC, True)


async def test_a_fault_of_ours_is_internal_and_disturbs_nobody(caplog):
    runner = trials(FakeProgram(lambda _inputs: None, variables=lambda: {}["ours"]))
    outcome = await runner.run(request())
    assert (outcome.kind, outcome.stage) == (FailureKind.INTERNAL, Stage.SYNC)
    assert "KeyError: 'ours'" in caplog.text


async def test_drain_lets_running_trials_end_within_the_grace_and_fails_the_rest(virtual_clock):
    outcomes = {}

    async def sleep_as_asked(inputs):
        await trio.sleep(inputs["length"])
        return Prediction({})

    async def run(name, length):
        outcomes[name] = await runner.run(request(trial_id=name, length=length))

    runner = trials(FakeProgram(sleep_as_asked), capacity=2)
    async with trio.open_nursery() as nursery:
        for name, length in [("quick", 2), ("slow", 50), ("queued", 1)]:
            nursery.start_soon(run, name, length)
            await wait_all_tasks_blocked()
        await runner.drain(5)
    assert isinstance(outcomes["quick"], TrialSuccess)
    assert (outcomes["slow"].kind, outcomes["slow"].stage) == (FailureKind.SHUTTING_DOWN, Stage.EXECUTE)
    assert outcomes["slow"].timings.execute_ms == pytest.approx(5000)
    assert (outcomes["queued"].kind, outcomes["queued"].stage) == (FailureKind.SHUTTING_DOWN, Stage.ADMISSION)
    assert outcomes["queued"].timings.total_ms == 0
    late = await runner.run(request())
    assert (late.kind, late.stage) == (FailureKind.SHUTTING_DOWN, Stage.ADMISSION)


async def test_a_trial_without_an_id_has_the_same_made_one_in_its_outcome_and_for_observers_and_threads(virtual_clock):
    """An empty id in a log or in a list of stuck threads tells nobody which trial it was."""
    seen = []

    class Sees(Observer):
        def begins(self, request):
            seen.append(request.trial_id)
            return request

        def on_outcome(self, request, outcome):
            seen.append(request.trial_id)

    async def run(_inputs):
        return Prediction({})

    runner = trials(FakeProgram(run), observer=Sees())
    ids = [(await runner.run(request(trial_id=""))).trial_id for _ in range(2)]
    assert seen == [ids[0], ids[0], ids[1], ids[1]]
    assert re.fullmatch("trial-[0-9a-f]{6}-1", ids[0])
    assert ids[1] == ids[0].removesuffix("1") + "2"


async def test_what_is_under_way_tells_the_stage_and_the_time_that_is_left(virtual_clock):
    runner = trials(sleeps(50))
    async with trio.open_nursery() as nursery:
        for name in ("first", "second"):
            nursery.start_soon(runner.run, request(seconds=60, trial_id=name))
            await trio.sleep(2)
        nursery.start_soon(runner.in_slot, "a tool", math.inf, sleeping(0))
        await wait_all_tasks_blocked()
        seen = runner.under_way()
        nursery.cancel_scope.cancel()
    assert [(each.name, each.program, each.stage, each.seconds, each.seconds_left) for each in seen] == [
        ("first", "Fake", "EXECUTE", 4, 56),
        ("second", "Fake", "ADMISSION", 2, 58),
        ("a tool", "", "EXECUTE", 0, math.inf),
    ]
    assert runner.under_way() == []


def test_made_ids_take_nothing_from_the_programs_own_random_numbers():
    random.seed(7)
    first = random.random()
    random.seed(7)
    make = trial_ids()
    assert random.random() == first
    assert make() != make()


async def test_two_trials_in_two_slots_do_not_mix(virtual_clock):
    async def run(inputs):
        await trio.sleep(1)
        return Prediction({"answer": inputs["n"]})

    runner, answers_seen = trials(FakeProgram(run), capacity=4, max_queue=16), {}
    async with trio.open_nursery() as nursery:
        for n in range(20):

            async def one(n=n):
                answers_seen[n] = (await runner.run(request(n=n))).prediction["answer"]

            nursery.start_soon(one)
    assert answers_seen == {n: n for n in range(20)}


async def test_a_trial_that_answers_at_once_holds_no_slot_afterwards():
    runner = trials(answers(a=1))
    for _ in range(5):
        assert isinstance(await runner.run(request()), TrialSuccess)


async def test_a_trace_that_was_cut_while_it_was_recorded_says_so_after_success_and_failure():
    outcome = await trials(FakeProgram(lambda _: Prediction({}), truncated=True)).run(request())
    assert outcome.trace_truncated
    failing = raises(ValueError("no"))
    failing.truncated = True
    outcome = await trials(failing).run(request())
    assert outcome.details == {"trace_truncated": "true"}


async def test_work_that_is_no_trial_returns_what_it_returns_and_raises_what_it_raised():
    road = trials(answers())

    async def upper(work, slot):
        return "X"

    async def fails(work, slot):
        raise ValueError("x")

    assert await road.in_slot("upper", math.inf, upper) == "X"
    with pytest.raises(ValueError, match="x"):
        await road.in_slot("float", math.inf, fails)
    assert road.running == 0


def sleeping(seconds):
    """Work that takes so long."""

    async def sleep(_work, _slot):
        await trio.sleep(seconds)

    return sleep


async def test_a_call_that_is_no_trial_waits_for_a_slot_and_is_stopped_by_its_deadline(virtual_clock):
    """A tool holds a slot as a trial does: a worker for one trial runs one thing at a time."""
    road = trials(answers())
    async with trio.open_nursery() as nursery:
        nursery.start_soon(road.in_slot, "first", math.inf, sleeping(3))
        await wait_all_tasks_blocked()
        with pytest.raises(DeadlineExceeded):
            await road.in_slot("second", 2, sleeping(0))
        assert trio.current_time() == 2


async def test_a_drain_ends_a_call_that_is_no_trial(virtual_clock):
    road = trials(answers())
    async with trio.open_nursery() as nursery:

        @nursery.start_soon
        async def tool():
            with pytest.raises(ShuttingDown):
                await road.in_slot("endless", math.inf, sleeping(math.inf))

        await wait_all_tasks_blocked()
        await road.drain(4)
        assert trio.current_time() == 4


class Elsewhere:
    """Runs trials as another process does; gets as far as EXECUTE, and does not end the stage."""

    async def run(self, trial, slot):
        with trial.in_other_process({Stage.EXECUTE: 5}):
            trial.entered(Stage.EXECUTE)
            await trio.sleep_forever()


@pytest.mark.parametrize(("seconds", "after", "told"), [(100, 5.05, "execute_timeout"), (3, 3, "the deadline passed")])
async def test_a_stage_in_another_process_that_cannot_keep_to_its_budget_is_ended_from_here(
    virtual_clock, seconds, after, told
):
    """Nothing in a process that hangs could."""
    road = trials(None, runner=Elsewhere())
    began = trio.current_time()
    outcome = await road.run(request(seconds=seconds))
    assert trio.current_time() - began == pytest.approx(after)
    assert (outcome.kind, outcome.stage) == (FailureKind.DEADLINE_EXCEEDED, Stage.EXECUTE)
    assert told in outcome.error_message
