"""What `just bench` measures of a store that is 5 ms away: calls for a trial, and how long its variables take."""

from __future__ import annotations

import statistics
import subprocess
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Final

import trio
from bench_processes import Subject, running, subject
from bench_store_peer import SESSION
from bench_subject import WIDE, reading

import dspex_trio as dspex

DELAY_SECONDS: Final = 0.005
GOALS: Final = {"one batch": 1.3, "concurrent": 2.0}
"""How the store is read → the most round trips that synchronising WIDE variables should take."""

COUNTS: Final = (0, 1, 16, WIDE)
_WARM_UP: Final = 5
_FRAME_HEADER_BYTES: Final = 9
_HEADERS_FRAME: Final = 1
_PREFACE_BYTES: Final = len(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")
_PEER: Final = Path(__file__).with_name("bench_store_peer.py")


@dataclass(frozen=True, slots=True)
class Sync:
    """Trials with so many variables against a store that is read in one way.

    Attributes:
        how: A key of GOALS.
        variables: How many the program is bound to.
        calls: The store's RPCs for a trial.
        sync_ms: What SYNC took in each trial.
        round_trip_ms: What the shortest call took through the same link, measured in turn with the trials.
    """

    how: str
    variables: int
    calls: float
    sync_ms: list[float]
    round_trip_ms: list[float]

    @property
    def round_trips(self) -> float:
        """Synchronising, in round trips."""
        return statistics.median(self.sync_ms) / statistics.median(self.round_trip_ms)


async def measure_syncs(reads: int) -> list[Sync]:
    """Trials one after the other, first with batch reads, then without."""
    async with (
        running([str(_PEER), str(WIDE)], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process,
        trio.open_nursery() as nursery,
    ):
        store = Subject(process)
        link = SlowLink(await store.ready())
        address = f"127.0.0.1:{await nursery.start(link.serve)}"
        async with (
            subject("server", {"lm": None, "lm_args": {}, "store": address}) as server,
            dspex.open_client(f"127.0.0.1:{await server.ready()}") as client,
            dspex.open_client(address) as to_store,
        ):
            found = []
            for how in GOALS:
                await store.ask(batch=how == "one batch")
                for variables in COUNTS:
                    one = partial(client.execute, reading(variables), {}, session_id=SESSION)
                    measured = _Measured(one, to_store.session(SESSION), link)
                    found.append(await measured.sync(how, variables, reads))
        nursery.cancel_scope.cancel()
    return found


@dataclass(frozen=True, slots=True)
class _Measured:
    """A trial, and the shortest call through the same link."""

    trial: Callable[[], Awaitable[dspex.TrialOutcome]]
    session: dspex.SessionContext
    link: SlowLink

    async def sync(self, how: str, variables: int, reads: int) -> Sync:
        sync_ms, round_trip_ms, calls = [], [], 0
        for number in range(-_WARM_UP, reads):
            before = self.link.calls
            outcome = await self.trial()
            of_trial = self.link.calls - before
            match outcome:
                case dspex.TrialFailure():
                    raise RuntimeError(f"a trial of the benchmark failed: {outcome}")
            began = trio.current_time()
            await self.session.exists()
            took = trio.current_time() - began
            if number >= 0:
                calls += of_trial
                sync_ms.append(outcome.timings.sync_ms)
                round_trip_ms.append(took * 1e3)
        return Sync(how, variables, calls / reads, sync_ms, round_trip_ms)


def verdicts(syncs: list[Sync]) -> list[str]:
    """How the widest programs did, against the goals."""
    return [
        f"store 5 ms away, {each.variables} variables, {each.how}: sync {each.round_trips:.2f} round trips "
        f"(goal: at most {GOALS[each.how]})"
        for each in syncs
        if each.variables == WIDE
    ]


class SlowLink:
    """A way to the store on which every request takes 5 ms longer, however many are under way; counts them."""

    def __init__(self, store: int) -> None:
        self.calls = 0
        self._store = store

    async def serve(self, *, task_status: trio.TaskStatus[int]) -> None:
        """Accept connections until cancelled; starts with the port."""
        listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
        async with trio.open_nursery() as nursery:
            await nursery.start(trio.serve_listeners, self._join, listeners)
            task_status.started(listeners[0].socket.getsockname()[1])

    async def _join(self, near: trio.SocketStream) -> None:
        async with await trio.open_tcp_stream("127.0.0.1", self._store) as far, trio.open_nursery() as nursery:
            send, receive = trio.open_memory_channel[tuple[float, bytes]](1_000)
            nursery.start_soon(self._requests, near, send)
            nursery.start_soon(self._late, receive, far)
            async for data in far:
                await near.send_all(data)
            nursery.cancel_scope.cancel()

    async def _late(self, receive: trio.MemoryReceiveChannel[tuple[float, bytes]], far: trio.SocketStream) -> None:
        async for due, data in receive:
            await trio.sleep_until(due)
            await far.send_all(data)
        await far.send_eof()

    async def _requests(self, near: trio.SocketStream, send: trio.MemorySendChannel[tuple[float, bytes]]) -> None:
        """Pass on what the worker sends, late, and count the HEADERS frames in it (RFC 9113, section 4.1)."""
        pending, skip = b"", _PREFACE_BYTES
        async with send:
            async for data in near:
                await send.send((trio.current_time() + DELAY_SECONDS, bytes(data)))
                pending += data
                while len(pending) >= skip + _FRAME_HEADER_BYTES:
                    pending, skip = pending[skip:], 0
                    length = int.from_bytes(pending[:3], "big")
                    self.calls += pending[3] == _HEADERS_FRAME
                    skip = _FRAME_HEADER_BYTES + length
