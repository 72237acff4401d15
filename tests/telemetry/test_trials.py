"""Spans and metrics of trials, as a collector gets them."""

import json
import threading
import time
from _thread import allocate_lock
from contextlib import ExitStack
from functools import partial

import dspy
import pytest
import trio
from dspy.utils import DummyLM
from opentelemetry import trace

import dspex_trio as dspex
from dspex_trio import rpc
from dspex_trio.model import TrialRequest
from dspex_trio.observing import correlation
from dspex_trio.programs import MODULE_REGISTRY
from dspex_trio.rpc.ext.otel import server_telemetry
from dspex_trio.store.memory import MemoryStore
from dspex_trio.store.servicer import SessionStore
from dspex_trio.trials.observer import Observer
from dspex_trio.wire import encode_request, program_from_json
from dspex_trio.wire.generated.program_grpc import SnakepitBridgeStub

from .seen import Seen, seconds

STAGES = ["ADMISSION", "SESSION", "HYDRATE", "SYNC", "EXECUTE", "SERIALIZE"]
PREDICT = {"python_class": "dspy.Predict", "signature": "question -> answer"}
QUESTION = {"question": "?"}
TRACEPARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


@pytest.fixture
def seen():
    return Seen()


@pytest.fixture
def register():
    """What is registered in a test is gone after it, and what others left does not matter."""
    before = dict(MODULE_REGISTRY)
    MODULE_REGISTRY.clear()
    yield dspex.register
    MODULE_REGISTRY.clear()
    MODULE_REGISTRY.update(before)


def answers(*texts):
    return DummyLM([{"answer": text} for text in texts])


async def test_a_trial_is_a_span_with_one_for_each_stage_and_each_lm_call(virtual_clock, seen):
    async with dspex.open_runtime(lm=answers("yes"), telemetry=seen.telemetry) as runtime:
        await runtime.run_trial(PREDICT, QUESTION, trial_id="t1", session="s1")
    assert seen.paths() == [
        "trial",
        *(f"trial/{stage}" for stage in STAGES[:5]),
        "trial/EXECUTE/chat dummy",
        "trial/SERIALIZE",
    ]
    told = seen.span("trial").attributes
    assert told["dspex.trial.id"] == "t1"
    assert told["dspex.session.id"] == "s1"
    assert told["dspex.program.class"] == "dspy.Predict"
    assert told["dspex.outcome"] == "success"
    assert told["dspex.lm_calls"] == 1
    assert all(span.status.is_unset for span in seen.spans)


async def test_a_span_takes_the_time_of_trios_clock(virtual_clock, seen, register):
    @register("Sleeps")
    class Sleeps(dspy.Module):
        def forward(self):
            time.sleep(3)
            return {}

    async with dspex.open_runtime(telemetry=seen.telemetry) as runtime:
        await runtime.run_trial(dspex.Program("Sleeps"), {})
    assert seconds(seen.span("trial")) == seconds(seen.span("EXECUTE")) == 3.0
    assert [point.sum for point in seen.points("dspex.trial.duration")] == [3.0]


async def test_an_lm_call_is_told_as_the_conventions_for_generative_ai_have_it(virtual_clock, seen):
    """Model, provider, tokens and why it ended; and no text, which may be anybody's."""
    lm = answers("yes")
    lm.model = "openai/gpt-4o-mini"
    lm.kwargs |= {"max_completion_tokens": 300, "api_key": "secret"}
    async with dspex.open_runtime(lm=lm, telemetry=seen.telemetry) as runtime:
        await runtime.run_trial({**PREDICT, "parameters": {"temperature": 0.7, "n": 1}}, {"question": "a secret?"})
    span = seen.span("chat gpt-4o-mini")
    assert span.kind is trace.SpanKind.CLIENT
    assert span.attributes["gen_ai.operation.name"] == "chat"
    assert span.attributes["gen_ai.provider.name"] == "openai"
    assert span.attributes["gen_ai.request.model"] == "gpt-4o-mini"
    assert span.attributes["gen_ai.request.temperature"] == 0.7
    assert span.attributes["gen_ai.request.max_tokens"] == 300
    assert span.attributes["gen_ai.request.choice.count"] == 1
    assert span.attributes["gen_ai.response.finish_reasons"] == ("stop",)
    assert span.attributes["dspex.predictor"] == "self"
    assert not [value for span in seen.spans for value in span.attributes.values() if "secret" in str(value)]


