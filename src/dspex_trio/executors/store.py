"""The session store for executors: its calls travel through the front, so that an embedded store is one too."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Any, Final

from dspex_trio import rpc
from dspex_trio.executors.messages import decode_call, decode_reply, encode_call, encode_reply
from dspex_trio.sessions import Store
from dspex_trio.wire.generated.bridge_grpc import BridgeServiceServicer

logger: Final = logging.getLogger(__name__)


class ThroughFront:
    """For stubs in an executor, in place of a channel.

    Args:
        ask: Makes a call of the front on behalf of the trial that runs in the calling task.
    """

    def __init__(self, ask: Callable[[bytes], Awaitable[bytes]]) -> None:
        self._ask = ask

    async def call(self, path: str, request: bytes, _options: object) -> bytes:
        """Make a call with one request and one reply; the front keeps the trial's deadline."""
        return decode_reply(await self._ask(encode_call(path, request)))

    async def call_each(
        self, path: str, requests: Sequence[bytes], options: object, answered: Callable[[int, Any], None]
    ) -> None:
        """Make a call with one reply for each request, all at once."""
        await rpc.each_in_a_task(lambda request: self.call(path, request, options), requests, answered)

    def open(self, path: str, _options: object, _request: bytes | None = None) -> AbstractAsyncContextManager[Any]:
        """Refuse: nothing of a trial streams from the store."""
        raise rpc.RpcError(rpc.StatusCode.UNIMPLEMENTED, f"{path} does not reach into executor processes")


def replies_of(store: Store) -> Callable[[bytes], Awaitable[bytes]]:
    """What replies to the calls of executors, by asking `store`; raises nothing but a cancellation."""
    service = BridgeServiceServicer().service
    parse = {
        f"/{service.name}/{name}": (name, method.signature.request_type.FromString)
        for name, method in service.methods.items()
    }

    async def reply(data: bytes) -> bytes:
        path = ""
        try:
            path, request = decode_call(data)
            name, parsed = parse[path]
            answered = await getattr(store, name)(parsed(request))
        except rpc.RpcError as error:
            return encode_reply(error)
        except Exception:
            logger.exception("an executor's call of %.100r failed", path)
            return encode_reply(rpc.RpcError(rpc.StatusCode.INTERNAL, "the call failed in the front"))
        return encode_reply(answered.SerializeToString())

    return reply
