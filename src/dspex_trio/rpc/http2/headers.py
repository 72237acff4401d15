"""gRPC's headers: request and response heads, timeouts, status trailers, and who is at fault when they are wrong.

The rules are those of "gRPC over HTTP2" (the protocol description) and of RFC 9113, sections 8.2 and 8.3.
"""

from __future__ import annotations

import base64
import binascii
import re
import urllib.parse
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final, TypeAlias

from dspex_trio.rpc.metadata import CONNECTION_FIELDS, NO_METADATA, Metadata, MetadataValue
from dspex_trio.rpc.status import Status, StatusCode

RawHeaders: TypeAlias = Sequence[tuple[bytes, bytes]]

_CONNECTION_SPECIFIC: Final = frozenset(name.encode() for name in CONNECTION_FIELDS)
_FIELD_NAME: Final = re.compile(rb"[!#$%&'*+\-.^_`|~0-9a-z]+")
# Control characters but the tab (RFC 9110, 5.5): passed on, or written to a log, they would be lines of their own.
_FORBIDDEN_IN_VALUE: Final = re.compile(rb"[\x00-\x08\x0a-\x1f\x7f]")
_REQUEST_PSEUDO: Final = frozenset({b":method", b":scheme", b":path", b":authority"})
# Methods, schemes, paths and authorities are made of these alone (RFC 3986, RFC 9110); the narrower rules of each are
# for whoever takes it apart.
_VISIBLE: Final = re.compile(rb"[\x21-\x7e]*")
# Headers that are the protocol's own and no metadata; `grpc-*` likewise, `user-agent` is shown to handlers.
_PROTOCOL: Final = frozenset({"te", "content-type", "content-length"})
_TIMEOUT: Final = re.compile(r"([0-9]{1,8})([HMSmun])")
_SECONDS: Final = {"H": 3600.0, "M": 60.0, "S": 1.0, "m": 1e-3, "u": 1e-6, "n": 1e-9}
_MAX_TIMEOUT_NUMBER: Final = 99_999_999
# Everything printable but '%' may stand for itself in grpc-message.
_PLAIN_IN_MESSAGE: Final = "".join(chr(c) for c in range(0x20, 0x7F) if c != ord("%"))


class MalformedHeaders(Exception):
    """Not an HTTP/2 message at all: the stream is reset with PROTOCOL_ERROR (RFC 9113, 8.1.1)."""


class RefusedRequest(Exception):
    """An HTTP/2 request, but no gRPC call that can be served: its stream is answered with a status."""

    def __init__(self, status: Status, http_status: int = 200) -> None:
        super().__init__(str(status))
        self.status = status
        self.http_status = http_status


@dataclass(frozen=True, slots=True)
class RequestHead:
    """What a call's request headers say."""

    path: str
    metadata: Metadata
    timeout: float | None = None  # seconds
    encoding: str = "identity"
    accept_encoding: tuple[str, ...] = ()
    authority: str = ""


@dataclass(frozen=True, slots=True)
class ResponseHead:
    """What a call's response headers say."""

    metadata: Metadata
    encoding: str = "identity"


def split_request(headers: RawHeaders) -> tuple[dict[bytes, bytes], list[tuple[bytes, bytes]]]:
    """Pseudo-headers and the rest of a well-formed HTTP/2 request.

    Raises:
        MalformedHeaders: The peer broke a rule of RFC 9113, 8.2 or 8.3.
    """
    pseudo: dict[bytes, bytes] = {}
    rest: list[tuple[bytes, bytes]] = []
    for name, value in headers:
        if name[:1] == b":":
            if rest or name in pseudo or name not in _REQUEST_PSEUDO:
                raise MalformedHeaders(f"misplaced, repeated or unknown pseudo-header {name!r}")
            if not _VISIBLE.fullmatch(value):
                raise MalformedHeaders(f"bad value of {name!r}")
            pseudo[name] = value
        else:
            rest.append((name, value))
    check_fields(rest)
    if not pseudo.get(b":method") or not pseudo.get(b":path") or not pseudo.get(b":scheme"):
        raise MalformedHeaders("a pseudo-header is missing or empty")
    return pseudo, rest


def check_fields(fields: RawHeaders) -> None:
    """Check what is common to headers and trailers; raises MalformedHeaders."""
    for name, value in fields:
        if not _FIELD_NAME.fullmatch(name):
            raise MalformedHeaders(f"bad field name {name!r}")
        if name in _CONNECTION_SPECIFIC or (name == b"te" and value != b"trailers"):
            raise MalformedHeaders(f"connection-specific field {name!r}")
        if _FORBIDDEN_IN_VALUE.search(value):
            raise MalformedHeaders(f"bad value of {name!r}")


