"""The child's side of process isolation: one module-level function answers requests, bytes for bytes.

Run as `python -m dspex_trio.threads.child DESCRIPTOR PARENT MODULE:FUNCTION` by `dspex_trio.threads.processes` alone.
The child never outlives its parent: the kernel is asked to end it (Linux), and a thread of it sees the parent's end of
the socket close.
"""

from __future__ import annotations

import ctypes
import faulthandler
import importlib
import os
import queue
import signal
import socket
import sys
import threading
import traceback
from collections.abc import Callable
from typing import Final, NoReturn

import outcome

from dspex_trio.threads.frames import ANSWER, FAILURE, HEADER, READY, REPORT, framed, read_exactly

_PR_SET_PDEATHSIG: Final = 1

_connection: socket.socket | None = None
_sending: Final = threading.Lock()


def report(data: bytes) -> None:
    """Tell the parent something while the request is being answered: what is known already is not lost in a kill.

    Outside of a child of `Processes` this does nothing.
    """
    _send(REPORT, data)


def _send(kind: bytes, data: bytes) -> None:
    if _connection is not None:
        with _sending:
            _connection.sendall(framed(kind, data))


def main(descriptor: int, parent: int, target: str) -> None:
    """Answer requests until the parent is gone."""
    global _connection  # noqa: PLW0603 - a process has one parent
    _end_with(parent)
    faulthandler.enable()
    _connection = socket.socket(fileno=descriptor)
    _connection.set_inheritable(False)  # the program's own children must not keep it open
    loaded = outcome.capture(_load, target)
    if isinstance(loaded, outcome.Error):
        _send(FAILURE, _text(loaded.error))
        sys.exit(1)
    requests: queue.SimpleQueue[bytes] = queue.SimpleQueue()
    threading.Thread(target=_read, args=(_connection, requests), name="parent", daemon=True).start()
    _send(READY, b"")
    while True:
        # A program's SystemExit is caught too: it is no reason to lose a warm child.
        answer = outcome.capture(loaded.value, requests.get())
        if isinstance(answer, outcome.Error):
            _send(FAILURE, _text(answer.error))
        else:
            _send(ANSWER, answer.value)


def _read(connection: socket.socket, requests: queue.SimpleQueue[bytes]) -> NoReturn:
    try:
        while True:
            _, length = HEADER.unpack(read_exactly(connection.recv, HEADER.size))
            requests.put(read_exactly(connection.recv, length))
    except (EOFError, OSError):  # the parent is gone, and nobody is left who could want an answer
        os._exit(0)


def _text(error: BaseException) -> bytes:
    return "".join(traceback.format_exception(error)).encode("utf-8", "replace")


def _load(target: str) -> Callable[[bytes], bytes]:
    module, _, name = target.partition(":")
    function: Callable[[bytes], bytes] = getattr(importlib.import_module(module), name)
    return function


def _end_with(parent: int) -> None:
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:  # it went before the kernel could be asked
        os._exit(0)


if __name__ == "__main__":
    # This file runs as __main__; programs import it by its name, and both must be one module.
    sys.modules["dspex_trio.threads.child"] = sys.modules["__main__"]
    main(int(sys.argv[1]), int(sys.argv[2]), sys.argv[3])
