"""What travels between a process and its child: a kind, a length, bytes. Nothing of it is ever unpickled."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import Final

# The parent asks, tells the child to stop, and replies to calls of the child.
REQUEST: Final = b"q"
STOP: Final = b"s"
REPLY: Final = b"y"
# The child answers, or tells what was raised; on the way it reports, calls the parent, and writes to its log.
ANSWER: Final = b"a"
FAILURE: Final = b"e"
REPORT: Final = b"p"
CALL: Final = b"c"
LOG: Final = b"l"

HEADER: Final = struct.Struct("!cQ")
NUMBER: Final = struct.Struct("!Q")
"""Which call a CALL or REPLY is: what their data begin with."""


class TooLarge(Exception):
    """A frame is longer than the other end may send."""


def framed(kind: bytes, data: bytes) -> bytes:
    """One frame."""
    return HEADER.pack(kind, len(data)) + data


class Frames:
    """Takes frames out of a stream of bytes.

    Args:
        max_bytes: The longest frame.
    """

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._buffer = bytearray()

    def feed(self, data: bytes) -> Iterator[tuple[bytes, bytes]]:
        """The kind and the data of each frame that is whole now; raises TooLarge for one that is too long."""
        self._buffer += data
        while len(self._buffer) >= HEADER.size:
            kind, length = HEADER.unpack_from(self._buffer)
            if length > self._max_bytes:
                raise TooLarge(f"it sent {length} bytes, more than {self._max_bytes}")
            end = HEADER.size + length
            if len(self._buffer) < end:
                return
            frame = bytes(self._buffer[HEADER.size : end])
            del self._buffer[:end]
            yield kind, frame
