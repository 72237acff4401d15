"""Length-prefixed messages and their compression, both bounded.

Why not purerpc's MessageReadBuffer: it cannot tell how many bytes of an unfinished message may be given back to the
sender's window, takes any flag byte, reads "gzip" as zlib and decompresses without a limit.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable, Mapping
from typing import Final

from dspex_trio.rpc.status import Status, StatusCode

PREFIX: Final = struct.Struct(">BI")
# What we send and understand, besides "identity".
ENCODINGS: Final = ("gzip", "deflate")
ACCEPT_ENCODING: Final = "identity,gzip,deflate"

_GZIP_WINDOW: Final = 31  # zlib's wbits for a gzip header and trailer
_ZLIB_WINDOW: Final = 15  # "deflate" of HTTP is the zlib format (RFC 9110, 8.4.1.2)
_WINDOWS: Final[Mapping[str, int]] = {"gzip": _GZIP_WINDOW, "deflate": _ZLIB_WINDOW}


class BadMessage(Exception):
    """The peer's message cannot be taken; its call ends with this status."""

    def __init__(self, status: Status) -> None:
        super().__init__(str(status))
        self.status = status


def compressor(encoding: str) -> Callable[[bytes], bytes]:
    """A function that compresses one message."""
    window = _WINDOWS[encoding]

    def compress(data: bytes) -> bytes:
        # Level 1: on small structured messages the higher levels cost several times the time for a few per cent.
        work = zlib.compressobj(1, zlib.DEFLATED, window)
        return work.compress(data) + work.flush()

    return compress


def frame(data: bytes, compress: Callable[[bytes], bytes] | None = None) -> bytes:
    """One message as it goes on the wire; compressed only if that makes it smaller, as gRPC's core does."""
    if compress is not None:
        smaller = compress(data)
        if len(smaller) < len(data):
            return PREFIX.pack(1, len(smaller)) + smaller
    return PREFIX.pack(0, len(data)) + data


class Packed:
    """A compressed message as it came, to be unpacked by whoever reads it: until then it costs what it cost to send.

    Args:
        data: The compressed bytes.
        encoding: What they are compressed with.
        max_size: The largest message that may come of it.
    """

    __slots__ = ("_data", "_encoding", "_max_size")

    def __init__(self, data: bytes, encoding: str, max_size: int) -> None:
        self._data = data
        self._encoding = encoding
        self._max_size = max_size

    def __len__(self) -> int:
        return len(self._data)

    def unpack(self) -> bytes:
        """The message.

        Raises:
            BadMessage: With RESOURCE_EXHAUSTED if it is over the limit, else INTERNAL.
        """
        work = zlib.decompressobj(_WINDOWS[self._encoding])
        try:
            out = work.decompress(self._data, self._max_size + 1)
        except zlib.error:
            raise BadMessage(Status(StatusCode.INTERNAL, f"a message is not valid {self._encoding}")) from None
        if len(out) > self._max_size:
            raise BadMessage(_too_large(None, self._max_size))
        if not work.eof:
            raise BadMessage(Status(StatusCode.INTERNAL, f"a message is not complete {self._encoding}"))
        if work.unused_data:  # as gRPC's core has it; a second member of gzip's would be lost without a word
            raise BadMessage(Status(StatusCode.INTERNAL, f"a message goes on after the end of its {self._encoding}"))
        return out


class MessageReader:
    """Cuts the bytes of one direction of a call into messages.

    Args:
        encoding: What compressed messages are compressed with, from the peer's `grpc-encoding`.
        max_size: The largest message, both on the wire and decompressed.
    """

    __slots__ = ("_buffer", "_encoding", "_flow", "_max_size", "_needed")

    def __init__(self, encoding: str, max_size: int) -> None:
        self._encoding = encoding
        self._max_size = max_size
        self._buffer = bytearray()
        self._flow = 0  # flow-controlled bytes of the unfinished message that were not given back yet
        self._needed = PREFIX.size

    @property
    def buffered(self) -> int:
        """Bytes of an unfinished message that are held."""
        return len(self._buffer)

    @property
    def needed(self) -> int:
        """The length that what is held must reach before anything more can come of it."""
        return self._needed

    def take_flow(self) -> int:
        """The flow-controlled bytes of the unfinished message, to be given back ahead of its end."""
        flow, self._flow = self._flow, 0
        return flow

    def feed(self, data: bytes) -> list[tuple[bytes | Packed, int]]:
        """Take bytes; return the finished messages, packed if they came so, and what each cost of the sender's window.

        Raises:
            BadMessage: With RESOURCE_EXHAUSTED for one over the limit, else INTERNAL.
        """
        size = len(data)
        if not self._buffer and size >= PREFIX.size:
            flag, length = PREFIX.unpack_from(data)
            if length + PREFIX.size == size:  # the usual case: one frame, one message
                self._check(flag, length)
                return [(self._message(flag, data[PREFIX.size :]), size)]
        self._buffer += data
        self._flow += size
        return self._finished()

    def _finished(self) -> list[tuple[bytes | Packed, int]]:
        done: list[tuple[bytes | Packed, int]] = []
        start, end = 0, len(self._buffer)
        while end - start >= PREFIX.size:
            flag, length = PREFIX.unpack_from(self._buffer, start)
            self._check(flag, length)
            if end - start < PREFIX.size + length:
                break
            body = bytes(memoryview(self._buffer)[start + PREFIX.size : start + PREFIX.size + length])
            start += PREFIX.size + length
            cost = min(self._flow, PREFIX.size + length)
            self._flow -= cost
            done.append((self._message(flag, body), cost))
        if start:
            del self._buffer[:start]
        self._needed = PREFIX.size
        if len(self._buffer) >= PREFIX.size:
            self._needed += PREFIX.unpack_from(self._buffer)[1]
        return done

    def _check(self, flag: int, length: int) -> None:
        if flag > 1:
            raise BadMessage(Status(StatusCode.INTERNAL, f"a message has the compressed-flag {flag}"))
        if flag and self._encoding not in ENCODINGS:
            raise BadMessage(Status(StatusCode.INTERNAL, "a message is compressed but no grpc-encoding was announced"))
        if length > self._max_size:
            raise BadMessage(_too_large(length, self._max_size))

    def _message(self, flag: int, body: bytes) -> bytes | Packed:
        return Packed(body, self._encoding, self._max_size) if flag else body


def _too_large(length: int | None, limit: int) -> Status:
    what = "a decompressed message" if length is None else f"a message of {length} bytes"
    return Status(StatusCode.RESOURCE_EXHAUSTED, f"{what} is larger than the limit of {limit} bytes")
