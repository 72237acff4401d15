"""The settings of a snakepit worker: a runtime's, with the defaults that fit a pool."""

from __future__ import annotations

from typing import Any, Final, Self

from pydantic import Field

from dspex_trio.runtime.settings import InvalidSettings, Settings
from dspex_trio.snakepit.pool import Pool

OLD_POOLS_GRACE: Final = 1.0
"""The default grace with a pool that names no ready file: such a one (snakepit 0.4) kills after two seconds."""

REST: Final = 1.0
OLD_POOLS_REST: Final = 0.4
"""Seconds that are left for the end of the process after the grace, before the half second in which it is forced."""


class WorkerSettings(Settings):
    """`Settings` with other defaults: a pool gives a worker one thing to do, and kills it 6 s after SIGTERM."""

    port: int = Field(default=0, ge=0, le=65535, description="Port to listen on; 0 takes any free one.")
    max_trials: int = Field(default=1, ge=1, description="Trials that run at the same time; a pool sends one.")
    grace_seconds: float = Field(
        default=4.0, ge=0, description="How long running trials may go on after SIGTERM or SIGINT, in seconds."
    )

    def seconds_to_end(self, pool: Pool) -> float:
        """How long everything may take after SIGTERM: the grace, and what such a pool leaves for the rest.

        Replies, connections and the interpreter's own end need their time too, on a machine where all of a pool's
        workers end at once.
        """
        return self.grace_seconds + (0.0 if not pool.run_id else REST if pool.ready_file else OLD_POOLS_REST)

    def for_pool(self, pool: Pool) -> Self:
        """The settings as they are with this pool, where the operator did not say otherwise.

        Raises:
            InvalidSettings: Elixir's address is none, or the pool could not reach this worker.
        """
        changes: dict[str, Any] = {}
        if pool.address:
            from dspex_trio.rpc.client.target import addresses  # noqa: PLC0415 - the commands' help needs no gRPC

            try:
                addresses(pool.address)
            except ValueError as error:
                raise InvalidSettings(f"--elixir-address {pool.address!r} is no HOST:PORT: {error}") from None
        if pool.run_id and self.host.startswith("unix:"):
            raise InvalidSettings(f"--host {self.host}: a pool finds its workers by a port, not by a UNIX socket")
        if pool.address and "store" not in self.model_fields_set:
            changes["store"] = pool.address
        if pool.run_id and pool.ready_file is None and "grace_seconds" not in self.model_fields_set:
            changes["grace_seconds"] = OLD_POOLS_GRACE
        return self.model_copy(update=changes)
