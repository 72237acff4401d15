"""One piece of work while it is under way: what it has come to, and how it ends early."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Final

import trio

from dspex_trio.model import BoundVariable, Recording, TrialRequest
from dspex_trio.model.errors import DeadlineExceeded, Stage, TrialCancelled, TrialError
from dspex_trio.trials.margin import TrialDeadline
from dspex_trio.trials.progress import Progress
from dspex_trio.trials.protocols import Job

# So much later than another process would end a stage, in seconds, it is ended from here.
_LATER: Final = 0.05


@dataclass(frozen=True, slots=True)
class UnderWay:
    """One piece of work that has not ended yet.

    Attributes:
        name: The trial's id; of a tool, its name.
        program: The trial's program; empty for a tool.
        stage: Where a trial is; EXECUTE for a tool, which may be waiting for its slot.
        seconds: For how long it has been there.
        seconds_left: Until its deadline.
    """

    name: str
    program: str
    stage: str
    seconds: float
    seconds_left: float


class Work:
    """What holds a slot: ends at its deadline, or earlier as `end` says."""

    __slots__ = ("began", "ending", "job", "name", "scope")

    def __init__(self, job: Job, deadline: float, name: str) -> None:
        self.name = name
        self.began = trio.current_time()
        self.job = job
        self.scope = trio.CancelScope(deadline=deadline)
        self.ending: TrialError | None = None

    def under_way(self) -> UnderWay:
        """How far it is."""
        return self._under_way("", Stage.EXECUTE, self.began)

    def _under_way(self, program: str, stage: Stage, began: float) -> UnderWay:
        now = trio.current_time()
        return UnderWay(self.name, program, stage.name, now - began, self.scope.deadline - now)

    def end(self, error: TrialError) -> None:
        """End it with a failure of that kind, unless it is already ending."""
        if not self.scope.cancel_called:
            self.ending = error
            self.scope.cancel()


class Trial(Work):
    """One trial while it is under way."""

    __slots__ = (
        "_budgets",
        "budget",
        "changes",
        "details",
        "exceeded",
        "progress",
        "recording",
        "request",
        "variables",
    )

    def __init__(self, request: TrialRequest, job: Job) -> None:
        super().__init__(job, request.deadline, request.trial_id)
        self.request = request
        self.progress = Progress(request.arrived, request.watch)
        self.recording: Callable[[], Recording] = Recording
        self.details: Callable[[], Mapping[str, str]] = job.details
        self.variables: Mapping[str, BoundVariable] = {}
        self.budget: trio.CancelScope | None = None
        self.exceeded = ""
        self.changes: list[str] = []
        self._budgets: Mapping[Stage, float] = {}

    def under_way(self) -> UnderWay:
        """How far it is."""
        program = self.request.program
        return self._under_way(program.name or program.python_class, self.stage, max(self.began, self.request.arrived))

    def let_go(self) -> None:
        """It has ended, and nobody asks any more: its reply is not kept until the next garbage collection."""
        self.recording, self.details = Recording, dict

    @property
    def callers_deadline(self) -> float:
        """When its caller stops waiting, on Trio's clock."""
        return self.request.deadline + self.request.margin

    def hasten(self, deadline: TrialDeadline) -> None:
        """Move the deadline to that one if it is earlier."""
        if deadline.at < self.request.deadline:
            self.request = replace(self.request, deadline=deadline.at, margin=deadline.margin)
            self.scope.deadline = deadline.at

    @contextmanager
    def in_other_process(self, budgets: Mapping[Stage, float]) -> Iterator[None]:
        """Follow a trial that another process runs; `entered` is called for each stage that it reports.

        That process enforces the stages' budgets itself; if it fails to, DeadlineExceeded is raised a moment later.
        """
        self._budgets = budgets
        self.budget = trio.CancelScope()
        with self.budget:
            yield
        if self.budget.cancelled_caught:
            raise self.deadline_exceeded()
        self.budget = None

    @property
    def stage(self) -> Stage:
        """Where the trial is."""
        return self.progress.stage

    def entered(self, stage: Stage) -> None:
        """The other process has entered a stage."""
        self.progress.enter(stage)
        if self.budget is not None:
            self.budget.deadline = trio.current_time() + self._budgets.get(stage, math.inf) + _LATER

    @contextmanager
    def within(self, stage: Stage, budgets: Mapping[Stage, float]) -> Iterator[None]:
        """Be in `stage`, no longer than its budget if it has one.

        Raises DeadlineExceeded when the budget passes; it is not the trial's deadline, which goes on to hold.
        """
        self.progress.enter(stage)
        if (seconds := budgets.get(stage)) is None:
            yield
            return
        self.budget = trio.CancelScope(deadline=trio.current_time() + seconds)
        with self.budget:
            yield
        if self.budget.cancelled_caught:
            raise self.deadline_exceeded()
        self.budget = None

    def unanswered(self) -> TrialError:
        """Why there is no reply: the caller went away, or the answer to a deadline came too late for its caller."""
        if trio.current_time() >= self.request.deadline:
            return self.deadline_exceeded()
        return TrialCancelled("the caller went away or the trial was cancelled")

    def deadline_exceeded(self) -> DeadlineExceeded:
        """What has passed: the stage's budget if that was to end before the trial's own deadline, else the deadline."""
        stage, spent = self.progress.stage.name, self.progress.timings().total_ms
        if self.budget is None or self.budget.deadline >= self.request.deadline:
            return DeadlineExceeded(f"the deadline passed in stage {stage}, {spent:.0f} ms after the trial arrived")
        self.exceeded = f"{stage.lower()}_timeout"
        return DeadlineExceeded(
            f"stage {stage} took longer than {self.exceeded} allows; that was {spent:.0f} ms after the trial arrived"
        )
