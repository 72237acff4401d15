"""The processes of the benchmark: subjects that answer over pipes, and commands with a ready file."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any, Final, TypeVar

import trio

SUBJECT: Final = Path(__file__).with_name("bench_subject.py")
START_SECONDS: Final = 60
LOOK_SECONDS: Final = 0.002


Pipe = TypeVar("Pipe")


def _piped(pipe: Pipe | None) -> Pipe:
    if pipe is None:
        raise RuntimeError("a subject is started with pipes")
    return pipe


class Subject:
    """A subject's process, asked over its pipes."""

    def __init__(self, process: trio.Process) -> None:
        self.process = process
        self._pending = b""

    async def ready(self) -> int:
        """Wait until it is ready; returns its port, if it has one."""
        port: int = (await self._answer())["ready"]
        return port

    async def ask(self, **asked: Any) -> dict[str, Any]:
        """Send a line and wait for the answer."""
        await _piped(self.process.stdin).send_all(json.dumps(asked).encode() + b"\n")
        return await self._answer()

    async def _answer(self) -> dict[str, Any]:
        """The next line; raises RuntimeError when the process ended instead."""
        while b"\n" not in self._pending:
            data = await _piped(self.process.stdout).receive_some()
            if not data:
                raise RuntimeError("a subject of the benchmark ended before its time")
            self._pending += data
        line, _, self._pending = self._pending.partition(b"\n")
        found: dict[str, Any] = json.loads(line)
        return found


@asynccontextmanager
async def running(command: Sequence[str], **pipes: Any) -> AsyncIterator[trio.Process]:
    """A child process that is ended with the block."""
    async with trio.open_nursery() as nursery:
        yield await nursery.start(partial(trio.run_process, [sys.executable, *command], check=False, **pipes))
        nursery.cancel_scope.cancel()


@asynccontextmanager
async def subject(way: str, options: dict[str, Any]) -> AsyncIterator[Subject]:
    """A subject that has been started."""
    command = [str(SUBJECT), way, json.dumps(options)]
    async with running(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        yield Subject(process)


@asynccontextmanager
async def listening(directory: Path, name: str, *command: str) -> AsyncIterator[int]:
    """A command with a ready file, and its port."""
    ready = directory / name
    async with running([*command, "--port", "0", "--ready-file", str(ready)], stderr=subprocess.DEVNULL) as process:
        yield await until_ready(ready, process)


async def until_ready(ready: Path, process: trio.Process) -> int:
    """The port in the ready file, once it is there."""
    with trio.fail_after(START_SECONDS):
        while (port := read_port(ready)) is None:
            if process.returncode is not None:
                raise RuntimeError(f"{ready.name} ended with exit code {process.returncode}")
            await trio.sleep(LOOK_SECONDS)  # a file of another process is no event of ours
    return port


def read_port(ready: Path) -> int | None:
    """What the ready file says, if it is there."""
    return int(ready.read_text()) if ready.exists() else None
