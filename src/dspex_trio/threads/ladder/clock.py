"""What worker threads need of a Trio clock that also keeps their time, as a test's virtual clock does."""

from __future__ import annotations

import socket
from abc import ABC, abstractmethod
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Protocol


class Waiter(Protocol):
    """What one wait of one thread blocks on: made held, released once by whatever ends the wait."""

    def acquire(self, blocking: bool = True, timeout: float = -1, /) -> bool:  # noqa: FBT001, FBT002 - a lock's own
        """Block until it is released, or for `timeout` seconds; whether it was."""
        ...

    def release(self) -> None:
        """End the wait; RuntimeError if it has been released already."""
        ...


class Parks(Protocol):
    """Blocks a thread so that the wait can be ended from outside: a job."""

    def park(self, waiter: Waiter, timeout: float | None = None) -> None:
        """Wait until `waiter` is released, or for `timeout` seconds."""
        ...


class ClockedThread(ABC):
    """One thread whose time a clock keeps; time stands still while it runs."""

    @abstractmethod
    def entered(self) -> None:
        """Called in it before it does anything."""

    @abstractmethod
    def left(self) -> None:
        """Called in it when the rest of what it does has no visible effect."""

    @abstractmethod
    def ended(self) -> None:
        """Its end has been reported to those who wait for it: time may go on without it."""


class ThreadClock(ABC):
    """A Trio clock that also keeps the time of worker threads, so that their waits take virtual time too."""

    @abstractmethod
    def current_time(self) -> float:
        """Virtual seconds; from any thread."""

    @abstractmethod
    def thread(self, name: str) -> ClockedThread:
        """A thread is about to be started; time stands still from now on, until it waits or ends."""

    @abstractmethod
    def waiter(self) -> Waiter:
        """What the calling thread is going to wait for; it counts as running again as soon as that is released."""

    @abstractmethod
    def watcher(self, happened: Callable[[], bool], look: Callable[[], bool]) -> Waiter:
        """As `waiter`, for events that the operating system reports to the thread.

        Args:
            happened: Whether it has, without waiting; asked in any thread, but never in two at the same time.
            look: The same, asked again and again in the calling thread; may raise.
        """

    @abstractmethod
    def at_socket(self, job: Parks, sock: socket.socket, operation: str) -> AbstractContextManager[None]:
        """Around an operation that may block on a socket; takes the socket's timeout in virtual time where it can.

        Raises:
            TimeoutError: The socket's timeout has passed.
        """

    @abstractmethod
    def interrupted(self, ident: int) -> None:
        """An exception has been raised in that thread from outside: wherever it is, it will run."""
