"""Spans and durations of calls, by OpenTelemetry's conventions for gRPC, on both sides; context in and out of metadata.

Needs OpenTelemetry's API, which nothing else here does: whoever wants it imports this module. Without a provider that
the process, or whoever calls, has set up, nothing is recorded.
"""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager, contextmanager
from dataclasses import replace
from typing import Final, TypeAlias

import trio
from opentelemetry import context, metrics, propagate, trace
from opentelemetry.propagators.textmap import Getter

from dspex_trio.rpc.client.call import ClientCall
from dspex_trio.rpc.client.channel import Channel
from dspex_trio.rpc.client.stubs import Caller, CallOptions
from dspex_trio.rpc.client.together import Answered, each_in_a_task
from dspex_trio.rpc.metadata import Metadata, outgoing
from dspex_trio.rpc.server.call import Call
from dspex_trio.rpc.server.call_handling import code_after
from dspex_trio.rpc.server.interceptors import Interceptor, Proceed
from dspex_trio.rpc.status import RpcError, StatusCode

SCHEMA: Final = "https://opentelemetry.io/schemas/1.44.0"
_SCOPE: Final = "dspex_trio.rpc"
_SYSTEM: Final = {"rpc.system.name": "grpc"}
# Seconds, as the conventions give them.
_BUCKETS: Final = (0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1, 2.5, 5, 7.5, 10)
# What is the server's fault; everything else but OK is its caller's.
_FAULTS: Final = frozenset(
    {
        StatusCode.UNKNOWN,
        StatusCode.DEADLINE_EXCEEDED,
        StatusCode.UNIMPLEMENTED,
        StatusCode.INTERNAL,
        StatusCode.UNAVAILABLE,
        StatusCode.DATA_LOSS,
    }
)

Attributes: TypeAlias = Mapping[str, str | int | float | bool]


def server_telemetry(
    *,
    tracer_provider: trace.TracerProvider | None = None,
    meter_provider: metrics.MeterProvider | None = None,
    exempt: Iterable[str] = ("/grpc.health.v1.Health/",),
    attributes: Callable[[Call], Attributes] = lambda _call: {},
) -> Interceptor:
    """An interceptor that makes a server span of each call, and records `rpc.server.call.duration`.

    The span continues the trace of the caller's `traceparent`, and is current in the handler. Give it first, so that
    what other interceptors refuse is seen too.

    Args:
        tracer_provider: Whose spans; the process's own by default.
        meter_provider: Whose metrics; as above.
        exempt: Beginnings of methods that are left out; by default health checks, which probes make all the time.
        attributes: What else a span says of its call.
    """
    calls = _Calls("rpc.server.call.duration", "incoming", tracer_provider, meter_provider)
    unseen = tuple(exempt)

    async def observe(call: Call, proceed: Proceed) -> None:
        if call.method.startswith(unseen):
            await proceed()
            return
        parent = propagate.extract(call.metadata, getter=_GETTER)
        told = {**_server(call.authority), **_peer(call.peer), **attributes(call)}
        with calls.one(call.method, trace.SpanKind.SERVER, parent, told) as one:
            token = context.attach(trace.set_span_in_context(one.span, parent))
            try:
                await proceed()
            except trio.Cancelled:
                one.status = call.cancelled_as()
                raise
            except Exception as error:
                one.status = code_after(error)
                raise
            finally:
                context.detach(token)

    return observe


class Traced(Caller):
    """For stubs, in place of the channel: a client span of each call, and `rpc.client.call.duration`.

    The call carries the span's context as `traceparent`. A call that the channel begins again is one call.

    Args:
        channel: Who makes the calls.
        tracer_provider: Whose spans; the process's own by default.
        meter_provider: Whose metrics; as above.
    """

    def __init__(
        self,
        channel: Caller,
        *,
        tracer_provider: trace.TracerProvider | None = None,
        meter_provider: metrics.MeterProvider | None = None,
    ) -> None:
        self._channel = channel
        self._calls = _Calls("rpc.client.call.duration", "outgoing", tracer_provider, meter_provider)
        self._server = _server(_name(channel))

    async def call(self, path: str, request: bytes, options: CallOptions) -> bytes:
        """Make a call with one request and one reply."""
        with self._one(path) as one:
            return await self._channel.call(path, request, one.injected(options))

    async def call_each(self, path: str, requests: Sequence[bytes], options: CallOptions, answered: Answered) -> None:
        """Make a call with one reply for each request, all at once; each is a span of its own, in a task of its own."""
        await each_in_a_task(lambda request: self.call(path, request, options), requests, answered)

    @asynccontextmanager
    async def open(self, path: str, options: CallOptions, request: bytes | None = None) -> AsyncIterator[ClientCall]:
        """Begin a call, with its only request if that is given."""
        with self._one(path) as one:
            opened: AbstractAsyncContextManager[ClientCall] = self._channel.open(path, one.injected(options), request)
            latest: _Latest | None = None
            try:
                async with opened as call:
                    latest = _Latest(call)
                    yield call
            finally:
                if latest is not None and latest.call.status is not None:
                    one.status = latest.call.status.code

    @contextmanager
    def _one(self, path: str) -> Iterator[_One]:
        deadline = trio.current_effective_deadline()
        with self._calls.one(path, trace.SpanKind.CLIENT, context.get_current(), self._server) as one:
            try:
                yield one
            except RpcError as error:
                one.status = error.status if one.status is None else one.status
                raise
            except trio.Cancelled:
                late = trio.current_time() >= deadline
                one.status = StatusCode.DEADLINE_EXCEEDED if late else StatusCode.CANCELLED
                raise
            except Exception:
                one.status = StatusCode.UNKNOWN if one.status is None else one.status
                raise


