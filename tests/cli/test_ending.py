"""How a command ends, seen from outside: by pid and exit code."""

import os
import re
import signal
from functools import partial

import pytest
import trio

import dspex_trio as dspex

PROGRAMS = """
import re, threading
import dspy
import dspex_trio as dspex

@dspex.register("Waits")
class Waits(dspy.Module):
    def forward(self):
        print("running", flush=True)
        threading.Event().wait()

@dspex.register("LeavesAThread")
class LeavesAThread(dspy.Module):
    def forward(self):
        threading.Thread(target=threading.Event().wait, name="somebodys-own", daemon=False).start()
        print("running", flush=True)
        return {}

@dspex.register("IsStuck")
class IsStuck(dspy.Module):
    def forward(self):
        lock = threading.Lock()
        lock.acquire()
        print("running", flush=True)
        lock.acquire()

@dspex.register("HoldsTheGil")
class HoldsTheGil(dspy.Module):
    def forward(self):
        print("running", flush=True)
        try:
            threading.Event().wait()
        except BaseException:
            re.match("(a+)+$", "a" * 64 + "b")
"""
NEVER_LOADED = "import threading; print('loading', flush=True); threading.Event().wait()"


@pytest.fixture
def start(start):
    return partial(start, module=PROGRAMS)


async def running(nursery, command, program, seconds=None):
    address = await command.address()
    answers, answer = trio.open_memory_channel(1)

    async def call():
        async with dspex.open_client(address) as client:
            try:
                await answers.send(await client.execute(dspex.Program(program), {}, timeout=seconds))
            except dspex.rpc.RpcError as error:
                await answers.send(error)

    nursery.start_soon(call)
    await command.until("running")
    return answer


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_a_signal_before_anything_is_served_ends_it_at_once_and_says_so(start, number):
    """Importing DSPy and the operator's modules takes seconds: nobody waits for that, and it is no failure."""
    command = await start("serve", "--load", "some_programs", module=NEVER_LOADED)
    await command.until("loading")
    command.process.send_signal(number)
    assert await command.ends() == 0, command.told
    assert f"{number.name}: ended before anything was served" in command.told
    assert "Traceback" not in command.told


async def test_a_second_signal_ends_it_at_once(start, nursery):
    command = await start("serve", "--load", "some_programs", "--grace-seconds", "1000")
    answer = await running(nursery, command, "Waits")
    command.process.send_signal(signal.SIGTERM)
    await command.until("SIGTERM: shutting down")
    command.process.send_signal(signal.SIGINT)
    assert await command.ends() == 128 + signal.SIGINT, command.told
    assert "second signal (SIGINT): ended at once" in command.told
    with trio.fail_after(10):
        assert isinstance(await answer.receive(), dspex.rpc.RpcError)


async def test_threads_that_a_program_left_behind_do_not_keep_the_process(start, nursery):
    """A bare `threading.Thread` belongs to nobody; the interpreter would wait for it for ever."""
    command = await start("serve", "--load", "some_programs", "--isolation", "thread", "--grace-seconds", "0.1")
    answer = await running(nursery, command, "LeavesAThread")
    assert isinstance(await answer.receive(), dspex.TrialSuccess)
    command.process.send_signal(signal.SIGTERM)
    assert await command.ends() == 0, command.told
    assert re.search("threads kept the process from ending and were left: .*somebodys-own", command.told)


async def test_a_worker_whose_threads_are_stuck_ends_by_itself_with_a_code_of_its_own(start, nursery):
    """So that whoever started it starts another one; nothing is wrong with how it was started."""
    command = await start(
        "serve", "--load", "some_programs", "--isolation", "thread", "--max-stuck-threads", "1", "--grace-seconds", "1"
    )
    answer = await running(nursery, command, "IsStuck", seconds=0.3)
    assert (await answer.receive()).details["stuck"] == "true"
    assert await command.ends() == 75, command.told
    assert "the threads of 1 trials ignore that these are over" in command.told
    assert "in forward" in command.told


async def test_c_code_that_keeps_the_interpreter_does_not_keep_the_process(start, nursery):
    """Nothing written in Python can end it then; where it hangs stands in the log."""
    command = await start("serve", "--load", "some_programs", "--isolation", "thread", "--grace-seconds", "0.1")
    await running(nursery, command, "HoldsTheGil")
    command.process.send_signal(signal.SIGTERM)
    assert await command.ends() == 1, command.told
    assert "in forward" in command.told


async def test_the_end_of_standard_input_ends_it_when_asked_to(start):
    """Whoever holds the other end may have been killed, and then tells nobody."""
    command = await start("store", "--end-with-stdin")
    await command.address()
    await command.process.stdin.aclose()
    assert await command.ends() == 0, command.told
    assert "standard input ended: shutting down" in command.told


async def test_standard_input_means_nothing_otherwise(start):
    command = await start("store")
    await command.address()
    await command.process.stdin.aclose()
    os.kill(command.process.pid, 0)
    command.process.send_signal(signal.SIGINT)
    assert await command.ends() == 0


async def test_the_end_of_standard_input_is_no_second_signal(start):
    """What stops a worker closes its pipes too: that must not cut the grace of a running trial short."""
    command = await start("store", "--end-with-stdin")
    await command.address()
    command.process.send_signal(signal.SIGTERM)
    await command.process.stdin.aclose()
    assert await command.ends() == 0, command.told
