"""Several calls at once: by one task over a channel, since a task for each is a good part of what small ones cost."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Mapping
from typing import Any, Final, TypeAlias, TypeVar

import trio

from dspex_trio.rpc.client.call import ClientCall
from dspex_trio.rpc.details import failed_call
from dspex_trio.rpc.http2.messages import BadMessage
from dspex_trio.rpc.status import RpcError, StatusCode

RequestT = TypeVar("RequestT")
Start: TypeAlias = Callable[[], Awaitable[ClientCall]]
Answered: TypeAlias = Callable[[int, bytes | RpcError], None]
"""Told of a call that has ended: its number, and its reply or why there is none. What it raises ends the others."""

# How many requests leave in one packet, so that the server works on them while the next ones are made. With fewer, the
# packets cost more than the waiting.
_SENT_TOGETHER: Final = 8
# The writer may have its turn after those that are ready by now: one is not enough for it.
_TURNS_TO_WRITE: Final = 2


async def call_each(start: Start, requests: Mapping[int, bytes], answered: Answered, *, last: bool) -> dict[int, bytes]:
    """Make a call for each request, and tell of each as it ends; of those that end together in their order.

    Args:
        start: Begins a call.
        requests: Number → request.
        answered: Told.
        last: Whether to tell also of those that no server has looked at.

    Returns:
        The requests that were not told of: they may be made again.

    Raises:
        RpcError: A call could not be begun, or a request is too large.
    """
    calls: dict[int, ClientCall] = {}
    unprocessed: dict[int, bytes] = {}
    try:
        await _begin(start, requests, calls)
        while calls:
            complete = [number for number, call in calls.items() if call.complete]
            for number in complete:
                call = calls.pop(number)
                answer = _answer(call)
                call.close()
                if call.unprocessed and not last:
                    unprocessed[number] = requests[number]
                else:
                    answered(number, answer)
            if not complete:
                await _arrival(calls.values())
    finally:
        for call in calls.values():
            call.close()
    return unprocessed


async def _begin(start: Start, requests: Mapping[int, bytes], calls: dict[int, ClientCall]) -> None:
    for place, (number, request) in enumerate(requests.items(), start=1):
        calls[number] = call = await start()
        try:
            await call.send_message(request, end=True, more=len(requests) > 1)
        except RpcError:
            if call.status is None:
                raise
            # It has ended already, which is told in its turn.
        if place % _SENT_TOGETHER == 0:
            for _ in range(_TURNS_TO_WRITE):
                await trio.lowlevel.checkpoint()


async def _arrival(calls: Iterable[ClientCall]) -> None:
    """Wait until something new is known of one of them."""
    arrived = trio.Event()
    for call in calls:
        call.tell(arrived)
    await arrived.wait()


def _answer(call: ClientCall) -> bytes | RpcError:
    if (error := call.error()) is not None:
        return error
    try:
        data = call.take_only()
    except BadMessage as bad:
        return failed_call(bad.status.code, bad.status.message)
    return failed_call(StatusCode.INTERNAL, "the server did not send exactly one reply") if data is None else data


async def each_in_a_task(
    call: Callable[[RequestT], Awaitable[Any]], requests: Iterable[RequestT], answered: Callable[[int, Any], None]
) -> None:
    """The same, with a task for each: for whatever is called like a method of a stub, and is none.

    Of errors that `answered` raises at once, that of the first request comes out.
    """
    raised: dict[int, Exception] = {}

    async def one(number: int, request: RequestT, scope: trio.CancelScope) -> None:
        try:
            answer = await call(request)
        except RpcError as error:
            answer = error
        try:
            answered(number, answer)
        except Exception as error:  # noqa: BLE001 - it goes on below, once the others have ended
            raised[number] = error
            scope.cancel()

    async with trio.open_nursery() as nursery:
        for number, request in enumerate(requests):
            nursery.start_soon(one, number, request, nursery.cancel_scope)
    if raised:
        raise raised[min(raised)]
