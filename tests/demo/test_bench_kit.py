"""The demo's trials come to what its file expects in virtual time too; `just bench-kit` measures how fast."""

import importlib
import sys
from pathlib import Path

import pytest

TOOLS = Path(__file__).parents[2] / "tools"


@pytest.fixture
def bench_kit(monkeypatch):
    monkeypatch.syspath_prepend(str(TOOLS))
    yield importlib.import_module("bench_kit")
    sys.modules.pop("bench_kit")


def test_every_trial_of_the_demo_ends_as_expected_in_virtual_time(bench_kit, capsys):
    code = bench_kit.main(["--rounds", "1", "--latency", "10"])
    said = capsys.readouterr().out
    assert code == 0, said
    assert "45 trials, all as expected" in said
