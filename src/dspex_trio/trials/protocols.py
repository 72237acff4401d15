"""Protocols of what runs a trial's work: in threads, or outside of this process."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from contextlib import AbstractContextManager
from typing import Any, Protocol

from dspex_trio.model import Interrupt, TrialRequest
from dspex_trio.trials.admission import Slot


class Job(Interrupt, Protocol):
    """One trial's work in threads, as `trials` sees it."""

    def details(self) -> Mapping[str, str]:
        """What is known of how the work was stopped: `rung`, `rung_ms`, `stuck`; empty if it was not."""
        ...


class Executor(Protocol):
    """Runs blocking work in worker threads and stops it when it is cancelled."""

    def job(self, name: str, request: TrialRequest | None = None) -> Job:
        """A new cancellable unit of work, of that trial if it is one."""
        ...

    def watching(self, report: Callable[[str], object]) -> AbstractContextManager[None]:
        """While a program runs: `report` is called with a line for each thing that it changed in its process."""
        ...

    def run(self, function: Callable[..., Any], /, *args: Any, job: Job, slot: Slot) -> Awaitable[Any]:
        """Run `function(*args)` in a thread that holds `slot` until it ends.

        Cancellation stops the work and waits for it only as long as the executor's reply margin allows.
        """
        ...
