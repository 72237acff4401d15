"""What generated stubs are made of: one class per shape of call."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from typing import Final, Generic, Protocol, TypeVar

from google.protobuf.message import DecodeError, Message

from dspex_trio.rpc.client.call import ClientCall
from dspex_trio.rpc.client.together import Answered
from dspex_trio.rpc.details import failed_call
from dspex_trio.rpc.metadata import NO_METADATA, Metadata, MetadataLike, outgoing
from dspex_trio.rpc.settings import Compression
from dspex_trio.rpc.status import RpcError, StatusCode

RequestT = TypeVar("RequestT", bound=Message)
ReplyT = TypeVar("ReplyT", bound=Message)
ResultT = TypeVar("ResultT")
RequestT_contra = TypeVar("RequestT_contra", bound=Message, contravariant=True)


@dataclass(frozen=True, slots=True)
class CallOptions:
    """What can be chosen for one call.

    Attributes:
        metadata: What is sent along.
        wait_for_ready: Whether to wait for a connection when all attempts fail; None for the channel's setting.
        compression: What requests are compressed with; None for the channel's setting.
    """

    metadata: Metadata = NO_METADATA
    wait_for_ready: bool | None = None
    compression: Compression | None = None


_NO_OPTIONS: Final = CallOptions()


def _options(
    metadata: MetadataLike,
    wait_for_ready: bool | None,  # noqa: FBT001 - three states
    compression: Compression | None,
) -> CallOptions:
    if not metadata and wait_for_ready is None and compression is None:
        return _NO_OPTIONS
    return CallOptions(outgoing(metadata), wait_for_ready, compression)


class Caller(Protocol):
    """What a stub needs: a Channel."""

    async def call(self, path: str, request: bytes, options: CallOptions) -> bytes:
        """Make a call with one request and one reply."""
        ...

    async def call_each(self, path: str, requests: Sequence[bytes], options: CallOptions, answered: Answered) -> None:
        """Make a call with one request and one reply for each request, all at once."""
        ...

    def open(
        self, path: str, options: CallOptions, request: bytes | None = None
    ) -> AbstractAsyncContextManager[ClientCall]:
        """Begin a call, with its only request if that is given."""
        ...


def _parsed(parse: Callable[[bytes], ReplyT], data: bytes) -> ReplyT:
    try:
        return parse(data)
    except DecodeError:
        raise failed_call(StatusCode.INTERNAL, "the server's reply cannot be parsed") from None


class OpenCall(Generic[ReplyT]):
    """A call that is under way."""

    def __init__(self, call: ClientCall, parse: Callable[[bytes], ReplyT]) -> None:
        self._call = call
        self._parse = parse

    async def initial_metadata(self) -> Metadata:
        """The metadata that the server sent first; waits for it.

        Raises:
            RpcError: The call failed before there was any.
        """
        return await self._or_again(ClientCall.headers)

    @property
    def trailing_metadata(self) -> Metadata:
        """The metadata that the server sent last; empty until the call has ended."""
        return self._call.trailing_metadata

    async def _or_again(self, ask: Callable[[ClientCall], Awaitable[ResultT]]) -> ResultT:
        """Ask the call; if it turns out that no server has looked at it, begin it again and ask that one."""
        while True:
            try:
                return await ask(self._call)
            except RpcError:
                if not self._call.unprocessed or self._call.again is None:
                    raise
            self._call = await self._call.again()


class SingleReply(OpenCall[ReplyT]):
    """A call with one reply."""

    async def reply(self) -> ReplyT:
        """Wait for the reply.

        Raises:
            RpcError: The call failed.
        """
        return _parsed(self._parse, await self._or_again(ClientCall.only_reply))


class ReplyStream(OpenCall[ReplyT]):
    """A call with any number of replies: iterate over it. It raises RpcError where the call fails."""

    def __aiter__(self) -> ReplyStream[ReplyT]:
        return self

    async def __anext__(self) -> ReplyT:
        data = await self._or_again(ClientCall.next_reply)
        if data is None:
            raise StopAsyncIteration
        return _parsed(self._parse, data)


class _Sender(Generic[RequestT_contra]):
    _call: ClientCall

    async def send(self, request: RequestT_contra, *, compress: bool = True) -> None:
        """Send one request; waits while the server does not take more, and for the requests of other tasks before it.

        When cancelled in the middle of a request that is more than the server takes at once, the call is given up.

        Args:
            request: What to send.
            compress: False sends this one as it is on a call with compression, because it holds secrets or would not
                get smaller.

        Raises:
            RpcError: The call has ended; with the server's status if that was not OK.
        """
        await self._call.send_message(request.SerializeToString(), compress=compress)

    def done(self) -> None:
        """Say that there will be no more requests."""
        self._call.end_requests()


class RequestStream(SingleReply[ReplyT], _Sender[RequestT_contra]):
    """A call with any number of requests and one reply: `send`, `done`, then `reply`."""

    async def reply(self) -> ReplyT:
        """Say that there will be no more requests and wait for the reply.

        Raises:
            RpcError: The call failed.
        """
        self.done()
        return await super().reply()


class MessageStream(ReplyStream[ReplyT], _Sender[RequestT_contra]):
    """A call with any number of requests and replies: `send`, `done` and iterate, in any order, in several tasks."""


class _Method(Generic[RequestT, ReplyT]):
    def __init__(self, channel: Caller, path: str, reply: type[ReplyT]) -> None:
        self._channel = channel
        self._path = path
        self._parse: Callable[[bytes], ReplyT] = reply.FromString


class UnaryUnary(_Method[RequestT, ReplyT]):
    """A method with one request and one reply."""

    async def __call__(
        self,
        request: RequestT,
        *,
        metadata: MetadataLike = NO_METADATA,
        wait_for_ready: bool | None = None,
        compression: Compression | None = None,
    ) -> ReplyT:
        """Make the call. The enclosing cancel scope's deadline travels along; when cancelled, the server is told.

        Raises:
            RpcError: The call failed.
            ValueError: The metadata cannot be sent.
        """
        options = _options(metadata, wait_for_ready, compression)
        data = await self._channel.call(self._path, request.SerializeToString(), options)
        return _parsed(self._parse, data)

    async def each(
        self,
        requests: Iterable[RequestT],
        answered: Callable[[int, ReplyT | RpcError], None],
        *,
        metadata: MetadataLike = NO_METADATA,
    ) -> None:
        """Make a call for each request, all at once, in this task: cheaper than a task for each where they are small.

        The enclosing cancel scope's deadline travels along; when cancelled, the server is told of those not over.

        Args:
            requests: All of them are under way at the same time, or as many as the server allows.
            answered: Told of each as it ends: the request's place and the reply, or why there is none. An exception
                that it raises comes out, and the other calls are given up.
            metadata: What is sent along with each.

        Raises:
            RpcError: A call could not be begun.
            ValueError: The metadata cannot be sent.
        """
        await self._channel.call_each(
            self._path,
            [request.SerializeToString() for request in requests],
            _options(metadata, None, None),
            lambda number, data: answered(number, data if isinstance(data, RpcError) else self._answer(data)),
        )

    def _answer(self, data: bytes) -> ReplyT | RpcError:
        try:
            return _parsed(self._parse, data)
        except RpcError as error:
            return error

    @asynccontextmanager
    async def open(
        self,
        request: RequestT,
        *,
        metadata: MetadataLike = NO_METADATA,
        wait_for_ready: bool | None = None,
        compression: Compression | None = None,
    ) -> AsyncIterator[SingleReply[ReplyT]]:
        """As the call itself, for those who want the metadata of its response too."""
        options = _options(metadata, wait_for_ready, compression)
        async with self._channel.open(self._path, options, request.SerializeToString()) as call:
            yield SingleReply(call, self._parse)


class UnaryStream(_Method[RequestT, ReplyT]):
    """A method with one request and any number of replies."""

    @asynccontextmanager
    async def __call__(
        self,
        request: RequestT,
        *,
        metadata: MetadataLike = NO_METADATA,
        wait_for_ready: bool | None = None,
        compression: Compression | None = None,
    ) -> AsyncIterator[ReplyStream[ReplyT]]:
        """Begin the call; leaving the block before the last reply gives it up. See UnaryUnary for the rest."""
        options = _options(metadata, wait_for_ready, compression)
        async with self._channel.open(self._path, options, request.SerializeToString()) as call:
            yield ReplyStream(call, self._parse)


class StreamUnary(_Method[RequestT, ReplyT]):
    """A method with any number of requests and one reply."""

    @asynccontextmanager
    async def __call__(
        self,
        *,
        metadata: MetadataLike = NO_METADATA,
        wait_for_ready: bool | None = None,
        compression: Compression | None = None,
    ) -> AsyncIterator[RequestStream[ReplyT, RequestT]]:
        """Begin the call; leaving the block before the reply gives it up. See UnaryUnary for the rest."""
        async with self._channel.open(self._path, _options(metadata, wait_for_ready, compression)) as call:
            yield RequestStream(call, self._parse)


class StreamStream(_Method[RequestT, ReplyT]):
    """A method with any number of requests and of replies."""

    @asynccontextmanager
    async def __call__(
        self,
        *,
        metadata: MetadataLike = NO_METADATA,
        wait_for_ready: bool | None = None,
        compression: Compression | None = None,
    ) -> AsyncIterator[MessageStream[ReplyT, RequestT]]:
        """Begin the call; leaving the block before the last reply gives it up. See UnaryUnary for the rest."""
        async with self._channel.open(self._path, _options(metadata, wait_for_ready, compression)) as call:
            yield MessageStream(call, self._parse)
