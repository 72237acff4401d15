"""Lines for standard error, written by a thread of their own: whoever has something to say never waits for a reader."""

from __future__ import annotations

import os
import selectors
import threading
from _thread import LockType, allocate_lock, get_ident
from collections.abc import Callable
from queue import SimpleQueue
from typing import Final

from dspex_trio.tasks.signals import never_blocking

MAX_WAITING: Final = 4 * 2**20
"""The most that may wait to be written, in bytes; what comes then is dropped and counted."""

FLUSH_SECONDS: Final = 0.2
"""How long an end waits for what has not been written, in seconds."""


class Lines:
    """Writes lines to a descriptor, in the order in which they came.

    Args:
        descriptor: Where they go; it is not closed, and its writes may block.
        note: Makes a line that says how many were dropped.
        start: Starts the thread that writes; for tests.

    Attributes:
        unblocking: A descriptor for the same file, for who writes to it himself and must not wait.
    """

    def __init__(
        self,
        descriptor: int,
        note: Callable[[int], bytes],
        start: Callable[[Callable[[], None]], object] | None = None,
    ) -> None:
        self._descriptor = descriptor
        self.unblocking: Final = never_blocking(descriptor)
        self._note = note
        self._queue: SimpleQueue[bytes | LockType] = SimpleQueue()
        self._lock = threading.RLock()  # a finaliser or a signal handler may have something to say as well
        self._put = self._taken = 0  # bytes; the one is the lock's, the other the writer's
        self._dropped = 0  # and not told yet; the lock's
        self._process = os.getpid()
        self._writer: int | None = None
        (start or _start)(self._run)

    def put(self, line: bytes) -> None:
        """Have a line written, or drop and count it where too much waits already. Never blocks and never raises."""
        if os.getpid() != self._process:  # one that a program has forked, which has no such thread
            self._write(line)
            return
        with self._lock:
            waiting = self._put - self._taken
            if waiting and waiting + len(line) > MAX_WAITING:
                self._dropped += 1
                return
            self._tell_dropped()
            self._enqueue(line)

    def flush(self, seconds: float = FLUSH_SECONDS) -> bool:
        """Wait until what has come so far is written, for so long at most; whether it is. Takes no lock of ours."""
        if os.getpid() != self._process or get_ident() == self._writer:
            return True
        mark = allocate_lock()
        mark.acquire()
        self._queue.put(mark)
        return mark.acquire(timeout=seconds)

    def last_words(self, line: bytes) -> None:
        """Write a line now, after those that came before it, or give up soon. For signal handlers: takes no lock."""
        self._queue.put(line)
        self.flush()

    def _tell_dropped(self) -> None:
        if self._dropped:
            count, self._dropped = self._dropped, 0
            self._enqueue(self._note(count))

    def _enqueue(self, line: bytes) -> None:
        self._put += len(line)
        self._queue.put(line)

    # ---- in the thread -----------------------------------------------------------------------------------------------

    def _run(self) -> None:
        self._writer = get_ident()
        while True:
            item = self._queue.get()
            if not isinstance(item, bytes):
                item.release()
                continue
            written = self._write(item)
            self._taken += len(item)
            with self._lock:
                if not written:
                    self._dropped += 1
                elif self._queue.empty():
                    self._tell_dropped()

    def _write(self, line: bytes) -> bool:
        while line:
            try:
                line = line[os.write(self._descriptor, line) :]
            except BlockingIOError:  # whoever shares it has made it so
                with selectors.DefaultSelector() as selector:
                    selector.register(self._descriptor, selectors.EVENT_WRITE)
                    selector.select()
            except OSError:  # the disk is full, or the reader is gone: later ones may get through
                return False
        return True


def _start(body: Callable[[], None]) -> None:
    threading.Thread(target=body, name="log", daemon=True).start()
