"""What every process of ours does with signals: which ones end it, what a repeated one means, what SIGUSR1 prints."""

from __future__ import annotations

import faulthandler
import os
import signal
import stat
import sys
import threading
import traceback
from collections.abc import Iterator
from enum import Enum
from typing import Final

# Wrappers pass on what the whole process group has got already; such a repeat comes within this time, in seconds.
SAME_WITHIN: Final = 0.2
# How much later than faulthandler the kernel ends the process: when standard error takes nothing, in seconds.
_LAST_RESORT: Final = 0.5

if sys.platform == "win32":
    END_SIGNALS: Final = (signal.SIGINT, signal.SIGTERM)
    STATE_SIGNALS: Final[tuple[signal.Signals, ...]] = ()
else:
    END_SIGNALS: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    STATE_SIGNALS: Final[tuple[signal.Signals, ...]] = (signal.SIGUSR1,)


def wanted_end_signals() -> tuple[signal.Signals, ...]:
    """Those that end this process: without SIGHUP if it was started with SIGHUP ignored, as `nohup` does."""
    return tuple(each for each in END_SIGNALS if each.name != "SIGHUP" or signal.getsignal(each) is not signal.SIG_IGN)


class Meaning(Enum):
    """What a signal that ends means, after those that came before."""

    FIRST = "the process is to end in an orderly way"
    SAME = "the same one, delivered once more"
    SECOND = "the process is to end at once"


class EndSignals:
    """Tells a first signal from its repeat and from a second one. Takes no lock."""

    def __init__(self) -> None:
        self._first: tuple[int, float] | None = None

    def came(self, number: int, now: float) -> Meaning:
        """A signal has come, at `now` in seconds, on any clock."""
        if self._first is None:
            self._first = number, now
            return Meaning.FIRST
        first, at = self._first
        return Meaning.SAME if number == first and now - at <= SAME_WITHIN else Meaning.SECOND


def stacks() -> Iterator[tuple[str, str]]:
    """Each thread's name, and where it is, formatted. From any thread, but for a daemon's of its own this one's."""
    names = {each.ident: each.name for each in threading.enumerate()}
    own = threading.get_ident()
    for ident, frame in list(sys._current_frames().items()):  # noqa: SLF001 - the documented way to see a stack
        if ident != own:
            yield names.get(ident, f"thread {ident}"), "".join(traceback.format_stack(frame))


def never_blocking(descriptor: int) -> int:
    """A descriptor for the same file whose writes never wait, if it is a pipe (Linux); else the one that was given.

    Making the given one so would make it so for everybody who shares it, such as the shell that started us.
    """
    try:
        if stat.S_ISFIFO(os.fstat(descriptor).st_mode):
            return os.open(f"/proc/self/fd/{descriptor}", os.O_WRONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except (OSError, AttributeError):  # there is no such file system, or no such flag
        pass
    return descriptor


def end_by_force_after(seconds: float, descriptor: int) -> None:
    """End the process after so many seconds, with every thread's stack on `descriptor`; once more for another time.

    It does not need the interpreter, which C code may hold. Where the stacks cannot be written because nobody reads
    the descriptor, and it is none of `never_blocking`, the kernel ends the process half a second later, by SIGALRM.
    """
    faulthandler.dump_traceback_later(seconds, exit=True, file=descriptor)
    if sys.platform != "win32":
        signal.setitimer(signal.ITIMER_REAL, seconds + _LAST_RESORT)
