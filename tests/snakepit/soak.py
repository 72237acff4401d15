"""Soak a pool of snakepit workers: thousands of trials, heartbeats through computing trials, crashes, ends.

`just soak-snakepit`. The pool is the tests', with snakepit's own intervals. It prints what it saw, and exits with 1
where a worker missed a heartbeat, an outcome was not the one expected, or something was left.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import grpc

from ..sessions.peer import generate  # noqa: TID252 - tests are no package
from . import pool_programs
from .generations import V013, V04
from .pool import Pool
from .pool_worker import Worker, outcome
from .waiting import alive, wait_until_gone

ROOT = Path(__file__).parents[2]

KINDS: dict[str, dict[str, Any]] = {
    "success": {"program_spec": {"python_class": "Echo"}, "inputs": {"question": "x"}},
    "PROGRAM_ERROR": {"program_spec": {"python_class": "Raises"}, "inputs": {"question": "x"}},
    "DEADLINE_EXCEEDED": {"program_spec": {"python_class": "Sleeps"}, "inputs": {"question": "x"}, "timeout_ms": 80},
    "CLASS_NOT_FOUND": {"program_spec": {"python_class": "Ecko"}},
    "IMPORT_NOT_ALLOWED": {"program_spec": {"python_class": "os.path"}},
    "INVALID_SPEC": {"program_spec": {"python_class": ""}},
    "INVALID_INPUT": {"program_spec": {"python_class": "Echo"}, "inputs": {"questoin": "x"}},
}
QUICK_SECONDS = 0.02


def say(*words: object) -> None:
    sys.stdout.write(" ".join(map(str, words)) + "\n")
    sys.stdout.flush()


def main() -> int:
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--generation", choices=["0.13", "0.4"], default="0.13")
    arguments.add_argument("--workers", type=int, default=2)
    arguments.add_argument("--calls", type=int, default=4000, help="trials of every outcome, over all workers")
    arguments.add_argument("--seconds", type=float, default=60.0, help="time of computing trials, over all kinds")
    given = arguments.parse_args()
    directory = Path(tempfile.mkdtemp(prefix="soak-snakepit-"))
    generation = V013 if given.generation == "0.13" else V04
    pool = Pool(generate(directory), directory, generation, arguments=["--load", "pool_programs"])
    try:
        problems = soak(pool, given.workers, given.calls, given.seconds)
    finally:
        pool.stop()
    problems += beam_killed()
    for problem in problems:
        say("PROBLEM:", problem)
    say("ok" if not problems else f"{len(problems)} problems")
    return 1 if problems else 0


def soak(pool: Pool, count: int, calls: int, seconds: float) -> list[str]:
    workers = [pool.start() for _ in range(count)]
    problems: list[str] = []
    say(f"{pool.generation.name}: {count} workers, heartbeats every {pool.interval:.0f} s, one missed kills")

    began = time.monotonic()
    seen: Counter[str] = Counter()
    each(workers, lambda worker: outcomes(worker, calls // count, seen, problems))
    took = time.monotonic() - began
    say(f"{seen.total()} trials in {took:.1f} s ({seen.total() / took:.0f}/s): {dict(sorted(seen.items()))}")

    lateness: dict[str, list[float]] = {what: [] for what in sorted(pool_programs.BURNERS)}
    share = seconds / len(lateness)
    for what, found in lateness.items():
        each(workers, lambda worker, what=what, found=found: burn(worker, what, share, found, problems))
        found.sort()
        p99 = found[int(len(found) * 0.99)]
        say(
            f"heartbeats beside a trial that computes ({what}): {len(found)}, "
            f"median {statistics.median(found) * 1e3:.1f}, p99 {p99 * 1e3:.0f}, worst {found[-1] * 1e3:.0f} ms"
        )

    seen_exit = 9 if pool.generation is V013 else 0  # that of setsid
    for worker in list(workers):
        future = worker.trial("Crashes", {"question": ""})
        if worker.wait() != seen_exit or future.exception() is None:
            problems.append("a crash was not seen")
        workers[workers.index(worker)] = pool.start()
    say(f"{count} workers crashed and were replaced")

    slowest = max(worker.heartbeats.slowest for worker in pool.workers)
    answered = sum(worker.heartbeats.answered for worker in pool.workers)
    problems += [worker.heartbeats.missed for worker in workers if worker.heartbeats.missed]
    say(f"the pool's own heartbeats: {answered}, slowest {slowest * 1e3:.0f} ms")
    began = time.monotonic()
    codes = [worker.stop() for worker in workers]
    say(f"SIGTERM: exit codes {codes} after {time.monotonic() - began:.1f} s")
    problems += [f"exit code {code}" for code in codes if code]
    if pool.generation is V013:
        problems += telemetry(pool.workers)
    problems += [f"process {worker.pid} is left" for worker in pool.workers if alive(worker.pid)]
    return problems


def telemetry(workers: list[Worker]) -> list[str]:
    """A stream lasts for five seconds, in which another worker may just be starting."""
    events = [len(worker.telemetry) for worker in workers]
    ends = [worker.telemetry_ended for worker in workers]
    say(f"telemetry: {events} events, then {[end.name for end in ends]}")
    orderly = any(events) and set(ends) == {grpc.StatusCode.OK}
    return [] if orderly else ["the telemetry streams did not go as they should"]


def each(workers: list[Worker], do: Callable[[Worker], None]) -> None:
    threads = [threading.Thread(target=do, args=(worker,)) for worker in workers]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def outcomes(worker: Worker, calls: int, seen: Counter[str], problems: list[str]) -> None:
    for number in range(calls):
        wanted = list(KINDS)[number % len(KINDS)]
        found = worker.execute("execute_program", {**KINDS[wanted], "trial_id": str(number)})
        [(kind, told)] = found.items()
        kind = told.get("kind", kind).removeprefix("FAILURE_KIND_")
        seen[kind] += 1
        if kind != wanted or told["trial_id"] != str(number):
            problems.append(f"{wanted} was {json.dumps(told)[:300]}")


def burn(worker: Worker, what: str, seconds: float, found: list[float], problems: list[str]) -> None:
    """Heartbeats one after the other, beside the pool's own, while a trial computes."""
    request = worker.pool.generated.pb2.HeartbeatRequest(session_id=worker.session_id)
    future = worker.trial("Burns", {"what": what, "seconds": seconds}, timeout=seconds + 60)
    while not future.done():
        began = time.monotonic()
        worker.stub.Heartbeat(request, timeout=30)
        found.append(time.monotonic() - began)
        time.sleep(QUICK_SECONDS)
    if outcome(future)[0] != "success":
        problems.append(f"a trial that computes ({what}) did not succeed")


def beam_killed() -> list[str]:
    """A SIGKILL for a process that holds three workers, two of them busy."""
    beam = subprocess.Popen([sys.executable, "-m", "tests.snakepit.beam"], cwd=ROOT, stdout=subprocess.PIPE, text=True)
    assert beam.stdout is not None
    with beam.stdout:
        pids = json.loads(beam.stdout.readline())
    beam.kill()
    beam.wait()
    began = time.monotonic()
    try:
        wait_until_gone(pids)
    except AssertionError:
        return [f"after kill -9 of the BEAM: {[pid for pid in pids if alive(pid)]} are left"]
    say(
        f"kill -9 of the BEAM: its workers, and what they had started, were gone after {time.monotonic() - began:.1f} s"
    )
    return []


if __name__ == "__main__":
    sys.exit(main())
