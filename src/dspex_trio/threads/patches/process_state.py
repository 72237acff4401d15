"""Process-wide state that programs change: noticed, reported, and put back.

Each is read before a program runs and after it. Programs that run at the same time share what is the process's, so that
nothing is put back while another one runs: it might be what that one needs.
"""

from __future__ import annotations

import decimal
import gc
import locale
import logging
import os
import re
import signal
import socket
import sys
import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from dspex_trio.threads.ladder import fairness

# At most so many names of environment variables are reported.
_MOST_NAMES: Final = 10
_DECIMAL: Final = ("prec", "rounding", "Emin", "Emax", "capitals", "clamp")

_ours: set[int] = set()


def put_back_what_programs_change() -> None:
    """For this process: it is one of our own, and nobody but programs changes what is noticed here."""
    _ours.add(os.getpid())


@dataclass(frozen=True, slots=True)
class _Part:
    """One thing that is the process's.

    Attributes:
        read: What it is like now.
        write: Makes it so again, given what it was like, and what it is like now.
        name: What to call it, given the same.
    """

    read: Callable[[], Any]
    write: Callable[[Any, Any], object]
    name: Callable[[Any, Any], str]


def _called(name: str) -> Callable[[Any, Any], str]:
    return lambda _was, _now: name


def _directory() -> str | None:
    try:
        return os.getcwd()  # noqa: PTH109 - as text, for a comparison
    except OSError:  # it has been removed
        return None


def _change_directory(was: str | None, _now: object) -> None:
    if was is not None:
        os.chdir(was)


def _environment() -> dict[str, str]:
    found = ((name, os.environ.get(name)) for name in list(os.environ))  # others may change it meanwhile
    return {name: value for name, value in found if value is not None}


def _restore_environment(was: dict[str, str], now: dict[str, str]) -> None:
    # What is new stays: modules set variables when they are imported, which they are but once.
    os.environ.update({name: value for name, value in was.items() if now.get(name) != value})


def _variables(was: dict[str, str], now: dict[str, str]) -> str:
    changed = sorted(name for name in was.keys() | now.keys() if was.get(name) != now.get(name))
    more = f" and {len(changed) - _MOST_NAMES} more" if len(changed) > _MOST_NAMES else ""
    return f"the environment ({', '.join(changed[:_MOST_NAMES])}{more})"


def _restore_collector(was: tuple[bool, Any], _now: object) -> None:
    enabled, threshold = was
    gc.set_threshold(*threshold)
    (gc.enable if enabled else gc.disable)()


def _umask() -> int | None:
    # As Linux tells it: `os.umask` reads it by changing it for a moment, for all threads.
    with suppress(OSError):
        if found := re.search(rb"^Umask:\s*([0-7]+)", Path("/proc/self/status").read_bytes(), re.MULTILINE):
            return int(found[1], 8)
    return None


def _restore_umask(was: int | None, _now: object) -> None:
    if was is not None:
        os.umask(was)


def _limits() -> dict[int, tuple[int, int]]:
    try:
        import resource  # noqa: PLC0415 - not on every system
    except ImportError:
        return {}
    return {which: resource.getrlimit(which) for which in (resource.RLIMIT_NOFILE, resource.RLIMIT_AS)}


def _restore_limits(was: dict[int, tuple[int, int]], now: dict[int, tuple[int, int]]) -> None:
    import resource  # noqa: PLC0415 - not on every system

    for which, limits in was.items():
        if now[which] != limits:
            resource.setrlimit(which, limits)


def _alarm() -> bool:
    # What is left of it changes by itself.
    return hasattr(signal, "getitimer") and signal.getitimer(signal.ITIMER_REAL) != (0.0, 0.0)


def _restore_alarm(was: bool, _now: object) -> None:  # noqa: FBT001 - as all of them
    if not was:
        signal.setitimer(signal.ITIMER_REAL, 0)


def _raising_filters() -> list[Any]:
    # Filters that hide warnings are set by imports, and do nobody harm.
    return [each for each in warnings.filters if each[0] == "error"]


