"""The process behind `dspex-trio worker`."""

from __future__ import annotations

import logging
import os
import sys
from functools import partial

import trio

from dspex_trio import threads
from dspex_trio.cli.ending import Ending
from dspex_trio.cli.process import StartupError, announce, first_error, until_served
from dspex_trio.cli.worker import ElixirLost
from dspex_trio.config import InvalidSettings, Settings
from dspex_trio.observe import CannotRecord
from dspex_trio.programs import CannotLoad, UnsupportedDspy
from dspex_trio.runtime import open_runtime
from dspex_trio.snakepit import guards
from dspex_trio.snakepit.pool import Pool
from dspex_trio.snakepit.worker import serve_worker
from dspex_trio.telemetry import open_exporters

logger = logging.getLogger("dspex_trio")


async def work(settings: Settings, pool: Pool, ending: Ending) -> None:
    """Serve the pool until the process is told to end and what is running has ended.

    Raises:
        StartupError: It cannot begin to serve.
        ElixirLost: It ended by itself, because Elixir did not answer any more.
    """
    gone = False

    def lost() -> None:
        nonlocal gone
        gone = True
        ending.end("Elixir is gone")

    def ready(port: int) -> None:
        ending.serving()
        for file in {pool.ready_file, settings.ready_file}:
            announce(file, port)
        _tell_old_pools(port)
        logger.info(
            "serving a snakepit pool on %s:%d (Elixir at %s)", settings.host, port, pool.address or "no address"
        )

    try:
        async with open_exporters(settings, ending.seconds_left) as telemetry:
            serving = partial(serve_worker, settings, pool, stopping=ending.stopping, lost=lost, telemetry=telemetry)
            await until_served(serving, ready)
    except* (CannotLoad, CannotRecord, InvalidSettings, UnsupportedDspy) as group:
        raise StartupError(str(first_error(group))) from None
    except* OSError as group:
        raise StartupError(f"cannot listen on {settings.host}:{settings.port}: {first_error(group)}") from None
    finally:
        guards.kill_group()
    if gone:
        raise ElixirLost("Elixir does not answer any more, and this worker is of no use without it")


def _tell_old_pools(port: int) -> None:
    """Snakepit 0.4 reads the port from standard output; later ones take the line for a line of the log."""
    os.write(sys.stdout.fileno(), b"GRPC_READY:%d\n" % port)


def check_health(settings: Settings) -> None:
    """Load everything that a worker needs, without serving.

    Raises:
        StartupError: It could not begin to serve.
    """

    async def load() -> None:
        async with open_runtime(settings):
            pass

    try:
        trio.run(load)
    except* (CannotLoad, UnsupportedDspy) as group:
        raise StartupError(str(first_error(group))) from None


def prepare(pool: Pool, ending: Ending) -> None:
    """Make this process one that a pool can kill, and that ends when the pool does."""
    if pool.own_group:
        guards.lead_group()
    threads.stay_in_group()  # the pool kills that, if it has to
    ending.last = guards.kill_group
    if pool.run_id:
        guards.end_with_parent(partial(ending.end, "the parent ended"))
