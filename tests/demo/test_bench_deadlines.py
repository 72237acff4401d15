"""`just bench-deadlines` must not rot: its table, and one run of everything with hardly any trials."""

import importlib
import json
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


def sample(late, close, *, closes=1, asked=1, rung="wake"):
    return {
        "kind": "DEADLINE_EXCEEDED",
        "details": {"rung": rung},
        "late_ms": late,
        "close_ms": close,
        "closes": closes,
        "asked": asked,
        "slot_ms": late + 1.0,
    }


@pytest.mark.parametrize(
    ("samples", "row"),
    [
        (
            [sample(-5.0, -4.0), sample(3.0, 2.0, rung="check")],
            ("x", "2", "-5.0", "+3.0", "+3.0", "-4.0", "+2.0", "-4.0", "+4.0", "check/wake", "1"),
        ),
        (
            [sample(0.0, None, closes=0), sample(0.0, 1.0)],
            ("x", "2", "+0.0", "+0.0", "+0.0", "1 of 2", "1 of 2", "+1.0", "+1.0", "wake", "1"),
        ),
        (
            [sample(0.0, None, closes=0, asked=0)],
            ("x", "1", "+0.0", "+0.0", "+0.0", "-", "-", "+1.0", "+1.0", "wake", "1"),
        ),
    ],
)
def test_a_connection_that_stays_open_shows_in_place_of_times(samples, row):
    """Percentiles over those that did close would hide it."""
    bench = importlib.import_module("bench_deadlines")
    assert bench.scenario_row({"what": "x", "samples": samples, "left": {"busy_threads": 1}}) == row


def test_the_whole_benchmark_runs(tmp_path):
    file = tmp_path / "bench.json"
    finished = subprocess.run(
        [sys.executable, str(TOOLS / "bench_deadlines.py"), "--smoke", "--json", str(file)],
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert finished.returncode == 0, finished.stderr[-4000:]
    found = json.loads(file.read_text())
    [scenario] = found["scenarios"]
    assert [(each["kind"], each["closes"] == each["asked"]) for each in scenario["samples"]] == [
        ("DEADLINE_EXCEEDED", True)
    ]
    assert scenario["left"]["busy_threads"] == 0
    many = found["many"]
    assert many["kinds"] == {"DEADLINE_EXCEEDED": 16}
    assert many["closed"] == many["asked"]
    assert many["censuses"][-1]["busy_threads"] == 0
    assert found["burners"]["kinds"] == {"DEADLINE_EXCEEDED": 1}
    stock = {each["way"]: each["after"]["busy_threads"] for each in found["stock"]}
    assert stock.keys() == {"asyncify", "asyncify_trio", "to_thread"}
    assert min(stock.values()) > 0
    assert "Predict, DSPy's engine" in finished.stdout
    assert str(Path.home()) not in file.read_text()
