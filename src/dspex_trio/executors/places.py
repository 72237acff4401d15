"""An executor process as its fleet sees it, and the right to run a trial there."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

import trio

from dspex_trio.children import Child, Exchange

SILENT: Final = 0.25
"""An executor that owes a sign of life for so long gets new trials only if all others do too, in seconds."""


@dataclass(eq=False, slots=True)
class Executor:
    """One executor process and its share of the slots.

    Attributes:
        child: The process.
        limit: How many trials it runs at once.
        used: How many it runs, abandoned ones included.
        guests: How many tools it runs beside them.
        stuck: Those of both that were answered and still run.
        answers: How many it has answered.
        held: Whether it does not answer while one of its trials is past its deadline.
        retired: Set when it gets no more trials and is replaced.
        overdue: Trials that are past their deadlines and not answered: exchange → since when.
    """

    child: Child
    limit: int
    used: int = 0
    guests: int = 0
    stuck: set[Exchange] = field(default_factory=set)
    answers: int = 0
    held: bool = False
    retired: trio.Event = field(default_factory=trio.Event)
    overdue: dict[Exchange, float] = field(default_factory=dict)

    @property
    def accepts(self) -> bool:
        """Whether it may get one more trial."""
        return self.used < self.limit and not (self.held or self.retired.is_set() or self.child.ending)

    @property
    def silent(self) -> bool:
        """Whether it owes a sign of life."""
        return self.child.silent_for > SILENT

    @property
    def busy(self) -> bool:
        """Whether it runs something that is not abandoned."""
        return self.used + self.guests > len(self.stuck)


class ExecutorSlot:
    """The right to run one trial in an executor; free again when its last holder has released it.

    Args:
        executor: Where it is.
        freed: Called when it is free again.
        counts: Whether it is one of the executor's slots, held from now on; else a place beside them.
    """

    __slots__ = ("_counts", "_freed", "_holders", "executor")

    def __init__(self, executor: Executor, freed: Callable[[Executor], None], *, counts: bool = True) -> None:
        self.executor = executor
        self._freed = freed
        self._holders = int(counts)
        self._counts = counts

    def hold(self) -> None:
        """One more holder."""
        self._holders += 1
        if not self._counts and self._holders == 1:
            self.executor.guests += 1

    def release(self) -> None:
        """One holder less."""
        self._holders -= 1
        if self._holders:
            return
        if self._counts:
            self._freed(self.executor)
        else:
            self.executor.guests -= 1
