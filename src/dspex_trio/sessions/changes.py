"""The changes that a watch of variables yields."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass

from dspex_trio import rpc
from dspex_trio.model import Variable
from dspex_trio.sessions.calling import StoreCalls
from dspex_trio.wire import decode_variable
from dspex_trio.wire.generated import bridge_pb2


@dataclass(frozen=True, slots=True)
class VariableChange:
    """What happened to a variable.

    Attributes:
        kind: `initial`, `registered`, `updated` or `deleted`.
        variable: The variable as it is now; as it last was when it was deleted.
    """

    kind: str
    variable: Variable


class Changes:
    """A watch's changes: no async generator, which would outlive the block that it is used in."""

    def __init__(self, updates: AsyncIterator[bridge_pb2.VariableUpdate], calls: StoreCalls) -> None:
        self._updates = updates
        self._calls = calls

    def __aiter__(self) -> Changes:
        return self

    async def __anext__(self) -> VariableChange:
        try:
            update = await anext(self._updates)
        except rpc.RpcError as error:
            raise await self._calls.to_trial_error(error) from error
        return VariableChange(update.update_type, decode_variable(update.variable))
