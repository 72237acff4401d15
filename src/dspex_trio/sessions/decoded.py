"""Decoded variables, kept for as long as the store sends the same bytes: saves decoding, never asks less."""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from dspex_trio.model import Variable
from dspex_trio.model.values import plain
from dspex_trio.wire import decode_variable
from dspex_trio.wire.generated import bridge_pb2

MAX_BYTES: Final = 64 * 1024 * 1024
"""What the messages of all kept variables may take; beyond, the longest unused ones go."""

MAX_KEPT: Final = 64 * 1024
"""The largest message that is kept, in bytes; decoding a larger one is a matter of its size anyway."""


class DecodedVariables:
    """The decoded forms of variables of any number of sessions.

    Args:
        max_bytes: What the kept messages may take in total.
    """

    def __init__(self, max_bytes: int = MAX_BYTES) -> None:
        self._max_bytes = max_bytes
        self._bytes = 0
        self._kept: dict[tuple[str, str], tuple[bridge_pb2.Variable, Variable, int]] = {}  # in the order of their use

    def __len__(self) -> int:
        return len(self._kept)

    def decode(self, session_id: str, identifier: str, message: bridge_pb2.Variable) -> Variable:
        """The variable in `message`; its value is the caller's to change.

        Raises:
            VariableInvalid: It cannot be decoded.
        """
        key = (session_id, identifier)
        kept = self._kept.pop(key, None)
        if kept is None or kept[0] != message:
            if kept is not None:
                self._bytes -= kept[2]
            size = message.ByteSize() + len(session_id) + len(identifier)
            variable = decode_variable(message)
            if size > MAX_KEPT:
                return variable
            own = bridge_pb2.Variable()
            own.CopyFrom(message)  # a part of a reply would keep all of it in memory
            kept = (own, variable, size)
            self._bytes += size
        self._kept[key] = kept
        while self._bytes > self._max_bytes:
            self._bytes -= self._kept.pop(next(iter(self._kept)))[2]
        variable = kept[1]
        if isinstance(variable.value, (list, dict)):
            return replace(variable, value=plain(variable.value))
        return variable
