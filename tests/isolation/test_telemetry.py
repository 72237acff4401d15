"""Spans of trials in child processes: made by the worker of what the child tells; the program's own continue them."""

import pytest

import dspex_trio as dspex

from ..telemetry.seen import Seen  # noqa: TID252 - tests are no package
from .conftest import running


@pytest.fixture
def seen():
    return Seen()


@pytest.fixture
def isolated(loadable, seen):
    with running(seen.telemetry, otel=True, isolation="process", max_trials=1, reply_margin_ms=400) as runtime:
        yield runtime


def test_a_trial_in_a_child_process_has_the_spans_of_any_other_and_the_program_is_inside_of_it(isolated, seen):
    before = seen.values("dspex.trial.active", "dspex.trial.state")
    outcome = isolated.does("tell the span")
    assert isinstance(outcome, dspex.TrialSuccess), outcome
    assert outcome.prediction["span"] == f"{seen.span('trial').context.span_id:016x}"
    assert seen.paths() == [
        "trial",
        *(f"trial/{stage}" for stage in ("ADMISSION", "SESSION", "HYDRATE", "SYNC", "EXECUTE")),
        "trial/EXECUTE/chat dummy",
        "trial/SERIALIZE",
    ]
    assert before == {}
    assert seen.values("dspex.trial.active", "dspex.trial.state") == {("queued",): 0, ("running",): 0}

    late = isolated.does("hang in C", seconds=2.0)  # what only a kill ends
    assert late.kind.name == "DEADLINE_EXCEEDED"
    assert [span.attributes.get("dspex.rung") for span in seen.spans if span.name == "trial"] == [None, "kill"]
    assert [path for path in seen.paths() if "EXECUTE/" in path] == ["trial/EXECUTE/chat dummy"] * 2
