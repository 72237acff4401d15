"""What `just bench-rpc` measures: batches of calls, in rounds that go through every server in turn."""

from __future__ import annotations

import json
import random
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Protocol, TypeVar

from bench_rpc_grpcio import GrpcioClient
from bench_rpc_raw import ConnectionLost, RawClient
from bench_rpc_shapes import SHAPES, Shape

SERVER: Final = Path(__file__).with_name("bench_rpc_server.py")
# On each new connection, before what counts; and once for each server and shape, so that all code has been run.
WARM_UP: Final = 16
FIRST_CALLS: Final = 64
STOP_SECONDS: Final = 10


class Client(Protocol):
    """One connection that makes calls of one shape."""

    def batch(self, calls: int, at_once: int) -> list[float]:
        """Make so many calls, so many at once; returns the seconds that each took that went well."""
        ...

    def close(self) -> None:
        """Hang up."""
        ...


CLIENTS: Final[dict[str, Callable[[int, Shape], Client]]] = {"raw": RawClient, "grpcio": GrpcioClient}


@dataclass(frozen=True, slots=True)
class Effort:
    """How much.

    Attributes:
        rounds: How many, but no further one that would not end within
        seconds: after the first began.
        calls: Of those that a shape asks for, as a share.
        at_once: How many calls at once, in turn.
    """

    rounds: int
    seconds: float
    calls: float = 1.0
    at_once: tuple[int, ...] = (1, 16, 128)


@dataclass(frozen=True, slots=True)
class Case:
    """What is compared: calls of one shape from one kind of client, so many at once."""

    client: str
    shape: Shape
    at_once: int


@dataclass(frozen=True, slots=True)
class Batch:
    """What a batch took: CPU of the server's process and time on the wall in seconds, each call's latency in µs.

    `calls` went well. The others failed or were never answered, as happens with servers that lose streams; a batch
    whose connection was lost has no calls at all and says why.
    """

    calls: int
    failed: int
    cpu_s: float
    wall_s: float
    latency_us: tuple[int, ...]
    lost: str | None = None

    @property
    def cpu_us(self) -> float:
        """CPU of the server's process for each call that went well."""
        return self.cpu_s / self.calls * 1e6


Samples = dict[Case, dict[str, list[Batch]]]
Pipe = TypeVar("Pipe")


class Server:
    """A server's process, asked over its pipes."""

    def __init__(self, name: str, process: subprocess.Popen[str]) -> None:
        self.name = name
        self._process = process
        self.port = int(self._answer()["port"])

    def cpu_s(self) -> float:
        """User and system time of its process until now."""
        stdin = _piped(self._process.stdin)
        stdin.write("\n")
        stdin.flush()
        return self._answer()["cpu_s"]

    def _answer(self) -> dict[str, float]:
        line = _piped(self._process.stdout).readline()
        if not line:
            raise RuntimeError(f"the server {self.name} ended before its time")
        found: dict[str, float] = json.loads(line)
        return found


def _piped(pipe: Pipe | None) -> Pipe:
    if pipe is None:
        raise RuntimeError("a server is started with pipes")
    return pipe


@contextmanager
def serving(name: str) -> Iterator[Server]:
    """A server that listens, in a process that ends with the block."""
    command = [sys.executable, str(SERVER), name]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        try:
            yield Server(name, process)
        finally:
            _piped(process.stdin).close()  # which ends it
            try:
                process.wait(STOP_SECONDS)
            except subprocess.TimeoutExpired:
                process.kill()


def cases(clients: Sequence[str], at_once: Sequence[int]) -> list[Case]:
    """Every case."""
    return [Case(client, shape, number) for client in clients for shape in SHAPES for number in at_once]


def measure(
    servers: Sequence[str], clients: Sequence[str], effort: Effort, seed: int, tell: Callable[[str], None]
) -> Samples:
    """Rounds through all cases, and in each through all servers, in an order that the seed draws anew every time."""
    order = random.Random(seed)  # noqa: S311 - no secret
    found: Samples = {case: {name: [] for name in servers} for case in cases(clients, effort.at_once)}
    with ExitStack() as stack:
        running = [stack.enter_context(serving(name)) for name in servers]
        tell("warming up")
        warm_up(running, clients, max(int(FIRST_CALLS * effort.calls), 1))
        began = time.perf_counter()
        longest = 0.0
        for number in range(effort.rounds):
            start = time.perf_counter()
            if start - began + longest > effort.seconds:
                break
            tell(f"round {number + 1} of {effort.rounds}")
            for case, batches in found.items():
                for server in order.sample(running, len(running)):
                    batches[server.name].append(run_batch(server, case, effort.calls))
            longest = max(longest, time.perf_counter() - start)
    return found


def warm_up(servers: Sequence[Server], clients: Sequence[str], calls: int) -> None:
    """Calls of every shape that do not count."""
    for server in servers:
        for shape in SHAPES:
            with closing(CLIENTS[clients[0]](server.port, shape)) as client:
                client.batch(calls, WARM_UP)


def run_batch(server: Server, case: Case, share: float) -> Batch:
    """One batch on a new connection, whose making does not count."""
    calls = case.shape.batch(case.at_once, share)
    try:
        with closing(CLIENTS[case.client](server.port, case.shape)) as client:
            client.batch(WARM_UP, case.at_once)
            cpu, began = server.cpu_s(), time.perf_counter()
            latencies = client.batch(calls, case.at_once)
            wall, used = time.perf_counter() - began, server.cpu_s() - cpu
    except ConnectionLost as error:
        return Batch(0, calls, 0.0, 0.0, (), str(error))
    good = len(latencies)
    return Batch(good, calls - good, used, wall, tuple(round(each * 1e6) for each in latencies))
