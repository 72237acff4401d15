"""`dspex-trio store`: a stand-alone session store as a process; it needs no DSPy."""

from __future__ import annotations

import logging
from collections.abc import Callable
from functools import partial

import trio

from dspex_trio import rpc
from dspex_trio.cli.ending import Ending
from dspex_trio.cli.process import StartupError, first_error, until_served
from dspex_trio.service.store import SessionStore
from dspex_trio.sessions import MemoryStore

logger = logging.getLogger("dspex_trio")


async def serve_store(host: str, port: int, on_ready: Callable[[int], None], ending: Ending) -> None:
    """Serve sessions and their variables until the process is told to end."""
    drain = rpc.Drain()

    def ready(bound: int) -> None:
        ending.serving()
        on_ready(bound)
        logger.info("serving sessions on %s:%d", host, bound)

    async def end() -> None:
        await ending.stopping.wait()
        drain.start(ending.grace)

    try:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(end)
            await until_served(
                partial(rpc.serve, [SessionStore(MemoryStore())], host=host, port=port, drain=drain), ready
            )
            nursery.cancel_scope.cancel()
    except* OSError as group:
        raise StartupError(f"cannot listen on {host}:{port}: {first_error(group)}") from None
