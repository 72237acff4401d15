"""What would be printed past the log, keys and all: by libraries with handlers of their own, and by Python itself."""

from __future__ import annotations

import logging
import threading
from typing import Final

logger: Final = logging.getLogger("dspex_trio")

LIBRARIES: Final = ("dspy", "LiteLLM", "LiteLLM Router", "LiteLLM Proxy")


def log_through_root() -> None:
    """Have what these libraries log go to the root's handlers, and nowhere else, whenever they are imported."""
    for name in LIBRARIES:
        logger = logging.getLogger(name)
        logger.handlers.clear()
        logger.__class__ = _ThroughRoot


def log_what_is_printed() -> None:
    """Log what libraries log to handlers of their own, warnings, and exceptions that end threads."""
    log_through_root()
    logging.captureWarnings(capture=True)
    threading.excepthook = _log_of_thread


def _log_of_thread(news: threading.ExceptHookArgs, /) -> None:
    if issubclass(news.exc_type, SystemExit):
        return
    name = news.thread.name if news.thread is not None else "?"
    error = news.exc_value or news.exc_type()
    logger.error("the thread %r ended by an exception", name, exc_info=error)


class _ThroughRoot(logging.Logger):
    """A logger whose library cannot give it handlers, nor keep its entries from the root's."""

    @property
    def propagate(self) -> bool:
        """Always True."""
        return True

    @propagate.setter
    def propagate(self, value: bool) -> None:
        """Ignored: without the root's handlers, nothing would be logged."""

    def addHandler(self, hdlr: logging.Handler) -> None:  # noqa: N802 - the standard library's name
        """Ignored: the root's handlers write what is logged."""
