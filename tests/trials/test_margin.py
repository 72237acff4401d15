import math
from dataclasses import replace

import pytest
import trio

from dspex_trio.model import TrialFailure, TrialSuccess
from dspex_trio.model.errors import FailureKind, Stage
from dspex_trio.testing import VirtualClock
from dspex_trio.trials import MarginRules, ReplyMargin

from .fakes import request

EXCEEDED = TrialFailure(kind=FailureKind.DEADLINE_EXCEEDED, stage=Stage.EXECUTE, error_type="x", error_message="x")
RULES = MarginRules(least=0.01, share=0.02, share_most=0.5)


def late(seconds, margin=0.01):
    deadline = trio.current_time() - seconds
    return replace(request(), arrived=deadline - 1, deadline=deadline, margin=margin)


def margin_of(margin, time):
    """The margin of a trial that has so much time and arrives now."""
    return margin.deadline(trio.current_time(), trio.current_time() + time).margin


@pytest.mark.parametrize(
    ("time", "margin"),
    [(0.2, 0.01), (0.5, 0.01), (2, 0.04), (10, 0.2), (25, 0.5), (600, 0.5), (math.inf, 0.5), (0.012, 0.006), (-1, 0)],
)
def test_the_margin_is_a_share_of_the_time_within_bounds_and_at_most_half_of_it(time, margin):
    assert RULES.margin(time) == pytest.approx(margin)


@pytest.mark.parametrize(("time", "margin"), [(10, 0.3), (2, 0.3), (0.4, 0.1), (0.02, 0.01), (math.inf, 0.5)])
def test_what_was_learnt_raises_it_up_to_a_quarter_of_the_time(time, margin):
    assert RULES.margin(time, 0.3) == pytest.approx(margin)


@pytest.mark.parametrize(("time", "margin"), [(2, 0.1), (0.1, 0.01), (60, 0.5)])
def test_a_caller_whose_timer_may_fire_earlier_gets_its_answer_as_much_earlier_within_the_same_bounds(time, margin):
    assert RULES.margin(time, slack=0.03) == pytest.approx(margin)


def test_what_the_operator_asks_for_holds_for_long_and_for_short_trials():
    rules = MarginRules(least=0.7, share=0.02, share_most=0.5)
    assert [rules.margin(time) for time in (60, 2, 1)] == [0.7, 0.7, 0.5]
    assert MarginRules(least=0, share=0).margin(60) == 0


async def test_a_deadline_is_the_callers_less_the_margin_and_no_later_than_the_worker_allows(virtual_clock):
    margin, now = ReplyMargin(RULES, most_time=10), trio.current_time()
    ends = margin.deadline(now, now + 2)
    assert (ends.at, ends.margin, ends.callers) == (pytest.approx(now + 1.96), pytest.approx(0.04), now + 2)
    assert margin.deadline(now, math.inf).at == pytest.approx(now + 9.8)


async def test_the_margin_grows_with_how_late_answers_leave(virtual_clock):
    margin = ReplyMargin(RULES)
    margin.observe(late(0.03), EXCEEDED)
    assert margin_of(margin, 2) == pytest.approx(0.09)
    margin.observe(late(0.9), EXCEEDED)
    assert [margin_of(margin, time) for time in (60, 2)] == pytest.approx([2.7, 0.5])


async def test_it_has_a_ceiling_that_is_not_low(virtual_clock):
    margin = ReplyMargin(RULES)
    margin.observe(late(600), EXCEEDED)
    assert margin_of(margin, 600) == 5


async def test_half_of_what_was_learnt_is_gone_after_twenty_seconds(virtual_clock):
    margin = ReplyMargin(RULES)
    margin.observe(late(0.1), EXCEEDED)
    found = [margin_of(margin, 2)]
    for _ in range(4):
        await trio.sleep(20)
        margin.observe(late(0), EXCEEDED)
        found.append(margin_of(margin, 2))
    assert found == pytest.approx([0.3, 0.15, 0.075, 0.04, 0.04])


