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
# Of a whole batch. A server that loses calls without a word must not keep the others waiting.
_BATCH_SECONDS: Final = 5.0


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
        end = time.perf_counter() + _BATCH_SECONDS

        async def lane() -> None:
            for _ in to_begin:
                began = time.perf_counter()
                if began < end and await self._one(end - began):
                    latencies.append(time.perf_counter() - began)

        async with asyncio.TaskGroup() as group:
            for _ in range(min(at_once, calls)):
                group.create_task(lane())
        return latencies

    async def _one(self, timeout: float) -> bool:  # noqa: ASYNC109 - grpcio's own, which tells the server
        """Make one call; whether it went well."""
        call = self._call(self._message, timeout=timeout)
        try:
            replies = [reply async for reply in call] if self._streamed else [await call]
        except grpc.aio.AioRpcError:
            return False
        return replies == self._expected
