"""Fuzz every decoder: `just fuzz-decoders [--seconds N] [--seed N] [--replay INDEX]`.

Valid messages, values and texts are mutated with their structure in mind and given to the decoder that reads them.
It may raise its own error and nothing else, must be done in time and memory in proportion to the input, and what it
made must go out again through the encoders, which never fail. A case is a pure function of the seed and its index.
"""

from __future__ import annotations

import argparse
import random
import resource
import secrets
import sys
import time
import traceback
from collections import Counter
from typing import Final

from fuzz_decoders_mutate import mutated
from fuzz_decoders_targets import TARGETS, Target, hostile

# CPU seconds that a case may take: for itself, and for each MiB of input. It is decoded, checked against every type and
# sent out again several times over, on a machine that may be busy.
BASE_SECONDS: Final = 0.5
SECONDS_PER_MIB: Final = 16.0
# Memory that a case may take, for itself and per byte of input: `{},` is three bytes, and 72 as a dict in a list.
BASE_BYTES: Final = 64 * 2**20
BYTES_PER_BYTE: Final = 128
REPORT_EVERY: Final = 30.0
MAX_FAILURES: Final = 20


def make_case(seed: int, index: int) -> tuple[Target, bytes]:
    """The decoder and the input of a case."""
    rng = random.Random(f"{seed}:{index}")  # noqa: S311 - it is to be the same each time
    target = rng.choice(TARGETS)
    return target, mutated(rng, rng.choice(target.seeds), target.seeds)


def problem_of(target: Target, raw: bytes) -> str | None:
    """What is wrong with how a decoder takes an input."""
    began, peak = time.process_time(), _peak()
    try:
        target.run(raw)
    except target.errors:
        pass
    except Exception:  # noqa: BLE001 - that is what is looked for
        return traceback.format_exc()
    spent, grown = time.process_time() - began, _peak() - peak
    if spent > BASE_SECONDS + SECONDS_PER_MIB * len(raw) / 2**20:
        return f"took {spent:.2f} s of CPU for {len(raw)} bytes"
    if grown > BASE_BYTES + BYTES_PER_BYTE * len(raw):
        return f"took {grown / 2**20:.0f} MiB for {len(raw)} bytes"
    return None


def _peak() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def fuzz(seed: int, seconds: float) -> list[str]:
    """Run what is known to be hostile, and then cases until the time is over; returns what was wrong."""
    wrong: list[str] = []
    for name, target, raw in hostile():
        if problem := problem_of(target, raw):
            wrong.append(f"{target.name}, {name}: {problem}")
    print(f"seed {seed}, {len(TARGETS)} decoders; hostile inputs done", flush=True)
    began = reported = time.monotonic()
    index, runs = 0, Counter[str]()
    while (now := time.monotonic()) < began + seconds and len(wrong) < MAX_FAILURES:
        for index in range(index, index + 100):  # noqa: B020 - it goes on where it was
            target, raw = make_case(seed, index)
            runs[target.name] += 1
            if problem := problem_of(target, raw):
                wrong.append(f"{target.name}: {problem}\n  --seed {seed} --replay {index}")
        index += 1
        if now > reported + REPORT_EVERY:
            reported = now
            print(f"{now - began:6.0f} s  {index} cases, {len(wrong)} failures", flush=True)
    print(f"{index} cases: {', '.join(f'{name} {count}' for name, count in sorted(runs.items()))}")
    return wrong


def replay(seed: int, index: int) -> list[str]:
    """Run one case and show it."""
    target, raw = make_case(seed, index)
    print(f"{target.name} gets {len(raw)} bytes: {raw[:2000]!r}")
    problem = problem_of(target, raw)
    return [] if problem is None else [f"{target.name}: {problem}"]


def main() -> None:
    """Read the arguments, run, and fail if anything was wrong."""
    parser = argparse.ArgumentParser(description="Fuzz every decoder with mutations of what it reads.")
    parser.add_argument("--seconds", type=float, default=600.0, help="default: %(default)s")
    parser.add_argument("--seed", type=int, default=secrets.randbelow(2**31), help="default: another one each time")
    parser.add_argument("--replay", type=int, metavar="INDEX", help="run one case of the seed and show it")
    asked = parser.parse_args()
    wrong = fuzz(asked.seed, asked.seconds) if asked.replay is None else replay(asked.seed, asked.replay)
    for line in wrong:
        print("FAILED:", line)
    if wrong:
        sys.exit(1)
    print("ok")


if __name__ == "__main__":
    main()
