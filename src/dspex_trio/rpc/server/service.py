"""Services and their methods: purerpc's model, typed, as generated code uses it and servers read it."""

from __future__ import annotations

import inspect
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from dataclasses import dataclass
from typing import Any, Final, TypeAlias, TypeVar

from dspex_trio.rpc._purerpc import BoundRPCMethod, purerpc
from dspex_trio.rpc.status import RpcError, StatusCode

T = TypeVar("T")
Reply: TypeAlias = T | Awaitable[T]
"""What a handler with one reply returns: an `async def` an awaitable of it, a plain `def` either."""

UNARY_UNARY: Final = purerpc.Cardinality.UNARY_UNARY
UNARY_STREAM: Final = purerpc.Cardinality.UNARY_STREAM
STREAM_UNARY: Final = purerpc.Cardinality.STREAM_UNARY
STREAM_STREAM: Final = purerpc.Cardinality.STREAM_STREAM


class Service(purerpc.Service):  # type: ignore[misc] # purerpc is untyped
    """purerpc's Service, for handlers that take a request and a Call."""

    def add(
        self, name: str, handler: Callable[..., Any], cardinality: Any, request: type[Any], reply: type[Any]
    ) -> None:
        """Add a method; purerpc's `add_method` refuses handlers whose second parameter is not called `request`."""
        self.methods[name] = BoundRPCMethod(handler, purerpc.RPCSignature(cardinality, request, reply))


class Servicer:
    """What generated servicers derive from."""

    @property
    def service(self) -> Service:
        """The service's name and its methods, bound to this object."""
        raise NotImplementedError


@dataclass(frozen=True, slots=True)
class Route:
    """One method as a server needs it.

    Attributes:
        path: "/package.Service/Method".
        handler: Takes the request or requests, and the Call.
        parse: Makes a request of bytes.
        stream_in: Whether it takes any number of requests.
        stream_out: Whether it gives any number of replies.
        plain: Whether it takes one request, gives one reply, and can be asked without a task: it is no `async def`.
    """

    path: str
    handler: Callable[..., Reply[Any] | AsyncIterator[Any]]
    parse: Callable[[bytes], Any]
    stream_in: bool
    stream_out: bool
    plain: bool


def routes(servicers: Iterable[Servicer]) -> dict[str, Route]:
    """Every method of some servicers by its path; purerpc's own servicers are welcome too.

    Raises:
        ValueError: Two of them serve the same service.
    """
    found: dict[str, Route] = {}
    names: set[str] = set()
    for servicer in servicers:
        service = servicer.service
        if service.name in names:
            raise ValueError(f"the service {service.name} is given twice")
        names.add(service.name)
        for name, bound in service.methods.items():
            path = f"/{service.name}/{name}"
            cardinality = bound.signature.cardinality
            found[path] = Route(
                path,
                bound.method_fn,
                bound.signature.request_type.FromString,
                stream_in=cardinality in {STREAM_UNARY, STREAM_STREAM},
                stream_out=cardinality in {UNARY_STREAM, STREAM_STREAM},
                plain=cardinality is UNARY_UNARY and not inspect.iscoroutinefunction(bound.method_fn),
            )
    return found


async def replied(result: Reply[T]) -> T:
    """The reply, of whatever a handler with one reply has returned."""
    return await result if inspect.isawaitable(result) else result


def service_names(servicers: Iterable[Servicer]) -> tuple[str, ...]:
    """The full names of the services."""
    return tuple(servicer.service.name for servicer in servicers)


def unimplemented(path: str) -> RpcError:
    """What a method that a servicer does not override raises."""
    return RpcError(StatusCode.UNIMPLEMENTED, f"{path} is not implemented")