async def test_prompts_and_replies_stand_in_spans_for_those_who_want_that(virtual_clock):
    seen = Seen(content=True)
    async with dspex.open_runtime(lm=answers("yes"), telemetry=seen.telemetry) as runtime:
        await runtime.run_trial(PREDICT, {"question": "red or blue?"})
    told = seen.span("chat dummy").attributes
    roles = [message["role"] for message in json.loads(told["gen_ai.input.messages"])]
    assert roles == ["system", "user"]
    assert "red or blue?" in json.loads(told["gen_ai.input.messages"])[1]["parts"][0]["content"]
    [reply] = json.loads(told["gen_ai.output.messages"])
    assert reply["role"] == "assistant"
    assert reply["finish_reason"] == "stop"
    assert "yes" in reply["parts"][0]["content"]


def weather(city: str) -> str:
    return f"rain in {city}"


async def test_a_programs_own_spans_and_its_tools_are_where_it_makes_them(virtual_clock, seen, register):
    """In its thread, in a tool's, in dspy.Parallel's threads, and in an event loop of its own."""

    def told(city: str) -> str:
        with seen.tracer.start_as_current_span("in the tool"):
            return weather(city)

    async def told_async(city: str) -> str:
        with seen.tracer.start_as_current_span("awaited"):
            return weather(city)

    @register("Spans")
    class Spans(dspy.Module):
        def __init__(self):
            super().__init__()
            self.ask = dspy.Predict("question -> answer")

        def forward(self):
            import asyncio

            with seen.tracer.start_as_current_span("mine"):
                dspy.Tool(told)(city="Oslo")
                dspy.Parallel(num_threads=2, disable_progress_bar=True)([(self.ask, QUESTION)] * 2)
            asyncio.run(dspy.Tool(told_async).acall(city="Oslo"))
            return {}

    async with dspex.open_runtime(lm=answers("a", "b"), telemetry=seen.telemetry) as runtime:
        outcome = await runtime.run_trial(dspex.Program("Spans"), {})
    assert isinstance(outcome, dspex.TrialSuccess)
    inside = "trial/EXECUTE"
    assert sorted(path for path in seen.paths() if path.count("/") > 1) == sorted(
        [
            f"{inside}/mine",
            f"{inside}/mine/execute_tool told",
            f"{inside}/mine/execute_tool told/in the tool",
            *[f"{inside}/mine/chat dummy"] * 2,
            f"{inside}/execute_tool told_async",
            f"{inside}/execute_tool told_async/awaited",
        ]
    )
    assert seen.span("execute_tool told").kind is trace.SpanKind.INTERNAL
    assert seen.span("execute_tool told").attributes["gen_ai.tool.type"] == "function"


async def test_what_surrounds_a_trial_is_its_parent_and_current_again_when_it_is_over(virtual_clock, seen):
    async with dspex.open_runtime(lm=answers("a"), telemetry=seen.telemetry) as runtime:
        with seen.tracer.start_as_current_span("orchestrator") as around:
            await runtime.run_trial(PREDICT, QUESTION)
            assert trace.get_current_span() is around
        assert not trace.get_current_span().get_span_context().is_valid
    assert "orchestrator/trial/EXECUTE" in seen.paths()


async def test_a_requests_own_traceparent_is_continued_where_no_trace_surrounds_it(virtual_clock, seen):
    """As Elixir sends it along with a tool call."""
    async with dspex.open_runtime(lm=answers("a"), telemetry=seen.telemetry) as runtime:
        await runtime.run_trial(PREDICT, QUESTION, metadata={"traceparent": TRACEPARENT})
    assert f"{seen.span('trial').parent.span_id:016x}" == "b7ad6b7169203331"


async def test_a_late_trial_says_so_in_its_status_and_in_what_it_did_last(virtual_clock, seen, register):
    @register("Waits")
    class Waits(dspy.Module):
        def forward(self):
            dspy.Tool(threading.Event().wait, name="waits")()

    async with dspex.open_runtime(telemetry=seen.telemetry) as runtime:
        with trio.move_on_after(5):
            await runtime.run_trial(dspex.Program("Waits"), {})
    for name in ("trial", "EXECUTE"):
        span = seen.span(name)
        assert not span.status.is_ok
        assert span.attributes["dspex.outcome"] == "failure"
        assert span.attributes["error.type"] == "DEADLINE_EXCEEDED"
        assert span.attributes["dspex.failure.stage"] == "EXECUTE"
        assert span.attributes["dspex.rung"] == "wake"
    assert seen.span("trial").status.description == "DEADLINE_EXCEEDED in EXECUTE"
    assert not seen.span("execute_tool waits").status.is_ok
    assert seen.span("SYNC").status.is_unset
    assert seen.values("dspex.trials", "error.type", "dspex.failure.stage") == {("DEADLINE_EXCEEDED", "EXECUTE"): 1}


