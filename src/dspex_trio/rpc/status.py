"""How a call ends: status codes, the status itself, and the exception that carries one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from google.protobuf.message import Message

from dspex_trio.interface.named import NamedNumber
from dspex_trio.rpc.metadata import NO_METADATA, MetadataLike, outgoing


class StatusCode(NamedNumber):
    """The codes of gRPC, with their numbers on the wire."""

    OK = 0
    CANCELLED = 1
    UNKNOWN = 2
    INVALID_ARGUMENT = 3
    DEADLINE_EXCEEDED = 4
    NOT_FOUND = 5
    ALREADY_EXISTS = 6
    PERMISSION_DENIED = 7
    RESOURCE_EXHAUSTED = 8
    FAILED_PRECONDITION = 9
    ABORTED = 10
    OUT_OF_RANGE = 11
    UNIMPLEMENTED = 12
    INTERNAL = 13
    UNAVAILABLE = 14
    DATA_LOSS = 15
    UNAUTHENTICATED = 16

    @classmethod
    def from_wire(cls, number: int) -> StatusCode:
        """The code of a number; UNKNOWN for numbers that gRPC does not define."""
        return cls(number) if 0 <= number <= cls.UNAUTHENTICATED else cls.UNKNOWN


@dataclass(frozen=True, slots=True)
class Status:
    """A code, text for people, and a serialised `google.rpc.Status` if there are details."""

    code: StatusCode
    message: str = ""
    details_bin: bytes = b""

    def __str__(self) -> str:
        return f"{self.code.name}: {self.message}" if self.message else self.code.name


OK: Final = Status(StatusCode.OK)


class RpcError(Exception):
    """A call that did not end with OK.

    A handler raises it to choose the status of its call; a stub raises it when a call failed, then with `received` set.
    A received error that leaves a handler of ours is UNKNOWN for our caller: what a server behind us says about our
    request to it says nothing about the request that we got.

    Args:
        code: Anything but OK.
        message: Text for people; it reaches the caller as it is.
        details: Protobuf messages that explain the failure; they travel as `google.rpc.Status`
            (`grpc-status-details-bin`). Received ones of the types in google/rpc/error_details.proto are unpacked,
            others are `google.protobuf.Any` messages.
        metadata: Trailing metadata, to send or as received.

    Attributes:
        status: The code.
        received: Whether it is what a call that was made has ended with, rather than a handler's own.

    Raises:
        TypeError: The message is no text, or a detail no protobuf message.
        ValueError: The code is OK or none of gRPC's, or the metadata cannot be sent.
    """

    def __init__(
        self,
        code: StatusCode,
        message: str = "",
        *,
        details: Sequence[Message] = (),
        metadata: MetadataLike = NO_METADATA,
    ) -> None:
        super().__init__(code, message)
        self.status = StatusCode(code)
        self.message = message
        self.details = tuple(details)
        self.metadata = outgoing(metadata)
        # Here, where it can be told who is wrong: found out when the status is sent, it would be nobody's error.
        if self.status is StatusCode.OK:
            raise ValueError("OK is not an error")
        if not isinstance(message, str):
            raise TypeError(f"the message must be text, not {message!r}")
        if wrong := [detail for detail in self.details if not isinstance(detail, Message)]:
            raise TypeError(f"details must be protobuf messages, not {wrong[0]!r}")
        self.received = False

    def __str__(self) -> str:
        return f"{self.status.name}: {self.message}" if self.message else self.status.name
