"""How a worker begins and ends, and what a pool sees of it."""

import json
import os
import signal
import socket
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import grpc
import pytest

from .generations import V013, V04
from .pool_worker import SCRIPT, outcome
from .waiting import alive, wait_until, wait_until_gone

ROOT = Path(__file__).parents[2]
PATH = os.pathsep.join(filter(None, (str(Path(__file__).parent), os.environ.get("PYTHONPATH"))))


@pytest.fixture
def finish(preloaded, tmp_path):
    """`finish(*arguments)`: run a worker that is expected to end by itself: its exit code and what it wrote."""

    def run(*arguments, script=(SCRIPT,), env=None):
        done = preloaded([*script, *arguments], tmp_path, {**os.environ, "PYTHONPATH": PATH, **(env or {})}, seconds=60)
        return done.returncode, done.stdout, done.stderr

    return run


# ---- the beginning


def test_a_module_that_cannot_be_loaded_ends_the_start_with_one_line_and_a_code_that_is_retried(finish, tmp_path):
    """0 and 143 mean to a pool that it was shut down."""
    code, _, told = finish("--load", "no_such_module", env={"SNAKEPIT_READY_FILE": str(tmp_path / "ready")})
    assert code == 1
    assert told.splitlines()[-1].startswith("Error: --load no_such_module: there is no module 'no_such_module'")
    assert not list(tmp_path.iterdir())


def test_a_port_that_is_taken_ends_the_start(finish):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        code, _, told = finish("--port", taken.getsockname()[1])
    assert code == 1
    assert "cannot listen on 127.0.0.1:" in told


def test_a_ready_file_that_cannot_be_written_ends_the_start(finish, tmp_path):
    code, _, told = finish(env={"SNAKEPIT_READY_FILE": str(tmp_path / "gone" / "ready")})
    assert code == 1
    assert told.splitlines()[-1].startswith("Error: cannot write the ready file")


def test_an_address_that_is_none_is_named(finish):
    code, _, told = finish("--elixir-address", "elixir")
    assert code == 2
    assert "--elixir-address 'elixir' is no HOST:PORT" in told


def test_a_health_check_loads_everything_and_exits(finish):
    code, told, _ = finish("--health-check", "--adapter", "any.Thing", "--load", "pool_programs")
    assert (code, told) == (0, "everything that a worker needs is here\n")
    code, _, told = finish("--health-check", "--load", "no_such_module", script=("-m", "dspex_trio", "worker"))
    assert code == 1
    assert "no_such_module" in told


def test_the_scripts_place_is_printed(finish):
    code, told, _ = finish(script=("-m", "dspex_trio.snakepit.script_path"))
    assert (code, Path(told.strip()).name) == (0, "grpc_server.py")
    assert [each.name for each in Path(told.strip()).parent.iterdir() if each.name != "__pycache__"] == [
        "grpc_server.py"
    ]


# ---- the end


@pytest.mark.parametrize("generation", [V013, V04], ids=lambda generation: generation.name)
def test_sigterm_gives_a_running_trial_the_grace_and_then_a_failure(make_pool, generation):
    """The pool's SIGKILL comes after 6 s, in 0.4 after 2 s: the caller has its answer before, and nothing is left."""
    worker = make_pool(generation, arguments=["--load", "pool_programs", "--grace-seconds", "0.3"]).start()
    _, left = outcome(worker.trial("LeavesAProcess", {"question": ""}))
    future = worker.trial("Sleeps", {"question": ""})
    wait_until(lambda: worker.execute("worker_status")["running"])
    os.kill(worker.pid, signal.SIGTERM)
    kind, failure = outcome(future)
    assert (kind, failure["kind"], failure["retryable"]) == ("failure", "FAILURE_KIND_SHUTTING_DOWN", True)
    assert worker.wait(generation.kill_after) == 0, worker.log
    wait_until_gone([left["prediction"]["answer"]])


