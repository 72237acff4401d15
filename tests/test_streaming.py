"""A watched trial over gRPC: what is told while it runs, and that whoever watches changes nothing."""

from contextlib import asynccontextmanager
from functools import partial

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st

from dspex_trio import rpc
from dspex_trio.model import (
    EventsDropped,
    LmCall,
    LmFinished,
    LmStarted,
    OutputChunk,
    Program,
    Signature,
    StageStarted,
    ToolFinished,
    ToolStarted,
    TrialFailure,
    TrialSuccess,
)
from dspex_trio.model.errors import FailureKind, Stage
from dspex_trio.runtime.client import open_client
from dspex_trio.runtime.servicer import ProgramExecutor
from dspex_trio.runtime.streaming import MAX_EVENTS, Ended, EventQueue, streamed
from dspex_trio.sessions import MemoryStore
from dspex_trio.store.servicer import SessionStore
from dspex_trio.trials import MarginRules, ReplyMargin
from dspex_trio.wire import decode_event, encode_event, encode_json, event_to_json
from dspex_trio.wire.generated.program_pb2 import ExecuteProgramResponse, ProgramEvent

PROGRAM = Program("dspy.Predict", signature=Signature(text="question -> answer"))
CHUNK = OutputChunk("self", "answer", "four", False)
SUCCESS = TrialSuccess({"answer": "42"})

text = st.text(st.characters(exclude_categories=["Cs"]))
number = st.integers(0, 2**32 - 1)
leaves = st.none() | st.booleans() | st.integers() | text
values = st.recursive(leaves, lambda inner: st.lists(inner) | st.dictionaries(text, inner))
events = (
    st.builds(StageStarted, st.sampled_from(Stage))
    | st.builds(LmStarted, number, text, text)
    | st.builds(LmFinished, number, st.builds(LmCall, model=text, messages_json=text), text)
    | st.builds(ToolStarted, number, text, st.dictionaries(text, values))
    | st.builds(ToolFinished, number, values, st.just(""), st.floats(0, 1e9))
    | st.builds(OutputChunk, text, text, text, st.booleans())
    | st.builds(EventsDropped, number)
)


@given(events, st.floats(0, 1e9))
def test_every_event_survives_the_wire(event, at_ms):
    message = ProgramEvent.FromString(encode_event(event, at_ms).SerializeToString())
    assert decode_event(message) == event
    assert message.at_ms == at_ms
    shown = event_to_json(event, at_ms)
    assert set(shown) == {message.WhichOneof("event"), "at_ms"}
    encode_json(shown)


class Trials:
    """A road whose trials do what the test says, given the request."""

    def __init__(self, run):
        self._run = run

    async def run(self, request):
        return await self._run(request)


@asynccontextmanager
async def client_of(run):
    executor = ProgramExecutor(
        Trials(run), max_message_bytes=1 << 20, reply_margin=ReplyMargin(MarginRules(0, 0), 600), redact=str
    )
    listener, connector = rpc.memory_link()
    async with trio.open_nursery() as nursery:
        await nursery.start(partial(rpc.serve, [executor, SessionStore(MemoryStore())], listeners=[listener]))
        async with open_client(connector) as client:
            yield client
        nursery.cancel_scope.cancel()


async def test_a_caller_hears_of_the_trial_and_gets_its_outcome(virtual_clock):
    async def run(request):
        request.watch(StageStarted(Stage.ADMISSION))
        await trio.sleep(2)
        request.watch(CHUNK)
        return SUCCESS

    told = []
    async with client_of(run) as client:
        outcome = await client.execute(PROGRAM, {"question": "?"}, on_event=lambda event, at: told.append((event, at)))
    assert outcome == TrialSuccess({"answer": "42"}, timings=outcome.timings)
    assert told == [(StageStarted(Stage.ADMISSION), 0.0), (CHUNK, 2000.0)]


async def test_nobody_watches_a_unary_call():
    seen = []

    async def run(request):
        seen.append(request.watch)
        return SUCCESS

    async with client_of(run) as client:
        await client.execute(PROGRAM, {"question": "?"})
    assert seen == [None]


async def test_a_failure_is_the_last_event_too():
    failure = TrialFailure(FailureKind.LM_ERROR, Stage.EXECUTE, "dspy.LMError", "quota")

    async def run(_request):
        return failure

    async with client_of(run) as client:
        assert (await client.execute(PROGRAM, {}, on_event=print)).error_message == "quota"


