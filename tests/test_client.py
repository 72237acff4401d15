from contextlib import asynccontextmanager
from functools import partial

import pytest
import trio

from dspex_trio import rpc
from dspex_trio.model import Binding, Program, Signature, TrialFailure, TrialOptions, TrialSuccess
from dspex_trio.model.errors import FailureKind, InvalidInput, InvalidSpec, Stage, StoreUnavailable, VariableNotFound
from dspex_trio.runtime.client import open_client
from dspex_trio.sessions import MemoryStore
from dspex_trio.store.servicer import SessionStore
from dspex_trio.wire import decode_request, encode_outcome, seconds_of
from dspex_trio.wire.generated.program_grpc import SnakepitBridgeServicer
from dspex_trio.wire.generated.program_pb2 import ExecuteProgramResponse

PROGRAM = Program(
    "dspy.Predict", signature=Signature(text="question -> answer"), config_space=(Binding("temperature", "t"),)
)


class Worker(SnakepitBridgeServicer):
    """Answers each trial with what the test gives it, and keeps what it was asked."""

    def __init__(self, answer):
        self.answer = answer
        self.requests = []
        self.calls = []
        self.arrived = trio.Event()
        self.cancelled = trio.Event()

    async def ExecuteProgram(self, request, call):
        self.requests.append(request)
        self.calls.append(call)
        self.arrived.set()
        if isinstance(self.answer, rpc.RpcError):
            raise self.answer
        if self.answer is None:
            try:
                await trio.sleep_forever()
            finally:
                self.cancelled.set()
        if isinstance(self.answer, ExecuteProgramResponse):
            return self.answer
        return encode_outcome(self.answer, max_bytes=1 << 20)


@asynccontextmanager
async def client_of(worker, **options):
    listener, connector = rpc.memory_link()
    async with trio.open_nursery() as nursery:
        servicers = [worker, SessionStore(MemoryStore())]
        await nursery.start(partial(rpc.serve, servicers, listeners=[listener]))
        async with open_client(connector, **options) as client:
            yield client
        nursery.cancel_scope.cancel()


SUCCESS = TrialSuccess({"answer": "42", "n": 2**70}, trial_id="t1")
FAILURE = TrialFailure(FailureKind.LM_ERROR, Stage.EXECUTE, "dspy.LMError", "quota", retryable=True, retry_after=2.5)


@pytest.mark.parametrize("outcome", [SUCCESS, FAILURE])
async def test_an_outcome_is_a_value_whether_good_or_bad(outcome):
    worker = Worker(outcome)
    async with client_of(worker) as client:
        assert await client.execute(PROGRAM, {"question": "why?"}) == outcome


async def test_everything_that_was_asked_arrives():
    worker = Worker(SUCCESS)
    async with client_of(worker) as client:
        await client.execute(
            PROGRAM,
            {"question": "why?", "context": ["a", None, b"\x00"]},
            session_id="s1",
            timeout=1.5,
            trial_id="t1",
            options=TrialOptions(omit_trace=True),
            metadata={"generation": "7"},
        )
    found = decode_request(worker.requests[0])
    assert (found.program, found.session_id, found.trial_id) == (PROGRAM, "s1", "t1")
    assert found.inputs == {"question": "why?", "context": ["a", None, b"\x00"]}
    assert (found.options, found.metadata) == (TrialOptions(omit_trace=True), {"generation": "7"})
    assert seconds_of(worker.requests[0]) == 1.5


async def test_a_program_may_be_given_in_its_json_form():
    worker = Worker(SUCCESS)
    async with client_of(worker) as client:
        await client.execute(
            {"python_class": "dspy.Predict", "signature": "question -> answer", "config_space": {"temperature": "t"}},
            {},
        )
        assert decode_request(worker.requests[0]).program == PROGRAM
        with pytest.raises(InvalidSpec, match="no key 'python_clas'"):
            await client.execute({"python_clas": "dspy.Predict"}, {})
        with pytest.raises(InvalidInput, match="callback: function cannot be expressed"):
            await client.execute(PROGRAM, {"callback": lambda: 1})
    assert len(worker.requests) == 1


async def test_the_enclosing_scopes_deadline_travels_along():
    worker = Worker(SUCCESS)
    async with client_of(worker) as client:
        await client.execute(PROGRAM, {})
        with trio.fail_after(100):
            await client.execute(PROGRAM, {})
            left = worker.calls[1].deadline - trio.current_time()
    assert worker.calls[0].deadline == float("inf")
    assert 90 < left <= 100
    assert seconds_of(worker.requests[1]) == float("inf")


async def test_a_caller_that_is_cancelled_cancels_its_trial():
    worker = Worker(None)
    async with client_of(worker) as client:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(client.execute, PROGRAM, {})
            await worker.arrived.wait()
            nursery.cancel_scope.cancel()
        with trio.fail_after(10):
            await worker.cancelled.wait()


@pytest.mark.parametrize("code", ["UNAUTHENTICATED", "RESOURCE_EXHAUSTED", "UNAVAILABLE"])
async def test_a_call_that_is_no_trial_raises_its_status(code):
    worker = Worker(rpc.RpcError(rpc.StatusCode[code], "why"))
    async with client_of(worker) as client:
        with pytest.raises(rpc.RpcError, match=f"{code}: why") as info:
            await client.execute(PROGRAM, {})
    assert info.value.status is rpc.StatusCode[code]


async def test_a_reply_that_tells_no_outcome_is_an_error():
    async with client_of(Worker(ExecuteProgramResponse())) as client:
        with pytest.raises(rpc.RpcError, match="the worker's reply cannot be decoded: the reply holds neither"):
            await client.execute(PROGRAM, {})


async def test_a_worker_that_is_not_there_is_unavailable():
    async def nobody():
        raise ConnectionRefusedError("nobody listens")

    async with open_client(nobody) as client:
        with pytest.raises(rpc.RpcError, match="UNAVAILABLE: cannot connect to memory: nobody listens"):
            await client.execute(PROGRAM, {})


async def test_sessions_are_reached_over_the_same_connection():
    async with client_of(Worker(SUCCESS)) as client:
        session = await client.initialize_session("s1", {"by": "test"})
        assert session is client.session("s1")
        await session.register("t", "float", 1, constraints={"max": 2})
        assert await client.session("s1").get("t") == 1.0
        assert await client.ping("hello") == "pong: hello"
        with pytest.raises(VariableNotFound):
            await client.session("other").get("t")


async def test_a_store_elsewhere_is_called_there():
    listener, connector = rpc.memory_link()
    memory = MemoryStore()
    async with trio.open_nursery() as nursery:
        await nursery.start(partial(rpc.serve, [SessionStore(memory)], listeners=[listener]))
        async with client_of(Worker(SUCCESS), store=connector) as client:
            await client.initialize_session("s1")
        nursery.cancel_scope.cancel()
    assert memory.session("s1")


async def test_a_store_that_is_not_there_is_named(virtual_clock):
    async def nobody():
        raise ConnectionRefusedError("nobody listens")

    async with open_client(nobody, store=nobody) as client:
        with trio.fail_after(5), pytest.raises(StoreUnavailable, match="nobody listens"):
            await client.session("s1").get("t")
