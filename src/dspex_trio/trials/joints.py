"""What the road asks of those who run its work: in threads, or outside of this process."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from contextlib import AbstractContextManager
from typing import Any, Protocol

from dspex_trio.errors import Stage
from dspex_trio.model import Interrupt, Program, Recording, TrialOutcome, TrialRequest
from dspex_trio.trials.admission import Slot


class Job(Interrupt, Protocol):
    """One trial's work in threads, as the thread room sees it."""

    def details(self) -> Mapping[str, str]:
        """What is known of how the work was stopped: `rung`, `rung_ms`, `stuck`; empty if it was not."""
        ...


class Executor(Protocol):
    """Runs blocking work in worker threads and stops it when it is cancelled."""

    def job(self, name: str, request: TrialRequest | None = None) -> Job:
        """A new cancellable unit of work, of that trial if it is one."""
        ...

    def watching(self, tell: Callable[[str], object]) -> AbstractContextManager[None]:
        """While a program runs: `tell` is called with what it has changed in its process, a line each."""
        ...

    def run(self, function: Callable[..., Any], /, *args: Any, job: Job, slot: Slot) -> Awaitable[Any]:
        """Run `function(*args)` in a thread that holds `slot` until it ends.

        Cancellation stops the work and waits for it only as long as the executor's reply margin allows.
        """
        ...


class Sight(Protocol):
    """What is known of a trial that runs outside of this process; whoever runs it keeps it up to date.

    Attributes:
        progress: Its stages.
        recording: What was seen of it until now, with all variables as `written`.
        details: What is known of how it was stopped.
    """

    recording: Callable[[], Recording]
    details: Callable[[], Mapping[str, str]]

    @property
    def stage(self) -> Stage:
        """Where it is."""
        ...

    def entered(self, stage: Stage) -> None:
        """It has entered a stage."""
        ...


class Isolation(Protocol):
    """Runs whole trials outside of this process."""

    def takes(self, program: Program) -> bool:
        """Whether it runs that one."""
        ...

    def run(self, request: TrialRequest, sight: Sight) -> Awaitable[TrialOutcome]:
        """Run a trial that has a slot; raises TrialErrors. Cancellation stops it, and waits as an Executor does."""
        ...
