"""Programs that do not end."""

from __future__ import annotations

import asyncio
import queue
import select
import socket
import subprocess
import sys
import threading
import time
from contextlib import suppress
from typing import Any, ClassVar, Final, NoReturn

import dspy
import trio

from dspex_trio.testing.faults.misbehaving.base import Misbehaving

# Longer than any trial, in seconds.
LONG: Final = 3600.0


class Sleeps(Misbehaving):
    """Sleeps for an hour. It is woken at its deadline, by the step `wake`."""

    def forward(self, question: str = "") -> NoReturn:
        """Sleep."""
        time.sleep(LONG)
        raise AssertionError(question)


class WaitsForQueue(Misbehaving):
    """Waits for what nobody puts into a queue. It is woken, by `wake`; so is what waits for events and conditions."""

    def forward(self, question: str = "") -> str:
        """Wait."""
        return queue.Queue[str]().get() + question


class ReadsSocket(Misbehaving):
    """Reads a socket to which nobody writes. The socket is shut down, by `wake`."""

    def forward(self, question: str = "") -> str:
        """Read."""
        near, far = socket.socketpair()
        with near, far:
            return near.recv(1).decode() + question


class RunsAsyncio(Misbehaving):
    """Runs an event loop that sleeps. Its tasks are cancelled, and the loop ends, by `wake`."""

    def forward(self, question: str = "") -> NoReturn:
        """Run it."""
        asyncio.run(asyncio.sleep(LONG))
        raise AssertionError(question)


class RunsTrio(Misbehaving):
    """Runs Trio, which sleeps. It is cancelled from inside, and the loop ends, by `wake`."""

    def forward(self, question: str = "") -> NoReturn:
        """Run it."""
        trio.run(trio.sleep, LONG)
        raise AssertionError(question)


class RunsProcess(Misbehaving):
    """Waits for a process that sleeps. The process is killed, by `wake`."""

    def forward(self, question: str = "") -> NoReturn:
        """Run it."""
        subprocess.run([sys.executable, "-c", f"import time; time.sleep({LONG})"], check=True)  # noqa: S603 - a constant
        raise AssertionError(question)


class ReadsPipe(Misbehaving):
    """Reads what a process prints that prints nothing. The process is killed, by `wake`."""

    def forward(self, question: str = "") -> list[str]:
        """Read."""
        command = [sys.executable, "-c", f"import time; time.sleep({LONG})"]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:  # noqa: S603 - a constant
            assert process.stdout is not None  # noqa: S101 - it was asked for
            return [question, *process.stdout]


class WaitsBriefly(Misbehaving):
    """Asks again and again, and waits a millisecond each time. One of its waits is refused, by `wake` or `check`."""

    def forward(self, question: str = "") -> NoReturn:
        """Ask."""
        while True:
            select.select([], [], [], 0.001)
            len(question)


class WaitsForLock(Misbehaving):
    """Waits for a lock that somebody else has. The caller is answered; thread and slot stay until the lock is free.

    Hold `WaitsForLock.lock` around the trial.
    """

    lock: ClassVar[threading.Lock] = threading.Lock()

    def forward(self, question: str = "") -> dict[str, str]:
        """Wait."""
        with self.lock:
            return {"answer": question}


class Loops(Misbehaving):
    """Computes without end. The caller is answered, then an exception is raised in its thread, by the step `raise`."""

    def forward(self, question: str = "") -> NoReturn:
        """Compute."""
        while True:
            len(question)


class KeepsEveryException(Misbehaving):
    """Computes without end, and keeps whatever is an Exception. What `raise` raises is none."""

    def forward(self, question: str = "") -> NoReturn:
        """Compute."""
        while True:
            with suppress(Exception):
                len(question)


class AsksForEver(Misbehaving):
    """Asks its model for ever, and keeps whatever is an Exception. Calls are refused from the deadline on, by `check`.

    One that is under way is ended, by `wake`.
    """

    def __init__(self) -> None:
        super().__init__()
        self.ask = dspy.Predict("question -> answer")

    def forward(self, question: str = "") -> NoReturn:
        """Ask."""
        while True:
            with suppress(Exception):
                self.ask(question=question)


class KeepsEverything(Misbehaving):
    """Sleeps, and keeps even what ends it, a few times. The caller is answered; it is told to end again and again.

    Args:
        times: How often it goes on.
    """

    def __init__(self, times: int = 3) -> None:
        super().__init__()
        self.times = times

    def forward(self, question: str = "") -> dict[str, str]:
        """Sleep, and go on."""
        for _ in range(self.times):
            try:
                time.sleep(LONG)
            except BaseException:  # noqa: ASYNC103, BLE001, S112 - that is what it is about
                continue  # noqa: ASYNC104 - as above
        return {"answer": question}


class LoopsInParallel(Misbehaving):
    """Has `dspy.Parallel` run two loops without end. An exception is raised in each of its threads, by `raise`."""

    def forward(self, question: str = "") -> list[Any]:
        """Run them."""
        pairs = [(KeepsEveryException(), {"question": question})] * 2
        found: list[Any] = dspy.Parallel(num_threads=2, disable_progress_bar=True)(pairs)
        return found


class StartsThread(Misbehaving):
    """Leaves behind a thread that waits. A worker cannot know of it: the trial succeeds, and `no_leaks` finds it.

    It ends when `StartsThread.stop` is set.
    """

    stop: ClassVar[threading.Event] = threading.Event()

    def forward(self, question: str = "") -> dict[str, str]:
        """Start it."""
        threading.Thread(target=self.stop.wait, name="left behind by a program", daemon=True).start()
        return {"answer": question}


class SleepsInConstructor(Misbehaving):
    """Sleeps for an hour before it is made. It is woken at its deadline, in the stage HYDRATE."""

    def __init__(self) -> None:
        super().__init__()
        time.sleep(LONG)