async def test_less_than_what_is_known_teaches_nothing(virtual_clock):
    margin = ReplyMargin(RULES)
    margin.loop_was_late(0.1)
    margin.loop_was_late(0.05)
    assert margin_of(margin, 2) == pytest.approx(0.3)


async def test_waiting_for_a_stuck_thread_is_no_lateness(virtual_clock):
    margin = ReplyMargin(RULES)
    stuck = replace(EXCEEDED, details={"stuck": "true"})
    margin.observe(late(margin.patience(0.04), 0.04), stuck)
    assert margin_of(margin, 2) == 0.04


async def test_other_outcomes_and_deadlines_that_were_past_on_arrival_teach_nothing(virtual_clock):
    margin = ReplyMargin(RULES)
    margin.observe(late(5), TrialSuccess(prediction={}))
    margin.observe(replace(late(5), arrived=trio.current_time()), EXCEEDED)
    assert margin_of(margin, 2) == 0.04


async def test_the_margin_is_three_times_what_the_loop_was_late(virtual_clock):
    margin = ReplyMargin(RULES)
    margin.loop_was_late(0.04)
    assert margin_of(margin, 2) == pytest.approx(0.12)
    margin.loop_was_late(3)
    assert margin_of(margin, 2) == pytest.approx(0.5)


async def test_a_caller_that_gives_up_at_its_deadline_doubles_the_margin_that_was_too_small(virtual_clock):
    margin = ReplyMargin(RULES)
    ends = margin.deadline(trio.current_time(), trio.current_time() + 2)
    await trio.sleep(2)
    margin.given_up(ends)
    assert margin_of(margin, 2) == pytest.approx(0.08)


async def test_many_answers_that_were_late_together_double_it_once(virtual_clock):
    margin = ReplyMargin(RULES)
    together = [margin.deadline(trio.current_time(), trio.current_time() + 2) for _ in range(50)]
    await trio.sleep(2)
    for ends in together:
        margin.given_up(ends)
    assert margin_of(margin, 2) == pytest.approx(0.08)


async def test_a_timer_that_fires_before_the_deadline_known_here_adds_what_it_is_early(virtual_clock):
    """The request was read so late."""
    margin = ReplyMargin(RULES)
    ends = margin.deadline(trio.current_time(), trio.current_time() + 2)
    await trio.sleep(1.94)
    margin.given_up(ends)
    assert margin_of(margin, 2) == pytest.approx(0.08 + 0.06)


@pytest.mark.parametrize("after", [0.5, 1.9, 3.1])
async def test_a_caller_that_gives_up_at_another_time_teaches_nothing(virtual_clock, after):
    margin = ReplyMargin(RULES)
    ends = margin.deadline(trio.current_time(), trio.current_time() + 2)
    await trio.sleep(after)
    margin.given_up(ends)
    assert margin_of(margin, 2) == pytest.approx(0.04)


async def test_an_answer_waits_for_threads_half_of_its_trials_margin(virtual_clock):
    margin = ReplyMargin(RULES)
    assert margin.patience(0.5) == 0.25
    assert margin.patience() == 0.005  # of work that is no trial
    margin.loop_was_late(0.1)
    assert margin.patience() == pytest.approx(0.15)


async def test_there_is_none_where_a_tests_clock_jumps_while_threads_run(mock_clock):
    margin = ReplyMargin(RULES)
    assert (margin_of(margin, 60), margin.patience()) == (0, 0)


def test_it_is_as_in_real_time_where_the_clock_keeps_the_time_of_threads():
    async def look():
        await trio.lowlevel.checkpoint()
        return margin_of(ReplyMargin(RULES), 2)

    virtual_clock = VirtualClock()
    assert trio.run(look, clock=virtual_clock, instruments=[virtual_clock]) == 0.04
