"""Metadata of a call: a read-only multimapping, and what may and may not be sent in one."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Final, TypeAlias

MetadataValue: TypeAlias = str | bytes
MetadataLike: TypeAlias = "Metadata | Mapping[str, MetadataValue] | Iterable[tuple[str, MetadataValue]]"

# gRPC over HTTP/2, "Requests": Header-Name and ASCII-Value.
_KEY: Final = re.compile(r"[0-9a-z_.-]+")
_TEXT: Final = re.compile(r"[\x20-\x7e]*")
# The fields of a connection that HTTP/2 forbids in any message (RFC 9113, 8.2.2).
CONNECTION_FIELDS: Final = frozenset({"connection", "keep-alive", "proxy-connection", "transfer-encoding", "upgrade"})
_NOT_METADATA: Final = CONNECTION_FIELDS | {
    "content-length",
    "content-type",
    "host",
    "http2-settings",
    "te",
    "trailer",
    "user-agent",
}


class Metadata:
    """Key and value pairs in the order in which they were sent; a key may come more than once.

    Keys are lower case. The values of keys that end in `-bin` are bytes, all others are text; each kind has its own way
    to be asked for, so that the type of what comes back is known.

    Args:
        pairs: The pairs; checked by `outgoing`, not here.
    """

    __slots__ = ("_pairs",)

    def __init__(self, pairs: Iterable[tuple[str, MetadataValue]] = ()) -> None:
        self._pairs = tuple(pairs)

    def get(self, key: str, default: str | None = None) -> str | None:
        """The first text value under a key."""
        return next(iter(self.get_all(key)), default)

    def get_all(self, key: str) -> tuple[str, ...]:
        """Every text value under a key."""
        return tuple(value for name, value in self._pairs if name == key and isinstance(value, str))

    def binary(self, key: str, default: bytes | None = None) -> bytes | None:
        """The first value under a `-bin` key."""
        return next(iter(self.binary_all(key)), default)

    def binary_all(self, key: str) -> tuple[bytes, ...]:
        """Every value under a `-bin` key."""
        return tuple(value for name, value in self._pairs if name == key and isinstance(value, bytes))

    def items(self) -> tuple[tuple[str, MetadataValue], ...]:
        """All pairs."""
        return self._pairs

    def __contains__(self, key: object) -> bool:
        return any(name == key for name, _ in self._pairs)

    def __iter__(self) -> Iterator[tuple[str, MetadataValue]]:
        return iter(self._pairs)

    def __len__(self) -> int:
        return len(self._pairs)

    def __add__(self, other: Metadata) -> Metadata:
        return Metadata(self._pairs + other._pairs)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Metadata) and self._pairs == other._pairs

    def __hash__(self) -> int:
        return hash(self._pairs)

    def __repr__(self) -> str:
        return f"Metadata({list(self._pairs)!r})"


NO_METADATA: Final = Metadata()


def outgoing(metadata: MetadataLike) -> Metadata:
    """Metadata fit to be sent.

    Raises:
        ValueError: A key is not a gRPC header name or is the protocol's own, a text value is not printable ASCII, or a
            value is of the wrong kind for its key.
    """
    if isinstance(metadata, Metadata) and not metadata:
        return metadata
    pairs = metadata.items() if isinstance(metadata, Mapping) else metadata
    return Metadata([_checked(key, value) for key, value in pairs])


def _checked(key: str, value: MetadataValue) -> tuple[str, MetadataValue]:
    if not _KEY.fullmatch(key):
        raise ValueError(f"metadata key {key!r} must be lower case letters, digits, '_', '.' and '-'")
    if key.startswith("grpc-") or key in _NOT_METADATA:
        raise ValueError(f"metadata key {key!r} belongs to the protocol and cannot be sent as metadata")
    if key.endswith("-bin"):
        if not isinstance(value, bytes):
            raise ValueError(f"metadata under {key!r} must be bytes")
    elif not isinstance(value, str):
        raise ValueError(f"metadata under {key!r} must be text; keys of binary values end in '-bin'")
    elif not _TEXT.fullmatch(value):
        raise ValueError(f"metadata under {key!r} must be printable ASCII")
    else:
        value = value.strip(" ")  # not significant, and HTTP/2 forbids it on the wire (RFC 9113, 8.2.1)
    return key, value
