"""What every long-running command shares: the ready file, the start, options."""

from __future__ import annotations

import json
import math
import os
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TYPE_CHECKING

import trio

from dspex_trio.rpc.server.listeners import reachable

if TYPE_CHECKING:
    from dspex_trio.rpc import Listener


class StartupError(Exception):
    """The server cannot start; the text is what the operator sees."""


def announce(ready_file: Path | None, where: int | str) -> None:
    """Write where a server is to `ready_file`, as `port_or_address` writes it.

    Nobody can read half of it: it is written aside, synced and renamed.

    Raises:
        StartupError: It cannot be written.
    """
    if ready_file is None:
        return
    aside = beside(ready_file)
    try:
        with aside.open("w") as file:
            file.write(str(where))
            file.flush()
            os.fsync(file.fileno())
        aside.replace(ready_file)
    except OSError as error:
        raise StartupError(f"cannot write the ready file {ready_file}: {error.strerror or error}") from error


def beside(ready_file: Path) -> Path:
    """Where a ready file is written before it gets its name."""
    return ready_file.with_name(ready_file.name + ".tmp")


def json_or_text(text: str) -> object:
    """A value of `--lm-arg KEY=VALUE`: JSON where it parses as JSON, else the text itself."""
    try:
        value: object = json.loads(text)
    except ValueError:
        return text
    return text if isinstance(value, float) and not math.isfinite(value) else value


def open_standard_streams() -> None:
    """Put the null device where standard input, output or error was closed, as some supervisors and cron do.

    Otherwise the next file or socket gets the number, and what is printed goes there.
    """
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        try:
            os.fstat(number)
        except OSError:
            opened = os.open(os.devnull, os.O_RDWR)
            if opened != number:
                os.dup2(opened, number)
                os.close(opened)
            os.set_inheritable(number, True)
        if getattr(sys, name) is None:
            setattr(sys, name, open(number, "w" if number else "r", closefd=False, encoding="utf-8"))  # noqa: SIM115 - a number, for good


async def until_served(
    server: Callable[..., Awaitable[object]],
    ready: Callable[[list[Listener]], None],
    *,
    where: str,
    exposed: Callable[[list[str]], None] = lambda _addresses: None,
) -> None:
    """Run a server that tells its listeners; `ready` gets them once it answers.

    `exposed` gets the addresses that other machines may reach.

    Raises:
        StartupError: It cannot listen there.
    """
    async with trio.open_nursery() as nursery:
        try:
            listeners = await nursery.start(server)
        except* OSError as group:
            raise StartupError(f"cannot listen on {where}: {first_error(group)}") from None
        exposed(reachable(listeners))
        ready(listeners)


def port_or_address(listener: Listener) -> int | str:
    """What a ready file says: the port, or the address of what has none ("unix:/path")."""
    return listener.address if listener.port is None else listener.port


def addresses(listeners: list[Listener]) -> str:
    """Where a server listens, for a log: "127.0.0.1:50051", "[::1]:50051", "unix:/run/worker.sock"."""
    return ", ".join(listener.address for listener in listeners)


def first_error(group: BaseExceptionGroup[BaseException]) -> BaseException:
    """The first error that is no group."""
    error: BaseException = group
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error
