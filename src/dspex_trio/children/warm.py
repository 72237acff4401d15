"""The warm parent's own process: imports everything once, then forks children that need not.

Run as `python -m dspex_trio.children.warm DESCRIPTOR PARENT PREPARE SERVE` by `forking` alone (Linux). It has one
thread and no event loop, so that its forks are sound; it runs nothing but `PREPARE`. Its children die with it, and it
ends with the process that started it, by whatever that was killed: but first it kills its children and all that they
have started. What a child leaves behind becomes its own child, and is killed before the child's end is reported.
"""

from __future__ import annotations

import ctypes
import errno
import gc
import os
import select
import signal
import socket
import sys
import threading
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, Final, NoReturn

from dspex_trio.children.child import end_with, function_named, run_child
from dspex_trio.children.frames import ANSWER, FAILURE, FREED, HEADER, REPORT, failure, framed

_PR_SET_CHILD_SUBREAPER: Final = 36
# How often leftover processes of an ended child are searched for until none is left, in milliseconds.
_SWEEP_MS: Final = 20
_PASSES: Final = 50
_ENDING: Final = 1.0
# SIGHUP comes, too, where this process was stopped while the one that started it ended.
_ENDING_SIGNALS: Final = (signal.SIGHUP, signal.SIGINT, signal.SIGTERM)


def main(descriptor: int, parent: int, prepare: str, serve: str) -> None:
    """Prepare, then fork on request until the other end of the socket closes."""
    end_with(parent)
    connection = socket.socket(fileno=descriptor)
    connection.set_inheritable(False)
    opening = _read_frame(connection)
    try:
        function_named(prepare)(opening)
    except Exception as error:  # noqa: BLE001 - the other side raises it where somebody waits
        connection.sendall(framed(FAILURE, 0, failure(error)))
        sys.exit(1)
    if (others := threading.active_count() - 1) > 0:
        names = ", ".join(each.name for each in threading.enumerate() if each is not threading.current_thread())
        connection.sendall(framed(FAILURE, others, names.encode("utf-8", "replace")))
        sys.exit(1)
    ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    before: dict[int, Any] = {number: signal.signal(number, _end) for number in _ENDING_SIGNALS}
    end_with(parent, signal.SIGTERM)  # no more by SIGKILL, which would leave behind what the children have started
    gc.collect()
    gc.freeze()  # a collection in a child would write to every page that it shares
    connection.sendall(framed(ANSWER, 0, b""))
    nursery = _Nursery(connection, serve, before)
    try:
        with suppress(SystemExit):
            nursery.run()
    finally:
        nursery.kill_all()
    os._exit(0)  # what was prepared for the children is not taken back here


_ended: list[int] = []


def _end(number: int, _frame: object) -> None:
    _ended.append(number)
    if len(_ended) == 1:  # another one does not end the end
        sys.exit(0)


class _Nursery:
    """Forks, and waits for what was forked.

    Args:
        connection: Each byte that comes over it carries a descriptor: a child's end of its own connection.
        serve: What children run.
        handlers: What children do on signals that end this process.
    """

    def __init__(self, connection: socket.socket, serve: str, handlers: Mapping[int, Any]) -> None:
        self._handlers = handlers
        self._connection = connection
        self._serve = serve
        self._children: dict[int, int] = {}  # descriptor → pid
        self._before = _own_children()  # what `prepare` started is not a child's leftover
        self._poll = select.poll()
        self._poll.register(connection, select.POLLIN)

    def run(self) -> None:
        strays = False
        while True:
            for descriptor, _ in self._poll.poll(_SWEEP_MS if strays else None):
                if descriptor == self._connection.fileno():
                    self._fork()
                else:
                    self._reap(descriptor)
                    strays = True
            if strays:
                strays = self._sweep()

    def _fork(self) -> None:
        asked, descriptors, *_ = socket.recv_fds(self._connection, 1, 1)
        if not asked:  # the process that started this one is gone
            sys.exit(0)
        if not descriptors:  # too many files are open
            self._connection.sendall(framed(REPORT, 0, os.strerror(errno.EMFILE).encode()))
            return
        (theirs,) = descriptors
        me = os.getpid()
        try:
            pid = os.fork()
        except OSError as error:  # a limit of the system, which a program may have reached that forks without end
            self._connection.sendall(framed(REPORT, 0, str(error).encode()))
            return
        finally:
            if os.getpid() == me:
                os.close(theirs)
        if pid == 0:
            self._become_child(theirs, me)
        with suppress(OSError):  # the child does the same; either may be first
            os.setpgid(pid, pid)
        try:
            descriptor = os.pidfd_open(pid)
        except OSError as error:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
            self._connection.sendall(framed(REPORT, 0, str(error).encode()))
            return
        self._children[descriptor] = pid
        self._poll.register(descriptor, select.POLLIN)
        self._connection.sendall(framed(REPORT, pid, b""))

    def _become_child(self, theirs: int, parent: int) -> NoReturn:
        try:
            for number, handler in self._handlers.items():
                signal.signal(number, handler)
            with suppress(OSError):
                os.setpgid(0, 0)
            end_with(parent)
            self._connection.close()
            for descriptor in self._children:
                os.close(descriptor)
            run_child(theirs, self._serve)
        finally:
            os._exit(1)

    def _reap(self, descriptor: int) -> None:
        pid = self._children.pop(descriptor)
        self._poll.unregister(descriptor)
        os.close(descriptor)
        with suppress(ProcessLookupError, PermissionError):  # it has not been waited for: the number is its group's
            os.killpg(pid, signal.SIGKILL)
        _, status = os.waitpid(pid, 0)
        self._sweep()
        code = os.waitstatus_to_exitcode(status)
        self._connection.sendall(framed(FREED, pid, str(code).encode()))

    def kill_all(self) -> None:
        """Kill the children and what they have started, for a second at most."""
        for pid in self._children.values():
            for kill in (os.killpg, os.kill):  # a program may have moved it to another group
                with suppress(ProcessLookupError, PermissionError):
                    kill(pid, signal.SIGKILL)
        self._children.clear()
        ends = time.monotonic() + _ENDING
        while self._sweep() and time.monotonic() < ends:
            time.sleep(_SWEEP_MS / 1e3)

    def _sweep(self) -> bool:
        """Kill what ended children have left behind; True while some of it is still there."""
        for _ in range(_PASSES):
            strays = _own_children() - set(self._children.values()) - self._before
            if not strays:
                return False
            for pid in strays:
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
                with suppress(ChildProcessError):
                    os.waitpid(pid, os.WNOHANG)
        return True


def _own_children() -> set[int]:
    """The processes whose parent this one is; none where the kernel does not list them."""
    try:
        return {int(pid) for pid in Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()}
    except OSError:
        return set()


def _read_frame(connection: socket.socket) -> bytes:
    head = _exactly(connection, HEADER.size)
    _, _, length = HEADER.unpack(head)
    return _exactly(connection, length)


def _exactly(connection: socket.socket, length: int) -> bytes:
    found = bytearray()
    while len(found) < length:
        piece = connection.recv(min(length - len(found), 1 << 20))
        if not piece:
            sys.exit(0)
        found += piece
    return bytes(found)


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), sys.argv[3], sys.argv[4])
