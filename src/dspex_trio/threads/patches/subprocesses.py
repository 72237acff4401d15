"""Patched waits for processes that a program starts: for their end, and for data from their pipes."""

from __future__ import annotations

import io
import os
import select
import selectors
import signal
import subprocess
import weakref
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import partial, wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, cast

from dspex_trio.threads.patches.gate import exempt, gated_job, left_alone
from dspex_trio.threads.patches.waits import STEP, in_steps, is_poll

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer, WriteableBuffer

# How long a process that was killed may take to be gone, in seconds; nearly always it is a millisecond.
_BURIAL: Final = 0.5
# For calls that take another road when they are given a timeout: ten years, in seconds.
_FOREVER: Final = 3.2e8


def communicating(original: Callable[..., Any]) -> Callable[..., Any]:
    """`Popen.communicate`; whoever is made to stop waiting for a process ends it, as `subprocess.run` does."""

    @wraps(original)
    def communicate(self: subprocess.Popen[Any], input: Any = None, timeout: float | None = None) -> Any:  # noqa: A002
        job = gated_job()
        if job is None:
            return original(self, input, timeout)
        exempt.processes += 1
        try:
            # Without a timeout it would read a lone pipe in C, where nothing reaches it.
            return original(self, input, _FOREVER if timeout is None else timeout)
        except BaseException:
            if job.cancelled:
                _kill_with_descendants(self)
            raise
        finally:
            exempt.processes -= 1

    return communicate


def waiting_for_process(original: Callable[..., Any]) -> Callable[..., Any]:
    """`Popen.wait`, without which nothing that runs a process ends."""

    @wraps(original)
    def wait(self: subprocess.Popen[Any], timeout: float | None) -> Any:
        job = gated_job()
        if job is None or is_poll(job, timeout):
            return original(self, timeout)

        def step(seconds: float) -> Any:
            exempt.waits += 1  # it sleeps between its looks
            try:
                return original(self, seconds)
            except subprocess.TimeoutExpired:
                return None
            finally:
                exempt.waits -= 1

        def look() -> None:
            # One that is ending anyway is taken leave of; any other is not waited for, and so has no purpose.
            if job.cancelled and step(STEP) is None:
                _kill_with_descendants(self)
                step(_BURIAL)
                job.woken()

        code = in_steps(look, step, timeout, lambda code: code is not None)
        if code is None and timeout is not None:
            raise subprocess.TimeoutExpired(self.args, timeout)
        return code

    return wait


def waiting_for_worker(original: Callable[..., Any]) -> Callable[..., Any]:
    """`multiprocessing.Process.join`; whoever is made to stop waiting for a process ends it."""

    @wraps(original)
    def wait(self: Any, timeout: float | None = None) -> Any:
        job = gated_job()
        if job is None:
            return original(self, timeout)
        try:
            # Without a timeout it would wait in C.
            return original(self, _FOREVER if timeout is None else timeout)
        except BaseException:
            if job.cancelled:
                self.kill()
                with left_alone():
                    original(self, _BURIAL)
            raise

    return wait


def receiving(original: Callable[..., Any]) -> Callable[..., Any]:
    """What `multiprocessing` reads pipes and queues with."""

    @wraps(original)
    def receive(self: Any, *args: Any) -> Any:
        if gated_job() is not None:
            self._poll(None)  # with a selector, and so a patched wait
        return original(self, *args)

    return receive


def finishing(original: classmethod[Any, ..., Any]) -> classmethod[Any, ..., Any]:
    """`multiprocessing.Pool.terminate`, which ends the pool's processes only if it gets through; it does so soon."""

    def terminate(cls: type[Any], *args: Any) -> Any:
        with left_alone():
            return original.__func__(cls, *args)

    return classmethod(terminate)


def starting(original: Callable[..., None]) -> Callable[..., None]:
    """`Popen()`: a job that is over starts none; at its end those that it started end, with what they have started.

    For that they get a process group of their own, unless the program says otherwise. What a job waits for at their
    pipes can be ended.
    """

    @wraps(original)
    def init(self: subprocess.Popen[Any], *args: Any, **options: Any) -> None:
        if (job := gated_job()) is None:
            original(self, *args, **options)
            return
        job.check()
        leads = _GROUPS and not _stays_in_group and not _decides_itself(args, options)
        original(self, *args, **({**options, "process_group": 0} if leads else options))
        forget = job.leaves(partial(_end, weakref.ref(self), self.pid, leads=leads))
        if leads:
            weakref.finalize(self, _forget_if_gone, self.pid, forget).atexit = False
        size = options.get("bufsize", args[1] if len(args) > 1 else -1)
        for name in ("stdin", "stdout", "stderr"):
            if (stream := getattr(self, name)) is not None:
                setattr(self, name, _over_pipe(stream, self, size))

    return init


_GROUPS: Final = hasattr(os, "killpg")
# Where these stand among `Popen`'s arguments; a group of one's own is not to be had together with them.
_PREEXEC, _SESSION = 6, 15
_stays_in_group: list[bool] = []