async def test_a_cancelled_trial_says_so_too(virtual_clock, seen, register):
    @register("Waits")
    class Waits(dspy.Module):
        def forward(self):
            threading.Event().wait()

    async with dspex.open_runtime(telemetry=seen.telemetry) as runtime:
        with trio.CancelScope() as caller:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(runtime.run_trial, dspex.Program("Waits"), {})
                await trio.sleep(1)
                caller.cancel()
    told = seen.span("trial").attributes
    assert (told["dspex.outcome"], told["error.type"]) == ("cancelled", "CANCELLED")
    assert seen.values("dspex.trial.active", "dspex.trial.state") == {("queued",): 0, ("running",): 0}


async def test_a_thread_that_goes_on_after_its_trial_has_a_span_of_its_own_and_its_calls_end_with_the_trial(
    seen, register
):
    """In real time: what it waits for is no wait that the clock knows."""
    held, waiting = allocate_lock(), threading.Event()
    held.acquire()
    ended = trio.Event()

    def holds() -> str:
        waiting.set()
        held.acquire()
        return "done"

    @register("IsStuck")
    class IsStuck(dspy.Module):
        def forward(self):
            dspy.Tool(holds)()
            return {}

    class Ends(Observer):
        def on_late_end(self, request, details):
            ended.set()

    async with dspex.open_runtime(
        dspex.Settings(max_stuck_threads=9), telemetry=seen.telemetry, observers=[Ends()]
    ) as runtime:
        with trio.move_on_after(0.3):
            await runtime.run_trial(dspex.Program("IsStuck"), {})
        tool = seen.span("execute_tool holds")
        assert tool.attributes["dspex.unfinished"] is True
        assert tool.end_time == seen.span("trial").end_time
        assert seen.span("trial").attributes["dspex.rung"] == "abandon"
        assert waiting.is_set()
        held.release()
        with trio.fail_after(30):
            await ended.wait()
    assert "trial/abandoned" in seen.paths()
    assert seen.span("abandoned").attributes["dspex.stuck"] == "false"


async def test_the_correlation_id_stands_in_the_span(virtual_clock, seen):
    async with dspex.open_runtime(lm=answers("a"), telemetry=seen.telemetry) as runtime:
        with correlation.correlated("c-17"):
            await runtime.run_trial(PREDICT, QUESTION)
    assert seen.span("trial").attributes["dspex.correlation_id"] == "c-17"


async def test_a_call_is_around_its_trial_and_carries_the_callers_correlation_id(seen, nursery):
    serve = partial(dspex.serve, dspex.Settings(port=0), lm=answers("a"), telemetry=seen.telemetry)
    [listener] = await nursery.start(serve)
    async with rpc.open_channel(f"127.0.0.1:{listener.socket.getsockname()[1]}") as channel:
        request = encode_request(TrialRequest(program_from_json(PREDICT), QUESTION))
        metadata = {correlation.HEADER: "c-17", "traceparent": TRACEPARENT}
        await SnakepitBridgeStub(channel).ExecuteProgram(request, metadata=metadata)
    nursery.cancel_scope.cancel()
    call = "snakepit.bridge.SnakepitBridge/ExecuteProgram"
    assert {call, f"{call}/trial", f"{call}/trial/EXECUTE/chat dummy"} <= set(seen.paths())
    assert seen.span(call).attributes["dspex.correlation_id"] == "c-17"
    assert f"{seen.span(call).parent.span_id:016x}" == "b7ad6b7169203331"


async def test_calls_of_the_store_continue_the_stage_and_the_tool_in_which_they_are_made(seen, register):
    """In one trace with the store's own spans, if it has some."""

    @register("Reads")
    class Reads(dspy.Module):
        temp = 0.5

        def forward(self):
            return {"temp": self.session.get("temp")}

    observed = server_telemetry(tracer_provider=seen.tracer_provider, meter_provider=seen.meter_provider)
    listener, target = rpc.memory_link()
    program = dspex.Program("Reads", config_space=(dspex.Binding("temp", "temp"),))
    async with trio.open_nursery() as nursery:
        serve = partial(rpc.serve, [SessionStore(MemoryStore())], listeners=[listener], interceptors=[observed])
        await nursery.start(serve)
        async with dspex.open_runtime(store=target, telemetry=seen.telemetry) as runtime:
            session = runtime.session("s")
            await session.initialize()
            await session.register("temp", "float", 0.5)
            outcome = await runtime.run_trial(program, {}, session="s")
        nursery.cancel_scope.cancel()
    assert isinstance(outcome, dspex.TrialSuccess), outcome
    calls = [path for path in seen.paths() if path.startswith("trial/") and "BridgeService" in path]
    method = "snakepit.bridge.BridgeService/GetVariables"
    assert calls == [
        *(f"trial/SYNC/{method}", f"trial/SYNC/{method}/{method}"),
        *(f"trial/EXECUTE/{method}", f"trial/EXECUTE/{method}/{method}"),
    ]


