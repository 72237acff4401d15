"""Where servers listen: TCP, UNIX sockets, TLS over either; and who is at the other end."""

from __future__ import annotations

import contextlib
import errno
import ipaddress
import os
import socket
import ssl
from collections.abc import Sequence
from typing import Any, Final

import trio

from dspex_trio.rpc.client.target import host_and_port, unix_path
from dspex_trio.rpc.tls import for_http2

_BACKLOG: Final = 1024
_UNIX: Final = "unix:"


class Listener(trio.abc.Listener[trio.abc.Stream]):
    """Where a server listens, whatever kind of place that is: what `serve` returns, and `open_tcp` and `open_unix` do.

    Args:
        accepts: What it takes streams from: a listener of Trio's, or one of these.
        tls: Puts the streams behind TLS; their handshake is for whoever accepts them.
        removes: The file of a UNIX socket, which goes when the listener is closed.
    """

    def __init__(
        self, accepts: trio.abc.Listener[Any], *, tls: ssl.SSLContext | None = None, removes: str | None = None
    ) -> None:
        self._accepts = accepts
        self._tls = tls
        self._removes = None if removes is None else (removes, _identity(removes))

    @property
    def socket(self) -> trio.socket.SocketType:
        """The socket that listens; AttributeError for a listener that has none, such as one in memory."""
        found: trio.socket.SocketType = getattr(self._accepts, "socket")  # noqa: B009 - of any kind of listener
        return found

    @property
    def address(self) -> str:
        """Where clients find it, as a target for `open_channel`: "127.0.0.1:50051", "[::1]:50051", "unix:/run/a.sock".

        Of a listener on every interface it is "0.0.0.0:50051" or "[::]:50051"; "memory:" of one without a socket.
        """
        sock = getattr(self._accepts, "socket", None)
        if sock is None:
            return "memory:"
        name = sock.getsockname()
        return host_and_port(name[0], name[1]) if isinstance(name, tuple) else f"{_UNIX}{os.fsdecode(name)}"

    @property
    def port(self) -> int | None:
        """The port; None of what has none."""
        sock = getattr(self._accepts, "socket", None)
        name = None if sock is None else sock.getsockname()
        return name[1] if isinstance(name, tuple) else None

    async def accept(self) -> trio.abc.Stream:
        """The next connection; raises what the listener within raises."""
        stream: trio.abc.Stream = await self._accepts.accept()
        if self._tls is None:
            return stream
        # Peers of HTTP/2 say goodbye by GOAWAY and then just close; few send TLS's close_notify.
        return trio.SSLStream(stream, self._tls, server_side=True, https_compatible=True)

    async def aclose(self) -> None:
        """Accept no more, and remove the socket's file if it is still this one's."""
        removes, self._removes = self._removes, None
        if removes is not None:
            path, identity = removes
            # Before the socket is closed: whoever starts now may take the file of a closed one for a dead server's.
            with contextlib.suppress(OSError):
                if _identity(path) == identity:
                    os.unlink(path)  # noqa: PTH108 - here and now: this may run while being cancelled
        await self._accepts.aclose()


def _identity(path: str) -> tuple[int, int]:
    found = os.stat(path)  # noqa: PTH116 - as above
    return found.st_dev, found.st_ino


async def open_listeners(host: str, port: int) -> list[Listener]:
    """Listen where a `host` says: a name, an address (IPv6 with or without brackets), or "unix:/path" without a port.

    Raises:
        OSError: It cannot be bound.
    """
    if host in {"", _UNIX}:  # the one would be every interface, the other the current directory
        raise OSError(errno.EINVAL, f"{host!r} is no place to listen")
    if host.startswith(_UNIX):
        return [await open_unix(unix_path(host.removeprefix(_UNIX)))]
    return await open_tcp(host, port)


def place(host: str, port: int) -> str:
    """What `open_listeners` was asked for, as it is written in one."""
    return host if host.startswith(_UNIX) else host_and_port(_bare(host), port)


def _bare(host: str) -> str:
    return host[1:-1] if host.startswith("[") and host.endswith("]") else host


