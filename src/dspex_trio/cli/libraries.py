"""Libraries that log to handlers of their own: theirs would print keys, and every line twice."""

from __future__ import annotations

import logging
from typing import Final

LIBRARIES: Final = ("dspy", "LiteLLM", "LiteLLM Router", "LiteLLM Proxy")


def log_through_root() -> None:
    """Have what these libraries log go to the root's handlers, and nowhere else, whenever they are imported."""
    for name in LIBRARIES:
        logger = logging.getLogger(name)
        logger.handlers.clear()
        logger.__class__ = _ThroughRoot


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
