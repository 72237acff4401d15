"""`dspex-trio store`: a stand-alone session store as a process; it needs no DSPy."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import Any

import trio

from dspex_trio import rpc, threads
from dspex_trio.cli.ending import Ending
from dspex_trio.cli.process import StartupError, addresses, first_error, port_or_address, until_served
from dspex_trio.observing.redaction import Redactor
from dspex_trio.runtime.loading import CannotLoad, operators_modules
from dspex_trio.store.elixir_tools import StandIns
from dspex_trio.store.opening import open_store
from dspex_trio.store.place import CannotPersist

logger = logging.getLogger("dspex_trio")


async def serve_store(
    host: str,
    port: int,
    on_ready: Callable[[int | str], None],
    ending: Ending,
    *,
    persist: Path | None = None,
    load: Sequence[str] = (),
    limits: Mapping[str, Any] = MappingProxyType({}),
) -> None:
    """Serve sessions, their variables and stand-ins for Elixir tools until the process is told to end.

    Args:
        host: Address to listen on, or "unix:/path".
        port: Port to listen on.
        on_ready: Told of the port, or the UNIX socket's address, once the store answers.
        ending: How the process ends.
        persist: The file that keeps the store.
        load: Modules that register Elixir tools.
        limits: Of `rpc.ServerSettings`.
    """
    drain = rpc.Drain()

    def exposed(reached: list[str]) -> None:
        if reached:
            logger.warning(
                "whoever reaches %s may read and change every session, and what is sent can be read on its way: a "
                "store has neither token nor TLS; listen on 127.0.0.1, or see to it that only workers reach it",
                ", ".join(reached),
            )

    def ready(listeners: list[rpc.Listener]) -> None:
        ending.serving()
        on_ready(port_or_address(listeners[0]))
        logger.info("serving sessions on %s", addresses(listeners))

    async def end() -> None:
        await ending.stopping.wait()
        drain.start(ending.grace)

    try:
        with operators_modules(load, entry_points=False):
            async with (
                threads.open_threads() as workers,
                open_store(persist, StandIns(workers), Redactor((), os.environ)) as store,
                trio.open_nursery() as nursery,
            ):
                nursery.start_soon(end)
                served = rpc.ServerSettings(**limits)
                await until_served(
                    partial(rpc.serve, [store], host=host, port=port, settings=served, drain=drain),
                    ready,
                    where=rpc.place(host, port),
                    exposed=exposed,
                )
                nursery.cancel_scope.cancel()
    except* CannotLoad as group:
        raise StartupError(str(first_error(group))) from None
    except* CannotPersist as group:
        raise StartupError(f"--persist: {first_error(group)}") from None
