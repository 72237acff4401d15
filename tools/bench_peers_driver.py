"""One system under `tools/bench_peers.py`: `bench_peers_driver.py NAME SLOTS SECONDS WATCH`, in its own environment.

Says `{"ready": 0}` once a good call has succeeded in every slot. Answers each line of standard input: `{"hang": [N, …],
"recover": true}` makes those calls, as many at once as there are slots, and with `recover` then good ones until one
succeeds; `{"good": N}` makes N good calls at once. SECONDS is every caller's time-out; nothing is awaited longer than
WATCH seconds after it. Times are on the machine's monotonic clock.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
import time
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from typing import Any, Final, TextIO

import bench_peers_calls
from bench_peers_calls import Call

WARM_UP_SECONDS: Final = 45.0
PAUSE_SECONDS: Final = 0.005
GOOD: Final = "trial 0 answers"


class Driver:
    """Makes calls to one system.

    Args:
        call: How.
        slots: How many at once.
        seconds: Each caller's time-out.
        watch: Nothing is awaited for so many seconds longer.
    """

    def __init__(self, call: Call, slots: int, seconds: float, watch: float) -> None:
        self._call = call
        self._slots = slots
        self._seconds = seconds
        self._watch = watch

    async def warm_up(self) -> None:
        """Good calls until one has succeeded in every slot."""
        end = time.monotonic() + WARM_UP_SECONDS
        while (outcomes := await asyncio.gather(*(self._ask(GOOD) for _ in range(self._slots)))) != (
            ["success"] * self._slots
        ):
            if time.monotonic() > end:
                raise RuntimeError(f"good calls end as {outcomes}")
            await asyncio.sleep(PAUSE_SECONDS)

    async def hang(self, trials: list[int], *, recover: bool) -> list[dict[str, Any]]:
        """Calls that the provider never answers."""
        left = list(reversed(trials))
        samples: list[dict[str, Any]] = []

        async def lane() -> None:
            while left:
                trial, began = left.pop(), time.monotonic()
                outcome = await self._ask(f"trial {trial} hangs")
                told = None if outcome == "never" else time.monotonic()
                usable = await self._recovered(began + self._seconds + self._watch) if recover else None
                samples.append({"trial": trial, "began": began, "told": told, "outcome": outcome, "usable": usable})

        await asyncio.gather(*(lane() for _ in range(self._slots)))
        return samples

    async def good(self, count: int) -> int:
        """How many of so many good calls at once succeed."""
        outcomes = await asyncio.gather(*(self._ask(GOOD) for _ in range(count)))
        return outcomes.count("success")

    async def _recovered(self, end: float) -> float | None:
        while time.monotonic() < end:
            if await self._ask(GOOD) == "success":
                return time.monotonic()
            await asyncio.sleep(PAUSE_SECONDS)
        return None

    async def _ask(self, question: str) -> str:
        try:
            return await asyncio.wait_for(self._call(question, self._seconds), self._seconds + self._watch)
        except TimeoutError:
            return "never"


def own_stdout() -> TextIO:
    """Standard output for the answers alone: whatever else writes there goes to standard error."""
    own = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    return own


async def main(name: str, slots: int, seconds: float, watch: float, out: TextIO) -> None:
    """Serve until standard input ends."""

    def say(what: dict[str, Any]) -> None:
        print(json.dumps(what), file=out, flush=True)

    opened: Callable[[int, float], AbstractAsyncContextManager[Call]] = getattr(bench_peers_calls, name)
    reader = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    async with opened(slots, seconds) as call:
        driver = Driver(call, slots, seconds, watch)
        await driver.warm_up()
        say({"ready": 0})
        while line := await reader.readline():
            asked = json.loads(line)
            if "good" in asked:
                say({"succeeded": await driver.good(asked["good"])})
            else:
                say({"samples": await driver.hang(asked["hang"], recover=asked["recover"])})


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], int(sys.argv[2]), float(sys.argv[3]), float(sys.argv[4]), own_stdout()))
