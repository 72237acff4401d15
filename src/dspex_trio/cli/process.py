"""What every long-running command shares: the ready file, logging, options."""

from __future__ import annotations

import json
import logging
import math
import os
import sys
from collections.abc import Awaitable, Callable, Iterable
from pathlib import Path

import trio

from dspex_trio import correlation
from dspex_trio.redaction import Redactor


class StartupError(Exception):
    """The server cannot start; the text is what the operator sees."""


class RedactingFormatter(logging.Formatter):
    """Takes secrets out of whole entries: of libraries' messages and of tracebacks too.

    Args:
        secrets: Values that are secret, beside those of the environment.
    """

    def __init__(self, secrets: Iterable[str] = ()) -> None:
        super().__init__("%(asctime)s %(levelname)-7s %(name)s: %(correlation)s%(message)s")
        self._redact = Redactor(secrets, os.environ)

    def format(self, record: logging.LogRecord) -> str:
        """The entry's text, with the correlation id of what it is about."""
        correlation_id = correlation.current()
        record.correlation = f"[{correlation_id}] " if correlation_id else ""
        return self._redact(super().format(record))


def set_up_logging(level: str, secrets: Iterable[str] = ()) -> None:
    """Log to standard error, a line each, without `secrets`."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(RedactingFormatter(secrets))
    logging.basicConfig(handlers=[handler], level=level.upper(), force=True)


def announce(ready_file: Path | None, port: int) -> None:
    """Write the decimal port to `ready_file` so that nobody can read half of it: written aside, synced, renamed.

    Raises:
        StartupError: It cannot be written.
    """
    if ready_file is None:
        return
    aside = ready_file.with_name(ready_file.name + ".tmp")
    try:
        with aside.open("w") as file:
            file.write(str(port))
            file.flush()
            os.fsync(file.fileno())
        aside.replace(ready_file)
    except OSError as error:
        raise StartupError(f"cannot write the ready file {ready_file}: {error.strerror or error}") from error


def json_or_text(text: str) -> object:
    """A value of `--lm-arg KEY=VALUE`: JSON where it parses as JSON, else the text itself."""
    try:
        value: object = json.loads(text)
    except ValueError:
        return text
    return text if isinstance(value, float) and not math.isfinite(value) else value


async def until_served(server: Callable[..., Awaitable[object]], ready: Callable[[int], None]) -> None:
    """Run a server that tells its listeners; `ready` gets the port once it answers."""
    async with trio.open_nursery() as nursery:
        [listener, *_] = await nursery.start(server)
        ready(getattr(listener, "transport_listener", listener).socket.getsockname()[1])  # TLS wraps the real one


def first_error(group: BaseExceptionGroup[BaseException]) -> BaseException:
    """The first error that is no group."""
    error: BaseException = group
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error
