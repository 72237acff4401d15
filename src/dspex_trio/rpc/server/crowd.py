"""The limit on connections: those without a call yet are evicted first, and no address may take all of them."""

from __future__ import annotations

import sys
from collections import Counter
from typing import Final, Protocol

# Of the files that a process may have open, so much is left for everything else.
_SHARE_OF_FILES: Final = 0.75


class Guest(Protocol):
    """A connection, from when it is accepted."""

    @property
    def address(self) -> str | None:
        """The peer's IP address; None if it has none."""
        ...

    @property
    def known(self) -> bool:
        """Whether it has made a call that was let in."""
        ...

    @property
    def heard_at(self) -> float:
        """When its peer last sent something, or came."""
        ...

    def evict(self) -> None:
        """End at once."""
        ...


class Crowd:
    """The connections of a server.

    Args:
        most: How many there may be.
        most_of_one: How many there may be of one address.
    """

    def __init__(self, most: int, most_of_one: int) -> None:
        self._most = most
        self._most_of_one = most_of_one
        self._present: dict[Guest, None] = {}
        self._of_one: Counter[str | None] = Counter()

    def __len__(self) -> int:
        return len(self._present)

    def let_in(self, guest: Guest) -> bool:
        """Count one more, and evict a stranger for it if need be; False if there is no room and no stranger.

        Of the strangers the one leaves that has been silent for the longest time: of the guest's own address, if that
        has as many connections as one may have.
        """
        crowded = guest.address is not None and self._of_one[guest.address] >= self._most_of_one
        if crowded or len(self._present) >= self._most:
            rivals = (one for one in self._present if not one.known and (not crowded or one.address == guest.address))
            idlest = min(rivals, key=lambda one: one.heard_at, default=None)
            if idlest is None:
                return False
            self.leave(idlest)
            idlest.evict()
        self._present[guest] = None
        self._of_one[guest.address] += 1
        return True

    def leave(self, guest: Guest) -> None:
        """Count somebody no more, if that was not done before."""
        if guest in self._present:
            del self._present[guest]
            self._of_one[guest.address] -= 1
            if not self._of_one[guest.address]:
                del self._of_one[guest.address]


def fitting(most: int) -> int:
    """So many connections, or what the limit of open files of this process allows: beyond that none can be accepted."""
    if sys.platform == "win32":
        return most
    import resource  # noqa: PLC0415 - not on every system

    files, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return most if files == resource.RLIM_INFINITY else max(1, min(most, int(files * _SHARE_OF_FILES)))
