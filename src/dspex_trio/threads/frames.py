"""What travels between a process and its child: a kind, a length, bytes. Nothing of it is ever unpickled."""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import Final

# The parent asks; the child is ready, answers, reports on the way, or tells what was raised.
REQUEST: Final = b"q"
READY: Final = b"r"
ANSWER: Final = b"a"
REPORT: Final = b"p"
FAILURE: Final = b"e"

HEADER: Final = struct.Struct("!cQ")


def framed(kind: bytes, data: bytes) -> bytes:
    """One frame."""
    return HEADER.pack(kind, len(data)) + data


def read_exactly(receive: Callable[[int], bytes], length: int) -> bytes:
    """Read so many bytes; raises EOFError if the other end is gone before."""
    data = bytearray()
    while len(data) < length:
        piece = receive(min(length - len(data), 1 << 20))
        if not piece:
            raise EOFError
        data += piece
    return bytes(data)
