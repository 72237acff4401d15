"""How a long-running command ends: signals, exit codes, and a bound on all of it."""

from __future__ import annotations

import atexit
import faulthandler
import logging
import math
import os
import signal
import sys
import threading
import time
from _thread import LockType, allocate_lock, start_new_thread
from collections.abc import Awaitable, Callable, Iterable
from contextlib import suppress
from types import FrameType
from typing import Final, NoReturn

import trio

from dspex_trio import threads
from dspex_trio.cli.log.writer import Lines
from dspex_trio.cli.process import first_error
from dspex_trio.model.errors import WorkerStuck
from dspex_trio.tasks.signals import STATE_SIGNALS, EndSignals, Meaning, end_by_force_after, stacks, wanted_end_signals

logger: Final = logging.getLogger("dspex_trio")

EXIT_OK: Final = 0
EXIT_NOT_IN_TIME: Final = 1
EXIT_STUCK: Final = 75
"""EX_TEMPFAIL of sysexits: nothing is wrong with the configuration; start it anew."""

# What is left for the end of the process once the grace is over, in seconds: replies, connections, the interpreter.
_SLACK: Final = 0.45
# How long the last output may take to be taken, in seconds.
_FLUSH: Final = 0.2
# With the GIL held by somebody's C code nothing of ours runs; then faulthandler's own thread ends it, so much later.
_SLACK_WITHOUT_GIL: Final = 0.5


