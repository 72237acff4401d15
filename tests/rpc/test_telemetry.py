"""Spans and durations of calls, with the RPC layer alone."""

from contextlib import asynccontextmanager

import pytest
import trio
from opentelemetry import trace

from dspex_trio import rpc
from dspex_trio.rpc.ext.otel import Traced, server_telemetry

from ..telemetry.seen import Seen, seconds  # noqa: TID252 - tests are no package
from .generated.greeter_grpc import GreeterStub
from .generated.greeter_pb2 import HelloRequest
from .greeter import Greeter, serving, serving_tcp
from .raw import raw_client

TRACEPARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


@pytest.fixture
def seen():
    return Seen()


def interceptor(seen, **options):
    return server_telemetry(tracer_provider=seen.tracer_provider, meter_provider=seen.meter_provider, **options)


def traced(seen, channel):
    return Traced(channel, tracer_provider=seen.tracer_provider, meter_provider=seen.meter_provider)


@asynccontextmanager
async def greeting(seen, greeter=None):
    async with (
        serving(greeter or Greeter(), interceptors=[interceptor(seen)]) as target,
        rpc.open_channel(target) as channel,
    ):
        yield GreeterStub(traced(seen, channel))


def both(seen):
    """The server's span and the client's."""
    client, server = (
        [span for span in seen.spans if span.kind is kind] for kind in (trace.SpanKind.CLIENT, trace.SpanKind.SERVER)
    )
    return server, client


def statuses(seen):
    """Of the server's spans and of the client's: the status, and whether the span says that it is an error."""
    return [
        [(span.attributes["rpc.response.status_code"], not span.status.is_unset) for span in spans]
        for spans in both(seen)
    ]


async def test_a_call_has_a_span_on_each_side_in_one_trace(seen):
    async with greeting(seen) as stub:
        await stub.SayHello(HelloRequest(name="ada"))
    [server], [client] = both(seen)
    assert server.name == client.name == "greeting.Greeter/SayHello"
    assert server.parent.span_id == client.context.span_id
    assert server.context.trace_id == client.context.trace_id
    for span in (server, client):
        assert span.attributes["rpc.system.name"] == "grpc"
        assert span.attributes["rpc.method"] == "greeting.Greeter/SayHello"
        assert span.attributes["rpc.response.status_code"] == "OK"
        assert span.status.is_unset


async def test_of_several_calls_at_once_each_has_spans_of_its_own(seen):
    heard = {}
    async with greeting(seen) as stub:
        await stub.SayHello.each([HelloRequest(name="ada"), HelloRequest(name="fail")], heard.__setitem__)
    assert heard[0].text == "hello ada"
    assert heard[1].status is rpc.StatusCode.NOT_FOUND
    servers, clients = both(seen)
    parents = {server.parent.span_id for server in servers}
    assert parents == {client.context.span_id for client in clients}
    assert len(parents) == 2


async def test_addresses_and_ports_are_told_as_the_conventions_have_them(seen):
    async with (
        serving_tcp(Greeter(), interceptors=[interceptor(seen)]) as port,
        rpc.open_channel(f"127.0.0.1:{port}") as channel,
    ):
        await GreeterStub(traced(seen, channel)).SayHello(HelloRequest(name="ada"))
    [server], [client] = both(seen)
    for span in (server, client):
        assert (span.attributes["server.address"], span.attributes["server.port"]) == ("127.0.0.1", port)
    assert server.attributes["client.address"] == server.attributes["network.peer.address"] == "127.0.0.1"
    assert server.attributes["client.port"] == server.attributes["network.peer.port"]
    assert server.attributes["network.transport"] == "tcp"


async def test_an_error_of_the_caller_is_none_of_the_server(seen):
    """By the conventions for gRPC: NOT_FOUND is an error of the client's span alone, UNKNOWN one of both."""
    async with greeting(seen) as stub:
        for name in ("fail", "bug"):
            with pytest.raises(rpc.RpcError):
                await stub.SayHello(HelloRequest(name=name))
    assert statuses(seen) == [
        [("NOT_FOUND", False), ("UNKNOWN", True)],
        [("NOT_FOUND", True), ("UNKNOWN", True)],
    ]
    server, client = both(seen)
    assert "error.type" not in server[0].attributes
    assert [span.attributes["error.type"] for span in client] == ["NOT_FOUND", "UNKNOWN"]
    assert "a secret" not in str([(span.status.description, dict(span.attributes), span.events) for span in server])


async def test_a_deadline_and_a_caller_that_gives_up_are_told_apart(seen, virtual_clock):
    greeter = Greeter()
    async with greeting(seen, greeter) as stub:
        with trio.move_on_after(3):
            try:
                await stub.SayHello(HelloRequest(name="forever"))
            except rpc.RpcError as error:  # the server's word for it may arrive first
                assert error.status is rpc.StatusCode.DEADLINE_EXCEEDED  # noqa: PT017 - it need not raise
        await greeter.ending(1)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(stub.SayHello, HelloRequest(name="forever"))
            await trio.sleep(2)
            nursery.cancel_scope.cancel()
        await greeter.ending(2)
    assert statuses(seen) == [
        [("DEADLINE_EXCEEDED", True), ("CANCELLED", False)],
        [("DEADLINE_EXCEEDED", True), ("CANCELLED", True)],
    ]
    assert [round(seconds(span)) for span in both(seen)[1]] == [3, 2]


