"""One piece of work while it is under way: what it has come to, and how it ends early."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from typing import Final

import trio

from dspex_trio.errors import DeadlineExceeded, Stage, TrialCancelled, TrialError
from dspex_trio.model import BoundVariable, Recording, TrialRequest
from dspex_trio.trials.joints import Job
from dspex_trio.trials.margin import TrialDeadline
from dspex_trio.trials.progress import Progress

# So much later than another process would end a stage, in seconds, it is ended from here.
_LATER: Final = 0.05


class Work:
    """What holds a slot: ends at its deadline, or earlier as `end` says."""

    __slots__ = ("ending", "job", "scope")

    def __init__(self, job: Job, deadline: float) -> None:
        self.job = job
        self.scope = trio.CancelScope(deadline=deadline)
        self.ending: TrialError | None = None

    def end(self, error: TrialError) -> None:
        """End it with a failure of that kind, unless it is already ending."""
        if not self.scope.cancel_called:
            self.ending = error
            self.scope.cancel()


class Trial(Work):
    """One trial while it is on the road."""

    __slots__ = ("_budgets", "budget", "details", "exceeded", "progress", "recording", "request", "variables")

    def __init__(self, request: TrialRequest, job: Job) -> None:
        super().__init__(job, request.deadline)
        self.request = request
        self.progress = Progress(request.arrived, request.watch)
        self.recording: Callable[[], Recording] = Recording
        self.details: Callable[[], Mapping[str, str]] = job.details
        self.variables: Mapping[str, BoundVariable] = {}
        self.budget: trio.CancelScope | None = None
        self.exceeded = ""
        self._budgets: Mapping[Stage, float] = {}

    def hasten(self, deadline: TrialDeadline) -> None:
        """End by then, if that is earlier than was said."""
        if deadline.at < self.request.deadline:
            self.request = replace(self.request, deadline=deadline.at, margin=deadline.margin)
            self.scope.deadline = deadline.at

    @contextmanager
    def elsewhere(self, budgets: Mapping[Stage, float]) -> Iterator[None]:
        """Be in the stages of another process, as it tells that they are `entered`.

        It keeps to their budgets itself; should it not be able to, DeadlineExceeded is raised a moment later.
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
        """Why nobody is answered: the caller went away, or the answer to a deadline came too late for its caller."""
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
