"""Threads that nothing ends: they are counted and listed, and past a limit the process is to be replaced."""

import logging
import threading
from _thread import allocate_lock

import dspy
import pytest
import trio

import dspex_trio as dspex
from dspex_trio import rpc
from dspex_trio.rpc.generated.health_grpc import HealthStub
from dspex_trio.rpc.generated.health_pb2 import HealthCheckRequest, HealthCheckResponse

LONG = 30
STUCK = dspex.Program("IsStuck")


@pytest.fixture
def locks():
    """Bare locks, which nothing wakes; those that are left are released when the test is over."""
    held = []
    yield held
    for lock in held:
        if lock.locked():
            lock.release()


@pytest.fixture
def program(locks, virtual_clock):
    """A program that waits where it cannot be woken, and tells when it does."""
    waiting = threading.Semaphore(0)

    @dspex.register("IsStuck")
    class IsStuck(dspy.Module):
        def forward(self):
            lock = allocate_lock()
            lock.acquire()
            locks.append(lock)
            waiting.release()
            with virtual_clock.blocked():  # else every moment of its time would be looked at for a tenth of a second
                lock.acquire()

    yield waiting
    dspex.programs.MODULE_REGISTRY.pop("IsStuck")


async def time_out(runtime, trial_id=""):
    with trio.move_on_after(0.2):
        return await runtime.run_trial(STUCK, {}, trial_id=trial_id)


async def test_an_embedded_runtime_raises_when_too_many_threads_are_stuck(virtual_clock, program):
    """Never through `sys.exit`: the process belongs to whoever embeds it, who gets the error as it is."""

    async def embedded():
        async with dspex.open_runtime(dspex.Settings(max_trials=4, max_stuck_threads=2)) as runtime:
            for _ in range(2):
                await time_out(runtime)
            await trio.sleep_forever()

    with trio.fail_after(LONG), pytest.raises(dspex.WorkerStuck, match="the threads of 2 trials ignore"):
        await embedded()


class Lines(logging.Handler):
    """What the log says, line by line, for whoever waits for it."""

    def __init__(self):
        super().__init__()
        self.send, self.receive = trio.open_memory_channel(100)

    def emit(self, record):
        self.send.send_nowait(record.getMessage())

    async def until(self, text):
        while text not in (line := await self.receive.receive()):
            pass
        return line


@pytest.fixture
def lines():
    log, lines = logging.getLogger("dspex_trio"), Lines()
    level = log.level
    log.addHandler(lines)
    log.setLevel(logging.INFO)
    yield lines
    log.removeHandler(lines)
    log.setLevel(level)


async def test_stuck_threads_are_listed_and_told_when_they_end_after_all(virtual_clock, program, locks, lines):
    async with dspex.open_runtime(dspex.Settings(max_trials=4)) as runtime:
        await time_out(runtime, "a-trial")
        [stuck] = runtime.stuck()
        assert (stuck.name, "in forward" in stuck.stack) == ("a-trial", True)
        with trio.fail_after(LONG):
            assert "in forward" in await lines.until("the job 'a-trial' ignores that it is over")
            locks[0].release()
            told = await lines.until("its threads have ended")
        assert told.startswith("trial 'a-trial' of 'IsStuck': its threads have ended, by ")
        assert runtime.stuck() == []


async def test_a_served_worker_drains_says_that_it_does_not_serve_and_then_raises(virtual_clock, program, nursery):
    ended = trio.Event()

    async def serve(task_status):
        with pytest.raises(dspex.WorkerStuck):
            await dspex.serve(dspex.Settings(port=0, max_trials=2, max_stuck_threads=1), task_status=task_status)
        ended.set()

    [listener, *_] = await nursery.start(serve)
    port = listener.socket.getsockname()[1]
    async with dspex.open_client(f"127.0.0.1:{port}") as client, rpc.open_channel(f"127.0.0.1:{port}") as channel:
        async with HealthStub(channel).Watch(HealthCheckRequest(service=rpc.LIVENESS)) as states:
            assert (await anext(states)).status == HealthCheckResponse.SERVING
            outcome = await client.execute(STUCK, {}, timeout=0.2)
            assert outcome.details["stuck"] == "true"
            assert (await anext(states)).status == HealthCheckResponse.NOT_SERVING
        with trio.fail_after(LONG):
            await ended.wait()
