"""The client of `tools/bench_load.py`: stock grpcio, in a process of its own, in closed loops.

`bench_load_client.py SPECIFICATION`, as `Load` has it in JSON; prints one line of JSON: the samples of each group.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import sys
import time
from dataclasses import asdict, dataclass, field
from typing import Any, Final

import grpc.aio

from dspex_trio.model import TrialOptions, TrialRequest
from dspex_trio.wire import encode_request, program_from_json
from dspex_trio.wire.generated.program_pb2 import ExecuteProgramRequest, ExecuteProgramResponse, FailureKind

_PATH: Final = "/snakepit.bridge.SnakepitBridge/ExecuteProgram"
_OPTIONS: Final = (
    ("grpc.use_local_subchannel_pool", 1),
    ("grpc.enable_http_proxy", 0),
    ("grpc.max_receive_message_length", -1),
)
# So many calls to a connection: the server refuses more than a thousand.
_CALLS_PER_CHANNEL: Final = 800
# Clients that have not heard of their last calls so long after the deadline, in seconds, never will.
_PATIENCE: Final = 5.0


@dataclass(frozen=True, slots=True)
class Group:
    """Lanes that do the same.

    Attributes:
        name: For people.
        lanes: Calls at once.
        deadline: Of each call, in seconds.
        spread: So much later than the first lane's is that of the last one.
        hang_every: Every so many calls is one that the provider never answers; 0 for none, 1 for all.
        program: In its JSON form.
        once: Whether each lane makes one call only, which is given up at the end.
        first: Seconds by which it begins before the next group.
        first_trial: Number of its first trial; the provider knows trials by these.
    """

    name: str
    lanes: int
    deadline: float
    hang_every: int
    program: dict[str, Any]
    once: bool = False
    first: float = 0.0
    spread: float = 0.0
    first_trial: int = 0


@dataclass(frozen=True, slots=True)
class Load:
    """What a client does.

    Attributes:
        port: Where the worker listens on loopback.
        seconds: After so long no call is begun.
        groups: In the order in which they begin.
    """

    port: int
    seconds: float
    groups: list[Group] = field(default_factory=list)

    def to_json(self) -> str:
        """As the client's argument."""
        return json.dumps(asdict(self))


@dataclass(slots=True)
class Sample:
    """One call: times in seconds, on the machine's monotonic clock.

    Attributes:
        trial: Its number.
        hangs: Whether the provider never answers.
        began: When it was made.
        deadline: When the caller stops waiting.
        ended: When it ended; None for one that was given up.
        outcome: "success", the kind of a failure, or a bare status.
    """

    trial: int
    hangs: bool
    began: float
    deadline: float
    ended: float | None
    outcome: str


async def run_group(group: Group, load: Load, end: float) -> list[Sample]:
    """The calls of a group."""
    samples: list[Sample] = []
    numbers = itertools.count(group.first_trial)
    template = encode_request(TrialRequest(program_from_json(group.program), {}, options=TrialOptions(no_cache=True)))
    target = f"127.0.0.1:{load.port}"
    channels = [
        grpc.aio.insecure_channel(target, options=_OPTIONS) for _ in range(-(-group.lanes // _CALLS_PER_CHANNEL))
    ]
    calls = itertools.cycle([channel.unary_unary(_PATH) for channel in channels])

    async def one(timeout: float) -> None:  # noqa: ASYNC109 - grpcio's own
        trial = next(numbers)
        hangs = bool(group.hang_every) and trial % group.hang_every == 0
        request = ExecuteProgramRequest()
        request.CopyFrom(template)
        request.trial_id = str(trial)
        question = f"trial {trial} {'hangs' if hangs else 'answers'}"
        request.inputs["question"].CopyFrom(encode_request(_asking(question)).inputs["question"])
        data = request.SerializeToString()
        began = time.monotonic()
        sample = Sample(trial, hangs, began, began + timeout, None, "given up")
        samples.append(sample)
        try:
            reply = await next(calls)(data, timeout=timeout)
            sample.ended = time.monotonic()
            sample.outcome = _outcome(reply)
        except grpc.aio.AioRpcError as error:
            sample.ended = time.monotonic()
            sample.outcome = f"status {error.code().name}"

    async def lane(number: int) -> None:
        timeout = group.deadline + group.spread * number / group.lanes
        await one(timeout)
        while not group.once and time.monotonic() < end:
            await one(timeout)

    lanes = [asyncio.create_task(lane(number)) for number in range(group.lanes)]
    if group.once:
        await asyncio.sleep(max(end - time.monotonic(), 0))
    else:
        await asyncio.wait(lanes, timeout=max(end - time.monotonic(), 0) + group.deadline + _PATIENCE)
    for each in lanes:
        each.cancel()
    for result in await asyncio.gather(*lanes, return_exceptions=True):
        if isinstance(result, Exception):
            raise result
    for channel in channels:
        await channel.close()
    return samples


def _asking(question: str) -> TrialRequest:
    return TrialRequest(program_from_json({"python_class": "dspy.Predict"}), {"question": question})


def _outcome(reply: bytes) -> str:
    response = ExecuteProgramResponse.FromString(reply)
    if response.HasField("success"):
        return "success"
    return str(FailureKind.Name(response.failure.kind)).removeprefix("FAILURE_KIND_")


async def main(load: Load) -> None:
    """Run all groups, and print what they saw."""
    end = time.monotonic() + load.seconds + sum(group.first for group in load.groups)
    running = []
    for group in load.groups:
        running.append(asyncio.create_task(run_group(group, load, end)))
        await asyncio.sleep(group.first)
    found = {
        group.name: [asdict(sample) for sample in await task] for group, task in zip(load.groups, running, strict=True)
    }
    print(json.dumps(found), flush=True)


if __name__ == "__main__":
    asked = json.loads(sys.argv[1])
    asyncio.run(main(Load(asked["port"], asked["seconds"], [Group(**group) for group in asked["groups"]])))
