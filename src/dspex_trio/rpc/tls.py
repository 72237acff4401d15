"""TLS contexts for HTTP/2, with certificates on one side or on both."""

from __future__ import annotations

import os
import ssl
from typing import TypeAlias

Path: TypeAlias = "str | os.PathLike[str]"

# Of TLS 1.2 only what RFC 9113, 9.2.2 does not advise against.
_CIPHERS = "ECDHE+AESGCM:ECDHE+CHACHA20"


def server_tls(certificate: Path, key: Path, *, client_ca: Path | None = None) -> ssl.SSLContext:
    """A context for `serve`.

    Args:
        certificate: A PEM file with the server's certificate and those that lead to its root.
        key: A PEM file with its private key.
        client_ca: A PEM file with the roots of clients' certificates. If given, only clients with such a certificate
            are served (mutual TLS); handlers find it in `Call.peer_certificate`.

    Raises:
        OSError: A file cannot be read.
        ssl.SSLError: A file is not what it should be.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    if client_ca is not None:
        context.load_verify_locations(client_ca)
        context.verify_mode = ssl.CERT_REQUIRED
    return for_http2(context)


def client_tls(*, ca: Path | None = None, certificate: Path | None = None, key: Path | None = None) -> ssl.SSLContext:
    """A context for `open_channel`.

    Args:
        ca: A PEM file with the roots that servers' certificates must lead to; None for the system's.
        certificate: A PEM file with the client's certificate, for mutual TLS.
        key: A PEM file with its private key, unless that is in the same file.

    Raises:
        OSError: A file cannot be read.
        ssl.SSLError: A file is not what it should be.
    """
    context = ssl.create_default_context(cafile=ca)
    if certificate is not None:
        context.load_cert_chain(certificate, key)
    return for_http2(context)


def for_http2(context: ssl.SSLContext) -> ssl.SSLContext:
    """Make a context of one's own offer HTTP/2 and nothing older than TLS 1.2; returns the same one."""
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.options |= ssl.OP_NO_COMPRESSION | ssl.OP_NO_RENEGOTIATION  # RFC 9113, 9.2.1; OpenSSL 1.1 allows clients to
    context.set_ciphers(_CIPHERS)
    context.set_alpn_protocols(["h2"])
    return context
