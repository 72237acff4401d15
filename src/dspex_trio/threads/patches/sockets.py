"""Patched calls on sockets, and patched name resolution."""

from __future__ import annotations

import _socket
import selectors
import socket
import ssl
from _thread import start_new_thread
from collections.abc import Callable
from contextlib import suppress
from functools import wraps
from threading import BoundedSemaphore
from typing import Any, Final, cast

import outcome

from dspex_trio.threads.ladder.interrupt import passes_on
from dspex_trio.threads.ladder.job import Job
from dspex_trio.threads.patches.excepthooks import JobCancelled
from dspex_trio.threads.patches.gate import gated_job

SENDING: Final = ("send", "sendall", "sendto", "sendmsg", "sendfile")
WAITING: Final = (
    "recv", "recv_into", "recvfrom", "recvfrom_into", "recvmsg", "recvmsg_into", "connect", "connect_ex",
)  # fmt: skip
ACCEPTING: Final = "_accept"
TLS: Final = ("read", "write", "send", "do_handshake", "unwrap")
# The protocol, by its name in TLS, whose connections are shared by requests at the same time.
_SHARED: Final = "h2"
RESOLVING: Final = ("getaddrinfo", "gethostbyname", "gethostbyname_ex", "gethostbyaddr", "getnameinfo")

# How many lookups may hang in the system's resolver at once, all jobs together.
_MAX_LOOKUPS: Final = 64
_lookups: Final = BoundedSemaphore(_MAX_LOOKUPS)

_timeout: Final = _socket.socket.gettimeout
# The C type's own, not the enum that Python makes of it.
_kind: Final = _socket.socket.type.__get__


def blocking(original: Callable[..., Any], *, left_alone: int | None = None) -> Callable[..., Any]:
    """An operation on a socket, from which the job's cancel wakes the thread; but for sockets of one kind."""

    @wraps(original)
    def call(self: socket.socket, *args: Any, **kwargs: Any) -> Any:
        # A non-blocking socket never waits, and is often shared: Trio's own wakeup pair is one.
        if _timeout(self) == 0.0 or (job := gated_job()) is None or _kind(self) == left_alone:
            return original(self, *args, **kwargs)
        return _entered(job, self, original, args, kwargs)

    passes_on(call)
    return call


def _entered(
    job: Job, sock: socket.socket, original: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
) -> Any:
    job.enter(sock)
    try:
        if job.clock is None:
            return original(sock, *args, **kwargs)
        with job.clock.at_socket(job, sock, original.__name__):
            return original(sock, *args, **kwargs)
    finally:
        job.leave(sock)


def sending(original: Callable[..., Any]) -> Callable[..., Any]:
    """As `blocking`, but for datagrams: they do not wait, and their sockets (metrics, logs) are often the process's."""
    return blocking(original, left_alone=socket.SOCK_DGRAM)


def accepting(original: Callable[[Any], tuple[int, Any]]) -> Callable[[Any], tuple[int, Any]]:
    """As `blocking`, for what gives a new descriptor: it is closed where its job has ended before it has got it."""

    @wraps(original)
    def accept(self: socket.socket) -> tuple[int, Any]:
        accepted: list[int] = []

        @wraps(original)
        def accept_one(self: socket.socket) -> tuple[int, Any]:
            descriptor, address = original(self)
            accepted.append(descriptor)
            return descriptor, address

        try:
            return cast("tuple[int, Any]", blocking(accept_one)(self))
        except JobCancelled:
            for descriptor in accepted:
                socket.close(descriptor)
            raise

    return accept


def secured(original: Callable[..., Any]) -> Callable[..., Any]:
    """As `blocking`, for TLS; but a connection of HTTP/2 carries the requests of others too, and is never shut down.

    The wait for what comes on it is ended; what is sent on it is sent whole.
    """
    of_its_own = blocking(original)
    reads = original.__name__ == "read"

    @wraps(original)
    def call(self: ssl.SSLSocket, *args: Any, **kwargs: Any) -> Any:
        if self.selected_alpn_protocol() != _SHARED or (job := gated_job()) is None or _timeout(self) == 0.0:
            return of_its_own(self, *args, **kwargs)
        job.check()
        if reads and not self.pending():
            with selectors.DefaultSelector() as selector:
                selector.register(self, selectors.EVENT_READ)
                if not selector.select(_timeout(self)):  # a patched wait
                    raise TimeoutError("The read operation timed out")
        return original(self, *args, **kwargs)

    return call


def resolving(original: Callable[..., Any]) -> Callable[..., Any]:
    """A name lookup. The resolver cannot be woken, so it gets a thread that need not be waited for."""

    @wraps(original)
    def resolve(host: Any, *args: Any, **kwargs: Any) -> Any:
        job = gated_job()
        if job is None:
            return original(host, *args, **kwargs)
        job.check()
        if _needs_no_lookup(host) or job.clock is not None:  # virtual time stands still meanwhile
            return original(host, *args, **kwargs)
        if not _lookups.acquire(blocking=False):
            raise socket.gaierror(socket.EAI_AGAIN, f"{_MAX_LOOKUPS} name lookups of this process are hanging")
        answer: list[outcome.Outcome[Any]] = []
        waiter = job.waiter()

        def ask() -> None:
            answer.append(outcome.capture(original, host, *args, **kwargs))
            _lookups.release()
            with suppress(RuntimeError):  # the job was woken first
                waiter.release()

        try:
            start_new_thread(ask, ())
        except RuntimeError:  # the system has no more threads
            _lookups.release()
            raise
        job.park(waiter)
        job.woken()
        return answer[0].unwrap()

    return resolve


def _needs_no_lookup(host: Any) -> bool:
    if host is None:
        return True
    if isinstance(host, tuple):  # the address that getnameinfo is given
        return False
    text = host.decode("ascii", "replace") if isinstance(host, (bytes, bytearray)) else str(host)
    return text in {"", "localhost"} or ":" in text or text.replace(".", "").isdigit()
