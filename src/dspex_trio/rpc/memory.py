"""A listener and a connector in memory: servers and channels in one process, without a port."""

from __future__ import annotations

import trio

from dspex_trio.rpc.client.target import Connector

_BACKLOG = 64


class MemoryListener(trio.abc.Listener[trio.abc.Stream]):
    """Accepts what its connector opens; made by `memory_link`."""

    def __init__(self, incoming: trio.MemoryReceiveChannel[trio.abc.Stream]) -> None:
        self._incoming = incoming

    async def accept(self) -> trio.abc.Stream:
        """The next connection.

        Raises:
            trio.ClosedResourceError: The listener was closed.
        """
        return await self._incoming.receive()

    async def aclose(self) -> None:
        """Accept no more."""
        await self._incoming.aclose()


def memory_link() -> tuple[MemoryListener, Connector]:
    """A listener for `serve` and the target for `open_channel` that leads to it."""
    outgoing, incoming = trio.open_memory_channel[trio.abc.Stream](_BACKLOG)

    async def connect() -> trio.abc.Stream:
        # Where pytest is installed, trio.testing imports it: a server without memory links need not wait for that.
        from trio.testing import memory_stream_pair  # noqa: PLC0415

        ours, theirs = memory_stream_pair()
        try:
            await outgoing.send(theirs)
        except trio.BrokenResourceError:
            raise ConnectionRefusedError("nobody listens") from None
        return ours

    return MemoryListener(incoming), connect
