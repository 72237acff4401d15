"""Programs of `tools/bench_load.py`, which its worker loads; and bare DSPy in threads, as a process of its own.

`bench_load_programs.py PORT THREADS SECONDS`: prints one line of JSON, the seconds that each call took and the CPU.
"""

from __future__ import annotations

import json
import os
import sys
import threading
import time
from typing import Any, Final

import dspy

import dspex_trio as dspex

QUESTION: Final = "question -> answer"
CPU_SECONDS: Final = 0.02
HELD_SECONDS: Final = 3.0
_PROBE: Final = 2_000_000


@dspex.register("bench.Cpu")
class Cpu(dspy.Module):  # type: ignore[misc] # mypy does not look into dspy
    """Takes 20 ms of CPU."""

    def forward(self, question: str) -> dspy.Prediction:
        """Compute."""
        end = time.thread_time() + CPU_SECONDS
        while time.thread_time() < end:
            sum(range(1000))
        return dspy.Prediction(answer=question)


@dspex.register("bench.Burner")
class Burner(dspy.Module):  # type: ignore[misc] # as above
    """Computes in Python without end."""

    def forward(self, question: str) -> dspy.Prediction:
        """Compute until the trial is ended."""
        while True:
            question = question[1:] + question[:1]


@dspex.register("bench.Holder")
class Holder(dspy.Module):  # type: ignore[misc] # as above
    """Waits for three seconds, then makes one call into C that keeps the interpreter for as long."""

    def forward(self, question: str) -> dspy.Prediction:
        """Hold the GIL."""
        time.sleep(HELD_SECONDS)
        began = time.thread_time()
        sum(range(_PROBE))
        count = int(_PROBE * HELD_SECONDS / (time.thread_time() - began))
        return dspy.Prediction(answer=f"{question} {sum(range(count))}")


def bare(port: int, threads: int, seconds: float) -> dict[str, Any]:
    """Calls of bare DSPy, in so many threads."""
    dspy.configure_cache(enable_disk_cache=False, enable_memory_cache=False)
    dspy.configure(lm=dspy.LM("openai/load", api_base=f"http://127.0.0.1:{port}/v1", api_key="bench", cache=False))
    dspy.Predict(QUESTION)(question="trial 0 answers")
    taken: list[float] = []
    end = time.monotonic() + seconds

    def lane() -> None:
        while (began := time.monotonic()) < end:
            dspy.Predict(QUESTION)(question="trial 0 answers")
            taken.append(time.monotonic() - began)

    cpu = time.process_time()
    lanes = [threading.Thread(target=lane) for _ in range(threads)]
    for each in lanes:
        each.start()
    for each in lanes:
        each.join()
    return {"seconds": taken, "cpu_s": time.process_time() - cpu}


if __name__ == "__main__":
    os.environ.setdefault("LITELLM_LOCAL_MODEL_COST_MAP", "True")  # no price list from the network
    sys.stdout.write(json.dumps(bare(int(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3]))) + "\n")
