"""The calls that `just bench-rpc` makes: what servers serve and clients ask for."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from google.protobuf.wrappers_pb2 import BytesValue

SERVICE: Final = "bench.Echo"
_KIB: Final = 2**10


@dataclass(frozen=True, slots=True)
class Shape:
    """One method. Its request is a BytesValue, and each of its replies is the request again.

    Attributes:
        name: For people.
        method: Its name in the service.
        size: Bytes in the value.
        replies: How many replies the server streams; None for a unary method.
        calls: How many calls a batch makes, or as many as are made at once if that is more.
    """

    name: str
    method: str
    size: int
    replies: int | None
    calls: int

    @property
    def path(self) -> str:
        """As HTTP/2's `:path`."""
        return f"/{SERVICE}/{self.method}"

    @property
    def message(self) -> bytes:
        """The serialised request, which is each reply too."""
        message: bytes = BytesValue(value=bytes(i % 251 for i in range(self.size))).SerializeToString()
        return message

    def batch(self, at_once: int, share: float = 1.0) -> int:
        """How many calls a batch makes; `share` is a share of `calls`."""
        return max(int(self.calls * share), at_once)


SHAPES: Final = (
    Shape("small unary", "Small", 16, None, 128),
    Shape("64 KiB unary", "Large", 64 * _KIB, None, 64),
    Shape("32 small replies", "SmallStream", 16, 32, 32),
    Shape("4 replies of 64 KiB", "LargeStream", 64 * _KIB, 4, 32),
)
