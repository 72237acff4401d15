"""What a snakepit pool tells its Python process when it starts it: arguments over there, a policy here."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any, Final

logger: Final = logging.getLogger(__name__)

READY_FILE: Final = "SNAKEPIT_READY_FILE"
HEARTBEAT_CONFIG: Final = "SNAKEPIT_HEARTBEAT_CONFIG"
LOG_LEVEL: Final = "SNAKEPIT_LOG_LEVEL"
PROCESS_GROUP: Final = "SNAKEPIT_PROCESS_GROUP"
ADDRESSES: Final = ("SNAKEPIT_GRPC_ADDRESS", "SNAKEPIT_ELIXIR_ADDRESS")

_TRUE: Final = frozenset({"1", "true", "t", "yes", "y", "on"})


@dataclass(frozen=True, slots=True)
class HeartbeatPolicy:
    """How the worker asks Elixir for a sign of life. The names are snakepit's.

    Attributes:
        enabled: Whether it asks at all.
        interval_ms: Milliseconds between an answer and the next question.
        timeout_ms: Milliseconds after which a question counts as missed.
        max_missed_heartbeats: So many missed in a row mean that Elixir is gone.
        initial_delay_ms: Milliseconds before the first question.
        dependent: Whether the worker ends when Elixir is gone.
    """

    enabled: bool = True
    interval_ms: int = 2_000
    timeout_ms: int = 10_000
    max_missed_heartbeats: int = 3
    initial_delay_ms: int = 0
    dependent: bool = True

    def over(self, given: Mapping[str, Any]) -> HeartbeatPolicy:
        """The policy with what is given in place of its own; what cannot be used is logged and left out."""
        usable: dict[str, Any] = {}
        for each in fields(self):
            if (value := given.get(each.name)) is None:
                continue
            made = _boolean(value) if each.type == "bool" else _count(value)
            if made is None:
                logger.warning("heartbeats: %s cannot be %.100r; it stays as it is", each.name, value)
            else:
                usable[each.name] = made
        return replace(self, **usable)

    @property
    def silence(self) -> float:
        """The most seconds that may pass without an answer before Elixir counts as gone."""
        missed = max(self.max_missed_heartbeats, 1)
        return (self.initial_delay_ms + missed * (self.interval_ms + self.timeout_ms)) / 1e3


@dataclass(frozen=True, slots=True)
class Pool:
    """The pool that started this process.

    Attributes:
        address: Where Elixir's BridgeServer listens; empty for a worker without one.
        run_id: The pool's run, which its sweeps for orphans look for in our arguments; empty without a pool.
        ready_file: What gets the port once the worker answers; None with a pool that reads standard output for it.
        heartbeats: The policy towards Elixir.
        own_group: Whether the process should lead a process group, which the pool kills as one.
        log_level: One of debug, info, warning, error and none; empty where it does not say.
    """

    address: str = ""
    run_id: str = ""
    ready_file: Path | None = None
    heartbeats: HeartbeatPolicy = HeartbeatPolicy()
    own_group: bool = False
    log_level: str = ""

    @classmethod
    def found(cls, arguments: Mapping[str, Any], environment: Mapping[str, str]) -> Pool:
        """Read it from the command line and from the environment.

        On heartbeats the environment's word counts more, as in snakepit's own worker.

        Args:
            arguments: Options: `elixir_address`, `snakepit_run_id`, and the names of a HeartbeatPolicy.
            environment: The process's environment.
        """
        policy = HeartbeatPolicy().over(arguments).over(_heartbeat_config(environment.get(HEARTBEAT_CONFIG, "")))
        ready_file = environment.get(READY_FILE)
        addresses = (arguments.get("elixir_address"), *(environment.get(name) for name in ADDRESSES))
        return cls(
            address=next(filter(None, addresses), ""),
            run_id=arguments.get("snakepit_run_id") or "",
            ready_file=Path(ready_file) if ready_file else None,
            heartbeats=policy,
            own_group=_boolean(environment.get(PROCESS_GROUP, "")) is True,
            log_level=environment.get(LOG_LEVEL, "").lower(),
        )


def _heartbeat_config(text: str) -> Mapping[str, Any]:
    if not text:
        return {}
    try:
        found = json.loads(text)
    except ValueError:
        found = None
    if isinstance(found, dict):
        return found
    logger.warning("%s is no JSON object and is ignored: %.200r", HEARTBEAT_CONFIG, text)
    return {}


def _boolean(value: Any) -> bool | None:
    if isinstance(value, str):
        return value.strip().lower() in _TRUE
    return value if isinstance(value, bool) else None


def _count(value: Any) -> int | None:
    try:
        made = int(value)
    except (TypeError, ValueError, OverflowError):
        return None
    return made if made >= 0 else None
