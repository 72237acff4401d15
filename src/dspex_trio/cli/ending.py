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
from _thread import start_new_thread
from collections.abc import Awaitable, Callable
from contextlib import suppress
from types import FrameType
from typing import Final, NoReturn

import trio

from dspex_trio import threads
from dspex_trio.cli.process import first_error
from dspex_trio.errors import WorkerStuck

logger: Final = logging.getLogger("dspex_trio")

EXIT_OK: Final = 0
EXIT_NOT_IN_TIME: Final = 1
EXIT_STUCK: Final = 75
"""EX_TEMPFAIL of sysexits: nothing is wrong with the configuration; start it anew."""

END_SIGNALS: Final = (signal.SIGTERM, signal.SIGINT)

# What is left for the end of the process once the grace is over, in seconds: replies, connections, the interpreter.
_SLACK: Final = 0.45
# With the GIL held by somebody's C code nothing of ours runs; then faulthandler's own thread ends it, so much later.
_SLACK_WITHOUT_GIL: Final = 0.5


class Ending:
    """Ends this process when it is told to: from now on in `run`, and before.

    Until something is served, SIGTERM and SIGINT end the process at once, with exit code 0: there is nothing to end.
    Then the first one sets `stopping`, and what it ends gets the grace and not half a second more; a second one ends
    the process at once, with 128 plus its number.

    Args:
        grace: How long what is running may go on after the first signal, in seconds.
        with_stdin: Take the end of standard input, when whoever started this process is gone, for a SIGTERM.
    """

    def __init__(self, grace: float, *, with_stdin: bool = False) -> None:
        self.stopping: Final = trio.Event()
        self.grace: Final = grace
        self.last: Callable[[], object] = lambda: None
        """Called before the process is ended by force; must not hang."""
        self._token: trio.lowlevel.TrioToken | None = None
        self._asked = self._signals = False
        self._over = math.inf
        self._code = EXIT_NOT_IN_TIME
        for number in END_SIGNALS:
            signal.signal(number, self._signalled)
        if with_stdin:
            start_new_thread(self._end_with_stdin, ())

    def seconds_left(self) -> float:
        """How much of the grace is left; all of it as long as nobody has told it to end."""
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
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(self._code)

    def _signalled(self, number: int, _frame: FrameType | None) -> None:
        name = signal.Signals(number).name
        if self._signals:
            self._exit(f"second signal ({name}): ended at once", 128 + number)
        self._signals = True
        self.end(name)

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

    def _stop(self, why: str) -> None:
        logger.info("%s: shutting down", why)
        self.stopping.set()

    def _end_with_stdin(self) -> None:
        while os.read(0, 4096):
            pass
        self.end("standard input ended")

    def _bound(self, grace: float) -> None:
        """End the process after the grace, however much of it still hangs. Takes no lock: signals come anywhere."""
        seconds = min(grace, threading.TIMEOUT_MAX / 2)
        faulthandler.dump_traceback_later(seconds + _SLACK_WITHOUT_GIL, exit=True)
        start_new_thread(self._end_after, (seconds + _SLACK,))

    def _end_after(self, seconds: float) -> NoReturn:
        threading.Event().wait(seconds)
        if self._code == EXIT_NOT_IN_TIME:
            faulthandler.dump_traceback(all_threads=True)
            self._exit("the end took longer than the grace; all threads' stacks stand above", self._code)
        others = [each.name for each in threading.enumerate() if each is not threading.main_thread()]
        self._exit(f"threads kept the process from ending and were left: {', '.join(others)}", self._code)

    def _exit(self, message: str, code: int) -> NoReturn:
        """Leave now, from wherever this is: nothing is flushed or run that could hang."""
        with suppress(OSError):  # whoever read it may be gone, which is why this ends
            os.write(2, f"dspex-trio: {message}\n".encode())
        self.last()
        os._exit(code)
