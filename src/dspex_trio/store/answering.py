"""How a store answers: once what it tells is safe, and with the status of a real store for what it refuses."""

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
    """What is read or written in the block is answered when it is safe; what the store refuses, as a status.

    Args:
        journal: Makes it safe; None where nothing is kept beyond the process.
    """

    def __init__(self, journal: Journal | None) -> None:
        self._journal = journal

    def of(self, read: Callable[[], T]) -> rpc.Reply[T]:
        """The same of what a function reads: here and now if that is safe, else it reads again and waits."""
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
        """Nothing to do."""

    async def __aexit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if error is None:
            await self.settled()  # noqa: ASYNC102 - no cleanup: whoever is cancelled here is not answered
        elif isinstance(error, StoreError):
            # That something is not there may be news as well.
            await self.settled()  # noqa: ASYNC102 - as above
            raise as_status(error) from error

    async def settled(self) -> None:
        """Wait until all that was noted up to now is safe."""
        if self._journal is not None:
            await self._journal.settled()


def as_status(error: StoreError) -> rpc.RpcError:
    """What the store refuses, as a status."""
    return rpc.RpcError(_STATUSES[type(error)], str(error))
