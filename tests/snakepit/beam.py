"""A BEAM to be killed: a pool in a process of its own. Prints the workers' process ids, and what they started."""

import json
import sys
import tempfile
import threading
from pathlib import Path

from ..sessions.peer import generate  # noqa: TID252 - tests are no package
from .pool import Pool
from .pool_worker import outcome
from .waiting import wait_until


def main():
    directory = Path(tempfile.mkdtemp())
    pool = Pool(generate(directory), directory, arguments=["--load", "pool_programs", "--grace-seconds", "0.2"])
    idle, busy, stuck = workers = [pool.start(wait=False) for _ in range(3)]
    for worker in workers:
        worker.wait_until_ready()
        worker.connect()
    _, left = outcome(busy.trial("LeavesAProcess", {"question": ""}))
    running = [stuck.trial("Burns", {"what": "python", "seconds": 300}), busy.trial("Sleeps", {"question": ""})]
    wait_until(lambda: all(worker.execute("worker_status")["running"] for worker in (stuck, busy)))
    pids = [idle.pid, busy.pid, stuck.pid, left["prediction"]["answer"]]
    sys.stdout.write(json.dumps(pids) + "\n")
    sys.stdout.flush()
    threading.Event().wait(120)
    return len(running)


if __name__ == "__main__":
    sys.exit(main())
