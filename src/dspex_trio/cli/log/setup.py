"""What the commands log, and how it reads: for people on a terminal, as JSON for everything else.

Nobody waits for the log: a line is formatted where it is logged and written by a thread (`lines`). What our own loggers
say, which the loop does too, reaches handlers that others have put on the root logger through a thread as well.
"""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final, Literal, TypeAlias

import structlog
from structlog.typing import EventDict, Processor

from dspex_trio.cli.log.handing_over import HandedOver
from dspex_trio.cli.log.writer import Lines
from dspex_trio.observing import correlation
from dspex_trio.observing.libraries import log_what_is_printed
from dspex_trio.observing.redaction import REDACTED, Redactor, is_secret_name, printable, printable_json

LogFormat: TypeAlias = Literal["auto", "text", "json"]
LOG_FORMATS: Final = ("auto", "text", "json")

# What stands below an entry's line.
_BLOCKS: Final = frozenset({"exception", "stack"})

logger: Final = logging.getLogger("dspex_trio")

# Loggers that the loop logs to. What they say goes past the root logger, whose handlers may be a program's.
OF_THE_LOOP: Final = ("dspex_trio", "hpack", "purerpc", "trio")


def set_up_logging(level: str, secrets: Iterable[str] = (), log_format: LogFormat = "auto") -> Lines:
    """Log to what is standard error now, a line for each entry, without `secrets`; returns who writes the lines.

    Warnings, and exceptions that nobody handles in threads and finalisers, are logged too: the standard library's
    way to tell of them waits for standard error, in whichever thread that is.

    Args:
        level: The least that is logged.
        secrets: Values that are secret, beside those of the environment.
        log_format: `text` for people, `json` for machines, `auto` for the one on a terminal and the other elsewhere.
    """
    descriptor, terminal = _own_standard_error()
    as_json = log_format == "json" or (log_format == "auto" and not terminal)
    handler = LogLines(descriptor, formatter(secrets, as_json=as_json, colours=terminal))
    logging.basicConfig(handlers=[handler], level=level.upper(), force=True)
    for name in OF_THE_LOOP:
        ours = logging.getLogger(name)
        ours.handlers[:] = [handler, HandedOver(handler)]
        ours.propagate = False
    log_what_is_printed()
    sys.unraisablehook = _log_unraisable
    return handler.lines


def _own_standard_error() -> tuple[int, bool]:
    """A descriptor of our own for it, which no program closes, and whether it is a terminal."""
    if sys.platform == "win32":
        descriptor = os.dup(2)
    else:
        import fcntl  # there is none on Windows

        descriptor = fcntl.fcntl(2, fcntl.F_DUPFD_CLOEXEC, 3)
    return descriptor, os.isatty(descriptor)


class LogLines(logging.Handler):
    """Makes a line of each record; see `Lines`.

    Attributes:
        lines: Who writes them.
    """

    def __init__(self, descriptor: int, formatter: logging.Formatter) -> None:
        super().__init__()
        self.setFormatter(formatter)
        self.lines: Final = Lines(descriptor, self._dropped)

    def emit(self, record: logging.LogRecord) -> None:
        """Format it and have it written; what cannot be formatted is told and not raised."""
        self.lines.put(self._line(record))

    def flush(self) -> None:
        """Wait for what is not written yet, for a moment at most."""
        self.lines.flush()

    def _line(self, record: logging.LogRecord) -> bytes:
        try:
            text = self.format(record)
        except Exception as error:  # noqa: BLE001 - an argument's own __str__ may raise anything
            text = self.format(_warning("a record of the logger %s cannot be formatted: %s", record.name, type(error)))
        return f"{text}\n".encode(errors="backslashreplace")

    def _dropped(self, count: int) -> bytes:
        return self._line(_warning("%d lines dropped: standard error did not take them in time, or not at all", count))


def _warning(message: str, *args: object) -> logging.LogRecord:
    return logger.makeRecord(logger.name, logging.WARNING, __file__, 0, message, args, None)


def _log_unraisable(news: sys.UnraisableHookArgs, /) -> None:
    error = news.exc_value or news.exc_type()
    what = news.err_msg or "Exception ignored in"
    logger.error("%s a %s", what, type(news.object).__name__, exc_info=error)


def formatter(secrets: Iterable[str] = (), *, as_json: bool, colours: bool = False) -> logging.Formatter:
    """Formats the entries of our loggers and of every library's, tracebacks too, without secrets."""
    known: list[Processor] = [
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        _add_correlation_id,
    ]
    if as_json:
        known.append(structlog.stdlib.ExtraAdder())  # in text the message says it all
    on_terminal = structlog.dev.ConsoleRenderer(colors=colours, sort_keys=False, pad_event_to=0, pad_level=False)
    rendering: list[Processor] = [
        structlog.stdlib.ProcessorFormatter.remove_processors_meta,
        structlog.processors.format_exc_info,
        _redacting(Redactor(secrets, os.environ)),
        *(
            (structlog.processors.JSONRenderer(ensure_ascii=False), _in_one_line)
            if as_json
            else (_indented, on_terminal)
        ),
    ]
    return structlog.stdlib.ProcessorFormatter(foreign_pre_chain=known, processors=rendering)


def _add_correlation_id(_logger: Any, _method: str, entry: EventDict) -> EventDict:
    if correlation_id := correlation.current():
        entry["correlation_id"] = correlation_id
    return entry


def _redacting(redact: Callable[[str], str]) -> Processor:
    """Each text by itself: taken out of the whole line, a secret might take JSON's quotes along."""

    def redacted(_logger: Any, _method: str, entry: EventDict) -> EventDict:
        return {key: _without_secrets(key, value, redact) for key, value in entry.items()}

    return redacted


def _without_secrets(name: str, value: Any, redact: Callable[[str], str]) -> Any:
    """What was logged under that name, as JSON has it; objects as their text."""
    match value:
        case None | bool() | int() | float():
            return value
        case Mapping():
            return {redact(str(key)): _without_secrets(str(key), each, redact) for key, each in value.items()}
        case list() | tuple() | set() | frozenset():
            return [_without_secrets(name, each, redact) for each in value]
    text = str(value)
    return REDACTED if text and is_secret_name(name) else redact(text)


def _in_one_line(_logger: Any, _method: str, line: Any) -> str:
    return printable_json(line.encode("utf-8", "backslashreplace")).decode()


def _indented(_logger: Any, _method: str, entry: EventDict) -> EventDict:
    """Nothing in an entry steers the terminal, and none of its lines looks like the beginning of another entry."""
    return {
        key: ("  " if key in _BLOCKS else "") + printable(value, lines=True).replace("\n", "\n  ")
        if isinstance(value, str)
        else value
        for key, value in entry.items()
    }
