"""What a client reads: response heads, trailers, and what a status of HTTP's means in gRPC's terms."""

from __future__ import annotations

import binascii
import urllib.parse
from collections.abc import Mapping
from typing import Final

from dspex_trio.rpc.http2.headers import (
    MalformedHeaders,
    RawHeaders,
    ResponseHead,
    check_fields,
    decode_binary,
    is_grpc,
)
from dspex_trio.rpc.metadata import NO_METADATA, Metadata, MetadataValue
from dspex_trio.rpc.status import OK, Status, StatusCode

# "HTTP to gRPC Status Code Mapping"; everything else is UNKNOWN.
_HTTP_STATUS: Final[Mapping[int, StatusCode]] = {
    400: StatusCode.INTERNAL,
    401: StatusCode.UNAUTHENTICATED,
    403: StatusCode.PERMISSION_DENIED,
    404: StatusCode.UNIMPLEMENTED,
    429: StatusCode.UNAVAILABLE,
    502: StatusCode.UNAVAILABLE,
    503: StatusCode.UNAVAILABLE,
    504: StatusCode.UNAVAILABLE,
}


class BadResponse(Exception):
    """The server's headers cannot be understood; the call ends with this status."""

    def __init__(self, status: Status) -> None:
        super().__init__(str(status))
        self.status = status


def split_response(headers: RawHeaders, *, pseudo: bool) -> tuple[dict[str, str], Metadata]:
    """The protocol's own fields (and `:status`, if there is to be one), and the metadata; raises BadResponse."""
    if pseudo and not (headers and headers[0][0] == b":status"):
        raise BadResponse(Status(StatusCode.INTERNAL, "malformed response: it does not begin with :status"))
    try:
        check_fields(headers[1:] if pseudo else headers)
    except MalformedHeaders as error:
        raise BadResponse(Status(StatusCode.INTERNAL, f"malformed response: {error}")) from None
    own: dict[str, str] = {}
    pairs: list[tuple[str, MetadataValue]] = []
    for raw_name, raw_value in headers:
        name = raw_name.decode("latin-1")
        value = raw_value.decode("utf-8", "replace")
        if name.startswith((":", "grpc-")) or name in {"content-type", "content-length", "te"}:
            own.setdefault(name, value)
        elif not name.endswith("-bin"):
            pairs.append((name, value))
        else:
            try:
                pairs += [(name, decode_binary(part)) for part in value.split(",")]
            except (binascii.Error, ValueError):
                raise BadResponse(Status(StatusCode.INTERNAL, f"the value of {name!r} is not base64")) from None
    return own, Metadata(pairs) if pairs else NO_METADATA


def parse_response(headers: RawHeaders) -> ResponseHead:
    """Understand response headers that do not end the stream; raises BadResponse."""
    own, metadata = split_response(headers, pseudo=True)
    _check_http(own)
    return ResponseHead(metadata, own.get("grpc-encoding", "identity"))


def parse_trailers(headers: RawHeaders, *, only: bool) -> tuple[Status, Metadata]:
    """Status and trailing metadata; `only` when the response had no other headers. Raises BadResponse."""
    own, metadata = split_response(headers, pseudo=only)
    if only and "grpc-status" not in own:
        _check_http(own)
    number = own.get("grpc-status", "")
    if not number:
        raise BadResponse(Status(StatusCode.UNKNOWN, "the server ended the stream without a grpc-status"))
    if not (number.isascii() and number.isdigit()):
        raise BadResponse(Status(StatusCode.UNKNOWN, f"the server sent the grpc-status {number[:20]!r}"))
    code = StatusCode.from_wire(int(number[:9]))
    if code is StatusCode.OK:
        return OK, metadata
    message = urllib.parse.unquote(own.get("grpc-message", ""), errors="replace")
    try:
        details = decode_binary(own.get("grpc-status-details-bin", ""))
    except (binascii.Error, ValueError):
        details = b""  # the status itself is what matters; unreadable details are as good as none
    return Status(code, message, details), metadata


def _check_http(own: Mapping[str, str]) -> None:
    http_status = own.get(":status", "")
    if http_status != "200":
        number = int(http_status[:9]) if http_status.isascii() and http_status.isdigit() else 0
        code = _HTTP_STATUS.get(number, StatusCode.UNKNOWN)
        raise BadResponse(Status(code, f"the server answered with HTTP status {number or 'missing'}"))
    content_type = own.get("content-type", "")
    if not is_grpc(content_type):
        raise BadResponse(Status(StatusCode.UNKNOWN, f"the server answered with content-type {content_type[:80]!r}"))
