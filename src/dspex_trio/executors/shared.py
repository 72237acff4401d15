"""Trials in executors that they share: the `TrialRunner` of a front."""

from __future__ import annotations

import json
import math
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Final, cast

import trio

from dspex_trio.children import ChildLost
from dspex_trio.executors.fleet import Fleet
from dspex_trio.executors.messages import (
    TAKE,
    Kind,
    Terms,
    decode_call,
    decode_tool_result,
    encode_asked,
    encode_reply,
    encode_tool_call,
)
from dspex_trio.executors.places import ExecutorSlot
from dspex_trio.executors.remote import RemoteTrial, request_of
from dspex_trio.executors.routing import Homes
from dspex_trio.model import TrialFailure, TrialOutcome, TrialRequest
from dspex_trio.model.errors import WorkerLost
from dspex_trio.rpc import RpcError, StatusCode
from dspex_trio.runtime.settings import Settings
from dspex_trio.trials.admission import Slot
from dspex_trio.trials.work import Trial
from dspex_trio.wire.generated import any_pb2

# A trial is over in its executor as long before its deadline as it may take to answer then. At the deadline the front
# answers by itself; of that time it waits a part more, for an answer that is on its way.
_STILL_EXPECTED: Final = 0.2
# Of the time that a tool has which is over: for its threads; the rest is for the answer's way.
_FOR_THREADS: Final = 0.5


class Shared:
    """Runs trials and tools in a fleet's executors; a `TrialRunner`.

    Args:
        settings: What the operator chose.
        fleet: The executors; admission has handed out their slots.
        reply: Replies to executors' calls of the session store.
        patience: How many seconds a cancelled trial waits for its executor's answer, of its reply margin.
        homes: Where programs are registered in this process.
        on_late_end: Called with a trial's details when threads that went on after it have ended.
    """

    def __init__(
        self,
        settings: Settings,
        fleet: Fleet,
        reply: Callable[[bytes], Awaitable[bytes]],
        patience: Callable[[float | None], float],
        homes: Homes,
        *,
        on_late_end: Callable[[TrialRequest, Mapping[str, str]], None],
    ) -> None:
        self._settings = settings
        self._fleet = fleet
        self._reply = reply
        self._patience = patience
        self._homes = homes
        self._on_late_end = on_late_end

    async def run(self, trial: Trial, slot: Slot) -> TrialOutcome:
        """Run a trial in the executor of its slot.

        When cancelled, the executor gets a moment to answer; what it has pushed until then is the answer if it does
        not.

        Raises:
            InvalidInput, InvalidSpec: A value has no JSON form.
            WorkerLost: The executor ended before the trial did.
            ChildFailed: The executor's side of this has a fault.
        """
        remote = RemoteTrial(trial, self._settings.max_message_bytes)
        request = trial.request
        patience = self._patience(request.margin)
        with trial.in_other_process(self._settings.stage_budgets()):
            try:
                await self._fleet.run(
                    cast("ExecutorSlot", slot),
                    request_of(request, patience, earlier=patience),
                    patience=lambda: max(patience, request.deadline - trio.current_time()) * _STILL_EXPECTED,
                    on_answer=remote.take_answer,
                    on_report=remote.progress,
                    on_call=self._reply,
                    on_late_end=lambda data: self._on_late_end(request, json.loads(data)),
                )
            except ChildLost as lost:
                raise WorkerLost(f"the executor in which the program ran is lost: {lost}") from None
            except BaseException:  # Cancelled, alone or in a group
                remote.unanswered()
                raise
        return self._homes.explained(remote.outcome(), request.program)

    async def call(
        self,
        kind: Kind,
        name: str,
        arguments: Mapping[str, Any],
        deadline: float,
        slot: ExecutorSlot,
        *,
        take: Callable[[any_pb2.Any], Awaitable[None]] | None = None,
    ) -> any_pb2.Any | None:
        """Call an operator's tool, or a function that stands in for an Elixir tool; returns its encoded result.

        Args:
            kind: Which of the two.
            name: Its name.
            arguments: Its arguments: values that have a JSON form.
            deadline: When it is stopped, on Trio's clock; when cancelled, that is now.
            slot: Where it runs.
            take: Takes the encoded values that it yields; the result is None then. What it raises is raised here.

        Raises:
            RemoteFailure: It raised, or its deadline passed; carries the failure.
            WorkerLost: The executor ended first.
        """
        patience = self._patience(None)
        terms = Terms(deadline - trio.current_time(), patience * _FOR_THREADS, watched=take is not None)
        answers: list[bytes] = []
        refused: list[Exception] = []

        async def reply(data: bytes) -> bytes:
            path, request = decode_call(data)
            if path != TAKE or take is None:
                return await self._reply(data)
            try:
                await take(any_pb2.Any.FromString(request))
            except Exception as error:  # noqa: BLE001 - raised below, once the tool has ended
                refused.append(error)
                return encode_reply(RpcError(StatusCode.ABORTED, "the value was refused"))
            return encode_reply(b"")

        try:
            await self._fleet.run(
                slot,
                encode_asked(kind, terms, encode_tool_call(name, arguments)),
                patience=lambda: patience,
                on_answer=answers.append,
                on_call=reply,
            )
        except ChildLost as lost:
            raise WorkerLost(f"the executor in which {name} ran is lost: {lost}") from None
        if refused:
            raise refused[0]
        found = decode_tool_result(answers[0])
        if isinstance(found, any_pb2.Any):
            return None if take is not None and found.type_url == TAKE else found
        raise RemoteFailure(found)


class RemoteFailure(Exception):
    """What an executor answered in place of a tool's result.

    Attributes:
        failure: Kind and text, and the encoded reply with all the rest.
    """

    def __init__(self, outcome: TrialOutcome) -> None:
        assert isinstance(outcome, TrialFailure), "a tool that succeeds has a result"  # noqa: S101 - our own bug
        super().__init__(outcome.error_message)
        self.failure: TrialFailure = outcome


class NoJob:
    """The work of a trial in this process, when it runs in another one: none."""

    def check(self) -> None:
        """Return: nothing runs here that could be ended."""

    def time_left(self) -> float:
        """Infinite: nothing runs here."""
        return math.inf

    def on_cancel(self, callback: Callable[[], object]) -> Callable[[], None]:
        """Nothing runs here that could be cancelled; the callback is never called."""
        del callback
        return lambda: None

    def details(self) -> Mapping[str, str]:
        """Nothing was stopped here."""
        return {}
