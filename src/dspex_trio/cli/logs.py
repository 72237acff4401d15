"""What the commands log, and how it reads: for people on a terminal, as JSON for everything else."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Callable, Iterable
from typing import Any, Final, Literal, TypeAlias

import structlog
from structlog.typing import EventDict, Processor

from dspex_trio import correlation
from dspex_trio.cli.libraries import log_through_root
from dspex_trio.redaction import Redactor

LogFormat: TypeAlias = Literal["auto", "text", "json"]
LOG_FORMATS: Final = ("auto", "text", "json")


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
    rendering: list[Processor] = [
        structlog.stdlib.ProcessorFormatter.remove_processors_meta,
        structlog.processors.format_exc_info,
        _redacting(Redactor(secrets, os.environ)),
        structlog.processors.JSONRenderer(ensure_ascii=False, default=str)
        if as_json
        else structlog.dev.ConsoleRenderer(colors=colours, sort_keys=False, pad_event_to=0, pad_level=False),
    ]
    return structlog.stdlib.ProcessorFormatter(foreign_pre_chain=known, processors=rendering)


def _add_correlation_id(_logger: Any, _method: str, entry: EventDict) -> EventDict:
    if correlation_id := correlation.current():
        entry["correlation_id"] = correlation_id
    return entry


def _redacting(redact: Callable[[str], str]) -> Processor:
    """Each text by itself: taken out of the whole line, a secret might take JSON's quotes along."""

    def redacted(_logger: Any, _method: str, entry: EventDict) -> EventDict:
        return {key: redact(value) if isinstance(value, str) else value for key, value in entry.items()}

    return redacted
