"""One trial in an executor, as the front sees it: what the executor reports of it, and its outcome."""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Mapping
from dataclasses import replace
from typing import Final

import trio

from dspex_trio.executors.messages import (
    Kind,
    Terms,
    decode_ending,
    decode_progress,
    encode_asked,
    encoded_request,
    merged,
)
from dspex_trio.model import Recording, TrialEvent, TrialFailure, TrialOutcome, TrialRequest
from dspex_trio.model.errors import Stage
from dspex_trio.trials.work import Trial

logger: Final = logging.getLogger(__name__)

# Of the time that a trial which is over has to end in its process: for its threads; the rest is for the answer's way.
_FOR_THREADS: Final = 0.5


def request_of(request: TrialRequest, patience: float, *, earlier: float = 0.0, alone: bool = False) -> bytes:
    """A trial as an executor takes it.

    Args:
        request: The trial.
        patience: How many seconds it may take to answer once it is over.
        earlier: So many seconds before its deadline it is over in the executor.
        alone: Whether nothing else runs in the process.

    Raises:
        InvalidInput, InvalidSpec: A value has no JSON form.
    """
    now = trio.current_time()
    terms = Terms(
        seconds=request.deadline - earlier - now,
        patience=patience * _FOR_THREADS,
        waited=max(now - request.arrived, 0.0),
        tag=request.key,
        watched=request.watch is not None,
        streamed=request.stream_output,
        alone=alone,
    )
    return encode_asked(Kind.TRIAL, terms, encoded_request(request))


class RemoteTrial:
    """What an executor reports of a trial; the trial's own `recording` and `details` are taken from here.

    Args:
        trial: The trial.
        max_bytes: How much of what the executor pushes is kept; the oldest goes first.
    """

    def __init__(self, trial: Trial, max_bytes: int) -> None:
        self._trial = trial
        self._max_bytes = max_bytes
        self._news: deque[bytes] = deque()
        self._bytes = 0
        self._outcome: TrialOutcome | None = None
        self.extra: Mapping[str, str] = {}
        trial.recording, trial.details = self.recording, self.details

    def progress(self, data: bytes) -> None:
        """The executor reports a stage, what was recorded since the last report, or an event for the trial's watch."""
        progress = decode_progress(data)
        try:
            self._tell(progress)
        except Exception:  # else the executor would be blamed, and lost with the trials beside
            logger.exception("whoever watches a trial raised")
        if isinstance(progress, tuple) and (news := progress[1]):
            self._news.append(news)
            self._bytes += len(news)
            while self._bytes > self._max_bytes and len(self._news) > 1:
                self._bytes -= len(self._news.popleft())

    def _tell(self, progress: tuple[Stage, bytes] | TrialEvent) -> None:
        if not isinstance(progress, tuple):
            if (watch := self._trial.request.watch) is not None:
                watch(progress)
        elif progress[0] is not self._trial.stage:
            self._trial.entered(progress[0])

    def take_answer(self, answer: bytes) -> None:
        """The executor has answered. Raises what decoding raises."""
        self._outcome = decode_ending(answer)

    def unanswered(self) -> None:
        """The trial is over, and the front answers by itself if the executor has not."""
        if self._outcome is None:
            self.extra = {"answered_by": "front", **self.extra}

    def outcome(self) -> TrialOutcome:
        """The executor's answer."""
        assert self._outcome is not None, "the executor has not answered"  # noqa: S101 - our own bug
        if isinstance(self._outcome, TrialFailure) and self.extra:
            return replace(self._outcome, details=self.details(), reply=b"", pushed=self._outcome.reply)
        return self._outcome

    def details(self) -> Mapping[str, str]:
        """How the trial was stopped."""
        known = self._outcome.details if isinstance(self._outcome, TrialFailure) else {}
        return {**known, **self.extra}

    def recording(self) -> Recording:
        """What was seen of the program: all of it if the executor has answered, else what it pushed."""
        if self._outcome is not None:
            return Recording(cost=self._outcome.cost, pushed=self._outcome.reply)
        try:
            # A call may have been under way, and billed.
            return merged(self._news, cost_known=self._trial.stage is not Stage.EXECUTE)
        except Exception:
            logger.exception("the reports of an executor on a trial cannot be decoded")
            return Recording()
