"""A worker that exports, seen from its collector: spans arrive, and nothing waits for a collector that hangs."""

import gzip
import signal

import h11
import pytest
import trio
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

import dspex_trio as dspex

PROGRAMS = """
import dspy
from opentelemetry import trace
import dspex_trio as dspex

@dspex.register("Spans")
class Spans(dspy.Module):
    def forward(self):
        with trace.get_tracer("a user's").start_as_current_span("mine"):
            return {"answer": 1}
"""


class Collector:
    """An OTLP collector on loopback: keeps what it gets, or takes a request and never answers.

    Attributes:
        spans: The names of the spans that came.
        asked: Set when the first request has come.
    """

    def __init__(self, *, hangs=False):
        self.spans = []
        self.resources = []
        self.asked = trio.Event()
        self._hangs = hangs

    async def serve(self, task_status):
        await trio.serve_tcp(self._one, 0, host="127.0.0.1", task_status=task_status)

    async def _one(self, stream):
        http = h11.Connection(h11.SERVER)
        body = b""
        while True:
            match http.next_event():
                case h11.NEED_DATA:
                    http.receive_data(await stream.receive_some())
                case h11.Request() as request:
                    body = b""
                case h11.Data(data=data):
                    body += data
                case h11.EndOfMessage():
                    self.asked.set()
                    if self._hangs:
                        await trio.sleep_forever()
                    self._take(dict(request.headers), request.target, body)
                    head = h11.Response(status_code=200, headers=[("Content-Length", "0")])
                    await stream.send_all(http.send(head) + http.send(h11.EndOfMessage()))
                    http.start_next_cycle()
                case _:
                    return

    def _take(self, headers, target, body):
        if target != b"/v1/traces":
            return
        data = gzip.decompress(body) if headers.get(b"content-encoding") == b"gzip" else body
        for resource in ExportTraceServiceRequest.FromString(data).resource_spans:
            self.resources.append({item.key: item.value.string_value for item in resource.resource.attributes})
            self.spans += [span.name for scope in resource.scope_spans for span in scope.spans]


@pytest.fixture
def exporting(start, nursery):
    """Start a worker that exports to a collector, `serve` by default."""

    async def run(collector, *arguments, command="serve", **environment):
        [listener] = await nursery.start(collector.serve)
        return await start(
            *(command, "--load", "some_programs", "--otel", *arguments),
            module=PROGRAMS,
            OTEL_EXPORTER_OTLP_ENDPOINT=f"http://127.0.0.1:{listener.socket.getsockname()[1]}",
            **environment,
        )

    return run


async def execute(command, program="Spans"):
    async with dspex.open_client(await command.address()) as client:
        outcome = await client.execute(dspex.Program(program), {})
    assert isinstance(outcome, dspex.TrialSuccess), outcome


async def test_spans_of_trials_calls_and_programs_arrive_at_the_latest_when_the_worker_ends(exporting):
    collector = Collector()
    command = await exporting(collector, OTEL_SERVICE_NAME="a-worker")
    await execute(command)
    command.process.send_signal(signal.SIGTERM)
    assert await command.ends() == 0, command.told
    assert {"snakepit.bridge.SnakepitBridge/ExecuteProgram", "trial", "EXECUTE", "mine"} <= set(collector.spans)
    assert collector.resources[0]["service.name"] == "a-worker"


async def test_a_collector_that_hangs_holds_nobody_up_neither_trials_nor_the_end(exporting):
    collector = Collector(hangs=True)
    command = await exporting(collector, "--grace-seconds", "1", OTEL_BSP_SCHEDULE_DELAY="1")
    await execute(command)
    with trio.fail_after(60):
        await collector.asked.wait()
    for _ in range(20):
        await execute(command)
    command.process.send_signal(signal.SIGTERM)
    assert await command.ends() == 0, command.told
    assert "what was left of spans or metrics was not taken in time" in command.told
    assert "Traceback" not in command.told


async def test_an_exporter_that_is_not_there_is_said_at_the_start(exporting):
    command = await exporting(Collector(), OTEL_TRACES_EXPORTER="zipkin")
    assert await command.ends() == 1
    assert "OTEL_TRACES_EXPORTER: no exporter 'zipkin' is installed" in command.told
    assert "Traceback" not in command.told


async def test_a_worker_of_a_pool_exports_and_is_scraped_as_well(exporting):
    collector = Collector()
    command = await exporting(collector, "--metrics-port", "0", command="worker")
    await command.until(r"metrics are served at http://127\.0\.0\.1:\d+/metrics")
    address = (await command.until(r"serving a snakepit pool on (127\.0\.0\.1:\d+)"))[1]
    async with dspex.open_client(address) as client:
        await client.execute(dspex.Program("Spans"), {})
    command.process.send_signal(signal.SIGTERM)
    assert await command.ends() == 0, command.told
    assert {"trial", "EXECUTE", "mine"} <= set(collector.spans)
