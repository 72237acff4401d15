"""How a child process comes to be, and how it ends: spawned anew, or forked from a warm parent (see `warm`)."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Mapping
from contextlib import suppress
from functools import partial
from socket import socket
from typing import Protocol

import trio


class Started(Protocol):
    """A child process that was started.

    Attributes:
        pid: Its number, which is also that of its process group.
    """

    @property
    def pid(self) -> int: ...

    def kill(self) -> None:
        """End it with its process group; nothing happens once it has been waited for."""
        ...

    def send_signal(self, number: int) -> None:
        """Send a signal to the process alone; nothing happens once it has been waited for."""
        ...

    def has_ended(self) -> bool:
        """Whether it has ended just now, found out without waiting."""
        ...

    async def wait(self) -> int | None:
        """Wait until it has ended and its process group was killed; its exit code as subprocess gives it.

        None if that is not known. May be called again, also after a cancellation.
        """
        ...


class Spawned:
    """A child that is a new interpreter. Starting it takes the loop a millisecond or two.

    Args:
        arguments: What follows `python -P -m`.
        theirs: The child's end of the connection, which it inherits.
        environment: What its environment has beside that of this process.
    """

    def __init__(self, arguments: list[str], theirs: socket, environment: Mapping[str, str] | None = None) -> None:
        # From this thread, which lives as long as the loop: on Linux the child's end is bound to the thread's.
        self._process = subprocess.Popen(  # noqa: S603 - this very interpreter, a module of ours
            [sys.executable, "-P", "-m", *arguments],
            pass_fds=[theirs.fileno()],
            stdin=subprocess.DEVNULL,
            stdout=2,  # the standard output of this process may be read by the process that started it
            env={**os.environ, **(environment or {})},
            process_group=0,  # killed together with what it starts
        )

    @property
    def pid(self) -> int:
        return self._process.pid

    def kill(self) -> None:
        if self._process.returncode is None:  # not waited for yet, so that its number is still its own
            with suppress(ProcessLookupError, PermissionError):
                os.killpg(self._process.pid, signal.SIGKILL)
            self._process.kill()  # should the program have moved it to another group

    def send_signal(self, number: int) -> None:
        if self._process.returncode is None:
            with suppress(ProcessLookupError):
                os.kill(self._process.pid, number)

    def has_ended(self) -> bool:
        if self._process.returncode is not None:
            return True
        options = os.WEXITED | os.WNOHANG | os.WNOWAIT
        return os.waitid(os.P_PID, self._process.pid, options) is not None

    async def wait(self) -> int | None:
        if self._process.returncode is None:
            await until_exit(self._process.pid)
            self.kill()
            self._process.poll()
        return self._process.returncode


async def until_exit(pid: int) -> None:
    """Wait until a process has ended; it is not reaped."""
    if sys.platform == "linux":
        descriptor = os.pidfd_open(pid)
        try:
            await trio.lowlevel.wait_readable(descriptor)
        finally:
            os.close(descriptor)
    else:
        wait = partial(os.waitid, os.P_PID, pid, os.WEXITED | os.WNOWAIT)
        await trio.to_thread.run_sync(wait, abandon_on_cancel=True, limiter=trio.CapacityLimiter(1))


def exit_reason(code: int | None) -> str:
    """How a process ended, in words."""
    if code is None:
        return "the process was killed and does not end"
    if code >= 0:
        return f"the process ended with exit code {code}"
    try:
        name = signal.Signals(-code).name
    except ValueError:
        name = f"signal {-code}"
    hint = ", most often sent by the kernel when memory runs out" if -code == signal.SIGKILL else ""
    return f"the process was ended by {name}{hint}"
