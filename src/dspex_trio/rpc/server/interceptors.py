"""Functions around calls, and the one that every exposed server needs: bearer tokens."""

from __future__ import annotations

import hmac
from collections.abc import Awaitable, Callable, Iterable
from typing import TypeAlias

from dspex_trio.rpc.server.call import Call
from dspex_trio.rpc.status import RpcError, StatusCode

Proceed: TypeAlias = Callable[[], Awaitable[None]]
# Runs around the whole call, whatever its shape: reading the request, the handler, sending every reply. It may raise
# RpcError before or after `await proceed()`, which raises what the handler raises.
Interceptor: TypeAlias = Callable[[Call, Proceed], Awaitable[None]]


def bearer_token(tokens: str | Iterable[str], *, exempt: Iterable[str] = ("/grpc.health.v1.Health/",)) -> Interceptor:
    """An interceptor that lets in calls with `authorization: Bearer <token>` and ends all others as UNAUTHENTICATED.

    Args:
        tokens: The token, or several while one replaces another.
        exempt: Beginnings of methods that need none; by default health checks, which probes make without credentials.

    Raises:
        ValueError: There is no token, or an empty one.
    """
    accepted = tuple(token.encode() for token in ([tokens] if isinstance(tokens, str) else tokens))
    if not accepted or not all(accepted):
        raise ValueError("a bearer token must not be empty")
    open_to_all = tuple(exempt)

    async def authenticate(call: Call, proceed: Proceed) -> None:
        scheme, _, token = (call.metadata.get("authorization") or "").partition(" ")
        # Every token is compared, each in constant time, so that the time taken tells nothing.
        matches = [hmac.compare_digest(token.strip().encode(), known) for known in accepted]
        call.anonymous = scheme.lower() != "bearer" or not any(matches)
        if call.anonymous and not call.method.startswith(open_to_all):
            raise RpcError(StatusCode.UNAUTHENTICATED, "a valid bearer token is needed")
        await proceed()

    return authenticate


def chain(interceptors: Iterable[Interceptor], call: Call, innermost: Proceed) -> Proceed:
    """A function that runs the interceptors around one another, the first one outermost."""
    proceed = innermost
    for interceptor in reversed(tuple(interceptors)):
        proceed = _around(interceptor, call, proceed)
    return proceed


def _around(interceptor: Interceptor, call: Call, proceed: Proceed) -> Proceed:
    return lambda: interceptor(call, proceed)
