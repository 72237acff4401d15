"""The whole demo, as a newcomer starts it."""

import os
import re
import signal
import subprocess
import sys

import pytest

LIMIT_SECONDS = 120


def start(*arguments):
    return subprocess.Popen(
        [sys.executable, "-u", "-m", "dspex_trio", "demo", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def finish(process):
    try:
        return process.communicate(timeout=LIMIT_SECONDS)[0]
    finally:
        process.kill()


def children(output):
    return [int(pid) for pid in re.findall(r"\(pid (\d+)\)", output)]


def is_there(pid):
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


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
    assert not any(map(is_there, children(output)))


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_the_demo_and_its_children(number):
    process = start()
    output = ""
    for line in process.stdout:
        output += line
        if line.startswith("running"):
            process.send_signal(number)
            break
    output += finish(process)
    assert process.returncode == 128 + number, output
    assert len(children(output)) == 2
    assert not any(map(is_there, children(output)))


def test_a_file_that_is_no_file_of_trials_is_refused_before_anything_starts(tmp_path):
    file = tmp_path / "trials.jsonl"
    file.write_text('{"trial": "t"}\n')
    process = start("--trials", str(file))
    output = finish(process)
    assert process.returncode == 2
    assert "line 1: program: Field required" in output
    assert children(output) == []
