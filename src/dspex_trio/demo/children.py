"""Child processes with a ready file: started, watched, and ended with the scope they were started in."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Final

import trio

START_SECONDS: Final = 60.0
LOOK_SECONDS: Final = 0.02
LOG_LINES: Final = 40


class DemoProcessFailed(Exception):
    """A child did not get ready, or ended before its time; the text holds the end of its log."""


@dataclass(frozen=True, slots=True)
class DemoProcess:
    """A child that answers.

    Attributes:
        name: What it is.
        port: Where it listens.
        pid: Its process.
        log: The file that has what it printed.
        started_in: Seconds from its start until it was ready.
    """

    name: str
    port: int
    pid: int
    log: Path
    started_in: float

    @property
    def address(self) -> str:
        """HOST:PORT."""
        return f"127.0.0.1:{self.port}"


async def run_child(
    name: str,
    arguments: Sequence[str],
    directory: Path,
    *,
    environment: Mapping[str, str] | None = None,
    task_status: trio.TaskStatus[DemoProcess] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Run `python -m ARGUMENTS --port 0 --ready-file FILE`; starts with the Child once it is ready.

    The child has a session of its own, so that Ctrl-C in a terminal reaches it through us. Cancelling sends it SIGTERM,
    and SIGKILL when it is still there five seconds later. Its log and ready file lie in `directory`. Its standard input
    ends with this process, even one that is killed.

    Raises ChildFailed when it is not ready within a minute, or ends although nobody asked it to.
    """
    log, ready = directory / f"{name}.log", directory / f"{name}.port"
    command = [sys.executable, "-m", *arguments, "--port", "0", "--ready-file", str(ready)]
    began = trio.current_time()
    with log.open("wb") as output:
        async with trio.open_nursery() as nursery:
            run = partial(
                trio.run_process,
                command,
                stdout=output,
                stderr=subprocess.STDOUT,
                stdin=subprocess.PIPE,  # ends when this process does, however that is
                check=False,
                start_new_session=True,
                env={**os.environ, **(environment or {})},
            )
            process: trio.Process = await nursery.start(run)
            port = await _ready_port(process, ready)
            if port is not None:
                task_status.started(DemoProcess(name, port, process.pid, log, trio.current_time() - began))
                await process.wait()
            nursery.cancel_scope.cancel()
    what = f"ended with exit code {process.returncode}" if port is not None else "did not get ready"
    raise DemoProcessFailed(f"the {name} {what}; the end of its log:\n{tail(log)}")


async def _ready_port(process: trio.Process, ready: Path) -> int | None:
    with trio.move_on_after(START_SECONDS):
        while process.returncode is None:
            port = _port(ready)
            if port is not None:
                return port
            await trio.sleep(LOOK_SECONDS)  # a file of another process is no event of ours
    return None


def _port(ready: Path) -> int | None:
    """What the ready file says; it comes by rename, so it is whole once it is there."""
    return int(ready.read_text()) if ready.exists() else None


def tail(log: Path) -> str:
    """The last lines of a log, indented."""
    lines = log.read_text(encoding="utf-8", errors="replace").splitlines()[-LOG_LINES:]
    return "\n".join(f"    {line}" for line in lines) or "    (nothing)"
