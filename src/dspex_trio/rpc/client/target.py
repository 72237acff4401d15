"""What a channel connects to: names and addresses in gRPC's notation, UNIX sockets, whatever opens a Trio stream."""

from __future__ import annotations

import re
import ssl
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Final, TypeAlias

import trio

from dspex_trio.interface.arguments import kind_of

_AUTHORITY: Final = re.compile(r"[\x21-\x7e]+")

# Opens a new stream to the server; when it cannot be reached raises OSError, or what a Trio stream on the way raises.
Connector: TypeAlias = Callable[[], Awaitable[trio.abc.Stream]]
Target: TypeAlias = "str | Connector | Iterable[str | Connector]"


@dataclass(frozen=True, slots=True)
class Address:
    """One place to connect to.

    Attributes:
        name: For error messages.
        authority: What requests carry as `:authority`.
        host: What a TLS certificate must be for.
        connect: Opens a stream.
    """

    name: str
    authority: str
    host: str
    connect: Connector


def addresses(target: Target) -> tuple[Address, ...]:
    """The addresses of a target: one, or several to spread calls over.

    Known are "host:port", "dns:host:port", "ipv4:1.2.3.4:50051,1.2.3.5:50051", "ipv6:[::1]:50051", "unix:path" and
    "unix:///path", as gRPC's naming document has them; connectors; and any number of these. The addresses of one name
    are tried one after another (happy eyeballs), not spread over.

    Raises:
        TypeError: It is nothing of that.
        ValueError: A text is none of these, or there is no address at all.
    """
    if isinstance(target, str):
        found = tuple(_parse(target))
    elif callable(target):
        found = (Address("memory", "localhost", "localhost", target),)
    elif isinstance(target, bytes | Mapping) or not isinstance(target, Iterable):
        raise TypeError(
            f'a target is text such as "host:port", a function that opens a stream, or several of these; '
            f"got {kind_of(target)}"
        )
    else:
        found = tuple(address for one in target for address in addresses(one))
    if not found:
        raise ValueError("a channel needs an address")
    return found


def _parse(target: str) -> Iterable[Address]:
    scheme, separator, rest = target.partition(":")
    if separator and scheme == "unix":
        return [_unix(unix_path(rest))]
    if separator and scheme in {"ipv4", "ipv6"}:
        return [_tcp(one) for one in rest.split(",")]
    if separator and scheme == "dns":
        # dns://authority/host:port names a resolver, which is the system's business here.
        return [_tcp(rest.rpartition("/")[2])]
    return [_tcp(target)]


def unix_path(rest: str) -> str:
    """The path of what comes after "unix:"; "unix:///path" has two slashes before an absolute one."""
    return rest.removeprefix("//") if rest.startswith("///") else rest


def _unix(path: str) -> Address:
    if not path or "\0" in path:
        raise ValueError("a unix target needs a path, without null bytes")

    async def connect() -> trio.abc.Stream:
        return await trio.open_unix_socket(path)

    return Address(f"unix:{path}", "localhost", "localhost", connect)


def _tcp(text: str) -> Address:
    host, separator, port_text = text.rpartition(":")
    bare = host.removeprefix("[").removesuffix("]")
    name = _ascii_name(bare)
    if (
        not separator
        or not name
        or not (port_text.isascii() and port_text.isdigit())
        or not 0 < int(port_text) < 2**16
        or (":" in bare and bare == host)
    ):
        raise ValueError(f"not an address: {text!r}; expected host:port, with IPv6 addresses in brackets")
    port = int(port_text)
    authority = host_and_port(name, port)

    async def connect() -> trio.abc.Stream:
        return await trio.open_tcp_stream(name, port)

    return Address(text, authority, name, connect)


def host_and_port(host: str, port: int) -> str:
    """An address as it is written: IPv6 addresses in brackets."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def is_authority(text: str) -> bool:
    """Whether it can be sent as `:authority`: anything else in it could be read as a header of its own behind us."""
    return bool(_AUTHORITY.fullmatch(text))


def _ascii_name(host: str) -> str:
    """A host as DNS and HTTP have it, or nothing: a name with an empty part, or a part that is too long, has none."""
    try:
        name = host.encode("idna").decode()
    except UnicodeError:
        return ""
    return name if is_authority(name) else ""


def reason(error: BaseException) -> str:
    """Why an attempt to connect has failed, in one line.

    Trio says no more than that all attempts have failed. What each of them failed of is in a group, which is its cause.
    """
    text = " ".join(str(error).split()) or type(error).__name__
    cause = error.__cause__
    if not isinstance(error, OSError) or error.errno is not None or not isinstance(cause, BaseExceptionGroup):
        return text
    return f"{text}: {'; '.join(dict.fromkeys(reason(one) for one in cause.exceptions))}"


async def secure(stream: trio.abc.Stream, context: ssl.SSLContext, host: str) -> trio.abc.Stream:
    """Put a stream behind TLS.

    Raises:
        OSError: The handshake failed, or the server does not speak HTTP/2.
    """
    tls = trio.SSLStream(stream, context, server_hostname=host, https_compatible=True)
    try:
        await tls.do_handshake()
    except trio.BrokenResourceError as error:
        raise OSError(f"the TLS handshake failed: {error.__cause__ or error}") from error
    if tls.selected_alpn_protocol() != "h2":
        raise OSError("the server does not speak HTTP/2 over TLS")
    return tls