async def test_trials_that_wait_and_that_run_are_counted_while_they_do(virtual_clock, seen, register):
    @register("Sleeps")
    class Sleeps(dspy.Module):
        def forward(self):
            time.sleep(2)
            return {}

    async with dspex.open_runtime(dspex.Settings(max_trials=2), telemetry=seen.telemetry) as runtime:
        async with trio.open_nursery() as nursery:
            for _ in range(3):
                nursery.start_soon(runtime.run_trial, dspex.Program("Sleeps"), {})
            await trio.sleep(1)
            assert seen.values("dspex.trial.active", "dspex.trial.state") == {("queued",): 1, ("running",): 2}
        assert seen.values("dspex.trial.active", "dspex.trial.state") == {("queued",): 0, ("running",): 0}
    assert seen.values("dspex.trials", "dspex.outcome") == {("success",): 3}
    [stage] = [p for p in seen.points("dspex.trial.stage.duration") if p.attributes["dspex.stage"] == "ADMISSION"]
    assert (stage.count, stage.sum) == (3, 2.0)


async def test_stuck_trials_lateness_and_lost_records_are_measured_of_what_observers_are_told(virtual_clock, seen):
    observer = seen.telemetry.trials()
    observer.on_stuck(2)
    observer.on_stuck(1)
    observer.on_lateness(0.25)
    observer.on_records_dropped(7)
    assert seen.values("dspex.trial.stuck") == {(): 1}
    assert [point.sum for point in seen.points("dspex.loop.lateness")] == [0.25]
    assert seen.values("dspex.records.dropped") == {(): 7}


async def test_other_observers_watches_and_records_see_what_they_saw_without_it(seen, tmp_path):
    """In real time, in which the records are written."""
    events, outcomes = [], []

    class Keeps(Observer):
        def on_outcome(self, request, outcome):
            outcomes.append(request.trial_id)

    settings = dspex.Settings(record=tmp_path)
    async with dspex.open_runtime(settings, lm=answers("a"), telemetry=seen.telemetry, observers=[Keeps()]) as runtime:
        await runtime.run_trial(PREDICT, QUESTION, trial_id="t", watch=events.append)
    assert outcomes == ["t"]
    assert [type(event).__name__ for event in events] == [
        *["StageStarted"] * 5,
        "LmStarted",
        "LmFinished",
        "StageStarted",
    ]
    [record] = [json.loads(line) for file in tmp_path.iterdir() for line in file.read_text().splitlines()]
    span = seen.span("trial").context
    assert record["metadata"]["traceparent"].startswith(f"00-{span.trace_id:032x}-{span.span_id:016x}-")
    assert seen.span("trial").attributes["dspex.outcome"] == "success"


async def test_the_line_of_a_trial_in_the_log_leads_to_its_trace(virtual_clock, seen, caplog):
    caplog.set_level("INFO", "dspex_trio.trials.observer")
    async with dspex.open_runtime(lm=answers("a"), telemetry=seen.telemetry) as runtime:
        await runtime.run_trial(PREDICT, QUESTION)
    [line] = caplog.records
    assert f"-{seen.span('trial').context.trace_id:032x}-" in line.traceparent


async def test_a_watched_trial_does_not_stream_because_spans_are_made_of_it(virtual_clock, seen):
    """Only who reads the text as it comes makes the provider stream it."""
    requests = []

    class Keeps(Observer):
        def begins(self, request):
            requests.append(request)
            return request

    async with dspex.open_runtime(lm=answers("a"), telemetry=seen.telemetry, observers=[Keeps()]) as runtime:
        await runtime.run_trial(PREDICT, QUESTION)
        observer = seen.telemetry.trials()
        begun = observer.begins(requests[0])
        assert begun.watch is not None
        assert not begun.stream_output
        assert begun.key is requests[0].key
        with ExitStack() as stack:
            stack.callback(observer.on_outcome, begun, dspex.TrialSuccess({}))
