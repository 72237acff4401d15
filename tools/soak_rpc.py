"""Soak the RPC server: `just soak-rpc [--calls N] [--seed N]`.

A third of the calls is answered, a third is cancelled, a third runs into its deadline; some of the connections are cut
while calls run on them, and a part of the calls goes over raw connections whose frames are looked at: once a stream's
deadline has passed, nothing may be written to it but one RST_STREAM. In the end every handler has ended and the server
holds no more than in the beginning. Linux only.
"""

from __future__ import annotations

import argparse
import random
import secrets
import socket
import struct
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Final

import trio
from google.protobuf.wrappers_pb2 import BytesValue
from hostile_peer import (
    ACK,
    DATA,
    HEADERS,
    PING,
    PREFACE,
    RST_STREAM,
    Requests,
    Stub,
    connect,
    frame,
    frames,
    message,
    settings_frame,
    stub,
    subject,
    window_frame,
)

from dspex_trio import rpc

CLIENTS: Final = 8
AT_ONCE: Final = 8  # calls of one client
CALLS_EACH: Final = 400  # before a client hangs up, or is cut off, and another takes its place
RAW_CALLS: Final = 40  # of one raw connection, at once
RAW_ROUNDS: Final = 20
WARM_UP: Final = 2000
CUT: Final = 0.3  # of the connections
LONGEST: Final = 0.05  # seconds until a call is cancelled or its deadline comes
PATIENCE: Final = 60.0
MAX_GROWTH: Final = 16 * 2**20
KINDS: Final = ("answered", "cancelled", "too late")


@dataclass(slots=True)
class Soak:
    """What is still to do, and what has become of it."""

    rng: random.Random
    left: int
    ends: Counter[str] = field(default_factory=Counter)
    wrong: list[str] = field(default_factory=list)

    def take(self, most: int) -> Iterator[str]:
        """So many calls of the ones that are left, by turns of the three kinds."""
        for _ in range(most):
            if self.left <= 0:
                return
            self.left -= 1
            yield KINDS[self.left % len(KINDS)]


async def one_call(good: Stub, kind: str, soak: Soak, alarms: trio.Nursery) -> None:
    """Make a call and note how it ended; every other one is a stream."""
    moment = soak.rng.uniform(0.001, LONGEST)
    streaming = soak.rng.random() < 0.5  # noqa: PLR2004
    scope = trio.CancelScope()
    try:
        if kind == "answered":
            await _answered(good, streaming=streaming)
        elif kind == "cancelled":
            alarms.start_soon(_cancel_after, scope, moment)
            with scope:
                await _for_ever(good, streaming=streaming)
        else:
            with trio.fail_after(moment):
                await _for_ever(good, streaming=streaming)
        soak.ends[kind] += 1
    except trio.TooSlowError:
        soak.ends[kind] += 1
    except rpc.RpcError as error:
        if kind == "too late" and error.status is rpc.StatusCode.DEADLINE_EXCEEDED:
            soak.ends[kind] += 1
        elif error.status is rpc.StatusCode.UNAVAILABLE:
            soak.ends["cut off"] += 1
        else:
            soak.wrong.append(f"a call that should have been {kind} ended with {error}")


async def _cancel_after(scope: trio.CancelScope, moment: float) -> None:
    """Not a deadline of the scope's: that would travel to the server."""
    await trio.sleep(moment)
    scope.cancel()


async def _answered(good: Stub, *, streaming: bool) -> None:
    if not streaming:
        await good.echo(BytesValue(value=b"soak"))
        return
    async with good.watch(BytesValue(value=b"5 1000")) as replies:
        async for _ in replies:
            pass


async def _for_ever(good: Stub, *, streaming: bool) -> None:
    if not streaming:
        await good.sleep(BytesValue())
        return
    async with good.chat() as call:
        await call.send(BytesValue(value=b"soak"))
        async for _ in call:
            pass


async def client(port: int, soak: Soak) -> None:
    """Make calls on one channel after the other until none are left; some connections are cut in the midst of it."""
    while soak.left > 0:
        todo = enumerate(soak.take(CALLS_EACH))
        cut_at = soak.rng.randrange(CALLS_EACH) if soak.rng.random() < CUT else None
        streams: list[trio.SocketStream] = []

        async def link(streams: list[trio.SocketStream] = streams) -> trio.abc.Stream:
            streams.append(await connect(port))
            return streams[-1]

        async with rpc.open_channel(link) as channel, trio.open_nursery() as alarms:
            good = Stub(channel)

            async def work(
                good: Stub = good,
                alarms: trio.Nursery = alarms,
                todo: Iterator[tuple[int, str]] = todo,
                cut_at: int | None = cut_at,
                streams: list[trio.SocketStream] = streams,
            ) -> None:
                for number, kind in todo:
                    if number == cut_at and streams:
                        await _cut(streams[-1])
                    await one_call(good, kind, soak, alarms)

            async with trio.open_nursery() as workers:
                for _ in range(AT_ONCE):
                    workers.start_soon(work)


async def _cut(stream: trio.SocketStream) -> None:
    """A RST instead of a FIN, whatever is under way."""
    with suppress(OSError, trio.ClosedResourceError):
        stream.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    await trio.aclose_forcefully(stream)


