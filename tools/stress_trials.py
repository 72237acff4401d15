"""Throw whole trials of all kinds at one runtime, end a third of them at random times, and look for anything stray.

Run as `python tools/stress_trials.py [--trials 100000] [--at-once 16] [--seed 1]`. Prints what was counted as JSON and
exits non-zero if a trial that nobody ended got anything but its own answer, or if threads, sockets or memory were left
behind. Ten minutes or more; no part of the tests.
"""

from __future__ import annotations

import argparse
import gc
import json
import random
import sys
import time
from collections import Counter
from collections.abc import Callable
from typing import Any, ClassVar, Final

import dspy
import requests
import trio
from bench_deadlines_subject import busy_threads, resident_bytes, sockets
from dspy.utils import DummyLM

import dspex_trio as dspex
from dspex_trio.selftest.silent import ANSWERING, SilentProvider

dice: Final = random.Random()  # noqa: S311 - for chance, not for secrets
FOR_EVER: Final = float("inf")
# What the pools of requests and of DSPy's engine keep open at both ends, and what the allocator keeps for later.
POOLED: Final = 80
GROWTH: Final = 64e6


class Upper(dspy.Module):  # type: ignore[misc] # mypy does not look into dspy
    """For dspy.Parallel."""

    def forward(self, word: str) -> str:
        """Compute a little."""
        json.dumps([word] * dice.randrange(2000))
        return word.upper()


@dspex.register("stress.Mixed")
class Mixed(dspy.Module):  # type: ignore[misc] # as above
    """One of several kinds of work, which ends by itself within milliseconds and gives the word back."""

    url: ClassVar[str] = ""
    session: ClassVar[requests.Session] = requests.Session()

    def __init__(self) -> None:
        super().__init__()
        self.ask = dspy.Predict("question -> answer")

    def forward(self, kind: str, word: str) -> dspy.Prediction:
        """Work."""
        return dspy.Prediction(answer=KINDS[kind](self, word))


def _ask(program: Mixed, word: str) -> str:
    return word if program.ask(question=word).answer == "yes" else "another's"


def _ask_dummy(program: Mixed, word: str) -> str:
    with dspy.context(lm=DummyLM([{"answer": word}])):
        answer: str = program.ask(question=word).answer
    return answer


def _compute(_program: Mixed, word: str) -> str:
    for n in range(dice.randrange(10, 3000)):
        try:
            json.loads(json.dumps({"n": n}))
        except Exception:  # noqa: BLE001 - what keeps every Exception must not keep an interrupt
            return "kept"
    return word


def _request(program: Mixed, word: str) -> str:
    asked = {"model": ANSWERING.partition("/")[2], "messages": []}
    return word if program.session.post(program.url, json=asked, timeout=60).ok else "another's"


def _sleep(_program: Mixed, word: str) -> str:
    time.sleep(dice.uniform(0, 0.02))
    return word


def _parallel(_program: Mixed, word: str) -> str:
    words = [f"{word} {n}" for n in range(3)]
    found = dspy.Parallel(num_threads=2, disable_progress_bar=True)([(Upper(), {"word": each}) for each in words])
    return word if found == [each.upper() for each in words] else f"another's {found}"


KINDS: Final[dict[str, Callable[[Mixed, str], str]]] = {
    "ask": _ask,
    "ask dummy": _ask_dummy,
    "compute": _compute,
    "request": _request,
    "sleep": _sleep,
    "parallel": _parallel,
}


async def one(runtime: dspex.Runtime, number: int, seen: Counter[str]) -> None:
    """One trial; a third end at their deadline or because their caller goes away."""
    kind, word, fate = dice.choice(list(KINDS)), f"w{number}", dice.randrange(6)
    program, inputs = {"python_class": "stress.Mixed"}, {"kind": kind, "word": word}
    answered = False
    with trio.move_on_after(dice.uniform(0.02, 0.15) if fate == 0 else FOR_EVER):
        async with trio.open_nursery() as caller:
            if fate == 1:
                caller.start_soon(_leave, caller)
            outcome = await runtime.run_trial(program, inputs, options=dspex.TrialOptions(no_cache=True))
            answered = True
            seen[_about(outcome, word, in_a_hurry=fate == 0)] += 1
            caller.cancel_scope.cancel()
    if not answered:
        seen[
            "its caller went away" if fate == 1 else "too late for its caller" if fate == 0 else "STRAY: cancelled"
        ] += 1


