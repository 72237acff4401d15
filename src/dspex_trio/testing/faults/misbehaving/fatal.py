"""Programs for child processes alone (`isolation="process"`): they would take the worker with them."""

from __future__ import annotations

import ctypes
import os
import re
import signal
from typing import NoReturn

from dspex_trio.testing.faults.misbehaving.base import Misbehaving


class HangsInC(Misbehaving):
    """Computes in C code that keeps every other thread from running. Its process is killed, by the step `kill`."""

    def forward(self, question: str = "") -> NoReturn:
        """Compute."""
        re.match("(a+)+b", "a" * 64)
        raise AssertionError(question)


class EndsProcess(Misbehaving):
    """Calls `os._exit`. The child process is replaced, and the trial is WORKER_LOST."""

    def forward(self, question: str = "") -> NoReturn:
        """End it."""
        del question
        os._exit(7)


class Crashes(Misbehaving):
    """Reads at address 0. The child process is replaced, and the trial is WORKER_LOST."""

    def forward(self, question: str = "") -> NoReturn:
        """Crash."""
        ctypes.string_at(0)
        raise AssertionError(question)


class KillsProcess(Misbehaving):
    """Kills its own process. The child process is replaced, and the trial is WORKER_LOST."""

    def forward(self, question: str = "") -> NoReturn:
        """Kill it."""
        os.kill(os.getpid(), signal.SIGKILL)
        raise AssertionError(question)