async def watch_deadlines(port: int, soak: Soak) -> None:
    """Make raw calls whose deadlines pass, and see that nothing but one status is written to their streams then.

    No clock of another process is trusted: a PING behind the requests comes back when the server has read them, so that
    their deadlines have passed a timeout later; and what comes behind the answer to a PING that is sent then was
    written after them.
    """
    requests = Requests()
    opening = PREFACE + settings_frame((4, 2**20)) + window_frame(0, 2**30)
    async with await connect(port) as stream:
        await stream.send_all(opening)
        reader = Reader(stream)
        for first in range(1, 2 * RAW_CALLS * RAW_ROUNDS, 2 * RAW_CALLS):
            calls = range(first, first + 2 * len(list(soak.take(RAW_CALLS))), 2)
            timeout = soak.rng.randrange(1, int(LONGEST * 1000))
            methods = {i: soak.rng.choice(("Sleep", "Watch", "Chat", "Collect")) for i in calls}
            sent = b"".join(_raw_call(requests, i, method, timeout) for i, method in methods.items())
            await stream.send_all(sent + frame(PING, b"received"))
            await reader.until_pong(b"received")
            await trio.sleep(timeout / 1000)
            await stream.send_all(frame(PING, b"too late"))
            await reader.until_pong(b"too late")
            before = len(reader.seen)
            # All that a server which does not keep deadlines would do meanwhile is let out by these windows.
            await stream.send_all(window_frame(0, 2**20) + frame(PING, b"and now?"))
            await reader.until_pong(b"and now?")
            after = [(kind, i) for kind, i in reader.seen[before:] if i in methods]
            late = Counter(i for kind, i in after if kind not in {HEADERS, RST_STREAM})
            late += Counter({i: n - 1 for i, n in Counter(i for kind, i in after if kind == HEADERS).items()})
            resets = Counter(i for kind, i in reader.seen if i in methods and kind == RST_STREAM)
            soak.wrong += [f"{count} frames after the deadline of a {methods[i]}" for i, count in late.items()]
            soak.wrong += [f"{count} resets of a {methods[i]}" for i, count in resets.items() if count > 1]
            soak.ends["too late, frames watched"] += len(methods)
            if soak.left <= 0:
                return


def _raw_call(requests: Requests, stream: int, method: str, timeout: int) -> bytes:
    extra = [("grpc-timeout", f"{timeout}m")]
    if method == "Sleep":
        return requests.call(stream, method, extra=extra)
    if method == "Watch":
        return requests.call(stream, method, b"100000 1000", extra)
    return requests.begin(stream, method, extra) + frame(DATA, message(b"soak"), stream=stream)


class Reader:
    """The frames of a raw connection as they come."""

    def __init__(self, stream: trio.SocketStream) -> None:
        self._stream = stream
        self._rest = b""
        self.seen: list[tuple[int, int]] = []  # type and stream

    async def until_pong(self, data: bytes) -> None:
        """Read until a PING is answered; raises RuntimeError when the server ends the connection instead."""
        while True:
            received = await self._stream.receive_some(65_536)
            if not received:
                raise RuntimeError("the server ended a connection that did nothing wrong")
            found, self._rest = frames(self._rest + received)
            self.seen += [(kind, stream) for kind, _, stream, _ in found]
            if any(kind == PING and flags & ACK and payload == data for kind, flags, _, payload in found):
                return


async def soak(calls: int, seed: int) -> list[str]:
    """Make so many calls; returns what was wrong."""
    print(f"seed {seed}, {calls} calls")
    work = Soak(random.Random(seed), calls)  # noqa: S311 - no secret
    warm = Soak(random.Random(seed), min(calls, WARM_UP))  # noqa: S311 - as above
    async with subject() as port, stub(port) as good:
        await crowd(port, warm)
        before = await good.settled()
        print("before:", before)
        begun = time.perf_counter()
        await crowd(port, work)
        took = time.perf_counter() - begun
        after = await good.settled(PATIENCE)
        print("after: ", after)
        print(f"{after.begun - before.begun} handlers ran and ended, {calls / took:.0f} calls/s:", dict(work.ends))
    if sum(work.ends.values()) + len(work.wrong) < calls:
        work.wrong.append(f"only {sum(work.ends.values())} of {calls} calls are accounted for")
    work.wrong += [
        f"{name}: {getattr(before, name)} before, {getattr(after, name)} after"
        for name, slack in (("running", 0), ("tasks", 0), ("fds", 0), ("errors", 0), ("rss", MAX_GROWTH))
        if getattr(after, name) > getattr(before, name) + slack
    ]
    return work.wrong


async def crowd(port: int, work: Soak) -> None:
    """All clients at once, until the work is done."""
    async with trio.open_nursery() as nursery:
        for _ in range(CLIENTS):
            nursery.start_soon(client, port, work)
        nursery.start_soon(keep_watching, port, work)


async def keep_watching(port: int, work: Soak) -> None:
    """One raw connection after the other, until the work is done."""
    while work.left > 0:
        await watch_deadlines(port, work)


def main() -> None:
    """Read the arguments, run, and fail if anything was wrong."""
    parser = argparse.ArgumentParser(description="Soak the RPC server with calls that end badly.")
    parser.add_argument("--calls", type=int, default=50_000, help="default: %(default)s")
    parser.add_argument("--seed", type=int, default=secrets.randbelow(2**31), help="default: another one each time")
    asked = parser.parse_args()
    wrong = trio.run(soak, asked.calls, asked.seed)
    for line in wrong[:20]:
        print("FAILED:", line)
    if wrong:
        sys.exit(1)
    print("ok")


if __name__ == "__main__":
    main()
