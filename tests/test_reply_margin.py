"""The reply margin at the service: every kind of deadline has it, and callers that give up raise it."""

import math
from contextlib import asynccontextmanager
from functools import partial

import pytest
import trio

from dspex_trio import rpc
from dspex_trio.model import Program, Signature, TrialRequest, TrialSuccess
from dspex_trio.runtime.client import open_client
from dspex_trio.runtime.servicer import ProgramExecutor
from dspex_trio.sessions import MemoryStore
from dspex_trio.store.servicer import SessionStore
from dspex_trio.trials import MarginRules, ReplyMargin
from dspex_trio.wire import encode_request
from dspex_trio.wire.generated.program_grpc import SnakepitBridgeStub

PROGRAM = Program("dspy.Predict", signature=Signature(text="question -> answer"))
WORKERS_LIMIT = 600


class Trials:
    """A road that keeps what it was asked, and answers after so many seconds, whatever the deadline."""

    def __init__(self):
        self.seconds = 0.0
        self.asked = []

    async def run(self, request):
        self.asked.append((request, request.deadline - trio.current_time()))
        await trio.sleep(self.seconds)
        return TrialSuccess({"answer": "42"})


@asynccontextmanager
async def serving(trials):
    margin = ReplyMargin(MarginRules(), WORKERS_LIMIT)
    executor = ProgramExecutor(trials, max_message_bytes=1 << 20, reply_margin=margin, redact=str)
    listener, connect = rpc.memory_link()
    async with trio.open_nursery() as nursery:
        await nursery.start(partial(rpc.serve, [executor, SessionStore(MemoryStore())], listeners=[listener]))
        yield connect
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize(
    ("wire", "asked", "time"),
    [(2, math.inf, 1.96), (60, 2, 1.96), (2, 60, 1.96), (math.inf, 10, 9.8), (math.inf, math.inf, WORKERS_LIMIT - 0.5)],
)
async def test_whatever_deadline_comes_first_the_trial_ends_a_margin_before_it(virtual_clock, wire, asked, time):
    """The call's own, the request's `timeout`, the worker's maximum."""
    trials = Trials()
    request = encode_request(TrialRequest(PROGRAM, {}), timeout=asked)
    async with serving(trials) as connect, rpc.open_channel(connect) as channel:
        with trio.fail_after(wire):
            await SnakepitBridgeStub(channel).ExecuteProgram(request)
    [(seen, left)] = trials.asked
    assert left == pytest.approx(time, abs=1e-3)
    assert seen.margin == pytest.approx(min(wire, asked, WORKERS_LIMIT) - time, abs=1e-3)


@pytest.mark.parametrize(
    ("user_agent", "margin"), [("grpc-python/1.85.1 grpc-c/55.0.0 (linux; chttp2)", 0.1), ("grpc-go/1.70.0", 0.04)]
)
async def test_callers_that_round_their_timeouts_up_are_answered_earlier(virtual_clock, user_agent, margin):
    """GRPC's C core sends an earlier timeout again that is up to 3 % longer: 2 s may come when 1.94 s are meant."""
    trials, settings = Trials(), rpc.ChannelSettings(user_agent=user_agent)
    request = encode_request(TrialRequest(PROGRAM, {}))
    async with serving(trials) as connect, rpc.open_channel(connect, settings=settings) as channel:
        with trio.fail_after(2):
            await SnakepitBridgeStub(channel).ExecuteProgram(request)
    [(seen, _)] = trials.asked
    assert seen.margin == pytest.approx(margin, abs=1e-3)


@pytest.mark.parametrize(("given_up_after", "margin"), [(1.99, 0.09), (1, 0.04)])
async def test_a_caller_whose_own_timer_fires_first_makes_the_next_answers_leave_earlier(
    virtual_clock, given_up_after, margin
):
    """Ten milliseconds before the deadline it is the timer; half-way it is somebody who has changed his mind."""
    trials = Trials()
    trials.seconds = 10
    async with serving(trials) as connect, open_client(connect) as client:
        with trio.CancelScope() as scope:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(partial(client.execute, PROGRAM, {}, timeout=2))
                await trio.sleep(given_up_after)
                scope.cancel()
        await trio.testing.wait_all_tasks_blocked()
        trials.seconds = 0
        await client.execute(PROGRAM, {}, timeout=2)
    assert [request.margin for request, _ in trials.asked] == pytest.approx([0.04, margin], abs=1e-3)