async def test_what_a_drain_ends_is_unavailable(seen, virtual_clock):
    drain = rpc.Drain()
    greeter = Greeter()
    async with (
        serving(greeter, interceptors=[interceptor(seen)], drain=drain) as target,
        rpc.open_channel(target) as channel,
        trio.open_nursery() as nursery,
    ):

        async def call():
            with pytest.raises(rpc.RpcError, match="UNAVAILABLE"):
                await GreeterStub(traced(seen, channel)).SayHello(HelloRequest(name="forever"))

        nursery.start_soon(call)
        await greeter.entered.wait()
        drain.start(grace=1)
    assert statuses(seen) == [[("UNAVAILABLE", True)], [("UNAVAILABLE", True)]]


async def test_calls_of_every_shape_are_seen_from_beginning_to_end(seen):
    async with greeting(seen) as stub:
        async with stub.Watch(HelloRequest(name="n", times=2)) as replies:
            assert len([reply async for reply in replies]) == 2
        async with stub.Collect() as call:
            await call.send(HelloRequest(name="n"))
            await call.reply()
        async with stub.Chat() as call:
            await call.send(HelloRequest(name="n"))
            call.done()
            assert len([reply async for reply in call]) == 1
        async with stub.SayHello.open(HelloRequest(name="n")) as call:
            await call.reply()
    assert statuses(seen) == [[("OK", False)] * 4] * 2


async def test_a_stream_that_is_left_half_read_is_cancelled(seen):
    greeter = Greeter()
    async with greeting(seen, greeter) as stub:
        async with stub.Watch(HelloRequest(name="n")) as replies:
            await anext(replies)
        await greeter.ending()
    assert statuses(seen) == [[("CANCELLED", False)], [("CANCELLED", True)]]


async def test_a_handler_runs_in_the_context_of_its_call(seen):
    class Spans(Greeter):
        async def SayHello(self, request, call):
            with seen.tracer.start_as_current_span("in the handler"):
                return await super().SayHello(request, call)

    async with greeting(seen, Spans()) as stub:
        await stub.SayHello(HelloRequest(name="ada"))
    assert seen.span("in the handler").parent.span_id == both(seen)[0][0].context.span_id


async def test_a_traceparent_of_anybodys_is_continued_and_nonsense_in_it_does_no_harm(seen):
    """A peer that nobody here wrote: raw frames."""
    async with serving(Greeter(), interceptors=[interceptor(seen)]) as connect, raw_client(connect) as client:
        for stream_id, header in ((1, TRACEPARENT), (3, "00-nonsense"), (5, "ff" * 300)):
            request = HelloRequest(name="n").SerializeToString()
            await client.send(*client.call(stream_id, request, traceparent=header))
            assert (await client.reply(stream_id)).status == 0
    first, *others = both(seen)[0]
    assert f"{first.context.trace_id:032x}" == "0af7651916cd43dd8448eb211c80319c"
    assert f"{first.parent.span_id:016x}" == "b7ad6b7169203331"
    assert [span.parent for span in others] == [None, None]


async def test_durations_are_histograms_by_method_and_status(seen, virtual_clock):
    greeter = Greeter()
    async with greeting(seen, greeter) as stub:
        await stub.SayHello(HelloRequest(name="ada"))
        await stub.SayHello(HelloRequest(name="ada"))
        with pytest.raises(rpc.RpcError):
            await stub.SayHello(HelloRequest(name="bug"))
    keys = ("rpc.system.name", "rpc.method", "rpc.response.status_code", "error.type")
    for name in ("rpc.server.call.duration", "rpc.client.call.duration"):
        assert seen.values(name, *keys) == {
            ("grpc", "greeting.Greeter/SayHello", "OK", None): 2,
            ("grpc", "greeting.Greeter/SayHello", "UNKNOWN", "UNKNOWN"): 1,
        }
        assert seen.points(name)[0].explicit_bounds[:3] == (0.005, 0.01, 0.025)


async def test_what_is_exempt_is_not_seen(seen):
    observed = interceptor(seen, exempt=("/greeting.Greeter/Say",))
    async with serving(Greeter(), interceptors=[observed]) as target, rpc.open_channel(target) as channel:
        await GreeterStub(channel).SayHello(HelloRequest(name="ada"))
        async with GreeterStub(channel).Watch(HelloRequest(name="n", times=1)) as replies:
            assert len([reply async for reply in replies]) == 1
    assert [span.name for span in seen.spans] == ["greeting.Greeter/Watch"]


async def test_without_providers_nothing_is_recorded_and_the_callers_trace_goes_on():
    """Only OpenTelemetry's API is there, as in a process that has set nothing up."""
    seen = []

    class Notes(Greeter):
        async def SayHello(self, request, call):
            seen.append(call.metadata.get("traceparent"))
            return await super().SayHello(request, call)

    async with serving(Notes(), interceptors=[server_telemetry()]) as target, rpc.open_channel(target) as channel:
        stub = GreeterStub(Traced(channel))
        await stub.SayHello(HelloRequest(name="ada"))
        parent = trace.NonRecordingSpan(
            trace.SpanContext(0xA, 0xB, is_remote=True, trace_flags=trace.TraceFlags(trace.TraceFlags.SAMPLED))
        )
        with trace.use_span(parent):
            await stub.SayHello(HelloRequest(name="ada"))
    assert seen == [None, f"00-{0xA:032x}-{0xB:016x}-01"]
