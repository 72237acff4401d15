"""Fuzz the RPC server: `just fuzz-rpc [--count N] [--seed N] [--replay INDEX] [--record]`.

Recorded connections of real clients (fuzz_corpus.json) are mutated and sent to a server in a process of its own. The
server has to end each of those connections when its client does, log no error, serve a well-behaved client between
batches, and hold no more in the end than it did after the first batch. Runs on Linux: it looks into /proc.
"""

from __future__ import annotations

import argparse
import json
import secrets
import socket
import struct
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import trio
from fuzz_mutate import Case, make_case
from google.protobuf.wrappers_pb2 import BytesValue
from hostile_peer import Stats, Stub, connect, drained, frames, stub, subject

CORPUS: Final = Path(__file__).with_name("fuzz_corpus.json")
BATCH: Final = 5000
AT_ONCE: Final = 16
PATIENCE: Final = 20.0  # for the server to end a connection that its client has ended
# What the process may grow by after the first batch: allocators keep some, and caches fill.
MAX_GROWTH: Final = 16 * 2**20


async def send(port: int, case: Case, index: int) -> tuple[bytes, bool]:
    """Be one client; returns what it got, and whether the server ended the connection in time."""
    source = f"127.0.{index // 250 % 250}.{index % 250 + 1}"
    received, ended = b"", False
    async with await connect(port, source) as stream:
        try:
            for piece in case.pieces:
                await stream.send_all(piece)
            if case.abort:
                stream.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                return b"", True
            await stream.send_eof()
        except (trio.BrokenResourceError, OSError):
            pass  # it was thrown out while it was talking
        with trio.move_on_after(PATIENCE):
            received = await drained(stream)
            ended = True
    return received, ended


async def run_batch(port: int, seed: int, indices: range, corpus: Sequence[bytes]) -> list[int]:
    """Send cases, some at once; returns the indices of those whose connection was not ended."""
    todo = iter(indices)
    hung: list[int] = []

    async def client() -> None:
        for index in todo:
            _, ended = await send(port, make_case(seed, index, corpus), index)
            if not ended:
                hung.append(index)

    async with trio.open_nursery() as nursery:
        for _ in range(AT_ONCE):
            nursery.start_soon(client)
    return hung


async def still_serves(good: Stub) -> Stats:
    """A call on a connection that lives through all of it; then wait until the server has come to rest."""
    with trio.fail_after(PATIENCE):
        reply = await good.echo(BytesValue(value=b"still there?"))
    if reply.value != b"still there?":
        raise RuntimeError("the server gave a wrong answer")
    return await good.settled()


async def fuzz(seed: int, count: int, corpus: Sequence[bytes]) -> list[str]:
    """Send so many cases; returns what was wrong."""
    wrong: list[str] = []
    print(f"seed {seed}, {count} connections, {len(corpus)} recordings")
    async with subject() as port, stub(port) as good:
        first = before = await still_serves(good)
        print(f"       0  {before}")
        for start in range(0, count, BATCH):
            indices = range(start, min(start + BATCH, count))
            begun = time.perf_counter()
            hung = await run_batch(port, seed, indices, corpus)
            rate = len(indices) / (time.perf_counter() - begun)
            wrong += [f"connection {index} was not ended: --seed {seed} --replay {index}" for index in hung]
            stats = await still_serves(good)
            print(f"{indices.stop:8}  {stats}, {rate:.0f} connections/s", flush=True)
            if stats.errors > before.errors:
                wrong.append(f"{stats.errors - before.errors} errors logged in connections {start} to {indices.stop}")
            if start == 0:
                first = stats
            before = stats
        wrong += [
            f"{name}: {getattr(first, name)} after the first batch, {getattr(before, name)} in the end"
            for name, slack in (("running", 0), ("tasks", 0), ("fds", 0), ("rss", MAX_GROWTH))
            if getattr(before, name) > getattr(first, name) + slack
        ]
    return wrong


async def replay(seed: int, index: int, corpus: Sequence[bytes]) -> list[str]:
    """Send one case and show both sides of it."""
    case = make_case(seed, index, corpus)
    async with subject() as port, stub(port) as good:
        received, ended = await send(port, case, index)
        stats = await good.settled()
    for piece in case.pieces:
        print("sent    ", piece.hex())
    print("ended by", "RST" if case.abort else "FIN")
    found, rest = frames(received)
    for kind, flags, stream, payload in found:
        print(f"received type {kind} flags {flags:#x} stream {stream} {payload[:80]!r}")
    if rest:
        print("received", rest.hex())
    print(stats)
    return [] if ended and not stats.errors else ["the case fails"]


def main() -> None:
    """Read the arguments, run, and fail if anything was wrong."""
    parser = argparse.ArgumentParser(description="Fuzz the RPC server with mutated recordings of real connections.")
    parser.add_argument("--count", type=int, default=100_000, help="connections (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=secrets.randbelow(2**31), help="default: another one each time")
    parser.add_argument("--replay", type=int, metavar="INDEX", help="send one case of the seed and show what happens")
    parser.add_argument("--record", action="store_true", help="record the corpus anew")
    asked = parser.parse_args()
    if asked.record:
        from fuzz_record import record  # noqa: PLC0415 - needs grpcio

        recorded = {name: data.hex() for name, data in trio.run(record).items()}
        CORPUS.write_text(json.dumps(recorded, indent=1) + "\n", encoding="ascii")
        print(f"{len(recorded)} connections recorded")
        return
    corpus = [bytes.fromhex(text) for text in json.loads(CORPUS.read_text(encoding="ascii")).values()]
    if asked.replay is not None:
        wrong = trio.run(replay, asked.seed, asked.replay, corpus)
    else:
        wrong = trio.run(fuzz, asked.seed, asked.count, corpus)
    for line in wrong:
        print("FAILED:", line)
    if wrong:
        sys.exit(1)
    print("ok")


if __name__ == "__main__":
    main()
