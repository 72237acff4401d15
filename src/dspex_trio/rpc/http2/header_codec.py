"""HPACK (RFC 7541) for connections that say the same thing over and over.

A block is encoded or decoded once and remembered for as long as that is the same as doing it afresh: what a block means
depends on nothing but its bytes and the dynamic table, so a block that left the table as it was can be reused until the
table changes. The tables count their changes; every one of them empties the memory.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final

import hpack
from hpack.exceptions import HPACKDecodingError, InvalidTableSizeError, OversizedHeaderListError
from hpack.huffman_table import decode_huffman
from hpack.table import HeaderTable

_MAX_REMEMBERED: Final = 256
_MAX_BLOCK: Final = 1024
# An integer of HPACK that needs more bytes than this is larger than anything that may be sent (RFC 7541, 5.1).
_MAX_INTEGER_BYTES: Final = 5
# Of a list that is too large so many bytes of fields that change the table are read: a few milliseconds' work, during
# which nobody else has a turn.
_MAX_WORK: Final = 2**16
# Bits of the longest code of a character (RFC 7541, appendix B).
_LONGEST_CODE: Final = 30
# What each field counts besides its bytes, in tables and in lists (RFC 7541, 4.1; RFC 9113, 6.5.2).
ENTRY_OVERHEAD: Final = 32
# The first bits of a field (RFC 7541, 6) and of a string (5.2), and the prefixes of integers that follow them.
_INDEXED, _ADDED, _RESIZE, _KIND = 0x80, 0x40, 0x20, 0x60
_HUFFMAN, _MORE = 0x80, 0x80
_BITS_7, _BITS_6, _BITS_5, _BITS_4 = 0x7F, 0x3F, 0x1F, 0x0F

Field = tuple[bytes, bytes]


class CountingTable(HeaderTable):  # type: ignore[misc] # hpack is untyped
    """A header table that counts its changes."""

    resized: bool

    def __init__(self) -> None:
        super().__init__()
        self.changes = 0

    def add(self, name: bytes, value: bytes) -> None:
        """Add an entry, which may evict others."""
        self.changes += 1
        super().add(name, value)

    @property
    def maxsize(self) -> int:
        """The most that the entries may take up."""
        return int(self._maxsize)

    @maxsize.setter
    def maxsize(self, size: int) -> None:
        self.changes += 1
        # hpack forgets a change that was not announced yet when the same size is set again.
        resized = self.resized
        HeaderTable.maxsize.fset(self, size)
        self.resized = self.resized or resized


class HeaderBlock(list[Field]):
    """The fields of a decoded block; the same object each time that the same block is decoded.

    Attributes:
        oversized: Whether they were more than is taken: those that were too many are not here.
        parsed: For whoever makes something of the fields and wants to do it once.
    """

    __slots__ = ("oversized", "parsed")

    def __init__(self, fields: list[Field], *, oversized: bool = False) -> None:
        super().__init__(fields)
        self.oversized = oversized
        self.parsed: Any = None


class BlockEncoder(hpack.Encoder):  # type: ignore[misc] # hpack is untyped
    """Encodes tuples of fields that come again and again."""

    table_size_changes: list[int]

    def __init__(self) -> None:
        super().__init__()
        self.header_table = CountingTable()
        self._known: dict[tuple[Field, ...], bytes] = {}
        self._known_at = 0

    @property
    def header_table_size(self) -> int:
        """What the peer allows the table to hold."""
        return int(self.header_table.maxsize)

    @header_table_size.setter
    def header_table_size(self, size: int) -> None:
        self.header_table.maxsize = size
        if self.header_table.resized:
            # The smallest size in between and the last one, however many there were (RFC 7541, 4.2).
            smallest = min([size, *self.table_size_changes])
            self.table_size_changes = [smallest, size] if smallest < size else [size]

    def encode_again(self, fields: tuple[Field, ...]) -> bytes:
        """The block of these fields."""
        table = self.header_table
        if self._known_at == table.changes and not table.resized:
            known = self._known.get(fields)
            if known is not None:
                return known
        else:
            self._known.clear()
        # A block with a table size update in front of it is not to be said again.
        before, once = table.changes, table.resized
        block = bytes(self.encode(fields))
        self._known_at = table.changes
        if table.changes != before:
            self._known.clear()
        elif not once and len(self._known) < _MAX_REMEMBERED:
            self._known[fields] = block
        return block


class BlockDecoder(hpack.Decoder):  # type: ignore[misc] # hpack is untyped
    """Decodes as hpack's does, with less work for each field and with a limit on integers.

    hpack 3 reads an integer of any length, which takes seconds for one that fills a block. Of a list that is larger
    than `max_header_list_size` the rest is read for what it does to the table alone, so that the next block can be
    decoded.

    Args:
        max_read: The largest list of which that is done.
    """

    def __init__(self, max_read: int = 2**18) -> None:
        super().__init__()
        self._max_read = max_read
        self.header_table = CountingTable()
        self._known: dict[bytes, HeaderBlock] = {}
        self._known_at = 0

    def decode(self, data: bytes, raw: bool = True) -> HeaderBlock:  # noqa: ARG002, FBT001, FBT002 - hpack's signature
        """The fields of a block, as bytes.

        Raises:
            HPACKDecodingError: It is none.
            OversizedHeaderListError: Even to read on and forget would take too long; the table is of no more use.
        """
        table = self.header_table
        if self._known_at == table.changes:
            known = self._known.get(data)
            if known is not None:
                return known
        before = table.changes
        fields, oversized = self._fields(data)
        block = HeaderBlock(fields, oversized=oversized)
        self._known_at = table.changes
        if table.changes != before or len(self._known) >= _MAX_REMEMBERED:
            self._known.clear()
        if table.changes == before and len(data) <= _MAX_BLOCK:
            self._known[bytes(data)] = block
        return block

    def _fields(self, data: bytes) -> tuple[list[Field], bool]:
        table, limit = self.header_table, self.max_header_list_size
        fields: list[Field] = []
        size, work, position, end = 0, 0, 0, len(data)
        oversized = False
        while position < end:
            first, start = data[position], position
            field: Field | None
            if first & _INDEXED:
                index, position = _integer(data, position, _BITS_7)
                field = table.get_by_index(index)
            elif first & _KIND == _RESIZE:
                if size:
                    raise HPACKDecodingError("a table size update after the first field")
                new_size, position = _integer(data, position, _BITS_5)
                if new_size > self.max_allowed_table_size:
                    raise InvalidTableSizeError("the table would be larger than allowed")
                table.maxsize = new_size
                continue
            else:
                added = bool(first & _ADDED)
                most = max(0 if oversized else limit, table.maxsize if added else 0)
                field, position = self._literal(data, position, most, added=added)
                work += position - start if oversized and added else 0
            size += ENTRY_OVERHEAD + (position - start if field is None else len(field[0]) + len(field[1]))
            oversized = oversized or field is None or size > limit
            if field is not None and not oversized:
                fields.append(field)
            if size > self._max_read or work > _MAX_WORK:
                raise OversizedHeaderListError(f"the header list is far larger than {limit} bytes")
        self._assert_valid_table_size()
        return fields, oversized

    def _literal(self, data: bytes, position: int, most: int, *, added: bool) -> tuple[Field | None, int]:
        """A field that is not in the table as a whole, if it has no string of more than `most` bytes."""
        table = self.header_table
        index, position = _integer(data, position, _BITS_6 if added else _BITS_4)
        name: bytes | None
        if index:
            name = table.get_by_index(index)[0]
        else:
            name, position = _string(data, position, most)
        value, position = _string(data, position, most)
        if name is not None and value is not None:
            if added:
                table.add(name, value)
            return (name, value), position
        if added:
            table.add(b"", bytes(table.maxsize))  # what is larger than the table empties it (RFC 7541, 4.4)
        return None, position


def _integer(data: bytes, position: int, mask: int) -> tuple[int, int]:
    """An integer whose first bits are those of `mask`, and the position after it (RFC 7541, 5.1)."""
    try:
        number = data[position] & mask
        position += 1
        if number < mask:
            return number, position
        for shift in range(0, 7 * _MAX_INTEGER_BYTES, 7):
            part = data[position]
            position += 1
            number += (part & _BITS_7) << shift
            if not part & _MORE:
                return number, position
    except IndexError:
        raise HPACKDecodingError("the block ends within an integer") from None
    raise HPACKDecodingError("an integer is too large")


def _string(data: bytes, position: int, most: int) -> tuple[bytes | None, int]:
    """A string, and the position after it (RFC 7541, 5.2); None in place of one of more than `most` bytes."""
    start = position
    length, position = _integer(data, position, _BITS_7)
    after = position + length
    if after > len(data):
        raise HPACKDecodingError("the block ends within a string")
    huffman = data[start] & _HUFFMAN
    if (length * 8 // _LONGEST_CODE if huffman else length) > most:
        return None, after
    text = data[position:after]
    if huffman:
        text = decode_huffman(text)
    return text if len(text) <= most else None, after


def header_list_size(fields: Iterable[Field]) -> int:
    """The size of a header list as RFC 9113, 6.5.2 counts it."""
    return sum(len(name) + len(value) + ENTRY_OVERHEAD for name, value in fields)


def literal(name: bytes, value: bytes) -> bytes:
    """A field that neither uses nor changes the table (RFC 7541, 6.2.2): for values that will not come again."""
    return b"\x00" + _prefixed(name) + _prefixed(value)


def _prefixed(text: bytes) -> bytes:
    length = len(text)
    if length < _BITS_7:
        return bytes((length,)) + text
    prefix = bytearray((_BITS_7,))
    length -= _BITS_7
    while length > _BITS_7:
        prefix.append(length & _BITS_7 | _MORE)
        length >>= 7
    prefix.append(length)
    return bytes(prefix) + text
