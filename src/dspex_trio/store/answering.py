"""A store's replies: sent once what they report is on disk; refusals become the statuses of snakepit's own store."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, TypeVar

from dspex_trio import rpc
from dspex_trio.store.journal import Journal
from dspex_trio.store.records import Conflict, Exists, Full, NotStored, Refused, StoreError

_STATUSES: Final[dict[type[StoreError], rpc.StatusCode]] = {
    NotStored: rpc.StatusCode.NOT_FOUND,
    Refused: rpc.StatusCode.INVALID_ARGUMENT,
    Exists: rpc.StatusCode.ALREADY_EXISTS,
    Conflict: rpc.StatusCode.ABORTED,
    Full: rpc.StatusCode.RESOURCE_EXHAUSTED,
}


T = TypeVar("T")


class DurableReply:
    """A block whose end waits until what it read or wrote is on disk; errors of the store become statuses.

    Args:
        journal: Writes to the disk; None for a store in memory only.
    """

    def __init__(self, journal: Journal | None) -> None:
        self._journal = journal

    def of(self, read: Callable[[], T]) -> rpc.Reply[T]:
        """Reply with what a function reads: at once if that is on disk, else read again and wait until it is."""
        try:
            found = read()
        except StoreError as error:
            if self._is_safe():
                raise as_status(error) from error
        else:
            if self._is_safe():
                return found
        return self._later(read)

    def _is_safe(self) -> bool:
        return self._journal is None or self._journal.is_settled

    async def _later(self, read: Callable[[], T]) -> T:
        async with self:
            return read()

    async def __aenter__(self) -> None:
        """Enter; there is nothing to prepare."""

    async def __aexit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if error is None:
            await self.settled()  # noqa: ASYNC102 - no cleanup: whoever is cancelled here is not answered
        elif isinstance(error, StoreError):
            # That something is missing may also depend on a change that is not on disk yet.
            await self.settled()  # noqa: ASYNC102 - as above
            raise as_status(error) from error

    async def settled(self) -> None:
        """Wait until every change noted so far is on disk."""
        if self._journal is not None:
            await self._journal.settled()


def as_status(error: StoreError) -> rpc.RpcError:
    """The gRPC error for an error of the store."""
    return rpc.RpcError(_STATUSES[type(error)], str(error))
