"""The client that most users have: grpcio's, with a deadline on every call."""

from __future__ import annotations

import asyncio
import time
from typing import Any, Final

import grpc.aio
from bench_rpc_shapes import Shape

_OPTIONS: Final = (
    ("grpc.use_local_subchannel_pool", 1),  # a new connection for each batch
    ("grpc.enable_http_proxy", 0),
    ("grpc.max_receive_message_length", -1),
)
_DEADLINE_SECONDS: Final = 20.0
# When no call has ended for so long, those that have not are lost: servers that forget calls are not waited for.
_PATIENCE_SECONDS: Final = 1.0


class GrpcioClient:
    """A connection that makes calls of one shape.

    Args:
        port: Where the server listens on loopback.
        shape: What to call.
    """

    def __init__(self, port: int, shape: Shape) -> None:
        self._message = shape.message
        self._streamed = shape.replies is not None
        self._expected = [shape.message] * (shape.replies or 1)
        self._runner = asyncio.Runner()
        self._channel: Any = None
        self._call: Any = None
        self._runner.run(self._open(f"127.0.0.1:{port}", shape))

    async def _open(self, target: str, shape: Shape) -> None:
        self._channel = grpc.aio.insecure_channel(target, options=_OPTIONS)
        kind = self._channel.unary_unary if shape.replies is None else self._channel.unary_stream
        self._call = kind(shape.path)  # bytes in, bytes out

    def close(self) -> None:
        """Hang up."""
        self._runner.run(self._channel.close())
        self._runner.close()

    def batch(self, calls: int, at_once: int) -> list[float]:
        """Make so many calls, so many at once; returns the seconds that each took that went well."""
        return self._runner.run(self._batch(calls, at_once))

    async def _batch(self, calls: int, at_once: int) -> list[float]:
        latencies: list[float] = []
        to_begin = iter(range(calls))
        ended = 0

        async def lane() -> None:
            nonlocal ended
            for _ in to_begin:
                began = time.perf_counter()
                if await self._one():
                    latencies.append(time.perf_counter() - began)
                ended += 1

        lanes = [asyncio.create_task(lane()) for _ in range(min(at_once, calls))]
        before = -1
        while not all(each.done() for each in lanes) and ended > before:
            before = ended
            await asyncio.wait(lanes, timeout=_PATIENCE_SECONDS)
        for each in lanes:
            each.cancel()
        for result in await asyncio.gather(*lanes, return_exceptions=True):
            if isinstance(result, Exception):
                raise result
        return latencies

    async def _one(self) -> bool:
        """Make one call; whether it went well."""
        call = self._call(self._message, timeout=_DEADLINE_SECONDS)
        try:
            replies = [reply async for reply in call] if self._streamed else [await call]
        except grpc.aio.AioRpcError:
            return False
        return replies == self._expected
