"""Hands our log records to handlers that others have put on the root logger, in a thread: they may wait."""

from __future__ import annotations

import logging
import threading
from queue import SimpleQueue
from typing import Final

logger: Final = logging.getLogger("dspex_trio")

MAX_RECORDS: Final = 1000


class HandedOver(logging.Handler):
    """Gives what is logged to the root logger's handlers but one, in another thread and in order.

    What comes while `MAX_RECORDS` wait is dropped and counted; the log says how many once there is room again.

    Args:
        but: The handler that has had the record already.
    """

    def __init__(self, but: logging.Handler) -> None:
        super().__init__()
        self._but = but
        self._queue: SimpleQueue[logging.LogRecord] = SimpleQueue()
        self._dropped = 0
        self._started = False

    def handle(self, record: logging.LogRecord) -> bool:
        """Hand it over if there is anybody; never blocks."""
        if not any(each is not self._but for each in logging.root.handlers):
            return True
        if self._queue.qsize() >= MAX_RECORDS:
            self._dropped += 1
            return True
        if self._dropped:
            count, self._dropped = self._dropped, 0
            self._but.handle(_note(count))
        self._queue.put(record)
        if not self._started:
            self._started = True
            threading.Thread(target=self._run, name="log handlers of others", daemon=True).start()
        return True

    def _run(self) -> None:
        while True:
            self.hand_over(self._queue.get())

    def hand_over(self, record: logging.LogRecord) -> None:
        """Give a record to those handlers. What one of them raises is told to the log and stops nobody."""
        for each in list(logging.root.handlers):
            if each is self._but or record.levelno < each.level:
                continue
            try:
                each.handle(record)
            except Exception:  # noqa: BLE001 - theirs; told, and to ours alone: they would raise once more
                self._but.handle(_record("a log handler on the root logger failed: %r", each))


def _note(count: int) -> logging.LogRecord:
    return _record("%d log records were not given to other handlers on the root logger, which take too long", count)


def _record(message: str, *args: object) -> logging.LogRecord:
    return logger.makeRecord(logger.name, logging.WARNING, __file__, 0, message, args, None)
