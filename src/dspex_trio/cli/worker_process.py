"""The process behind `dspex-trio worker`."""

from __future__ import annotations

import logging
import os
from functools import partial

import trio

from dspex_trio import threads
from dspex_trio.cli.ending import Ending
from dspex_trio.cli.process import StartupError, addresses, announce, first_error, port_or_address, until_served
from dspex_trio.cli.serve import watch_state
from dspex_trio.cli.worker import ElixirLost
from dspex_trio.model.errors import UnsupportedDspy
from dspex_trio.observing.records import CannotRecord
from dspex_trio.observing.telemetry import open_exporters
from dspex_trio.rpc import Listener, place
from dspex_trio.runtime.embedded import open_runtime
from dspex_trio.runtime.loading import CannotLoad
from dspex_trio.runtime.settings import InvalidSettings, Settings
from dspex_trio.snakepit import guards
from dspex_trio.snakepit.pool import Pool
from dspex_trio.snakepit.worker import serve_worker

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

    def ready(listeners: list[Listener]) -> None:
        ending.serving()
        for file in {pool.ready_file, settings.ready_file}:
            announce(file, port_or_address(listeners[0]))
        if (port := listeners[0].port) is not None:
            _tell_old_pools(port)
        where = addresses(listeners)
        logger.info("serving a snakepit pool on %s (Elixir at %s)", where, pool.address or "no address")

    try:
        async with open_exporters(settings, ending.seconds_left) as telemetry:
            serving = partial(
                serve_worker,
                settings,
                pool,
                stopping=ending.stopping,
                lost=lost,
                telemetry=telemetry,
                on_open=partial(watch_state, ending),
                stacks_to=ending.descriptor,
            )
            await until_served(serving, ready, where=place(settings.host, settings.port))
    except* (CannotLoad, CannotRecord, InvalidSettings, UnsupportedDspy) as group:
        raise StartupError(str(first_error(group))) from None
    finally:
        guards.kill_group()
    if gone:
        raise ElixirLost("Elixir does not answer any more, and this worker is of no use without it")


def _tell_old_pools(port: int) -> None:
    """Snakepit 0.4 reads the port from standard output; later ones take the line for a line of the log."""
    try:
        os.write(1, b"GRPC_READY:%d\n" % port)
    except OSError as error:
        logger.warning("cannot print the port on standard output, where snakepit 0.4 reads it: %s", error)


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
    """Make this process one that a pool can kill."""
    if pool.own_group:
        guards.lead_group()
    threads.stay_in_group()  # the pool kills that, if it has to
    ending.last = guards.kill_group
