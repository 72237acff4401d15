"""Heartbeats are answered within their second, whatever a trial computes."""

import pytest

from .pool_programs import BURNERS
from .pool_worker import outcome


@pytest.mark.parametrize("what", sorted(BURNERS))
def test_a_trial_that_computes_does_not_keep_the_pool_waiting(worker, what):
    """One late answer would kill the worker, and its pool slot would be lost for good."""
    before = worker.heartbeats.answered
    kind, success = outcome(worker.trial("Burns", {"what": what, "seconds": 0.5}))
    assert kind == "success", success
    assert worker.heartbeats.missed == ""
    if worker.pool.generation.ready_file:  # 0.4 asks for none
        assert worker.heartbeats.answered > before
