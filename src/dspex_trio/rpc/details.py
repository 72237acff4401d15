"""Rich status: protobuf messages that explain a failure, as `google.rpc.Status` in `grpc-status-details-bin`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from google.protobuf.message import DecodeError, Message

from dspex_trio.rpc.generated import error_details_pb2, status_pb2
from dspex_trio.rpc.metadata import NO_METADATA, Metadata
from dspex_trio.rpc.status import RpcError, Status, StatusCode

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
    text = error.message.encode(errors="replace").decode()  # half a surrogate pair has no UTF-8
    status = status_pb2.Status(code=int(error.status), message=text)
    for detail in error.details:
        # Not Any.Pack: the message may belong to another descriptor pool.
        packed = status.details.add()
        packed.type_url = _PREFIX + detail.DESCRIPTOR.full_name
        packed.value = detail.SerializeToString()
    return bytes(status.SerializeToString())


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
