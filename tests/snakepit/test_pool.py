"""What a pool says, read."""

import json
from pathlib import Path

import pytest

from dspex_trio.runtime.settings import InvalidSettings
from dspex_trio.snakepit.pool import HeartbeatPolicy, Pool
from dspex_trio.snakepit.settings import WorkerSettings

NONE = dict.fromkeys(
    ("elixir_address", "snakepit_run_id", "enabled", "interval_ms", "timeout_ms", "max_missed_heartbeats", "dependent")
)


def test_without_a_word_from_a_pool_everything_is_snakepits_default():
    pool = Pool.found(NONE, {})
    assert pool == Pool()
    assert pool.heartbeats == HeartbeatPolicy(
        enabled=True, interval_ms=2000, timeout_ms=10_000, max_missed_heartbeats=3, initial_delay_ms=0, dependent=True
    )
    assert pool.heartbeats.silence == 36


def test_arguments_and_environment_are_taken_and_the_environments_heartbeats_count_more():
    config = {"interval_ms": 500, "dependent": False, "max_missed_heartbeats": "4", "unknown": 1, "timeout_ms": None}
    pool = Pool.found(
        {**NONE, "elixir_address": "localhost:1", "snakepit_run_id": "abc", "interval_ms": 1, "timeout_ms": 7},
        {
            "SNAKEPIT_READY_FILE": "/run/r",
            "SNAKEPIT_HEARTBEAT_CONFIG": json.dumps(config),
            "SNAKEPIT_LOG_LEVEL": "WARNING",
            "SNAKEPIT_PROCESS_GROUP": "1",
            "SNAKEPIT_GRPC_ADDRESS": "elsewhere:2",
        },
    )
    assert pool == Pool(
        address="localhost:1",
        run_id="abc",
        ready_file=Path("/run/r"),
        heartbeats=HeartbeatPolicy(interval_ms=500, timeout_ms=7, max_missed_heartbeats=4, dependent=False),
        own_group=True,
        log_level="warning",
    )


@pytest.mark.parametrize("name", ["SNAKEPIT_GRPC_ADDRESS", "SNAKEPIT_ELIXIR_ADDRESS"])
def test_elixirs_address_may_stand_in_the_environment(name):
    assert Pool.found(NONE, {name: "elsewhere:2"}).address == "elsewhere:2"


@pytest.mark.parametrize("text", ["{", "[]", "7", '{"interval_ms": "soon", "timeout_ms": -1, "enabled": 3}'])
def test_a_heartbeat_policy_that_cannot_be_used_is_left_out_and_logged(caplog, text):
    """A worker that does not start for a typing error would be worse."""
    assert Pool.found(NONE, {"SNAKEPIT_HEARTBEAT_CONFIG": text}).heartbeats == HeartbeatPolicy()
    assert caplog.records


def test_a_worker_has_defaults_that_fit_a_pool():
    settings = WorkerSettings()
    assert (settings.port, settings.max_trials, settings.grace_seconds) == (0, 1, 4)


def test_sessions_live_in_elixir_and_an_old_pool_gets_a_short_grace_unless_the_operator_says_otherwise():
    """Snakepit 0.4, which names no ready file, kills two seconds after SIGTERM."""
    old, new = Pool(address="e:1", run_id="r"), Pool(address="e:1", run_id="r", ready_file=Path("/run/r"))
    assert WorkerSettings().for_pool(old).store == "e:1"
    assert WorkerSettings().for_pool(old).grace_seconds == 1
    assert WorkerSettings().for_pool(new).grace_seconds == 4
    assert [WorkerSettings().for_pool(pool).seconds_to_end(pool) for pool in (old, new, Pool())] == [1.4, 5, 4]
    chosen = WorkerSettings(store="s:2", grace_seconds=3).for_pool(old)
    assert (chosen.store, chosen.grace_seconds) == ("s:2", 3)
    assert WorkerSettings().for_pool(Pool()).store == "embedded"
    with pytest.raises(InvalidSettings, match="is no HOST:PORT"):
        WorkerSettings().for_pool(Pool(address="elixir"))
