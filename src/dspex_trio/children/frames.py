"""The frames between a process and its child: a kind, the number of an exchange, a length, bytes. Never unpickled."""

from __future__ import annotations

import struct
import traceback
from collections.abc import Iterator
from typing import Final

# From the parent: a request, its cancellation, the reply to a call of the child, a heartbeat, the end of it all.
REQUEST: Final = b"q"
STOP: Final = b"s"
REPLY: Final = b"y"
PING: Final = b"i"
END: Final = b"x"
# From the child: an answer, or what was raised instead; on the way reports and calls. Before an answer, that something
# goes on after it; and that this has ended. A line for the log, a heartbeat's answer, what belongs to no exchange.
ANSWER: Final = b"a"
FAILURE: Final = b"e"
REPORT: Final = b"p"
CALL: Final = b"c"
HELD: Final = b"h"
FREED: Final = b"f"
LOG: Final = b"l"
PONG: Final = b"o"
NOTE: Final = b"n"

HEADER: Final = struct.Struct("!cQQ")
NUMBER: Final = struct.Struct("!Q")
"""Which call of an exchange a CALL or REPLY is: what their data begin with."""


def failure(error: BaseException) -> bytes:
    """An exception: its type, its text and its traceback."""
    parts = (
        f"{type(error).__module__}.{type(error).__qualname__}",
        str(error).replace("\0", "?"),
        "".join(traceback.format_exception(error)),
    )
    return b"\0".join(part.encode("utf-8", "replace") for part in parts)


class TooLarge(Exception):
    """A frame is longer than the other end may send."""


def framed(kind: bytes, exchange: int, data: bytes) -> bytes:
    """One frame."""
    return HEADER.pack(kind, exchange, len(data)) + data


class Frames:
    """Takes frames out of a stream of bytes.

    Args:
        max_bytes: The longest frame.
    """

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._buffer = bytearray()

    def feed(self, data: bytes) -> Iterator[tuple[bytes, int, bytes]]:
        """Kind, exchange and data of each frame that is complete now; raises TooLarge for one that is too long."""
        self._buffer += data
        taken = 0
        try:
            while len(self._buffer) - taken >= HEADER.size:
                kind, exchange, length = HEADER.unpack_from(self._buffer, taken)
                if length > self._max_bytes:
                    raise TooLarge(f"it sent {length} bytes, more than {self._max_bytes}")
                start = taken + HEADER.size
                if len(self._buffer) < start + length:
                    return
                taken = start + length
                yield kind, exchange, bytes(memoryview(self._buffer)[start:taken])
        finally:
            del self._buffer[:taken]
