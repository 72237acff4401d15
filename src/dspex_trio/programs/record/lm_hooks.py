"""The lists that DSPy appends to while a program runs, turned into calls of a ProgramEvents."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

from dspex_trio.programs.dspy.private import UsageTracker


class ProgramEvents(Protocol):
    """Receives a program's events, from any thread of the program; implemented by the recorder."""

    def predictor_ended(
        self, predictor: Any, inputs: Mapping[str, Any], prediction: Mapping[str, Any], *, late: bool
    ) -> None:
        """A predictor ended well; `late` when BestOfN or Refine tell of it afterwards, as part of the best attempt."""
        ...

    def lm_ended(self, entry: Mapping[str, Any]) -> None:
        """An LM call was answered; `entry` is what DSPy keeps in histories."""
        ...

    def billed(self, usage: Mapping[str, Any]) -> None:
        """A provider's answer was billed; DSPy says so right before it records the call, or when the call fails."""
        ...


class Trace(list[Any]):
    """DSPy's `trace` setting. A real list too: BestOfN and Refine read theirs back and extend this one with it."""

    def __init__(self, recorder: ProgramEvents) -> None:
        super().__init__()
        self._recorder = recorder

    def append(self, entry: Any) -> None:
        super().append(entry)
        predictor, inputs, prediction = entry
        self._recorder.predictor_ended(predictor, inputs, prediction, late=False)

    def extend(self, entries: Any) -> None:
        for entry in entries:
            super().append(entry)
            predictor, inputs, prediction = entry
            self._recorder.predictor_ended(predictor, inputs, prediction, late=True)


class History(list[Any]):
    """Stands in `caller_modules` as a module's history. Stays empty, so that DSPy never has to shorten it."""

    def __init__(self, recorder: ProgramEvents) -> None:
        super().__init__()
        self._recorder = recorder

    def append(self, entry: Any) -> None:
        self._recorder.lm_ended(entry)


class Usages(UsageTracker):  # type: ignore[misc]
    """DSPy's usage tracker for one trial. Parallel deep-copies the tracker into its threads: one must serve all."""

    def __init__(self, recorder: ProgramEvents) -> None:
        super().__init__()
        self._recorder = recorder

    def __deepcopy__(self, memo: dict[int, Any]) -> Usages:
        return self

    def add_usage(self, lm: str, usage_entry: dict[str, Any]) -> None:
        super().add_usage(lm, usage_entry)
        self._recorder.billed(usage_entry)
