"""A whole system in one process and in memory: store, worker and client, over real HTTP/2, on links that can fail."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any

import trio

from dspex_trio import rpc
from dspex_trio.interface.arguments import needs_trio
from dspex_trio.model import TrialOutcome, TrialRequest, Variable
from dspex_trio.programs import check_lm
from dspex_trio.runtime.client import Client, open_client
from dspex_trio.runtime.embedded import Runtime, open_runtime
from dspex_trio.runtime.serving import serve_runtime
from dspex_trio.runtime.settings import Settings
from dspex_trio.tasks.background import open_background
from dspex_trio.testing.environment import tested_settings
from dspex_trio.testing.faults.links import Link
from dspex_trio.testing.scripted.store import FaultyStore
from dspex_trio.testing.scripted.variables import variables_of
from dspex_trio.testing.time.timeline import Timeline
from dspex_trio.testing.watching import record_outcome, watching
from dspex_trio.trials.observer import Observer

if TYPE_CHECKING:
    import dspy


@dataclass(frozen=True, slots=True)
class Links:
    """The ways between the parts of a system.

    Attributes:
        worker: From clients to the worker.
        store: From the worker to the store.
        client_store: From clients to the store.
    """

    worker: Link
    store: Link
    client_store: Link


class System:
    """Store, worker and client; made by `system`.

    Attributes:
        client: Executes trials, and reaches sessions.
        runtime: The worker's.
        links: Between them; break them.
        timeline: Every trial's stages, LM and tool calls, rung and outcome; `reply` when it has been sent, or
            `caller_gone`; and every call that reaches the store, as `store:GetVariables` and its like.
    """

    def __init__(
        self,
        client: Client,
        runtime: Runtime,
        *,
        links: Links,
        timeline: Timeline,
        stopping: trio.Event,
        sessions: Callable[[], int],
    ) -> None:
        self.client = client
        self.runtime = runtime
        self.links = links
        self.timeline = timeline
        self._stopping = stopping
        self._sessions = sessions

    @property
    def counts(self) -> Mapping[str, Callable[[], int]]:
        """What can be counted of it, for `no_leaks(**system.counts)`.

        These are trials under way, slots that are taken, sessions in the store (of one that is not the project's own,
        none), and connections to the worker and to the store.
        """
        return {
            "trials": lambda: self.runtime.status().running,
            "slots": lambda: self.runtime.status().slots,
            "sessions": self._sessions,
            "connections_to_worker": lambda: self.links.worker.open_connections,
            "connections_to_store": lambda: self.links.store.open_connections,
        }

    def open_client(self) -> AbstractAsyncContextManager[Client]:
        """One more client, with connections of its own."""
        return open_client(self.links.worker.connect, store=self.links.client_store.connect)

    def stop(self) -> None:
        """End the worker as SIGTERM does: no new trials, `grace_seconds` for those that run, then SHUTTING_DOWN."""
        self._stopping.set()


@asynccontextmanager
async def system(
    *,
    variables: Mapping[str, Any | Variable] | None = None,
    session_id: str = "test",
    lm: dspy.BaseLM | None = None,
    store: rpc.Servicer | None = None,
    settings: Settings | None = None,
    timeline: Timeline | None = None,
) -> AsyncIterator[System]:
    """A system that runs until the block ends; no sockets, no ports. What is under way at its end is cancelled.

    Args:
        variables: What session `session_id` holds; as for `TrialEnvironment`.
        session_id: Created before the block begins.
        lm: The language model of programs that name none.
        store: The store, in place of one of the project's own, in memory. To a `FaultyStore` the variables are given
            directly, so that no fault befalls that.
        settings: The worker's; by default those of the environment, over the defaults.
        timeline: Told of what happens; by default a new one, which begins here.

    Raises:
        VariableInvalid: A variable's value does not fit its type or its constraints.
    """
    needs_trio("testing.system")
    check_lm(lm)
    timeline = timeline if timeline is not None else Timeline()
    links = Links(Link(), Link(), Link())
    stopping = trio.Event()
    observer = _TimelineObserver(timeline)
    served = store if store is not None else FaultyStore()
    async with open_background() as nursery:
        await nursery.start(
            partial(
                rpc.serve,
                [served],
                listeners=[links.store.listener, links.client_store.listener],
                interceptors=[partial(_calls, timeline)],
            )
        )
        async with open_runtime(
            tested_settings(settings), lm=lm, store=links.store.connect, observers=[observer]
        ) as runtime:
            await nursery.start(
                partial(
                    serve_runtime,
                    runtime,
                    runtime.servicers,
                    stopping=stopping,
                    listeners=[links.worker.listener],
                    interceptors=[partial(_replies, timeline)],
                )
            )
            async with open_client(links.worker.connect, store=links.client_store.connect) as client:
                if isinstance(store, FaultyStore):
                    store.put(variables or {}, session_id=session_id)
                else:
                    session = await client.initialize_session(session_id)
                    for one in variables_of(variables or {}):
                        await session.register(
                            one.name, one.type, one.value, constraints=one.constraints, metadata=one.metadata
                        )
                sessions = served.memory.__len__ if isinstance(served, FaultyStore) else int
                yield System(client, runtime, links=links, timeline=timeline, stopping=stopping, sessions=sessions)


async def _calls(timeline: Timeline, call: rpc.Call, proceed: rpc.Proceed) -> None:
    timeline.record(f"store:{call.method.rpartition('/')[2]}")
    await proceed()


async def _replies(timeline: Timeline, _call: rpc.Call, proceed: rpc.Proceed) -> None:
    try:
        await proceed()
    except trio.Cancelled:
        timeline.record("caller_gone")
        raise
    timeline.record("reply")


class _TimelineObserver(Observer):
    def __init__(self, timeline: Timeline) -> None:
        self._timeline = timeline
        self._watch = watching(timeline)

    def begins(self, request: TrialRequest) -> TrialRequest:
        theirs = request.watch
        ours = self._watch
        if theirs is None:
            return replace(request, watch=ours, stream_output=False)

        def both(event: Any) -> None:
            ours(event)
            theirs(event)

        return replace(request, watch=both)

    def on_outcome(self, request: TrialRequest, outcome: TrialOutcome) -> None:  # noqa: ARG002 - one system's are told
        record_outcome(self._timeline, outcome)

    def on_late_end(self, request: TrialRequest, details: Mapping[str, str]) -> None:
        self._timeline.record("thread_ended", trial=request.trial_id, rung=details.get("rung", ""))