class _Latest:
    """The call that counts: one that no server has looked at may be begun again."""

    def __init__(self, call: ClientCall) -> None:
        self.call = self._followed(call)

    def _followed(self, call: ClientCall) -> ClientCall:
        if (again := call.again) is not None:

            async def begin() -> ClientCall:
                self.call = self._followed(await again())
                return self.call

            call.again = begin
        return call


class _Calls:
    """One kind of calls: whose spans they are, and their duration."""

    def __init__(
        self,
        name: str,
        direction: str,
        tracer_provider: trace.TracerProvider | None,
        meter_provider: metrics.MeterProvider | None,
    ) -> None:
        self._tracer = trace.get_tracer(_SCOPE, tracer_provider=tracer_provider, schema_url=SCHEMA)
        self._duration = metrics.get_meter(_SCOPE, meter_provider=meter_provider, schema_url=SCHEMA).create_histogram(
            name,
            unit="s",
            description=f"Measures the duration of an {direction} Remote Procedure Call (RPC).",
            explicit_bucket_boundaries_advisory=_BUCKETS,
        )

    @contextmanager
    def one(self, path: str, kind: trace.SpanKind, parent: context.Context, told: Attributes) -> Iterator[_One]:
        """Measure one call, on Trio's clock."""
        method = path.removeprefix("/")
        began, began_ns = trio.current_time(), time.time_ns()
        attributes: dict[str, str | int | float | bool] = {**_SYSTEM, "rpc.method": method}
        span = self._tracer.start_span(method, parent, kind, {**attributes, **told}, start_time=began_ns)
        one = _One(span, parent)
        try:
            yield one
        finally:
            seconds = trio.current_time() - began
            status = StatusCode.OK if one.status is None else one.status
            attributes["rpc.response.status_code"] = status.name
            if status in _FAULTS or (kind is trace.SpanKind.CLIENT and status is not StatusCode.OK):
                attributes["error.type"] = status.name
                span.set_status(trace.StatusCode.ERROR)
            span.set_attributes(attributes)
            if kind is trace.SpanKind.CLIENT:
                attributes |= {key: told[key] for key in ("server.address", "server.port") if key in told}
            self._duration.record(seconds, attributes, trace.set_span_in_context(span, parent))
            span.end(began_ns + round(seconds * 1e9))


class _One:
    """A call that is under way.

    Attributes:
        span: Its span.
        status: How it ends; None for OK.
    """

    def __init__(self, span: trace.Span, parent: context.Context) -> None:
        self.span = span
        self.status: StatusCode | None = None
        self._parent = parent

    def injected(self, options: CallOptions) -> CallOptions:
        """The options, with the span's context among the metadata."""
        carrier: dict[str, str] = {}
        propagate.inject(carrier, trace.set_span_in_context(self.span, self._parent))
        return replace(options, metadata=options.metadata + outgoing(carrier)) if carrier else options


class _MetadataGetter(Getter[Metadata]):
    def get(self, carrier: Metadata, key: str) -> list[str] | None:
        return list(carrier.get_all(key.lower())) or None

    def keys(self, carrier: Metadata) -> list[str]:
        return [key for key, _ in carrier.items()]


_GETTER: Final = _MetadataGetter()


def _name(channel: Caller) -> str:
    return channel.endpoints[0].address.name if isinstance(channel, Channel) else ""


def _server(name: str) -> dict[str, str | int]:
    """The server, of what it is called: "host:port", "unix:path"."""
    if name.startswith("unix:"):
        return {"server.address": name.removeprefix("unix:"), "network.transport": "unix"}
    host, port = _host_and_port(name)
    return ({"server.address": host} if host else {}) | ({"server.port": port} if port else {})


def _peer(name: str) -> dict[str, str | int]:
    """The client, of what it is called: "ipv4:127.0.0.1:4711", "ipv6:[::1]:4711", "unix:path", "memory:"."""
    scheme, _, rest = name.partition(":")
    if scheme == "unix":
        return {"network.transport": "unix"}
    host, port = _host_and_port(rest)
    if not host or not port:
        return {}
    return {
        "client.address": host,
        "client.port": port,
        "network.peer.address": host,
        "network.peer.port": port,
        "network.transport": "tcp",
    }


def _host_and_port(text: str) -> tuple[str, int]:
    host, _, port = text.rpartition(":")
    if not host or not port.isdigit():
        return text.strip("[]"), 0
    return host.strip("[]"), int(port)