def _restore_filters(was: list[Any], _now: object) -> None:
    kept = [each for each in warnings.filters if each[0] != "error" or each in was]
    warnings.filters[:] = [each for each in was if each not in kept] + kept  # type: ignore[index]
    warnings._filters_mutated()  # type: ignore[attr-defined]  # noqa: SLF001 - as warnings.catch_warnings does it


def _log() -> tuple[Any, ...]:
    return logging.root.manager.disable, logging.root.level, tuple(logging.root.handlers)


def _restore_log(was: tuple[Any, ...], _now: object) -> None:
    disabled, level, handlers = was
    logging.disable(disabled)
    logging.root.setLevel(level)
    logging.root.handlers[:] = handlers


def _restore_tracing(was: tuple[Any, Any], _now: object) -> None:
    trace, profile = was
    threading.settrace(trace)
    threading.setprofile(profile)


def _restore_decimal(was: tuple[Any, ...], _now: object) -> None:
    for name, value in zip(_DECIMAL, was, strict=True):
        setattr(decimal.DefaultContext, name, value)


def _restore_streams(was: tuple[Any, ...], _now: object) -> None:
    sys.stdin, sys.stdout, sys.stderr = was


_PARTS: Final = (
    _Part(fairness.interval_of_others, lambda was, _now: fairness.set_interval(was), _called("the switch interval")),
    _Part(sys.getrecursionlimit, lambda was, _now: sys.setrecursionlimit(was), _called("the recursion limit")),
    _Part(lambda: (gc.isenabled(), gc.get_threshold()), _restore_collector, _called("the garbage collector")),
    _Part(lambda: (threading.gettrace(), threading.getprofile()), _restore_tracing, _called("tracing of threads")),
    _Part(_directory, _change_directory, _called("the working directory")),
    _Part(_environment, _restore_environment, _variables),
    _Part(_umask, _restore_umask, _called("the umask")),
    _Part(_limits, _restore_limits, _called("a resource limit")),
    _Part(_alarm, _restore_alarm, _called("the alarm clock")),
    _Part(
        lambda: locale.setlocale(locale.LC_ALL),
        lambda was, _: locale.setlocale(locale.LC_ALL, was),
        _called("the locale"),
    ),
    _Part(_raising_filters, _restore_filters, _called("the warnings filters")),
    _Part(_log, _restore_log, _called("the root logger")),
    _Part(
        socket.getdefaulttimeout,
        lambda was, _: socket.setdefaulttimeout(was),
        _called("the default timeout of sockets"),
    ),
    _Part(lambda: (sys.stdin, sys.stdout, sys.stderr), _restore_streams, _called("the standard streams")),
    _Part(
        lambda: tuple(getattr(decimal.DefaultContext, name) for name in _DECIMAL),
        _restore_decimal,
        _called("decimal.DefaultContext"),
    ),
)


def _read() -> list[Any]:
    return [part.read() for part in _PARTS]


class ProcessState:
    """Watches what programs change in their process."""

    def __init__(self) -> None:
        self._running = 0
        self._before: list[Any] = []  # the first of those that run began
        self._known: list[Any] = []  # the last time that it was read

    @contextmanager
    def watching(self, report: Callable[[str], object]) -> Iterator[None]:
        """While a program runs; `report` is called with a line for each thing that has changed. In the Trio thread."""
        alone = self._running == 0
        if alone:
            self._before = self._known = _read()
        self._running += 1
        try:
            yield
        finally:
            self._running -= 1
            now = _read()
            puts_back = self._running == 0 and os.getpid() in _ours
            for part, was, known, is_now in zip(_PARTS, self._before, self._known, now, strict=True):
                if known != is_now:
                    report(f"while the program ran, {part.name(known, is_now)} of its process was changed")
                if puts_back and was != is_now:
                    with suppress(OSError, ValueError, RecursionError):  # what was is no more possible
                        part.write(was, is_now)
            self._known = now
