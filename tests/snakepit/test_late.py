"""What a pool is told when its time is over: it waits for twice the time that it names, and loses a status's text."""

import json
from functools import partial

import pytest
import trio

from dspex_trio import rpc
from dspex_trio.snakepit.bridge import WorkerBridge
from dspex_trio.snakepit.worker import pools_patience
from dspex_trio.wire.generated import bridge_pb2
from dspex_trio.wire.generated.bridge_grpc import BridgeServiceStub

FAILURE = b'{"failure": {"kind": "FAILURE_KIND_DEADLINE_EXCEEDED"}}'


class LateTrials:
    """Notices the deadline three seconds late, as a worker does that a program has held up."""

    def __init__(self):
        self.deadlines = []

    async def __call__(self, arguments, watch=None, *, deadline):
        self.deadlines.append(deadline - trio.current_time())
        await trio.sleep_until(deadline + 3)
        return FAILURE


class SleepingTools:
    async def call(self, name, arguments):
        await trio.sleep_forever()


async def calls(nursery, trials):
    """A function that makes raw calls of a bridge with a `grpc-timeout`, as a client that has no timer of its own."""
    bridge = WorkerBridge(SleepingTools(), trials, adopted=lambda _: None, redact=str, max_bytes=10_000)
    listener, target = rpc.memory_link()
    serve = partial(rpc.serve, [bridge], listeners=[listener], patience=pools_patience)
    await nursery.start(serve)
    channel = await nursery.start(keep_open, target)
    return BridgeServiceStub(channel)


async def keep_open(target, task_status):
    async with rpc.open_channel(target) as channel:
        task_status.started(channel)
        await trio.sleep_forever()


@pytest.fixture
def named_deadline(monkeypatch):
    """Calls tell the server of half of the time that they wait."""
    from dspex_trio.rpc.http2 import client_engine

    whole = client_engine.format_timeout
    monkeypatch.setattr(client_engine, "format_timeout", lambda seconds: whole(seconds / 2))


async def test_a_trial_that_is_late_is_answered_while_the_pool_waits(virtual_clock, nursery, named_deadline):
    trials = LateTrials()
    stub = await calls(nursery, trials)
    request = bridge_pb2.ExecuteToolRequest(tool_name="execute_program")
    with trio.fail_after(20):
        reply = await stub.ExecuteTool(request)
    assert trials.deadlines == pytest.approx([10], abs=1e-3)
    assert trio.current_time() == pytest.approx(13, abs=1e-3)
    assert (reply.success, reply.result.value) == (True, FAILURE)


async def test_a_tool_that_is_late_is_a_failure_that_says_so(virtual_clock, nursery, named_deadline):
    stub = await calls(nursery, LateTrials())
    with trio.fail_after(20):
        reply = await stub.ExecuteTool(bridge_pb2.ExecuteToolRequest(tool_name="waits"))
    assert not reply.success
    assert json.loads(reply.error_message)["type"] == "DeadlineExceeded"
    assert trio.current_time() == pytest.approx(10, abs=1e-3)
