"""Which job a blocking call belongs to, and where a thread's waits are not to be broken."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from dspex_trio.threads.ladder.job import Job, current_job


class _Exempt(threading.local):
    """How deep the calling thread is inside of waits that are left alone, of event loops of its own, of processes."""

    waits = 0
    loops = 0
    processes = 0


exempt: Final = _Exempt()


def gated_job() -> Job | None:
    """The job of which the calling thread's next wait is a part; None if the wait is not to be touched."""
    if (job := current_job()) is None or exempt.waits:
        return None
    return job


def waits_are_left_alone() -> bool:
    """Whether the calling thread is inside `left_alone`."""
    return exempt.waits > 0


@contextmanager
def left_alone() -> Iterator[None]:
    """What the calling thread waits for in here is not ended with its job, nor refused after its end.

    For what must be finished, as giving back what was rented, and for connections that are the process's.
    """
    exempt.waits += 1
    try:
        yield
    finally:
        exempt.waits -= 1
