"""One process that `tools/bench.py` measures: it runs trials its own way and reports the CPU time that they took.

`bench_subject.py bare|runtime|server '{"lm": …, "lm_args": …, "store": …}'`. It says `{"ready": …}` on standard
output, then answers every line of standard input: `{"trials": N, "at_once": M, "variables": V}` runs a batch (bare and
runtime), `{}` only reports. Every answer holds `cpu_s`, the process's CPU time until now, and for a batch its `wall_s`.
"""

from __future__ import annotations

import json
import os
import sys
import threading
import time
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any, Final

import dspy
import trio
from dspy.clients import model_metadata
from dspy.utils import DummyLM

import dspex_trio as dspex

CONTEXT: Final = (
    "Mount Kilimanjaro is the highest mountain in Africa. It rises 5,895 metres above sea level in Tanzania, close to "
    "the border with Kenya. Hans Meyer and Ludwig Purtscheller were the first to reach its summit, in 1889."
)
INPUTS: Final = {"context": CONTEXT, "question": "How high is Mount Kilimanjaro?"}
SIGNATURE: Final = "context, question -> answer"
DUMMY_ANSWER: Final = {"[[ ## question": {"reasoning": "It says so.", "answer": "5,895 metres"}}
VARIABLES: Final[dict[str, tuple[str, Any]]] = {
    # Parameter → the variable's type and value: what there is to set on a ChainOfThought for OpenAI.
    "temperature": ("float", 0.2),
    "max_tokens": ("integer", 400),
    "top_p": ("float", 0.9),
    "presence_penalty": ("float", 0.1),
    "frequency_penalty": ("float", 0.1),
    "seed": ("integer", 7),
    "stop": ("list", ["@@"]),
    "instructions": ("string", "Answer the question from the context."),
}
PATHS: Final = (*VARIABLES, *(f"predict.{name}" for name in VARIABLES))


def program(variables: int, *, endless: bool = False) -> dict[str, Any]:
    """The program under test with so many bound variables, in its JSON form."""
    if endless:
        return {"python_class": "bench.Endless"}
    bound = {path: path.replace(".", "_") for path in PATHS[:variables]}
    return {"python_class": "dspy.ChainOfThought", "signature": SIGNATURE, "config_space": bound}


WIDE: Final = 32


def reading(variables: int) -> dict[str, Any]:
    """A program that does nothing, bound to so many variables."""
    return {"python_class": "bench.Wide", "config_space": {f"p{i}": f"v{i}" for i in range(variables)}}


@dspex.register("bench.Wide")
class Wide(dspy.Module):  # type: ignore[misc] # mypy does not look into dspy
    """Has something to set, and does nothing."""

    def __init__(self) -> None:
        super().__init__()
        for number in range(WIDE):
            setattr(self, f"p{number}", 0.0)

    def forward(self) -> dict[str, Any]:
        """Return at once."""
        return {}


@dspex.register("bench.Endless")
class Endless(dspy.Module):  # type: ignore[misc] # mypy does not look into dspy
    """Waits for what never comes, as a program does whose provider hangs."""

    def forward(self, **_inputs: Any) -> None:
        """Wait."""
        threading.Event().wait()


def language_model(options: dict[str, Any]) -> dspy.BaseLM:
    """What a bare call and a worker ask alike; without a name, the model that makes no request at all."""
    if options["lm"] is None:
        return DummyLM(DUMMY_ANSWER)
    if options.get("listed"):
        # As a paid model is. For one that is not on its list DSPy walks all of it, at every call.
        prices = {"input_cost_per_token": 1.5e-07, "output_cost_per_token": 6e-07, "litellm_provider": "openai"}
        os.environ.setdefault("LITELLM_LOCAL_MODEL_COST_MAP", "True")
        model_metadata._load()[options["lm"]] = prices  # noqa: SLF001 - there is no public way to name a price
    return dspy.LM(options["lm"], cache=False, **options["lm_args"])


