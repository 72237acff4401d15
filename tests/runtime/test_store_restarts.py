"""A store that dies under load and comes back."""

import importlib
import sys
from pathlib import Path

import pytest

from dspex_trio.programs import MODULE_REGISTRY

TOOLS = Path(__file__).parents[2] / "tools"


@pytest.fixture
def stress(monkeypatch):
    before = dict(MODULE_REGISTRY)
    monkeypatch.syspath_prepend(TOOLS)
    yield importlib.import_module("stress_store")
    MODULE_REGISTRY.clear()
    MODULE_REGISTRY.update(before)
    for name in ("stress_store", "bench_processes"):
        sys.modules.pop(name, None)


async def test_trials_under_a_store_that_is_killed_read_right_or_fail_as_store_unavailable(stress):
    """The outage is longer than a trial's deadline: those that arrive early in it fail, later ones wait and succeed.

    There are fewer slots than trials that wait for the store.

    A real process with a real SIGKILL, on its file; `tools/stress_store.py` does the same for as long as one likes.
    """
    load = stress.Load(seconds=6, rate=10, kills=1, outage=3, trial_seconds=3, slots=4)
    found = await stress.stress(load)
    assert found.problems() == []
    assert found.kills == 1
    assert found.succeeded + found.failed["STORE_UNAVAILABLE"] == 60
    assert found.succeeded
    assert found.failed["STORE_UNAVAILABLE"]
    assert found.writes
