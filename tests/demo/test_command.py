"""The whole demo, as a newcomer starts it."""

import contextlib
import os
import re
import signal
import subprocess
import sys
import uuid
from pathlib import Path

import pytest

LIMIT_SECONDS = 120
MARKER = "DSPEX_TRIO_TEST_RUN"


def start(*arguments):
    marker = uuid.uuid4().hex
    process = subprocess.Popen(
        [sys.executable, "-u", "-m", "dspex_trio", "demo", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env={**os.environ, MARKER: marker},
    )
    process.marker = f"{MARKER}={marker}".encode()
    return process


def finish(process):
    try:
        return process.communicate(timeout=LIMIT_SECONDS)[0]
    finally:
        process.kill()


def children(output):
    return [int(pid) for pid in re.findall(r"\(pid (\d+)\)", output)]


def left_behind(process):
    """Processes that the demo started and that are still there, by the environment that they inherited."""
    found = []
    for environment in Path("/proc").glob("[0-9]*/environ"):
        with contextlib.suppress(OSError):
            if process.marker in environment.read_bytes():
                found.append(int(environment.parent.name))
    return found


def test_every_trial_of_the_demo_ends_as_expected():
    process = start()
    output = finish(process)
    assert process.returncode == 0, output
    assert re.search(r"trials +45 of 45 ended as expected", output)
    assert re.search(r"answers +35 of 35 right", output)
    rows = [line for line in output.splitlines() if line.startswith("ok  ")]
    assert len(rows) == 45
    for kind, stage in (("PROGRAM_ERROR", "EXECUTE"), ("DEADLINE_EXCEEDED", "EXECUTE"), ("VARIABLE_NOT_FOUND", "SYNC")):
        assert any(kind in row and stage in row for row in rows)
    # The bound values reached the provider, and what was ended closed its connection.
    assert "saw temperature 0, 0.2, 0.7, 1; max_tokens 5, 300, 400, 500, 600" in output
    assert "2 closed by the worker before the answer, 0 still owed" in output
    assert len(children(output)) == 2
    assert left_behind(process) == []


@pytest.mark.skipif(not Path("/proc/self/environ").exists(), reason="processes are looked for in /proc")
@pytest.mark.parametrize(("number", "moment"), [(signal.SIGTERM, "store"), (signal.SIGINT, "running")])
def test_a_signal_ends_the_demo_and_its_children(number, moment):
    """While the worker is still starting, and while trials run."""
    process = start()
    output = ""
    for line in process.stdout:
        output += line
        if line.startswith(moment):
            assert len(left_behind(process)) >= 2, "the demo and at least its store"
            process.send_signal(number)
            break
    output += finish(process)
    assert process.returncode == 128 + number, output
    assert left_behind(process) == []


def test_a_file_that_is_no_file_of_trials_is_refused_before_anything_starts(tmp_path):
    file = tmp_path / "trials.jsonl"
    file.write_text('{"trial": "t"}\n')
    process = start("--trials", str(file))
    output = finish(process)
    assert process.returncode == 2
    assert "line 1: program: Field required" in output
    assert children(output) == []
