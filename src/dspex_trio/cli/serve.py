"""`dspex-trio serve`: a worker as a process."""

from __future__ import annotations

import logging
import math
from collections.abc import Iterator
from functools import partial

from dspex_trio.cli.ending import Ending
from dspex_trio.cli.process import StartupError, addresses, announce, first_error, port_or_address, until_served
from dspex_trio.model.errors import UnsupportedDspy
from dspex_trio.observing.records import CannotRecord
from dspex_trio.observing.telemetry import open_exporters
from dspex_trio.rpc import Listener, place
from dspex_trio.runtime.embedded import Runtime
from dspex_trio.runtime.loading import CannotLoad
from dspex_trio.runtime.serving import serve
from dspex_trio.runtime.settings import InvalidSettings, Settings
from dspex_trio.store.place import CannotPersist

logger = logging.getLogger("dspex_trio")


def watch_state(ending: Ending, runtime: Runtime) -> None:
    """Have SIGUSR1 log the runtime's running trials too."""
    ending.state = partial(state_lines, runtime)


def state_lines(runtime: Runtime) -> Iterator[str]:
    """What is under way in a runtime, a line each. Executors write their threads' stacks to standard error."""
    for each in runtime.under_way():
        left = "no deadline" if each.seconds_left == math.inf else f"{each.seconds_left:.1f} s left"
        yield f"{each.name:.200} of {each.program:.200} in {each.stage}, {each.seconds:.1f} s, {left}"
    runtime.show_executor_stacks()


async def serve_worker(settings: Settings, ending: Ending) -> None:
    """Serve trials until the process is told to end and the running ones have ended."""

    def ready(listeners: list[Listener]) -> None:
        ending.serving()
        announce(settings.ready_file, port_or_address(listeners[0]))
        logger.info(
            "serving trials on %s (store %s, %d at a time, language model %s)",
            addresses(listeners),
            settings.store,
            settings.max_trials,
            settings.lm or "none",
        )

    try:
        async with open_exporters(settings, ending.seconds_left) as telemetry:
            server = partial(
                serve, settings, telemetry=telemetry, stopping=ending.stopping, on_open=partial(watch_state, ending)
            )
            await until_served(server, ready, where=place(settings.host, settings.port))
    except* (CannotLoad, CannotPersist, CannotRecord, InvalidSettings, UnsupportedDspy) as group:
        raise StartupError(str(first_error(group))) from None
