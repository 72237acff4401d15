"""Level `process`: each trial has an executor process to itself, which is killed where the trial does not end."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Final

from dspex_trio.children import ChildLost, Children, open_children
from dspex_trio.children.forking import Starter
from dspex_trio.executors.remote import RemoteTrial, request_of
from dspex_trio.executors.routing import Homes, Routing
from dspex_trio.model import TrialFailure, TrialOutcome
from dspex_trio.model.errors import WorkerLost
from dspex_trio.runtime.settings import Settings
from dspex_trio.trials.admission import Slot
from dspex_trio.trials.work import Trial

# One more than can be in use: where one was killed, the next trial need not wait for a new one to start.
_SPARE: Final = 1
# Over the longest outcome: what frames and progress may have beside it.
_FRAME_ROOM: Final = 1 << 20


@asynccontextmanager
async def open_alone(
    settings: Settings,
    starter: Starter,
    opening: Callable[[], bytes],
    routing: Routing,
    *,
    reply: Callable[[bytes], Awaitable[bytes]],
    patience: Callable[[float | None], float],
    on_log: Callable[[bytes], None],
    on_note: Callable[[bytes], None],
) -> AsyncIterator[Alone]:
    """Executors for one trial each; the first is ready where it is known that there will be some.

    Args:
        settings: What the operator chose.
        starter: Starts processes.
        opening: What a process is opened with.
        routing: Knows which trials run so, and where programs come from.
        reply: Replies to processes' calls of the session store.
        patience: How many seconds a cancelled trial waits for its process, of its reply margin.
        on_log: Called with what processes log.
        on_note: Called with their records.
    """
    everything = settings.isolation == "process"
    async with open_children(
        starter,
        opening,
        count=settings.max_trials + _SPARE,
        warm=settings.max_trials + _SPARE if everything else int(routing.any_alone()),
        max_bytes=settings.max_message_bytes + _FRAME_ROOM,
        max_answers=settings.max_trials_per_child,
        on_log=on_log,
        on_note=on_note,
    ) as children:
        yield Alone(settings, children, reply, patience, routing.homes)


class Alone:
    """Runs trials in processes of their own; a `TrialRunner` made by `open_alone`."""

    def __init__(
        self,
        settings: Settings,
        children: Children,
        reply: Callable[[bytes], Awaitable[bytes]],
        patience: Callable[[float | None], float],
        homes: Homes,
    ) -> None:
        self._settings = settings
        self._children = children
        self._reply = reply
        self._patience = patience
        self._homes = homes

    async def ready(self) -> None:
        """Wait until one is ready.

        Raises:
            ChildLost: None can be started; says why.
        """
        await self._children.ready()

    async def run(self, trial: Trial, slot: Slot) -> TrialOutcome:  # noqa: ARG002 - the process is killed at the end
        """Run a trial in a process of its own; waits for one that is free.

        When cancelled, the process gets a moment to end the trial, and is killed if it does not.

        Raises:
            InvalidInput, InvalidSpec: A value has no JSON form.
            WorkerLost: The process ended before the trial did, or none can be started.
            ChildFailed: The executor's side of this has a fault.
        """
        remote = RemoteTrial(trial, self._settings.max_message_bytes)
        patience = self._patience(trial.request.margin)

        def stays(answer: bytes) -> bool:
            remote.take_answer(answer)
            outcome = remote.outcome()
            return not isinstance(outcome, TrialFailure) or outcome.details.get("stuck") != "true"

        def killed(seconds: float) -> None:
            remote.extra = {"rung": "kill", "rung_ms": f"{seconds * 1e3:.1f}", "stuck": "false"}

        with trial.in_other_process(self._settings.stage_budgets()):
            try:
                await self._children.run(
                    request_of(trial.request, patience, alone=True),
                    patience=patience,
                    may_stay=stays,
                    on_kill=killed,
                    on_report=remote.progress,
                    on_call=self._reply,
                )
            except ChildLost as lost:
                raise WorkerLost(f"the process in which the program ran is lost: {lost}") from None
        return self._homes.explained(remote.outcome(), trial.request.program)
