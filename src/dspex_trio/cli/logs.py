"""What the commands log, and how it reads: for people on a terminal, as JSON for everything else."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final, Literal, TypeAlias

import structlog
from structlog.typing import EventDict, Processor

from dspex_trio import correlation
from dspex_trio.cli.libraries import log_through_root
from dspex_trio.redaction import REDACTED, Redactor, is_secret_name, printable, printable_json

LogFormat: TypeAlias = Literal["auto", "text", "json"]
LOG_FORMATS: Final = ("auto", "text", "json")

# What stands below an entry's line.
_BLOCKS: Final = frozenset({"exception", "stack"})


def set_up_logging(level: str, secrets: Iterable[str] = (), log_format: LogFormat = "auto") -> None:
    """Log to standard error, a line for each entry, without `secrets`.

    Args:
        level: The least that is logged.
        secrets: Values that are secret, beside those of the environment.
        log_format: `text` for people, `json` for machines, `auto` for the one on a terminal and the other elsewhere.
    """
    handler = logging.StreamHandler(sys.stderr)
    as_json = log_format == "json" or (log_format == "auto" and not sys.stderr.isatty())
    handler.setFormatter(formatter(secrets, as_json=as_json, colours=sys.stderr.isatty()))
    logging.basicConfig(handlers=[handler], level=level.upper(), force=True)
    log_through_root()


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
