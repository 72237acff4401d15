"""A front as a process of its own: what it imports, and what is left when it is killed."""

import json
import os
import select
import signal
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent
SERVE = """
import json, sys
import trio
import dspex_trio as dspex
from dspex_trio.runtime import serving

async def main():
    settings = dspex.Settings(port=0, isolation="executor", executors=2, load=("front_programs",))
    async with trio.open_nursery() as nursery:
        (listener, *_) = await nursery.start(serving.serve, settings)
        async with dspex.open_client(f"127.0.0.1:{listener.socket.getsockname()[1]}") as client:
            outcome = await client.execute({"python_class": "Harms"}, {"what": "print"}, timeout=60)
            await trio.to_thread.run_sync(sys.stdin.readline)
            print(json.dumps([type(outcome).__name__, outcome.prediction["pid"], sorted(sys.modules)]), flush=True)
            await trio.to_thread.run_sync(sys.stdin.readline)
        nursery.cancel_scope.cancel()

trio.run(main)
"""


@pytest.fixture
def front(tmp_path):
    """A front that waits for two lines: it then tells what it has, and ends."""
    script = tmp_path / "front.py"
    script.write_text(SERVE)
    path = os.pathsep.join([str(HERE), *filter(None, [os.environ.get("PYTHONPATH")])])
    with subprocess.Popen(
        [sys.executable, script],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": path},
    ) as process:
        yield process
        process.kill()


def told(front):
    front.stdin.write("\n")
    front.stdin.flush()
    line = front.stdout.readline()
    assert line, front.stderr.read()
    return json.loads(line)


def test_a_front_that_runs_trials_imports_no_dspy_and_no_operators_module(front):
    kind, pid, modules = told(front)
    assert kind == "TrialSuccess"
    assert pid != front.pid
    named = {name.partition(".")[0] for name in modules}
    assert not named & {"dspy", "litellm", "openai", "numpy", "front_programs"}
    assert not [name for name in modules if name.startswith("dspex_trio.programs")]


@pytest.mark.skipif(sys.platform != "linux", reason="processes are watched by pidfd")
def test_a_front_that_is_killed_leaves_no_process(front):
    told(front)
    pids = [*descendants(front.pid)]
    assert len(pids) == 3  # the warm parent and two executors
    watched = select.poll()
    descriptors = [os.pidfd_open(pid) for pid in pids]
    for descriptor in descriptors:
        watched.register(descriptor, select.POLLIN)
    try:
        os.kill(front.pid, signal.SIGKILL)
        for _ in pids:
            ((ended, _),) = watched.poll(30_000)[:1]
            watched.unregister(ended)
    finally:
        for descriptor in descriptors:
            os.close(descriptor)


def descendants(pid):
    for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split():
        yield int(child)
        yield from descendants(child)
