"""A channel whose calls all carry something, such as a token."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import replace

from dspex_trio.rpc.client.call import ClientCall
from dspex_trio.rpc.client.stubs import Caller, CallOptions
from dspex_trio.rpc.client.together import Answered
from dspex_trio.rpc.metadata import Metadata, MetadataLike, outgoing


class Attached(Caller):
    """For stubs, in place of the channel.

    Args:
        channel: Who makes the calls.
        metadata: Asked at every call for what to send along, after the call's own.
    """

    def __init__(self, channel: Caller, metadata: Callable[[], MetadataLike]) -> None:
        self._channel = channel
        self._metadata = metadata

    async def call(self, path: str, request: bytes, options: CallOptions) -> bytes:
        """Make a call with one request and one reply."""
        return await self._channel.call(path, request, self._with_metadata(options))

    async def call_each(self, path: str, requests: Sequence[bytes], options: CallOptions, answered: Answered) -> None:
        """Make a call with one reply for each request, all at once."""
        await self._channel.call_each(path, requests, self._with_metadata(options), answered)

    def open(
        self, path: str, options: CallOptions, request: bytes | None = None
    ) -> AbstractAsyncContextManager[ClientCall]:
        """Begin a call, with its only request if that is given."""
        return self._channel.open(path, self._with_metadata(options), request)

    def _with_metadata(self, options: CallOptions) -> CallOptions:
        if not (attached := self._metadata()):
            return options
        return replace(options, metadata=Metadata([*options.metadata, *outgoing(attached)]))