async def _leave(caller: trio.Nursery) -> None:
    await trio.sleep(dice.uniform(0, 0.06))
    caller.cancel_scope.cancel()


def _about(outcome: dspex.TrialOutcome, word: str, *, in_a_hurry: bool) -> str:
    match outcome:
        case dspex.TrialSuccess():
            answer = outcome.prediction["answer"]
            return "success" if answer == word else f"STRAY: {word} got {answer!r}"
        case dspex.TrialFailure():
            if in_a_hurry and outcome.kind is dspex.FailureKind.DEADLINE_EXCEEDED:
                return f"deadline: {outcome.details.get('rung', outcome.stage.name)}"
            if in_a_hurry and outcome.kind is dspex.FailureKind.OVERLOADED:
                return "no slot in time"
            return f"STRAY: {outcome.kind.name} in {outcome.stage.name}: {outcome.error_message}"


async def main(arguments: argparse.Namespace) -> dict[str, Any]:
    """All of them, and what is left after them."""
    dice.seed(arguments.seed)
    seen = Counter[str]()
    async with trio.open_nursery() as nursery:
        port = await nursery.start(SilentProvider().serve)
        Mixed.url = f"http://127.0.0.1:{port}/v1/chat/completions"
        settings = dspex.Settings(
            lm=ANSWERING,
            lm_args={"api_base": f"http://127.0.0.1:{port}/v1", "api_key": "none"},
            max_trials=arguments.at_once,
            max_queue=4 * arguments.at_once,
        )
        async with dspex.open_runtime(settings) as runtime:

            async def lane(number: int) -> None:
                for each in range(number, arguments.trials, arguments.at_once):
                    await one(runtime, each, seen)

            async def lanes(numbers: range) -> None:
                async with trio.open_nursery() as inner:
                    for number in numbers:
                        inner.start_soon(lane, number)

            for number in range(100):
                await one(runtime, number, seen)
            before = holds()
            await lanes(range(arguments.at_once))
            with trio.move_on_after(10):
                while busy_threads():  # noqa: ASYNC110 - threads that were abandoned tell nobody when they end
                    await trio.sleep(0.05)
            began = trio.current_time()
            await one_that_sleeps(runtime, seen)
            next_ms = (trio.current_time() - began) * 1e3
            gc.collect()
            after = holds()
        nursery.cancel_scope.cancel()
    stray = {what: count for what, count in seen.items() if what.startswith("STRAY")}
    return {
        "seen": dict(seen.most_common()),
        "stray": stray,
        "before": before,
        "after": after,
        "next trial, ms": next_ms,
    }


async def one_that_sleeps(runtime: dspex.Runtime, seen: Counter[str]) -> None:
    """The next trial, which nobody ends."""
    inputs = {"kind": "sleep", "word": "next"}
    seen[_about(await runtime.run_trial({"python_class": "stress.Mixed"}, inputs), "next", in_a_hurry=False)] += 1


def holds() -> dict[str, Any]:
    """What the process holds."""
    return {"busy threads": busy_threads(), "sockets": sockets(), "bytes": resident_bytes()}


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--trials", type=int, default=100_000)
    parser.add_argument("--at-once", type=int, default=16)
    parser.add_argument("--seed", type=int, default=1)
    began = time.perf_counter()
    found = trio.run(main, parser.parse_args())
    found["seconds"] = round(time.perf_counter() - began, 1)
    print(json.dumps(found, indent=2))
    left = found["after"]["busy threads"] > 0
    left |= (found["after"]["sockets"] or 0) > (found["before"]["sockets"] or 0) + POOLED
    left |= (found["after"]["bytes"] or 0) > (found["before"]["bytes"] or 0) + GROWTH
    sys.exit(1 if found["stray"] or left else 0)