class Ending:
    """Ends this process on a signal or on `end`, before and during `run`.

    Until something is served, SIGTERM, SIGINT and SIGHUP end the process at once, with exit code 0: there is nothing to
    end. Then the first one sets `stopping`, and what it ends gets the grace and not half a second more; a second one
    ends the process at once, with 128 plus its number. The same one within 0.2 s is no second one. SIGUSR1 logs where
    every thread is, and what `state` gives.

    Args:
        grace: How long what is running may go on after the first signal, in seconds.
        lines: Writes the log, and the last words.
        with_stdin: Take the end of standard input, when whoever started this process is gone, for a SIGTERM.
    """

    def __init__(self, grace: float, lines: Lines, *, with_stdin: bool = False) -> None:
        self.stopping: Final = trio.Event()
        self.grace: Final = grace
        self.last: Callable[[], object] = lambda: None
        """Called before the process is ended by force; must not hang."""
        self.state: Callable[[], Iterable[str]] = tuple
        """What is under way, a line each; called in the Trio thread for SIGUSR1."""
        self._lines: Final = lines
        self._token: trio.lowlevel.TrioToken | None = None
        self._asked = False
        self._signals: Final = EndSignals()
        self._over = math.inf
        self._code = EXIT_NOT_IN_TIME
        for number in wanted_end_signals():
            signal.signal(number, self._signalled)
        for number in STATE_SIGNALS:
            signal.signal(number, self._tell_state)
        if with_stdin:
            start_new_thread(self._end_with_stdin, ())

    @property
    def descriptor(self) -> int:
        """Where stacks may be written without waiting: standard error, as a rule."""
        return self._lines.unblocking

    def seconds_left(self) -> float:
        """Seconds of the grace period that are left; all of them until the end has begun."""
        return min(self.grace, max(self._over - time.monotonic(), 0.0))

    def serving(self) -> None:
        """Something is served from now on; call it in the Trio thread."""
        self._token = trio.lowlevel.current_trio_token()
        threads.keep_collections_short()
        threads.put_back_what_programs_change()

    def run(self, serve: Callable[[Ending], Awaitable[None]]) -> NoReturn:
        """Run `serve(self)` on Trio, and exit.

        Exit codes: 0 after an orderly end, 75 after WorkerStuck, 1 when the end did not fit in its bound. Other
        exceptions come out. Threads that are nobody's do not keep the process alive.
        """
        try:
            trio.run(serve, self)
            self._code = EXIT_OK
        except* WorkerStuck as group:
            logger.error("%s", first_error(group))  # noqa: TRY400 - whose fault it was stands in the log already
            self._code = EXIT_STUCK
        if not self._asked:
            self._bound(0)
        self._leave()

    def _leave(self) -> NoReturn:
        """As Python leaves, but for taking its modules apart: with DSPy's, that can take longer than is left."""
        for thread in threading.enumerate():
            if thread is not threading.main_thread() and not thread.daemon:
                thread.join()
        atexit._run_exitfuncs()  # noqa: SLF001 - there is no other way to run them and come back
        written = allocate_lock()
        written.acquire()
        start_new_thread(_flush_output, (written,))
        written.acquire(timeout=_FLUSH)
        self._lines.flush()
        os._exit(self._code)

    def _signalled(self, number: int, _frame: FrameType | None) -> None:
        name = signal.Signals(number).name
        match self._signals.came(number, time.monotonic()):
            case Meaning.FIRST:
                self.end(name)
            case Meaning.SECOND:
                self._exit(f"second signal ({name}): ended at once", 128 + number)
            case Meaning.SAME:
                pass

    def end(self, why: str) -> None:
        """End as on a first signal; nothing happens where the end has begun. For any thread, and signal handlers."""
        if self._token is None:
            self._exit(f"{why}: ended before anything was served", EXIT_OK)
        if self._asked:
            return
        self._asked = True
        self._over = time.monotonic() + self.grace
        self._bound(self.grace)
        try:
            self._token.run_sync_soon(self._stop, why)  # where the log may be written
        except trio.RunFinishedError:  # it has just ended by itself
            return

    def _tell_state(self, number: int, _frame: FrameType | None) -> None:
        """Log the stacks from another thread, since the loop may be what hangs."""
        name = signal.Signals(number).name
        start_new_thread(tell_stacks, (name,))
        if self._token is not None:
            with suppress(trio.RunFinishedError):
                self._token.run_sync_soon(self._tell_under_way, name)

    def _tell_under_way(self, name: str) -> None:
        found = list(self.state())
        logger.warning("%s: under way: %s", name, "; ".join(found) or "nothing")

    def _stop(self, why: str) -> None:
        logger.info("%s: shutting down", why)
        self.stopping.set()

    def _end_with_stdin(self) -> None:
        with suppress(OSError):  # a terminal that has hung up
            while os.read(0, 4096):
                pass
        self.end("standard input ended")

    def _bound(self, grace: float) -> None:
        """End the process after the grace, however much of it still hangs. Takes no lock: signals come anywhere."""
        seconds = min(grace, threading.TIMEOUT_MAX / 2)
        end_by_force_after(seconds + _SLACK_WITHOUT_GIL, self._lines.unblocking)
        start_new_thread(self._end_after, (seconds + _SLACK,))

    def _end_after(self, seconds: float) -> NoReturn:
        threading.Event().wait(seconds)
        if self._code == EXIT_NOT_IN_TIME:
            self._lines.flush()
            faulthandler.dump_traceback(self._lines.unblocking, all_threads=True)
            self._exit("the end took longer than the grace; all threads' stacks stand above", self._code)
        others = [each.name for each in threading.enumerate() if each is not threading.main_thread()]
        self._exit(f"threads kept the process from ending and were left: {', '.join(others)}", self._code)

    def _exit(self, message: str, code: int) -> NoReturn:
        """Leave now, from wherever this is: nothing is flushed or run that could hang."""
        self._lines.last_words(f"dspex-trio: {message}\n".encode())
        self.last()
        os._exit(code)


def log_stacks_on_signal() -> None:
    """Have SIGUSR1 log where each thread is, until something else is made of it."""
    for number in STATE_SIGNALS:
        signal.signal(number, lambda came, _frame: start_new_thread(tell_stacks, (signal.Signals(came).name,)))


def tell_stacks(why: str) -> None:
    """Log where each thread is."""
    for name, stack in stacks():
        logger.warning("%s: the thread %r is at\n%s", why, name, stack)


def _flush_output(written: LockType) -> None:
    with suppress(OSError, ValueError):  # the reader is gone, or a program has closed it
        sys.stdout.flush()
        sys.stderr.flush()
    written.release()