def test_a_worker_that_is_ending_takes_no_new_trials_and_ends_with_the_last(make_pool):
    worker = make_pool().start()
    last = worker.trial("Burns", {"what": "python", "seconds": 0.5})
    wait_until(lambda: worker.execute("worker_status")["running"])
    os.kill(worker.pid, signal.SIGINT)
    wait_until(lambda: "SIGINT: shutting down" in worker.log)
    kind, failure = outcome(worker.trial("Echo", {"question": ""}))
    assert (kind, failure["kind"]) == ("failure", "FAILURE_KIND_SHUTTING_DOWN")
    kind, _ = outcome(last)
    assert kind == "success"
    assert worker.wait() == 0


def test_a_second_signal_ends_it_at_once(make_pool):
    worker = make_pool().start()
    running = worker.trial("Sleeps", {"question": ""})
    wait_until(lambda: worker.execute("worker_status")["running"])
    os.kill(worker.pid, signal.SIGTERM)
    wait_until(lambda: "SIGTERM: shutting down" in worker.log)
    os.kill(worker.pid, signal.SIGINT)  # another one, as the same one could be taken for its repeat
    assert running.code() is grpc.StatusCode.UNAVAILABLE  # first: whoever waits for the worker closes its channel
    assert worker.wait(2) == 128 + signal.SIGINT


def test_a_program_that_crashes_costs_its_executor_and_not_the_worker(make_pool):
    worker = make_pool().start()
    kind, failure = outcome(worker.trial("Crashes", {"question": ""}))
    assert (kind, failure["kind"], failure["retryable"]) == ("failure", "FAILURE_KIND_WORKER_LOST", True)
    assert "exit code 9" in failure["error_message"]
    assert outcome(worker.trial("Echo", {"question": "again"}))[1]["prediction"] == {"answer": "hello, again"}


def test_a_worker_without_executors_that_crashes_is_replaced(make_pool):
    pool = make_pool(arguments=["--load", "pool_programs", "--isolation", "thread"])
    worker = pool.start()
    with pytest.raises(grpc.RpcError) as caught:
        outcome(worker.trial("Crashes", {"question": ""}))
    assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
    assert worker.wait() == 9
    assert outcome(pool.start().trial("Echo", {"question": "again"}))[1]["prediction"] == {"answer": "hello, again"}


def test_the_end_of_standard_input_ends_it(make_pool):
    """A BEAM that is gone has closed it; whoever is left to answer has the same grace."""
    worker = make_pool().start()
    worker.popen.stdin.close()
    assert worker.wait() == 0


def test_lost_heartbeats_end_a_dependent_worker_with_a_code_of_its_own(make_pool):
    """A pool that is still there starts another one."""
    config = {"interval_ms": 10, "timeout_ms": 500, "max_missed_heartbeats": 2}
    pool = make_pool(heartbeat_config=config)
    worker = pool.start()
    wait_until(lambda: pool.store.heartbeats >= 3)
    pool.server.stop()
    assert worker.wait() == 70, worker.log
    assert "Elixir has missed 2 heartbeats" in worker.log


def test_nothing_outlives_a_beam_that_is_killed():
    """Kill -9 leaves no time for anything: idle and busy workers end, and what their programs have started."""
    beam = subprocess.Popen(
        [sys.executable, "-m", "tests.snakepit.beam"],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        text=True,
    )
    with beam.stdout:
        pids = json.loads(beam.stdout.readline())
        assert len(pids) == 4
        beam.kill()
        beam.wait()
        wait_until_gone(pids)


STANDSTILL = """
import ctypes, trio, trio.testing
from dspex_trio.snakepit.guards import end_when_stuck

async def main():
    async with trio.open_nursery() as nursery:
        nursery.start_soon(end_when_stuck, 1.2, trio.Event())
        await trio.testing.wait_all_tasks_blocked()
        ctypes.PyDLL(None).sleep(60)  # keeps the GIL

trio.run(main)
"""