def stay_in_group() -> None:
    """For this process: what programs start stays in its group, with which somebody will end it."""
    _stays_in_group.append(True)


def _decides_itself(args: tuple[Any, ...], options: dict[str, Any]) -> bool:
    given = (options.get("start_new_session"), options.get("preexec_fn"), *args[_PREEXEC : _PREEXEC + 1])
    return any((*given, *args[_SESSION : _SESSION + 1])) or options.get("process_group", -1) not in {-1, None}


def _end(of: weakref.ref[subprocess.Popen[Any]], pid: int, *, leads: bool) -> None:
    """Kill a process if it is still there, and with it the rest of the group that it leads."""
    process = of()
    if process is not None and process.returncode is None:
        process.poll()
    still_ours = _is_unreaped_child(pid) if process is None else process.returncode is None
    with suppress(ProcessLookupError, PermissionError):
        if not leads:
            if still_ours:
                for each in (*_descendants(pid), pid):
                    _kill(each)
        elif still_ours or not _exists(pid):  # else its number is another one's; a group keeps it from being given away
            os.killpg(pid, signal.SIGKILL)


def _descendants(pid: int) -> Iterator[int]:
    """The processes that a process has started, and those that they have (Linux)."""
    try:
        tasks = [each.joinpath("children").read_text("ascii") for each in Path(f"/proc/{pid}/task").iterdir()]
    except OSError:  # it has just ended
        return
    for child in map(int, " ".join(tasks).split()):
        yield child
        yield from _descendants(child)


def _kill_with_descendants(process: subprocess.Popen[Any]) -> None:
    if process.returncode is None:
        for each in (*_descendants(process.pid),):
            _kill(each)
    process.kill()


def _kill(pid: int) -> None:
    with suppress(ProcessLookupError, PermissionError):
        os.kill(pid, signal.SIGKILL)


def _is_unreaped_child(pid: int) -> bool:
    try:
        return os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None
    except (AttributeError, ChildProcessError):  # macOS has had no waitid in Python for long
        return False


def _exists(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def _forget_if_gone(pid: int, forget: Callable[[], None]) -> None:
    try:
        os.killpg(pid, 0)
    except ProcessLookupError:
        forget()
    except PermissionError:
        return


def running_a_shell(original: Callable[[Any], int]) -> Callable[[Any], int]:
    """`os.system`, which waits in C, where nothing reaches it."""

    @wraps(original)
    def system(command: Any) -> int:
        if gated_job() is None:
            return original(command)
        code = subprocess.Popen(command, shell=True, close_fds=False).wait()  # noqa: S602 - as os.system does
        return code << 8 if code >= 0 else -code

    return system


def _over_pipe(stream: Any, process: subprocess.Popen[Any], size: int) -> Any:
    """The same stream, over a pipe that can be woken."""
    if isinstance(stream, io.TextIOWrapper):
        how = {name: getattr(stream, name) for name in ("encoding", "errors", "line_buffering", "write_through")}
        return io.TextIOWrapper(_over_pipe(stream.detach(), process, size), **how)
    if isinstance(stream, io.BufferedReader | io.BufferedWriter):
        return type(stream)(
            _Pipe(cast("io.FileIO", stream.detach()), process), size if size > 1 else io.DEFAULT_BUFFER_SIZE
        )
    return _Pipe(stream, process)


class _Pipe(io.RawIOBase):
    """One end of a pipe of a process. A process on which a job ends while it reads or writes is ended too.

    As a connection is: nobody else gets the rest of what it was about to say.
    """

    def __init__(self, file: io.FileIO, process: subprocess.Popen[Any]) -> None:
        self._file = file
        self._process = weakref.ref(process)
        self.name = file.name
        self.mode = file.mode

    def fileno(self) -> int:
        return self._file.fileno()

    def readable(self) -> bool:
        return self._file.readable()

    def writable(self) -> bool:
        return self._file.writable()

    def readinto(self, buffer: WriteableBuffer, /) -> int | None:
        self._until(selectors.EVENT_READ)
        return self._file.readinto(buffer)

    def write(self, data: ReadableBuffer, /) -> int | None:
        if self._until(selectors.EVENT_WRITE):
            data = memoryview(data).cast("B")[: select.PIPE_BUF]  # there is room for so much
        return self._file.write(data)

    def close(self) -> None:
        if not self.closed:
            super().close()
            self._file.close()

    def _until(self, event: int) -> bool:
        """Wait as a job, if it is one's wait; whether it was."""
        job = gated_job()
        if job is None or not os.get_blocking(self.fileno()):
            return False
        try:
            with selectors.DefaultSelector() as selector:
                selector.register(self, event)
                selector.select()  # a patched wait
        except BaseException:
            if job.cancelled and (process := self._process()) is not None:
                _kill_with_descendants(process)
            raise
        return True
