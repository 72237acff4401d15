"""Measure how fast time passes in the test kit: `just bench-kit [--latency SECONDS] [--rounds N]`.

The demo's trials, one after another, through a whole system in memory in virtual time. Their model is the demo's own,
and takes as long for each call as real ones do. Prints what every round took in virtual and in real time, and exits
non-zero when a trial came to anything but what the demo's file expects of it.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Mapping, Sequence
from functools import partial
from statistics import median
from typing import Any, Final

import trio

import dspex_trio as dspex
from dspex_trio.demo import completions
from dspex_trio.demo.results import ClientCancelled, Result
from dspex_trio.demo.run import TRIAL_SECONDS, register
from dspex_trio.demo.trials import DEFAULT_FILE, Trial, read_trials
from dspex_trio.runtime.client import Client
from dspex_trio.testing import Answer, Asked, Script, ScriptedLM, VirtualClock, system
from dspex_trio.testing.scripted.replies import Reply

GOAL: Final = 200
"""Virtual seconds in a real one."""
# When a client that goes away does so, after its program has asked its model.
LEAVES_AFTER: Final = 1.0


class DemoScript(Script):
    """The demo's model, which thinks for a while.

    Args:
        latency: Seconds to every reply, beside those that a prompt asks to think.
    """

    def __init__(self, latency: float) -> None:
        super().__init__(default="")
        self._latency = latency

    def ask(self, messages: Sequence[Mapping[str, Any]], **how: Any) -> tuple[Asked, Reply]:
        """Answer from the prompt."""
        asked, _ = super().ask(messages, **how)
        body = {"model": completions.MODEL, "messages": messages, **asked.arguments}
        understood = completions.understand(json.dumps(body).encode())
        said = completions.replies(understood)[0]
        return asked, Answer(text=said.text, delay=self._latency + understood.delay)


async def run_trials(latency: float) -> list[Result]:
    """Run each of the demo's trials."""
    file = read_trials(DEFAULT_FILE)
    settings = dspex.Settings(load=("dspex_trio.demo.programs",))
    async with system(lm=ScriptedLM(script=DemoScript(latency)), settings=settings) as one:
        await register(one.client, file)
        return [await executed(one.client, trial) for trial in file.trials]


async def executed(client: Client, trial: Trial) -> Result:
    """Run a trial as its line says, be it by going away."""
    began = trio.current_time()
    outcome: Any = ClientCancelled()
    async with trio.open_nursery() as nursery:
        if trial.client_cancels:
            nursery.start_soon(leave, nursery.cancel_scope)
        outcome = await client.execute(
            trial.program,
            trial.inputs,
            session_id=trial.session,
            trial_id=trial.id,
            timeout=trial.timeout or TRIAL_SECONDS,
        )
    return Result(trial, outcome, (trio.current_time() - began) * 1e3)


async def leave(scope: trio.CancelScope) -> None:
    """Go away; a timeout of the scope itself would be the trial's deadline."""
    await trio.sleep(LEAVES_AFTER)
    scope.cancel()


def main(argv: Sequence[str] | None = None) -> int:
    """Measure, and say whether all went as expected."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--latency", type=float, default=3.0, help="seconds that the model takes for a call")
    parser.add_argument("--rounds", type=int, default=5, help="how often to run the trials; the first is not counted")
    arguments = parser.parse_args(argv)
    ratios = []
    for number in range(arguments.rounds):
        clock = VirtualClock()
        began, cpu = time.perf_counter(), time.process_time()
        results = trio.run(partial(run_trials, arguments.latency), clock=clock, instruments=[clock])
        real, cpu = time.perf_counter() - began, time.process_time() - cpu
        for result in results:
            if not result.as_expected:
                print(f"{result.trial.id}: {result.outcome}")
                return 1
        virtual = sum(result.latency_ms for result in results) / 1e3
        ratios.append(virtual / real)
        print(
            f"{len(results)} trials, all as expected: {virtual:.0f} virtual seconds in {real:.2f} "
            f"({cpu:.2f} of CPU): {virtual / real:.0f} in one{'; not counted' if number == 0 else ''}"
        )
    counted = ratios[1:] or ratios
    print(f"median {median(counted):.0f} virtual seconds in a real one (goal {GOAL})")
    return 0


if __name__ == "__main__":
    sys.exit(main())