async def open_tcp(host: str, port: int, *, reuse_port: bool = False) -> list[Listener]:
    """Listen on every address of a host.

    Args:
        host: A name or an address, IPv6 with or without brackets; "0.0.0.0" and "::" are every interface.
        port: 0 for a free one.
        reuse_port: Let other processes listen on the same port (SO_REUSEPORT). Without it a second server fails to
            start.

    Raises:
        OSError: An address cannot be bound.
    """
    bare = _bare(host)
    if not reuse_port:
        return [Listener(one) for one in await trio.open_tcp_listeners(port, host=bare, backlog=_BACKLOG)]
    found = await trio.socket.getaddrinfo(bare, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    listeners: list[Listener] = []
    for family, kind, protocol, _, address in found:
        sock = trio.socket.socket(family, kind, protocol)
        try:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            if family == socket.AF_INET6:
                sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            await sock.bind(address)
            sock.listen(_BACKLOG)
        except BaseException:
            sock.close()
            raise
        listeners.append(Listener(trio.SocketListener(sock)))
    return listeners


async def open_unix(path: str | os.PathLike[str], *, mode: int = 0o600) -> Listener:
    """Listen on a UNIX socket, whose file is removed when the listener is closed.

    A socket that a dead server left behind is replaced; the one of a living server, or any other file, is not.

    Args:
        path: Where.
        mode: Who may connect; by default the owner alone.

    Raises:
        OSError: The path cannot be bound.
    """
    if not hasattr(socket, "AF_UNIX"):
        raise OSError("this system has no UNIX sockets")
    # Absolute, so that the right file is removed if the directory is changed meanwhile.
    where = os.path.abspath(path)  # noqa: ASYNC240, PTH100 - it asks for no more than the current directory
    sock = trio.socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        if await _is_stale(where):
            await trio.Path(where).unlink()
        await _bind(sock, where)
        await trio.Path(where).chmod(mode)
        sock.listen(_BACKLOG)
        return Listener(trio.SocketListener(sock), removes=where)
    except BaseException:
        sock.close()
        raise


async def _bind(sock: trio.socket.SocketType, path: str) -> None:
    try:
        await sock.bind(path)
    except OSError as error:
        if error.errno is None:  # "AF_UNIX path too long", as one of Python's own
            raise OSError(
                errno.ENAMETOOLONG, f"{error}: {len(os.fsencode(path))} bytes; about 100 are allowed"
            ) from error
        raise


async def _is_stale(path: str | os.PathLike[str]) -> bool:
    if not await trio.Path(path).is_socket():
        return False
    with trio.socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        try:
            await probe.connect(os.fspath(path))
        except OSError as error:
            return error.errno == errno.ECONNREFUSED
    return False


def listening(listeners: Sequence[trio.abc.Listener[Any]], tls: ssl.SSLContext | None) -> list[Listener]:
    """The listeners that a server was given, behind TLS if there is any, all of one kind."""
    if tls is not None:
        for_http2(tls)
    return [one if tls is None and isinstance(one, Listener) else Listener(one, tls=tls) for one in listeners]


def reachable(listeners: Sequence[Listener]) -> list[str]:
    """The addresses of those that other machines may reach: all but loopback, UNIX sockets and memory."""
    found = []
    for listener in listeners:
        if listener.port is not None:
            address = ipaddress.ip_address(listener.socket.getsockname()[0].partition("%")[0])
            if not (getattr(address, "ipv4_mapped", None) or address).is_loopback:
                found.append(listener.address)
    return found


def notice_dead_peers(stream: trio.abc.Stream) -> None:
    """Have the system end TCP connections whose other end is gone without a word, within a few minutes."""
    transport = stream.transport_stream if isinstance(stream, trio.SSLStream) else stream
    if isinstance(transport, trio.SocketStream) and transport.socket.family in {socket.AF_INET, socket.AF_INET6}:
        transport.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        for option, value in (("TCP_KEEPIDLE", 60), ("TCP_KEEPINTVL", 20), ("TCP_KEEPCNT", 3)):
            if hasattr(socket, option):  # not on every system
                transport.setsockopt(socket.IPPROTO_TCP, getattr(socket, option), value)


def peer_address(stream: trio.abc.Stream) -> str | None:
    """The IP address at the other end of a stream; None if it has none, or has left."""
    transport = stream.transport_stream if isinstance(stream, trio.SSLStream) else stream
    if not isinstance(transport, trio.SocketStream) or transport.socket.family not in {socket.AF_INET, socket.AF_INET6}:
        return None
    try:
        return str(transport.socket.getpeername()[0])
    except OSError:
        return None


def peer_name(stream: trio.abc.Stream) -> str:
    """The other end of a stream, as grpc-core writes it."""
    transport = stream.transport_stream if isinstance(stream, trio.SSLStream) else stream
    if not isinstance(transport, trio.SocketStream):
        return "memory:"
    try:
        address = transport.socket.getpeername()
    except OSError:
        return "unknown:"  # it left before it was looked at
    match transport.socket.family:
        case socket.AF_INET | socket.AF_INET6 as family:
            kind = "ipv4" if family == socket.AF_INET else "ipv6"
            return f"{kind}:{host_and_port(address[0], address[1])}"
        case _:
            # Clients of UNIX sockets have no name; what they connected to has one.
            return f"unix:{transport.socket.getsockname()}"
