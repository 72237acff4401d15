"""One process that `tools/bench_deadlines.py` measures: a worker, or stock DSPy with timeouts.

`bench_deadlines_subject.py worker|asyncify|asyncify_trio|to_thread '{"lm": …, "lm_args": …, "max_trials": N}'`. It says
`{"ready": PORT}` on standard output. A worker then answers each line of standard input with what it holds: threads,
threads that run a program, sockets, bytes of memory. Stock DSPy does what it is there for once, says so, and ends.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
import threading
import time
from functools import partial
from pathlib import Path
from types import FrameType
from typing import Any, Final

import anyio
import dspy
import trio
from bench_deadlines_programs import QUESTION, Sleep
from bench_subject import answer_lines, say

import dspex_trio as dspex

HANGING: Final = 8
# How long a next call of 10 ms may take, in seconds; with a provider that never answers it could take for ever.
NEXT_CALL_WITHIN: Final = 2.0


def census() -> dict[str, Any]:
    """What the process holds now."""
    return {
        "threads": threading.active_count(),
        "busy_threads": busy_threads(),
        "sockets": sockets(),
        "rss_bytes": resident_bytes(),
    }


def busy_threads() -> int:
    """Threads other than this one that have a DSPy module on their stack."""
    found = 0
    for ident, top in sys._current_frames().items():  # noqa: SLF001 - the documented way to see a stack
        frame: FrameType | None = top
        while frame is not None and f"{os.sep}dspy{os.sep}" not in frame.f_code.co_filename:
            frame = frame.f_back
        found += frame is not None and ident != threading.get_ident()
    return found


def sockets() -> int | None:
    """Open sockets; None where there is no /proc to see them in."""
    descriptors = Path("/proc/self/fd")
    if not descriptors.exists():
        return None
    found = 0
    for each in list(descriptors.iterdir()):
        try:
            found += str(each.readlink()).startswith("socket:")
        except OSError:  # the descriptor that lists them
            continue
    return found


def resident_bytes() -> int | None:
    """Memory that is resident; None where there is no /proc."""
    pages = Path("/proc/self/statm")
    return int(pages.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") if pages.exists() else None


async def run_worker(options: dict[str, Any]) -> None:
    """A worker, served over loopback; the parent is its client."""
    settings = dspex.Settings.load_from({**options, "load": ["bench_deadlines_programs"], "port": 0, "max_queue": 1000})

    async def count(_asked: dict[str, Any]) -> dict[str, Any]:  # noqa: ASYNC124 - as answer_lines wants it
        return census()

    async with trio.open_nursery() as nursery:
        listeners = await nursery.start(partial(dspex.serve, settings))
        say({"ready": listeners[0].socket.getsockname()[1]})
        await answer_lines(count)
        nursery.cancel_scope.cancel()


async def run_stock(way: str, options: dict[str, Any]) -> None:
    """Calls that hang until their timeout, as an asynchronous program makes them; then one that takes 10 ms.

    anyio's timeouts are, on asyncio, what `asyncio.timeout` is.
    """
    dspy.configure_cache(enable_disk_cache=False)
    dspy.configure(lm=dspy.LM(options["lm"], cache=False, **options["lm_args"]))

    async def call(module: dspy.Module) -> None:
        if way == "to_thread":
            await asyncio.to_thread(module, question="?")
        else:
            await dspy.asyncify(module)(question="?")

    lateness: list[float] = []

    async def hang() -> None:
        deadline = time.monotonic() + options["deadline"]
        try:
            with anyio.fail_after(options["deadline"]):
                await call(dspy.Predict(QUESTION))
        except TimeoutError:
            lateness.append((time.monotonic() - deadline) * 1e3)

    await call(Sleep())
    before = census()
    async with anyio.create_task_group() as group:
        for _ in range(HANGING):
            group.start_soon(hang)
    after = census()
    began, next_call_ms = time.monotonic(), None
    with anyio.move_on_after(NEXT_CALL_WITHIN):
        await call(Sleep())
        next_call_ms = (time.monotonic() - began) * 1e3
    left = {"before": before, "after": after}
    say({"lateness_ms": lateness, **left, "next_call_ms": next_call_ms, "waited_ms": NEXT_CALL_WITHIN * 1e3})
    os._exit(0)  # its threads are still there, and the interpreter would wait for them


def main() -> None:
    """Be the subject that the arguments name."""
    way, options = sys.argv[1], json.loads(sys.argv[2])
    os.environ.setdefault("LITELLM_LOCAL_MODEL_COST_MAP", "True")  # no price list from the network
    if way == "worker":
        trio.run(run_worker, options)
    else:
        say({"ready": 0})
        anyio.run(run_stock, way, options, backend="trio" if way == "asyncify_trio" else "asyncio")


if __name__ == "__main__":
    main()
