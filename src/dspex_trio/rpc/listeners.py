"""Where servers listen: TCP, UNIX sockets, TLS over either; and who is at the other end."""

from __future__ import annotations

import errno
import ipaddress
import os
import socket
import ssl
from collections.abc import Sequence
from typing import Any, Final, TypeAlias

import trio

from dspex_trio.rpc.tls import for_http2

Listener: TypeAlias = trio.abc.Listener[Any]

_BACKLOG: Final = 1024


async def open_tcp(host: str, port: int, *, reuse_port: bool = False) -> list[Listener]:
    """Listen on every address of a host.

    Args:
        host: A name or an address; "0.0.0.0" and "::" are every interface.
        port: 0 for a free one.
        reuse_port: Let other processes listen on the same port (SO_REUSEPORT). Without it a second server fails to
            start.

    Raises:
        OSError: An address cannot be bound.
    """
    if not reuse_port:
        return list(await trio.open_tcp_listeners(port, host=host, backlog=_BACKLOG))
    found = await trio.socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
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
        listeners.append(trio.SocketListener(sock))
    return listeners


async def open_unix(path: str | os.PathLike[str], *, mode: int = 0o600) -> Listener:
    """Listen on a UNIX socket.

    A socket that a dead server left behind is replaced; the one of a living server, or any other file, is not.

    Args:
        path: Where.
        mode: Who may connect; by default the owner alone.

    Raises:
        OSError: The path cannot be bound.
    """
    sock = trio.socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        if await _is_stale(path):
            await trio.Path(path).unlink()
        await sock.bind(os.fspath(path))
        await trio.Path(path).chmod(mode)
        sock.listen(_BACKLOG)
    except BaseException:
        sock.close()
        raise
    return trio.SocketListener(sock)


async def _is_stale(path: str | os.PathLike[str]) -> bool:
    if not await trio.Path(path).is_socket():
        return False
    with trio.socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        try:
            await probe.connect(os.fspath(path))
        except OSError as error:
            return error.errno == errno.ECONNREFUSED
    return False


def wrap_tls(listeners: Sequence[Listener], context: ssl.SSLContext) -> list[Listener]:
    """The same listeners behind TLS."""
    for_http2(context)
    # Peers of HTTP/2 say goodbye by GOAWAY and then just close; few send TLS's close_notify.
    return [trio.SSLListener(listener, context, https_compatible=True) for listener in listeners]


def reachable(listeners: Sequence[Listener]) -> list[str]:
    """The addresses of those that other machines may reach: all but loopback, UNIX sockets and memory."""
    found = []
    for listener in listeners:
        transport = listener.transport_listener if isinstance(listener, trio.SSLListener) else listener
        if not isinstance(transport, trio.SocketListener):
            continue
        if transport.socket.family in {socket.AF_INET, socket.AF_INET6}:
            host, port, *_ = transport.socket.getsockname()
            address = ipaddress.ip_address(host.partition("%")[0])
            if not (getattr(address, "ipv4_mapped", None) or address).is_loopback:
                found.append(f"[{host}]:{port}" if ":" in host else f"{host}:{port}")
    return found


def notice_dead_peers(stream: trio.abc.Stream) -> None:
    """Have the system end TCP connections whose other end is gone without a word, within a few minutes."""
    transport = stream.transport_stream if isinstance(stream, trio.SSLStream) else stream
    if isinstance(transport, trio.SocketStream) and transport.socket.family in {socket.AF_INET, socket.AF_INET6}:
        transport.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        for option, value in (("TCP_KEEPIDLE", 60), ("TCP_KEEPINTVL", 20), ("TCP_KEEPCNT", 3)):
            if hasattr(socket, option):  # not on every system
                transport.setsockopt(socket.IPPROTO_TCP, getattr(socket, option), value)


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
        case socket.AF_INET:
            return f"ipv4:{address[0]}:{address[1]}"
        case socket.AF_INET6:
            return f"ipv6:[{address[0]}]:{address[1]}"
        case _:
            # Clients of UNIX sockets have no name; what they connected to has one.
            return f"unix:{transport.socket.getsockname()}"
