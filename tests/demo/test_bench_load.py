"""`just bench-load` must not rot: its figures, and one run with hardly any trials."""

import importlib
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

TOOLS = Path(__file__).parents[2] / "tools"


@pytest.fixture(scope="module", autouse=True)
def tools_importable():
    sys.path.insert(0, str(TOOLS))
    yield
    sys.path.remove(str(TOOLS))


def sample(trial, late, outcome="DEADLINE_EXCEEDED", *, hangs=True):
    return {
        "trial": trial,
        "hangs": hangs,
        "began": 10.0,
        "deadline": 12.0,
        "ended": None if late is None else 12.0 + late / 1e3,
        "outcome": outcome,
    }


def test_only_structured_failures_before_the_callers_timer_are_in_time():
    table = importlib.import_module("bench_load_table")
    samples = [
        sample(1, -30.0),
        sample(2, 4.0),
        sample(3, 1.0, "status DEADLINE_EXCEEDED"),
        sample(4, -1000.0, "OVERLOADED"),
        sample(5, None, "given up"),
        sample(6, -900.0, "success", hangs=False),
    ]
    assert [each["trial"] for each in table.hanging(samples)] == [1, 2, 3, 4]
    assert [each["trial"] for each in table.answered(samples)] == [1]
    assert table.good_ms(samples) == [pytest.approx(1100)]


def test_costs_are_told_by_role_once_a_worker_has_children():
    processes = importlib.import_module("bench_load_processes")
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as child:
        found = processes.usage_by_role(os.getpid())
        assert processes.usage_by_role(child.pid).keys() == {"worker"}
        child.communicate(b"\n")
    assert found.keys() == {"front", "executors"}
    assert found["executors"].processes >= 1
    assert found["front"].rss_bytes >= found["front"].pss_bytes > 0


def test_a_small_run_measures_everything(tmp_path):
    """Whether the goals are met is the machine's matter: it may be busy."""
    file = tmp_path / "load.json"
    command = [sys.executable, str(TOOLS / "bench_load.py"), "--levels", "2", "--seconds", "0.2", "--json", str(file)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=240, check=False)
    assert file.exists(), done.stderr
    [level] = json.loads(file.read_text())["levels"]
    assert sum(each["hangs"] for each in level["samples"]) == 1
    assert {each["outcome"] for each in level["samples"] if not each["hangs"]} == {"success"}
    assert len(level["bare"]["seconds"]) >= 2
    assert list(level["closes"]) == ["0"]
    assert "structured failures in time" in done.stdout