async def test_a_caller_that_goes_away_cancels_the_trial():
    began, cancelled = trio.Event(), trio.Event()

    async def run(_request):
        began.set()
        try:
            await trio.sleep_forever()
        finally:
            cancelled.set()

    async with client_of(run) as client, trio.open_nursery() as nursery:
        nursery.start_soon(partial(client.execute, PROGRAM, {}, on_event=print))
        await began.wait()
        nursery.cancel_scope.cancel()
    assert cancelled.is_set()


async def test_what_the_callers_function_raises_comes_out_and_ends_the_trial():
    cancelled = trio.Event()

    async def run(request):
        request.watch(CHUNK)
        try:
            await trio.sleep_forever()
        finally:
            cancelled.set()

    def refuse(_event, _at_ms):
        raise LookupError("enough")

    async with client_of(run) as client:
        with pytest.raises(LookupError, match="enough"):
            await client.execute(PROGRAM, {}, on_event=refuse)
        await cancelled.wait()


async def test_a_worker_whose_stream_ends_too_early_is_an_error():
    class Silent(ProgramExecutor):
        def __init__(self):
            pass

        async def StreamProgram(self, request, call):
            yield ProgramEvent()

    listener, connector = rpc.memory_link()
    async with trio.open_nursery() as nursery:
        await nursery.start(partial(rpc.serve, [Silent()], listeners=[listener]))
        async with open_client(connector) as client:
            with pytest.raises(rpc.RpcError, match="cannot be decoded"):
                await client.execute(PROGRAM, {}, on_event=print)
        nursery.cancel_scope.cancel()


# ---- a reader who is slow -------------------------------------------------------------------------------------------


async def read_all(queue):
    queue.end()
    found = []
    while waiting := await queue.read():
        found += [event for _, event in waiting]
    return found


async def test_a_slow_reader_loses_the_oldest_of_a_kind_and_is_told_how_many():
    """Text that comes by the token must not drive out what is rare."""
    queue = EventQueue(trio.current_time())
    queue.tell(StageStarted(Stage.EXECUTE))
    queue.tell(LmStarted(1, "self", "m"))
    for n in range(MAX_EVENTS + 7):
        queue.tell(OutputChunk("self", "answer", str(n), False))
    dropped, *kept = await read_all(queue)
    assert dropped == EventsDropped(7)
    assert kept[:2] == [StageStarted(Stage.EXECUTE), LmStarted(1, "self", "m")]
    assert [chunk.text for chunk in kept[2:]] == [str(n) for n in range(7, MAX_EVENTS + 7)]


async def test_large_prompts_are_bounded_by_their_size():
    queue = EventQueue(trio.current_time())
    for n in range(9):
        queue.tell(LmFinished(n, LmCall("m", messages_json="x" * 1024 * 1024)))
    dropped, *kept = await read_all(queue)
    assert (dropped, [event.call for event in kept]) == (EventsDropped(5), [5, 6, 7, 8])


async def test_events_come_from_any_thread_in_the_order_in_which_they_were_told():
    queue = EventQueue(trio.current_time())

    def work():
        for n in range(500):
            queue.tell(OutputChunk("self", "answer", str(n), False))

    async with trio.open_nursery() as nursery:
        found = []

        async def read():
            while waiting := await queue.read():
                found.extend(event.text for _, event in waiting)

        nursery.start_soon(read)
        await trio.to_thread.run_sync(work)
        queue.end()
    assert found == [str(n) for n in range(500)]


async def test_the_response_waits_for_no_slow_reader_and_is_never_dropped():
    """The trial has ended long before anybody reads."""
    finished = trio.Event()

    async def run(watch):
        for n in range(3 * MAX_EVENTS):
            watch(OutputChunk("self", "answer", str(n), False))
        finished.set()
        return ExecuteProgramResponse()

    stream = streamed(run, arrived=trio.current_time())
    first = await anext(stream)
    await finished.wait()
    rest = [event async for _, event in stream]
    assert first[1] == EventsDropped(2 * MAX_EVENTS)
    assert rest[-1] == Ended(ExecuteProgramResponse())


async def test_a_thread_that_outlives_the_run_tells_nobody():
    kept = []

    async def inner():
        kept.append(EventQueue(trio.current_time()))

    await trio.to_thread.run_sync(trio.run, inner)
    kept[0].tell(CHUNK)
