"""`dspex-trio store`: a stand-alone session store as a process; without --load it needs no DSPy."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import trio

from dspex_trio import rpc, threads
from dspex_trio.cli.ending import Ending
from dspex_trio.cli.process import StartupError, first_error, until_served
from dspex_trio.redaction import Redactor
from dspex_trio.service.opening import open_store
from dspex_trio.sessions import CannotPersist

logger = logging.getLogger("dspex_trio")


async def serve_store(
    host: str,
    port: int,
    on_ready: Callable[[int], None],
    ending: Ending,
    *,
    persist: Path | None = None,
    load: Sequence[str] = (),
) -> None:
    """Serve sessions, their variables and stand-ins for Elixir tools until the process is told to end.

    Args:
        host: Address to listen on.
        port: Port to listen on.
        on_ready: Told of the port once the store answers.
        ending: How the process ends.
        persist: The file that keeps the store.
        load: Modules that register Elixir tools.
    """
    drain = rpc.Drain()

    def ready(bound: int) -> None:
        ending.serving()
        on_ready(bound)
        logger.info("serving sessions on %s:%d", host, bound)

    async def end() -> None:
        await ending.stopping.wait()
        drain.start(ending.grace)

    try:
        with _loaded(load):
            async with (
                threads.open_threads() as workers,
                open_store(persist, workers, Redactor((), os.environ)) as store,
                trio.open_nursery() as nursery,
            ):
                nursery.start_soon(end)
                await until_served(partial(rpc.serve, [store], host=host, port=port, drain=drain), ready)
                nursery.cancel_scope.cancel()
    except* CannotPersist as group:
        raise StartupError(f"--persist: {first_error(group)}") from None
    except* OSError as group:
        raise StartupError(f"cannot listen on {host}:{port}: {first_error(group)}") from None


@contextmanager
def _loaded(names: Sequence[str]) -> Iterator[None]:
    if not names:
        yield
        return
    from dspex_trio.programs.loading import CannotLoad, operators_modules

    try:
        with operators_modules(names):
            yield
    except CannotLoad as error:
        raise StartupError(str(error)) from None