def say(answer: dict[str, Any]) -> None:
    """One line to the parent."""
    sys.stdout.write(json.dumps(answer) + "\n")
    sys.stdout.flush()


def run_bare(options: dict[str, Any]) -> None:
    """DSPy as a script uses it: one program, called again and again."""
    os.environ.setdefault("LITELLM_LOCAL_MODEL_COST_MAP", "True")  # as a worker does: no price list from the network
    dspy.configure_cache(enable_disk_cache=False)
    lm = language_model(options)
    module = dspy.ChainOfThought(SIGNATURE)

    def call(_number: int) -> None:
        with dspy.context(lm=lm, trace=[]):
            module(**INPUTS)

    say({"ready": 0})
    for line in sys.stdin:
        batch = json.loads(line)
        began = time.perf_counter()
        if batch.get("at_once", 1) == 1:
            for number in range(batch.get("trials", 0)):
                call(number)
        else:
            with ThreadPoolExecutor(batch["at_once"]) as pool:
                list(pool.map(call, range(batch["trials"])))
        say({"cpu_s": time.process_time(), "wall_s": time.perf_counter() - began})


async def run_runtime(options: dict[str, Any]) -> None:
    """A runtime embedded in a Trio program."""
    settings = dspex.Settings.load_from({"store": options["store"], "max_trials": 8})
    async with dspex.open_runtime(settings, lm=language_model(options)) as runtime:

        async def batch(asked: dict[str, Any]) -> dict[str, Any]:
            one = partial(
                runtime.run_trial,
                program(asked["variables"]),
                INPUTS,
                session="bench",
                options=dspex.TrialOptions(no_cache=True),
            )
            return {"wall_s": await repeat(one, asked["trials"], asked["at_once"])}

        say({"ready": 0})
        await answer_lines(batch)


async def run_server(options: dict[str, Any]) -> None:
    """A worker, served over loopback; the parent is its client."""
    record = {"record": options["record"]} if "record" in options else {}
    settings = dspex.Settings.load_from({"store": options["store"], "max_trials": 8, "port": 0, **record})
    async with trio.open_nursery() as nursery:
        serve = partial(dspex.serve, settings, lm=language_model(options))
        listeners = await nursery.start(serve)
        say({"ready": listeners[0].socket.getsockname()[1]})
        await answer_lines(None)
        nursery.cancel_scope.cancel()


async def answer_lines(batch: Callable[[dict[str, Any]], Awaitable[dict[str, Any]]] | None) -> None:
    """Answer the parent until it closes the pipe."""
    stdin = trio.lowlevel.FdStream(0)
    pending = b""
    async for data in stdin:
        *lines, pending = (pending + data).split(b"\n")
        for line in lines:
            asked = json.loads(line)
            answer = await batch(asked) if batch is not None and asked else {}
            say({**answer, "cpu_s": time.process_time()})


async def repeat(one: Callable[[], Awaitable[dspex.TrialOutcome]], times: int, at_once: int) -> float:
    """Run `one` so often, so many at once; returns the seconds it took. Raises RuntimeError for a trial that failed."""
    left = times

    async def lane() -> None:
        nonlocal left
        while left > 0:
            left -= 1
            match await one():
                case dspex.TrialFailure() as failure:
                    raise RuntimeError(f"a trial of the benchmark failed: {failure}")

    began = time.perf_counter()
    async with trio.open_nursery() as nursery:
        for _ in range(at_once):
            nursery.start_soon(lane)
    return time.perf_counter() - began


def main() -> None:
    """Be the subject that the arguments name."""
    way, options = sys.argv[1], json.loads(sys.argv[2])
    match way:
        case "bare":
            run_bare(options)
        case "runtime":
            trio.run(run_runtime, options)
        case "server":
            trio.run(run_server, options)
        case other:
            sys.exit(f"there is no way {other!r}")


if __name__ == "__main__":
    main()
