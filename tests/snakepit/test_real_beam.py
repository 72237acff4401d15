"""The worker under a BEAM: gun and cowboy have their own idea of HTTP/2, and pools use them."""

import pytest

from . import real_beam

pytestmark = pytest.mark.skipif(bool(real_beam.missing()), reason=real_beam.missing() or "there is one")


@pytest.mark.parametrize("generation", real_beam.LINES)
def test_a_pool_on_a_beam_gets_every_outcome_streams_large_values_telemetry_heartbeats_and_an_end(generation):
    options = {"workers": 1, "calls": 70, "heartbeat_ms": 100, "burners": ["python"], "burn_seconds": 1}
    told = list(real_beam.soak(generation, **options))
    assert [problem for found in told for problem in found["problems"]] == []
    [outcomes] = [found["outcomes"] for found in told if "outcomes" in found]
    assert outcomes == {
        "success": 20,
        "PROGRAM_ERROR": 10,
        "DEADLINE_EXCEEDED": 10,
        "CLASS_NOT_FOUND": 10,
        "IMPORT_NOT_ALLOWED": 10,
        "INVALID_INPUT": 10,
    }
    [asked] = [found["asked_of_elixir"] for found in told if "asked_of_elixir" in found]
    assert asked["GetVariables"] >= 10
    assert asked["ExecuteElixirTool"] == 1
    assert asked["RegisterTools"] == 2  # the worker's and its replacement's


@pytest.mark.parametrize("generation", real_beam.LINES)
def test_nothing_outlives_a_beam_that_is_killed(generation):
    assert real_beam.killed(generation)["problems"] == []
