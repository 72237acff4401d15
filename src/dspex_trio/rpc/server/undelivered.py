"""Replies that wait for their readers: counted for a whole server, and ended when a reader takes nothing."""

from __future__ import annotations

import logging
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Final, Protocol

import trio

from dspex_trio.rpc.server.deadlines import Deadline, DeadlineWatch

log: Final = logging.getLogger("dspex_trio.rpc")


class Reader(Protocol):
    """A call whose reply cannot be sent on before its client takes more."""

    @property
    def taken_at(self) -> float:
        """When the client last took some of the reply, or the reply began to wait, on Trio's clock."""
        ...

    def end_unread(self, why: str) -> None:
        """End the call with RESOURCE_EXHAUSTED and let go of the reply; must not wait."""
        ...


class Undelivered:
    """The replies of one server that wait for HTTP/2's windows or for room in a connection's output buffer.

    Args:
        most: The most bytes that may wait; beyond, the call ends whose reader has taken nothing for the longest time.
            A reply that waits alone is never ended for its size: `max_response_size` bounds it.
        timeout: Seconds after which a call ends whose reader has taken nothing.
        watch: The server's deadlines.

    Attributes:
        size: How many bytes wait now.
    """

    def __init__(self, most: int, timeout: float, watch: DeadlineWatch) -> None:
        self.size = 0
        self._most = most
        self._timeout = timeout
        self._watch = watch
        self._timers: dict[Reader, Deadline] = {}
        # Size, and when its reader last took something as far as is known: those that have taken nothing for longest
        # come first.
        self._waiting: OrderedDict[Reader, tuple[int, float]] = OrderedDict()

    @contextmanager
    def waiting(self, reader: Reader, size: int) -> Iterator[None]:
        """Count a reply of so many bytes while it waits."""
        self._waiting[reader] = size, reader.taken_at
        self.size += size
        self._timers[reader] = self._watch.add(trio.current_time() + self._timeout, partial(self._check, reader))
        while self.size > self._most and len(self._waiting) > 1:
            self._end(self._longest(), f"more than {self._most} bytes of replies wait for their readers")
        try:
            yield
        finally:
            self._leave(reader)

    def taken(self, reader: Reader) -> None:
        """The client of a call has taken some of its reply."""
        if reader in self._waiting:
            self._waiting[reader] = self._waiting[reader][0], reader.taken_at
            self._waiting.move_to_end(reader)

    def _longest(self) -> Reader:
        while True:
            reader, (_, known) = next(iter(self._waiting.items()))
            if reader.taken_at <= known:
                return reader
            self.taken(reader)

    def _check(self, reader: Reader) -> None:
        until = reader.taken_at + self._timeout
        if until <= trio.current_time():
            self._end(reader, f"its reader has taken nothing for {self._timeout:g} s")
        else:
            self._timers[reader] = self._watch.add(until, partial(self._check, reader))

    def _end(self, reader: Reader, why: str) -> None:
        self._leave(reader)
        log.info("a call is ended: %s", why)
        reader.end_unread(why)

    def _leave(self, reader: Reader) -> None:
        size, _ = self._waiting.pop(reader, (0, 0.0))
        self.size -= size
        timer = self._timers.pop(reader, None)
        if timer is not None:
            timer.cancel()
