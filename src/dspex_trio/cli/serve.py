"""`dspex-trio serve`: a worker as a process."""

from __future__ import annotations

import logging
from functools import partial

from dspex_trio.cli.ending import Ending
from dspex_trio.cli.process import StartupError, addresses, announce, first_error, told_as, until_served
from dspex_trio.config import InvalidSettings, Settings
from dspex_trio.observe import CannotRecord
from dspex_trio.programs import CannotLoad, UnsupportedDspy
from dspex_trio.rpc import Listener, place
from dspex_trio.serving import serve
from dspex_trio.sessions import CannotPersist
from dspex_trio.telemetry import open_exporters

logger = logging.getLogger("dspex_trio")


async def serve_worker(settings: Settings, ending: Ending) -> None:
    """Serve trials until the process is told to end and the running ones have ended."""

    def ready(listeners: list[Listener]) -> None:
        ending.serving()
        announce(settings.ready_file, told_as(listeners[0]))
        logger.info(
            "serving trials on %s (store %s, %d at a time, language model %s)",
            addresses(listeners),
            settings.store,
            settings.max_trials,
            settings.lm or "none",
        )

    try:
        async with open_exporters(settings, ending.seconds_left) as telemetry:
            await until_served(partial(serve, settings, telemetry=telemetry, stopping=ending.stopping), ready)
    except* (CannotLoad, CannotPersist, CannotRecord, InvalidSettings, UnsupportedDspy) as group:
        raise StartupError(str(first_error(group))) from None
    except* OSError as group:
        raise StartupError(f"cannot listen on {place(settings.host, settings.port)}: {first_error(group)}") from None