def parse_request(headers: RawHeaders) -> RequestHead:
    """Understand a call's request headers.

    Raises:
        MalformedHeaders: They are no HTTP/2 request.
        RefusedRequest: They are no gRPC request.
    """
    pseudo, rest = split_request(headers)
    if pseudo[b":method"] != b"POST":
        raise RefusedRequest(Status(StatusCode.INTERNAL, "the method must be POST"), http_status=405)
    own: dict[str, str] = {}
    pairs: list[tuple[str, MetadataValue]] = []
    for raw_name, raw_value in rest:
        name = raw_name.decode("ascii")
        value = _text(name, raw_value)
        if name in _PROTOCOL or name.startswith("grpc-"):
            if name in own and name in {"grpc-timeout", "grpc-encoding", "content-type"}:
                raise RefusedRequest(Status(StatusCode.INTERNAL, f"{name} was sent more than once"))
            own[name] = f"{own[name]},{value}" if name in own else value  # a list, in several lines (RFC 9110, 5.3)
        else:
            pairs += _metadata_pairs(name, value)
    content_type = own.get("content-type", "")
    if not is_grpc(content_type):
        raise RefusedRequest(Status(StatusCode.INTERNAL, f"unsupported content-type {content_type!r}"), http_status=415)
    if "te" not in own:
        raise RefusedRequest(Status(StatusCode.INTERNAL, "the header 'te: trailers' is missing"))
    timeout = own.get("grpc-timeout")
    return RequestHead(
        path=_text(":path", pseudo[b":path"]),
        metadata=Metadata(pairs) if pairs else NO_METADATA,
        timeout=None if timeout is None else parse_timeout(timeout),
        encoding=own.get("grpc-encoding", "identity"),
        accept_encoding=_names(own.get("grpc-accept-encoding", "")),
        authority=_text(":authority", pseudo.get(b":authority", b"")),
    )


def is_grpc(content_type: str) -> bool:
    """Whether a content type is one of gRPC's."""
    return content_type == "application/grpc" or content_type.startswith(("application/grpc+", "application/grpc;"))


def _names(text: str) -> tuple[str, ...]:
    return tuple(name.strip() for name in text.split(",") if name.strip())


def _text(name: str, value: bytes) -> str:
    try:
        return value.decode("utf-8")
    except UnicodeDecodeError:
        raise RefusedRequest(Status(StatusCode.INTERNAL, f"the value of {name!r} is not text")) from None


def _metadata_pairs(name: str, value: str) -> Iterable[tuple[str, MetadataValue]]:
    if not name.endswith("-bin"):
        return ((name, value),)
    try:
        # Values may be joined with commas, and padding is optional to receive (gRPC over HTTP2, "Binary-Header").
        return [(name, decode_binary(part)) for part in value.split(",")]
    except (binascii.Error, ValueError):
        raise RefusedRequest(Status(StatusCode.INTERNAL, f"the value of {name!r} is not base64")) from None


def decode_binary(text: str) -> bytes:
    """The bytes of a `-bin` value; raises ValueError when they are not base64."""
    text = text.strip().rstrip("=")
    return base64.b64decode(text + "=" * (-len(text) % 4), validate=True)


def parse_timeout(text: str) -> float:
    """Seconds of a `grpc-timeout`; raises RefusedRequest."""
    match = _TIMEOUT.fullmatch(text)
    if match is None:
        raise RefusedRequest(Status(StatusCode.INTERNAL, f"malformed grpc-timeout {text[:20]!r}"))
    return int(match[1]) * _SECONDS[match[2]]


def format_timeout(seconds: float) -> str:
    """A `grpc-timeout` that never promises more than `seconds`, in the finest unit that holds it, to five digits.

    Calls that are made one after the other under one deadline mostly say the same so, and their headers are read once.
    """
    for unit in ("u", "m", "S", "M"):
        number = int(seconds / _SECONDS[unit])
        if number <= _MAX_TIMEOUT_NUMBER:
            return f"{_five_digits(max(number, 0))}{unit}"
    return f"{min(int(seconds / 3600), _MAX_TIMEOUT_NUMBER)}H"


def _five_digits(number: int) -> int:
    """The number rounded down."""
    step = 1
    while number >= 100_000 * step:
        step *= 10
    return number - number % step


def encode_metadata(metadata: Metadata) -> list[tuple[bytes, bytes]]:
    """Header fields of metadata that `outgoing` has checked."""
    if not metadata:
        return []
    return [
        (key.encode(), encode_binary(value) if isinstance(value, bytes) else value.encode())
        for key, value in metadata.items()
    ]


def encode_binary(value: bytes) -> bytes:
    """The value of a `-bin` field; padding is not sent, as the protocol advises."""
    return base64.b64encode(value).rstrip(b"=")


def encode_status(status: Status) -> list[tuple[bytes, bytes]]:
    """The trailer fields of a status."""
    fields = [(b"grpc-status", str(int(status.code)).encode())]
    if status.message:
        text = urllib.parse.quote(status.message, safe=_PLAIN_IN_MESSAGE, errors="replace")
        # A field value may not begin or end with a space (RFC 9113, 8.2.1).
        stripped = text.strip(" ")
        before, after = len(text) - len(text.lstrip(" ")), len(text) - len(text.rstrip(" "))
        fields.append((b"grpc-message", ("%20" * before + stripped + "%20" * (after if stripped else 0)).encode()))
    if status.details_bin:
        fields.append((b"grpc-status-details-bin", encode_binary(status.details_bin)))
    return fields
