"""How a store answers: once what it tells is safe, and with the status of a real store for what it refuses."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Final

from dspex_trio import rpc
from dspex_trio.sessions.records import Conflict, Exists, Full, NotStored, Refused, StoreError

_STATUSES: Final[dict[type[StoreError], rpc.StatusCode]] = {
    NotStored: rpc.StatusCode.NOT_FOUND,
    Refused: rpc.StatusCode.INVALID_ARGUMENT,
    Exists: rpc.StatusCode.ALREADY_EXISTS,
    Conflict: rpc.StatusCode.ABORTED,
    Full: rpc.StatusCode.RESOURCE_EXHAUSTED,
}


async def at_once() -> None:
    """There is nothing to wait for."""


class Answer:
    """What is read or written in the block is answered when it is safe; what the store refuses, as a status.

    Args:
        settled: Waits until what the store has noted up to now is safe.
    """

    def __init__(self, settled: Callable[[], Awaitable[None]]) -> None:
        self._settled = settled

    async def __aenter__(self) -> None:
        """Nothing to do."""

    async def __aexit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if error is None:
            await self._settled()  # noqa: ASYNC102 - no cleanup: whoever is cancelled here is not answered
        elif isinstance(error, StoreError):
            # That something is not there may be news as well.
            await self._settled()  # noqa: ASYNC102 - as above
            raise as_status(error) from error


def as_status(error: StoreError) -> rpc.RpcError:
    """What the store refuses, as a status."""
    return rpc.RpcError(_STATUSES[type(error)], str(error))
