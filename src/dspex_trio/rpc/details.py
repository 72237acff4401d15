"""Rich status: protobuf messages that explain a failure, as `google.rpc.Status` in `grpc-status-details-bin`."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Mapping
from typing import Final

from google.protobuf.message import DecodeError, Message

from dspex_trio.rpc.generated import error_details_pb2, status_pb2
from dspex_trio.rpc.metadata import NO_METADATA, Metadata
from dspex_trio.rpc.status import RpcError, Status, StatusCode

# Characters of a failure's text that are kept at least, whatever else is left out for it, and at most.
_LEAST_TEXT: Final = 200
_MOST_TEXT: Final = 2**16
_WAS_CUT: Final = "… (the status is larger than the client takes)"
_PREFIX: Final = "type.googleapis.com/"
# The standard payloads; messages of other types stay packed.
_KNOWN: Final[Mapping[str, type[Message]]] = {
    f"google.rpc.{name}": getattr(error_details_pb2, name)
    for name in (
        "BadRequest",
        "DebugInfo",
        "ErrorInfo",
        "Help",
        "LocalizedMessage",
        "PreconditionFailure",
        "QuotaFailure",
        "RequestInfo",
        "ResourceInfo",
        "RetryInfo",
    )
}


def pack_details(error: RpcError) -> bytes:
    """The serialised `google.rpc.Status` of an error, or nothing when it has no details.

    Raises:
        EncodeError: A detail lacks a field that its type requires.
    """
    if not error.details:
        return b""
    status = status_pb2.Status(code=int(error.status), message=_utf8(error.message))
    for detail in error.details:
        # Not Any.Pack: the message may belong to another descriptor pool.
        packed = status.details.add()
        packed.type_url = _PREFIX + detail.DESCRIPTOR.full_name
        packed.value = detail.SerializeToString()
    return bytes(status.SerializeToString())


def fitted(status: Status, metadata: Metadata, takes: Callable[[Status, Metadata], bool]) -> tuple[Status, Metadata]:
    """A failure and its metadata, or as much of them as the client takes: the code itself has to arrive.

    The text is cut. Where that is not enough the metadata is left out, or else the details, or both.
    """
    if takes(status, metadata):
        return status, metadata
    for with_details, kept in ((True, metadata), (True, NO_METADATA), (False, metadata), (False, NO_METADATA)):

        def too_long(length: int) -> bool:
            return not takes(_cut(status, length, with_details=with_details), kept)  # noqa: B023 - called at once

        lengths = range(min(_LEAST_TEXT, len(status.message)), min(_MOST_TEXT, len(status.message)) + 1)
        if fitting := bisect_left(lengths, True, key=too_long):
            return _cut(status, lengths[fitting - 1], with_details=with_details), kept
    return Status(status.code), NO_METADATA


def _cut(status: Status, length: int, *, with_details: bool) -> Status:
    """So much of the text. The details repeat it: clients that compare the two refuse details of another."""
    text = status.message[:length] + _WAS_CUT
    if not (with_details and status.details_bin):
        return Status(status.code, text)
    rich = status_pb2.Status.FromString(status.details_bin)
    rich.message = _utf8(text)
    return Status(status.code, text, bytes(rich.SerializeToString()))


def _utf8(text: str) -> str:
    """Half a surrogate pair has no UTF-8."""
    return text.encode(errors="replace").decode()


def received_error(status: Status, trailers: Metadata) -> RpcError:
    """The error of a status that a server sent; details that cannot be read are dropped."""
    details: list[Message] = []
    if status.details_bin:
        try:
            rich = status_pb2.Status.FromString(status.details_bin)
            details = [_unpacked(detail.type_url, detail.value) or detail for detail in rich.details]
        except DecodeError:
            details = []
    error = RpcError(status.code, status.message, details=details)
    error.metadata, error.received = trailers, True
    return error


def failed_call(code: StatusCode, message: str) -> RpcError:
    """The error of a call that was made here and whose end no server has told."""
    return received_error(Status(code, message), NO_METADATA)


def _unpacked(type_url: str, value: bytes) -> Message | None:
    known = _KNOWN.get(type_url.rpartition("/")[2])
    return None if known is None else known.FromString(value)
