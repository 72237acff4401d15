"""The whole demo, as a newcomer starts it."""

import contextlib
import json
import os
import re
import select
import signal
import subprocess
import sys
import uuid
from pathlib import Path

import pytest
import trio

import dspex_trio as dspex
from dspex_trio.demo.children import run_child
from dspex_trio.observing.records import read_records
from dspex_trio.testing import replay_sync

LIMIT_SECONDS = 120
MARKER = "DSPEX_TRIO_TEST_RUN"


def start(*arguments, **environment):
    marker = uuid.uuid4().hex
    process = subprocess.Popen(
        [sys.executable, "-u", "-m", "dspex_trio", "demo", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env={**os.environ, MARKER: marker, **environment},
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


def test_every_trial_of_the_demo_ends_as_expected_and_comes_to_the_same_when_its_record_is_replayed(tmp_path):
    process = start(DSPEX_TRIO_RECORD=str(tmp_path))
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
    records, unreadable = read_records(tmp_path)
    assert (len(records), unreadable) == (45, 0)
    settings = dspex.Settings(load=("dspex_trio.demo.programs",))
    kinds = set()
    for record in records:
        if record.kind != "VARIABLE_INVALID":  # what was refused is not in the record
            replayed = replay_sync(record, settings=settings)
            replayed.check()
            assert replayed.notes == ()
            kinds.add(record.kind)
    assert kinds >= {"OK", "DEADLINE_EXCEEDED", "PROGRAM_ERROR", "VARIABLE_NOT_FOUND"}


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


@pytest.mark.skipif(
    not hasattr(os, "pidfd_open"), reason="the end of somebody else's child is seen through its descriptor"
)
def test_a_demo_that_is_killed_leaves_no_child_behind():
    """It has no time to end them; they notice by themselves."""
    process = start()
    descriptors = []
    for line in process.stdout:
        descriptors += [os.pidfd_open(pid) for pid in children(line)]
        if len(descriptors) == 2:
            break
    process.kill()
    process.wait()
    for descriptor in descriptors:
        ended = select.poll()
        ended.register(descriptor, select.POLLIN)
        assert ended.poll(LIMIT_SECONDS * 1000), "a child is still there"
        os.close(descriptor)
    process.stdout.close()


@pytest.fixture
def one_wrong_answer(tmp_path):
    """A trial whose line asks for an answer that is not in the context."""
    program = {"program": "p", "spec": {"python_class": "dspy.Predict", "signature": "context, question -> answer"}}
    inputs = {"context": "The violin has four strings.", "question": "How many strings does the violin have?"}
    file = tmp_path / "trials.jsonl"
    trial = {"trial": "odd", "program": "p", "inputs": inputs, "answers": ["five"]}
    file.write_text(f"{json.dumps(program)}\n{json.dumps(trial)}\n")
    return str(file)


def test_a_trial_that_ends_otherwise_makes_the_demo_fail_and_is_explained(one_wrong_answer):
    process = start("--trials", one_wrong_answer)
    output = finish(process)
    assert process.returncode == 1, output
    assert "!!" in output
    assert "wanted 'five', got 'four'" in output


async def test_a_real_model_may_be_wrong_and_its_key_is_in_no_argument_list(one_wrong_answer, tmp_path, nursery):
    """A process's arguments can be read by everybody on the machine."""
    key = "k-" + uuid.uuid4().hex
    provider = await nursery.start(run_child, "provider", ["dspex_trio.demo.provider", "--api-key", key], tmp_path)
    arguments = ["--lm", "openai/demo-extractive", "--lm-arg", f"api_base=http://{provider.address}/v1"]
    arguments += ["--lm-arg", f"api_key={key}", "--trials", one_wrong_answer]

    def run():
        process = start(*arguments)
        shown = ""
        for line in process.stdout:
            shown += line
            if line.startswith("worker"):
                (worker,) = children(line)
                arguments_of_worker = Path(f"/proc/{worker}/cmdline")
                assert not arguments_of_worker.exists() or key not in arguments_of_worker.read_text()
        return process, shown + finish(process)

    process, output = await trio.to_thread.run_sync(run)
    assert process.returncode == 0, output
    assert re.search(r"ok +odd +Predict +wrong", output)
    assert "answers    0 of 1 right" in output
    nursery.cancel_scope.cancel()


def test_a_file_that_is_no_file_of_trials_is_refused_before_anything_starts(tmp_path):
    file = tmp_path / "trials.jsonl"
    file.write_text('{"trial": "t"}\n')
    process = start("--trials", str(file))
    output = finish(process)
    assert process.returncode == 2
    assert "line 1: program: Field required" in output
    assert children(output) == []