def test_a_worker_that_stands_still_ends_and_says_where(finish, tmp_path):
    """With the GIL held no signal, no end of standard input and no lost heartbeat can be noticed."""
    (tmp_path / "standstill.py").write_text(STANDSTILL)
    code, _, told = finish(script=(tmp_path / "standstill.py",))
    assert code == 1
    assert "in main" in told


# ---- without a pool

PARENT = """
import subprocess, sys, threading
started = []
def start():
    child = subprocess.Popen(sys.argv[2:], stdin=getattr(subprocess, sys.argv[1]), stdout=2)
    print(child.pid, flush=True)
    started.append(child)
thread = threading.Thread(target=start)
thread.start()
thread.join()
sys.stdin.read()
"""
GUARDED = """
import os, signal, sys
from dspex_trio.snakepit import guards
if not guards.may_outlive_parent():
    guards.end_with_parent(lambda: os._exit(0))
print("guarded", flush=True)
while True:
    signal.pause()
"""


@pytest.fixture
def parent(tmp_path):
    """`parent(stdin, *command)`: a process that has started that, in a thread that has ended; and the latter's pid.

    What the command writes comes from the parent's standard error.
    """
    parents = []

    def start(stdin, *command, **options):
        run = [sys.executable, "-c", PARENT, stdin, *map(str, command)]
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        made = subprocess.Popen(
            run, cwd=tmp_path, text=True, env={**os.environ, "PYTHONPATH": PATH}, **pipes, **options
        )
        parents.append((made, pid := int(made.stdout.readline())))
        return made, pid

    yield start
    for made, pid in parents:
        with suppress(ProcessLookupError):
            leads = os.getpgid(made.pid) == made.pid
            (os.killpg if leads else os.kill)(made.pid, signal.SIGKILL)
        with made:
            pass
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


@pytest.mark.parametrize("stdin", ["DEVNULL", "PIPE"])
def test_a_worker_that_was_started_by_hand_does_not_outlive_its_parent(parent, tmp_path, stdin):
    """Without a run id there is no pool to look for it."""
    ready = tmp_path / "ready"
    starter, pid = parent(stdin, sys.executable, SCRIPT, "--load", "pool_programs", "--ready-file", ready)
    wait_until(ready.exists, 60)
    starter.kill()
    wait_until_gone([pid])


def test_the_end_of_the_thread_that_started_it_is_not_its_parents(parent):
    starter, pid = parent("DEVNULL", sys.executable, "-c", GUARDED)
    assert starter.stderr.readline() == "guarded\n"
    os.kill(pid, signal.SIGRTMIN)  # as the kernel does for that thread, which may have ended before
    assert alive(pid)
    starter.kill()
    wait_until_gone([pid])


def test_what_was_started_with_nohup_goes_on_without_its_parent(parent):
    starter, pid = parent("DEVNULL", "nohup", sys.executable, "-c", GUARDED)
    assert starter.stderr.readline() == "guarded\n"
    starter.kill()
    starter.wait()
    wait_until(lambda: f"PPid:\t{starter.pid}\n" not in Path(f"/proc/{pid}/status").read_text())
    assert alive(pid)


def test_an_input_that_was_at_its_end_before_is_nobodys(parent, tmp_path):
    """As where a service manager, or a script, gives a pipe that nobody holds."""
    ready = tmp_path / "ready"
    command = f"true | {sys.executable} {SCRIPT} --load pool_programs --ready-file {ready}"
    _, _ = parent("DEVNULL", "sh", "-c", command, start_new_session=True)
    wait_until(ready.exists, 60)
    with grpc.insecure_channel(f"127.0.0.1:{ready.read_text()}") as channel:
        check = channel.unary_unary("/grpc.health.v1.Health/Check")
        assert check(b"", timeout=30) == b"\x08\x01"
