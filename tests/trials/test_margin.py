from dataclasses import replace

import pytest
import trio

from dspex_trio.errors import FailureKind, Stage
from dspex_trio.model import TrialFailure, TrialSuccess
from dspex_trio.testing import VirtualClock
from dspex_trio.trials import ReplyMargin

from .fakes import request

EXCEEDED = TrialFailure(kind=FailureKind.DEADLINE_EXCEEDED, stage=Stage.EXECUTE, error_type="x", error_message="x")


def late(seconds):
    asked = request(seconds=1)
    return replace(asked, arrived=asked.arrived - 10, deadline=trio.current_time() - seconds)


async def test_the_margin_grows_with_how_late_answers_leave_up_to_fifty_milliseconds(virtual_clock):
    margin = ReplyMargin(0.01)
    assert margin() == 0.02
    margin.observe(late(0.012), EXCEEDED)
    assert margin() == pytest.approx(0.036, abs=0.005)
    margin.observe(late(0.9), EXCEEDED)
    assert margin() == 0.05


async def test_it_shrinks_again_to_its_floor_when_answers_are_on_time(virtual_clock):
    margin = ReplyMargin(0.01)
    margin.observe(late(0.9), EXCEEDED)
    for _ in range(200):
        margin.observe(late(0), EXCEEDED)
    assert margin() == pytest.approx(0.01, abs=0.003)


async def test_waiting_for_a_stuck_thread_is_no_lateness(virtual_clock):
    margin = ReplyMargin(0.01)
    stuck = replace(EXCEEDED, details={"stuck": "true"})
    margin.observe(late(margin.patience()), stuck)
    assert margin() <= 0.02


async def test_other_outcomes_and_deadlines_that_were_past_on_arrival_teach_nothing():
    margin = ReplyMargin(0.01)
    margin.observe(late(5), TrialSuccess(prediction={}))
    margin.observe(replace(late(5), arrived=trio.current_time()), EXCEEDED)
    assert margin() == 0.02


async def test_the_margin_follows_the_loops_own_lateness_up_to_fifty_milliseconds_and_back(virtual_clock):
    margin = ReplyMargin(0.01)
    margin.loop_was_late(0.04)
    assert margin() == 0.04
    margin.loop_was_late(0.4)
    assert margin() == 0.05
    for _ in range(200):
        margin.loop_was_late(0.001)
    assert margin() == 0.02  # what answers have taught so far


async def test_a_floor_above_the_ceiling_is_the_margin():
    margin = ReplyMargin(0.5)
    margin.observe(late(5), EXCEEDED)
    assert (margin(), margin.patience()) == (0.5, 0.25)


async def test_there_is_none_where_a_tests_clock_jumps_while_threads_run(mock_clock):
    assert (ReplyMargin(0.01)(), ReplyMargin(0.01).patience()) == (0, 0)


def test_it_is_as_in_real_time_where_the_clock_keeps_the_time_of_threads():
    async def look():
        await trio.lowlevel.checkpoint()
        return ReplyMargin(0.01)()

    virtual_clock = VirtualClock()
    assert trio.run(look, clock=virtual_clock, instruments=[virtual_clock]) == 0.02
