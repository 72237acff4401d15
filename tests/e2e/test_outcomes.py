"""What a grpcio client gets for every kind of success and failure."""

import json
import os
import select
import signal
import sys
import threading
import time
from pathlib import Path

import grpc
import pytest
from google.protobuf import any_pb2

from .conftest import pack, unpack


def kind(peer, failure):
    return peer.program_pb2.FailureKind.Name(failure.kind).removeprefix("FAILURE_KIND_")


def stage(peer, failure):
    return peer.program_pb2.Stage.Name(failure.stage).removeprefix("STAGE_")


def test_a_trial_that_succeeds_tells_prediction_trace_cost_and_timings(execute):
    success = execute(python_class="Echo", inputs={"question": "world"}, trial_id="t-1")
    assert unpack(success.prediction["answer"]) == "hello, world"
    assert success.trial_id == "t-1"
    [entry] = success.trace
    assert (entry.predictor, entry.class_name, entry.signature) == ("generate", "Predict", "question -> answer")
    assert unpack(entry.inputs["question"]) == "world"
    assert unpack(entry.outputs["answer"]) == "hello, world"
    [call] = entry.lm_calls
    assert "world" in json.loads(call.messages_json)[-1]["content"]
    assert "hello, world" in call.response_json
    assert (success.cost.lm_calls, success.cost.known) == (1, False)  # DummyLM has no price: unknown, not free
    assert success.latency_ms > 0
    assert success.timings.total_ms >= success.timings.execute_ms > 0


def test_dependencies_parameters_and_options_arrive(execute, peer):
    success = execute(
        python_class="Echo",
        dependencies={"greeting": "good morning"},
        inputs={"question": "you"},
    )
    assert unpack(success.prediction["answer"]) == "good morning, you"
    success = execute(
        python_class="Reports",
        signature="question -> answer",
        parameters={"temperature": 0.25, "flavour": "sour", "generate.instructions": "Be brief.", "rounds": 3},
        inputs={"question": "q"},
    )
    assert unpack(success.prediction["config"]) == {"temperature": 0.25}
    assert unpack(success.prediction["flavour"]) == "sour"
    assert unpack(success.prediction["instructions"]) == "Be brief."
    assert unpack(success.prediction["rounds"]) == 3


def test_a_signature_in_fields_is_the_same_as_in_text(execute, peer):
    pb = peer.program_pb2
    fields = pb.Signature(
        fields=pb.SignatureFields(
            instructions="Answer.",
            inputs=[pb.Field(name="question", type="string")],
            outputs=[pb.Field(name="answer", description="short")],
        )
    )
    success = execute(python_class="Reports", signature=fields, inputs={"question": "q"})
    assert unpack(success.prediction["instructions"]) == "Answer."


def test_session_variables_reach_the_program_with_their_versions(execute, peer, store):
    pb = peer.bridge_pb2
    store.InitializeSession(pb.InitializeSessionRequest(session_id="s-vars"))
    registered = store.RegisterVariable(
        pb.RegisterVariableRequest(
            session_id="s-vars", name="temp", type="float", initial_value=pack(0.1), constraints_json='{"min": 0}'
        )
    )
    store.SetVariable(pb.SetVariableRequest(session_id="s-vars", variable_identifier="temp", value=pack(0.7)))
    success = execute(
        python_class="Reports",
        bind=[("temperature", "temp"), ("generate.max_tokens", registered.variable_id)],
        session="s-vars",
        inputs={"question": "q"},
    )
    assert kind(peer, success) == "VARIABLE_INVALID"  # max_tokens takes a whole number

    success = execute(
        python_class="Reports", bind=[("temperature", "temp")], session="s-vars", inputs={"question": "q"}
    )
    assert unpack(success.prediction["config"]) == {"temperature": 0.7}
    bound = success.variables["temperature"]
    assert (bound.variable, unpack(bound.value), bound.version, bound.from_default) == ("temp", 0.7, 2, False)


def test_missing_variables_required_optional_and_with_default(execute, peer, store):
    pb = peer.program_pb2
    store.InitializeSession(peer.bridge_pb2.InitializeSessionRequest(session_id="s-empty"))
    optional = pb.VariableBinding(parameter="temperature", variable="nope", optional=True)
    default = pb.VariableBinding(parameter="flavour", variable="nope", default=pack("sweet"))
    success = execute(python_class="Reports", bind=[optional, default], session="s-empty", inputs={"question": "q"})
    assert unpack(success.prediction["config"]) == {}
    assert unpack(success.prediction["flavour"]) == "sweet"
    assert success.variables["flavour"].from_default
    assert "temperature" not in success.variables


INVALID = [
    ({"python_class": ""}, "INVALID_SPEC", "HYDRATE", "python_class is empty"),
    ({"python_class": "Ecko"}, "CLASS_NOT_FOUND", "HYDRATE", "did you mean 'Echo'?"),
    ({"python_class": "dspy.NoSuchThing"}, "CLASS_NOT_FOUND", "HYDRATE", "'NoSuchThing'"),
    ({"python_class": "os.path.join"}, "IMPORT_NOT_ALLOWED", "HYDRATE", "--allow-import"),
    ({"python_class": "dspy.Example"}, "INVALID_SPEC", "HYDRATE", "no dspy.Module"),
    ({"python_class": "dspy.primitives.local_interpreter_worker.X"}, "CLASS_NOT_FOUND", "HYDRATE", "--load"),
    ({"python_class": "e2e_raises_on_import.X"}, "PROGRAM_ERROR", "HYDRATE", "this module cannot be imported"),
    ({"python_class": "RaisesInConstructor"}, "PROGRAM_ERROR", "HYDRATE", "no constructor today"),
    ({"python_class": "Echo", "dependencies": {"greetings": 1}}, "INVALID_SPEC", "HYDRATE", "'greetings'"),
    ({"python_class": "Raises", "signature": "question -> answer"}, "INVALID_SPEC", "HYDRATE", "signature"),
    ({"python_class": "Reports", "signature": "question answer"}, "INVALID_SPEC", "HYDRATE", "exactly one '->'"),
    ({"python_class": "Reports", "signature": "q: Nope -> a"}, "INVALID_SPEC", "HYDRATE", "'Nope'"),
    ({"python_class": "Reports", "signature": "q: os.PathLike -> a"}, "IMPORT_NOT_ALLOWED", "HYDRATE", "'os.PathLike'"),
    ({"python_class": "Echo", "bind": [("nonsense", "v")]}, "INVALID_SPEC", "HYDRATE", "'nonsense'"),
    ({"python_class": "Echo", "parameters": {"lost.temperature": 1}}, "INVALID_SPEC", "HYDRATE", "'lost'"),
    ({"python_class": "Echo", "parameters": {"temperature": "hot"}}, "INVALID_SPEC", "HYDRATE", "takes a number"),
    ({"python_class": "Echo", "parameters": {"api_key": "x"}}, "INVALID_SPEC", "HYDRATE", "api_key"),
    (
        {"python_class": "Echo", "lm": ("openai/gpt", {"api_base": "http://evil"})},
        "INVALID_SPEC",
        "HYDRATE",
        "api_base",
    ),
    ({"python_class": "Echo", "lm": ("openai/gpt-4o", {})}, "INVALID_SPEC", "HYDRATE", "--allow-model openai/gpt-4o"),
    (
        {"python_class": "Reports", "signature": f"q: {' | '.join(['int'] * 2_000)} -> a"},
        "INVALID_SPEC",
        "HYDRATE",
        "100 types",
    ),
    ({"python_class": "Echo", "state": b"not json"}, "INVALID_SPEC", "HYDRATE", "state"),
    ({"python_class": "Echo", "state": b'{"generate": {}}'}, "INVALID_SPEC", "HYDRATE", "state"),
    (
        {"python_class": "LetsToolsFail", "dependencies": {"tools": [{"tool": "none"}]}},
        "INVALID_SPEC",
        "HYDRATE",
        "'none'",
    ),
    ({"python_class": "Echo", "inputs": {}}, "INVALID_INPUT", "EXECUTE", "'question' is missing"),
    (
        {"python_class": "Echo", "inputs": {"question": "q", "extra": 1}},
        "INVALID_INPUT",
        "EXECUTE",
        "'extra' is unexpected",
    ),
    ({"python_class": "Echo", "inputs": {"question": [1]}}, "INVALID_INPUT", "EXECUTE", "'question' takes str"),
    ({"python_class": "Raises"}, "PROGRAM_ERROR", "EXECUTE", "cannot answer q"),
    ({"python_class": "Exits"}, "PROGRAM_ERROR", "EXECUTE", "3"),
    (
        {"python_class": "LetsToolsFail", "dependencies": {"tools": [{"tool": "fails_always"}]}},
        "TOOL_ERROR",
        "EXECUTE",
        "cannot look up q",
    ),
    ({"python_class": "dspy.Predict", "signature": "question -> answer"}, "INVALID_SPEC", "HYDRATE", "--lm"),
    ({"python_class": "GivesTooMuch"}, "SERIALIZATION_ERROR", "SERIALIZE", "message"),
    (
        {"python_class": "Echo", "bind": [("temperature", "t")], "session": "never-made"},
        "VARIABLE_NOT_FOUND",
        "SYNC",
        "never-made",
    ),
]


@pytest.mark.parametrize(
    ("arguments", "expected", "where", "text"), INVALID, ids=[str(case[0])[:60] for case in INVALID]
)
def test_bad_input_is_a_failure_that_names_the_offending_thing(execute, peer, arguments, expected, where, text):
    failure = execute(**{"inputs": {"question": "q"}, "trial_id": "bad", **arguments})
    assert (kind(peer, failure), stage(peer, failure)) == (expected, where), failure
    assert text in failure.error_message
    assert (failure.trial_id, failure.retryable) == ("bad", False)


def test_the_exceptions_behind_a_failure_come_as_a_tree_with_their_tracebacks(execute):
    failure = execute(python_class="Raises", inputs={"question": "q"})
    assert failure.error_type == "ValueError"
    assert "in forward" in failure.traceback
    [cause] = failure.causes
    assert (cause.relation, cause.error_type, cause.error_message) == ("cause", "KeyError", "'inner'")
    assert "in forward" in cause.traceback


def test_an_any_of_unknown_type_names_the_input(execute, peer):
    failure = execute(python_class="Echo", inputs={"question": any_pb2.Any(type_url="x/y.Z", value=b"\xff")})
    assert kind(peer, failure) == "INVALID_INPUT"
    assert "question" in failure.error_message
    assert "y.Z" in failure.error_message


def test_what_cannot_be_json_is_marked_and_warned_of(execute):
    success = execute(python_class="GivesTheUnserialisable", inputs={"question": "q"})
    marker = unpack(success.prediction["thing"])
    assert marker["__ffi_unserializable__"] is True
    assert marker["__type__"].endswith("Opaque")
    assert "thing" in success.warnings[0]


@pytest.mark.parametrize("how", ["grpc_timeout", "trial_timeout"])
def test_a_trial_over_its_deadline_says_so_before_the_callers_timer_fires(execute, peer, how):
    failure = execute(python_class="Sleeps", inputs={"question": "q"}, **{how: 0.5})
    assert (kind(peer, failure), stage(peer, failure)) == ("DEADLINE_EXCEEDED", "EXECUTE")
    assert 300 < failure.timings.total_ms < 600
    assert failure.timings.execute_ms > 0


def test_a_timeout_of_zero_is_already_past(execute, peer):
    failure = execute(python_class="Echo", inputs={"question": "q"}, trial_timeout=0)
    assert (kind(peer, failure), stage(peer, failure)) == ("DEADLINE_EXCEEDED", "ADMISSION")


def test_an_unknown_method_is_unimplemented(channel):
    call = channel.unary_unary("/snakepit.bridge.SnakepitBridge/Nope")
    with pytest.raises(grpc.RpcError) as caught:
        call(b"", timeout=10)
    assert caught.value.code() is grpc.StatusCode.UNIMPLEMENTED


def test_a_stream_ends_with_the_answer_that_the_unary_call_would_give(channel, peer):
    stub = peer.program_pb2_grpc.SnakepitBridgeStub(channel)
    *_, last = stub.StreamProgram(peer.program_pb2.ExecuteProgramRequest(trial_id="t"), timeout=10)
    assert (kind(peer, last.response.failure), last.response.failure.trial_id) == ("INVALID_SPEC", "t")


def test_bytes_that_do_not_parse_are_no_trial(channel):
    call = channel.unary_unary("/snakepit.bridge.SnakepitBridge/ExecuteProgram")
    with pytest.raises(grpc.RpcError) as caught:
        call(b"\xff\xff\xff", timeout=10)
    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT


def settle(channel):
    """Return when everything sent before on this connection has arrived: a health check needs no slot."""
    channel.unary_unary("/grpc.health.v1.Health/Check")(b"", timeout=20)


@pytest.fixture(scope="module")
def small(start):
    """A worker with one slot, one place in the queue, and a provider that is not there: the discard port's."""
    arguments = ["--load", "e2e_programs", "--max-trials", "1", "--max-queue", "1"]
    arguments += ["--lm", "openai/x", "--lm-arg", "api_base=http://127.0.0.1:9/v1", "--lm-arg", "num_retries=0"]
    worker = start("serve", *arguments, "--lm-arg", "api_key=the-operators-key")
    yield worker
    assert worker.stop() == 0, worker.log.read_text()


def test_a_full_queue_is_overloaded_and_a_client_that_cancels_frees_its_place(small, peer):
    """One slot and one place in the queue: a third trial is turned away; when the callers go, the slot is free."""
    pb = peer.program_pb2
    sleeper = pb.ExecuteProgramRequest(
        program_spec=pb.ProgramSpecification(python_class="Sleeps"), inputs={"question": pack("q")}
    )
    echo = pb.ExecuteProgramRequest(
        program_spec=pb.ProgramSpecification(python_class="Echo"), inputs={"question": pack("q")}
    )
    with grpc.insecure_channel(f"127.0.0.1:{small.port}") as channel:
        stub = peer.program_pb2_grpc.SnakepitBridgeStub(channel)
        running = stub.ExecuteProgram.future(sleeper, timeout=50)
        settle(channel)
        queued = stub.ExecuteProgram.future(sleeper, timeout=50)
        settle(channel)
        third = stub.ExecuteProgram(sleeper, timeout=10)
        assert (kind(peer, third.failure), stage(peer, third.failure)) == ("OVERLOADED", "ADMISSION")
        assert third.failure.retryable
        assert "--max-queue" in third.failure.error_message
        queued.cancel()
        running.cancel()
        for _ in range(1000):  # the cancels are on their way
            answered = stub.ExecuteProgram(echo, timeout=30)
            if kind(peer, answered.failure) != "OVERLOADED":
                break
        assert answered.WhichOneof("result") == "success", answered


def test_trials_side_by_side_do_not_mix(peer, channel, store):
    """200 trials at once, each with its own session, variable and question."""
    pb, bridge = peer.program_pb2, peer.bridge_pb2
    stub = peer.program_pb2_grpc.SnakepitBridgeStub(channel)
    for n in range(10):
        store.InitializeSession(bridge.InitializeSessionRequest(session_id=f"mix-{n}"))
        store.RegisterVariable(
            bridge.RegisterVariableRequest(
                session_id=f"mix-{n}", name="flavour", type="string", initial_value=pack(f"flavour-{n}")
            )
        )
    calls = {}
    slots = threading.Semaphore(60)  # the worker's own queue holds 64
    for n in range(200):
        spec = pb.ProgramSpecification(python_class="Echo" if n % 2 else "Reports")
        if not n % 2:
            spec.config_space.add(parameter="flavour", variable="flavour")
        request = pb.ExecuteProgramRequest(
            session_id=f"mix-{n % 10}", program_spec=spec, inputs={"question": pack(f"question-{n}")}, trial_id=str(n)
        )
        slots.acquire()
        calls[n] = stub.ExecuteProgram.future(request, timeout=60)
        calls[n].add_done_callback(lambda _call: slots.release())
    for n, call in calls.items():
        success = call.result().success
        assert success.trial_id == str(n), call.result()
        answer = unpack(success.prediction["answer"])
        if n % 2:
            assert answer == f"hello, question-{n}"
            [entry] = success.trace
            assert unpack(entry.inputs["question"]) == f"question-{n}"
            assert f"question-{n}" in entry.lm_calls[0].messages_json
            assert success.cost.lm_calls == 1
        else:
            assert answer == f"question-{n}"
            assert unpack(success.prediction["flavour"]) == f"flavour-{n % 10}"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_the_store_needs_no_dspy_and_a_signal_ends_it_cleanly(start, number):
    store = start("store", env={"PYTHONPROFILEIMPORTTIME": "1"})
    assert store.stop(number) == 0, store.log.read_text()
    told = store.log.read_text()
    assert "| dspex_trio.store.servicer" in told.replace("  ", "")
    assert "dspy\n" not in told
    assert "Traceback" not in told


def test_signals_end_the_worker_cleanly_with_trials_running(start, peer):
    worker = start("serve", "--load", "e2e_programs", "--grace-seconds", "0.1")
    pb = peer.program_pb2
    with grpc.insecure_channel(f"127.0.0.1:{worker.port}") as channel:
        stub = peer.program_pb2_grpc.SnakepitBridgeStub(channel)
        request = pb.ExecuteProgramRequest(
            program_spec=pb.ProgramSpecification(python_class="Sleeps"), inputs={"question": pack("q")}
        )
        running = stub.ExecuteProgram.future(request, timeout=50)
        settle(channel)
        assert worker.stop(signal.SIGINT) == 0, worker.log.read_text()
        assert kind(peer, running.result().failure) == "SHUTTING_DOWN"
    assert "Traceback" not in worker.log.read_text()


def test_the_worker_with_an_outside_store_and_without_it(start, peer):
    """One store process, one worker: variables come over gRPC; when the store dies, STORE_UNAVAILABLE says so."""
    store_process = start("store")
    worker = start("serve", "--load", "e2e_programs", "--store", f"127.0.0.1:{store_process.port}")
    pb, bridge = peer.program_pb2, peer.bridge_pb2
    with (
        grpc.insecure_channel(f"127.0.0.1:{store_process.port}") as to_store,
        grpc.insecure_channel(f"127.0.0.1:{worker.port}") as to_worker,
    ):
        store = peer.bridge_pb2_grpc.BridgeServiceStub(to_store)
        store.InitializeSession(bridge.InitializeSessionRequest(session_id="s"))
        store.RegisterVariable(
            bridge.RegisterVariableRequest(session_id="s", name="n", type="integer", initial_value=pack(7))
        )
        stub = peer.program_pb2_grpc.SnakepitBridgeStub(to_worker)
        spec = pb.ProgramSpecification(python_class="Reports")
        spec.config_space.add(parameter="rounds", variable="n")
        request = pb.ExecuteProgramRequest(session_id="s", program_spec=spec, inputs={"question": pack("q")})
        assert unpack(stub.ExecuteProgram(request, timeout=30).success.prediction["rounds"]) == 7
        store_process.kill()
        failure = stub.ExecuteProgram(request, timeout=1.5).failure
        assert (kind(peer, failure), stage(peer, failure)) == ("STORE_UNAVAILABLE", "SYNC"), failure
        assert failure.retryable
        assert str(store_process.port) in failure.error_message
    assert worker.stop() == 0, worker.log.read_text()


def test_the_time_a_failure_took_is_measured_in_milliseconds(execute):
    began = time.monotonic()
    failure = execute(python_class="Nope")
    assert 0 < failure.timings.total_ms < (time.monotonic() - began) * 1e3


def test_a_provider_that_cannot_be_reached_is_an_lm_error_worth_another_try(small, peer):
    """The key that the operator gave is in no message."""
    pb = peer.program_pb2
    spec = pb.ProgramSpecification(python_class="dspy.Predict")
    spec.signature.text = "question -> answer"
    request = pb.ExecuteProgramRequest(program_spec=spec, inputs={"question": pack("q")})
    with grpc.insecure_channel(f"127.0.0.1:{small.port}") as channel:
        failure = peer.program_pb2_grpc.SnakepitBridgeStub(channel).ExecuteProgram(request, timeout=60).failure
    assert (kind(peer, failure), stage(peer, failure)) == ("LM_ERROR", "EXECUTE"), failure
    assert failure.retryable
    assert "the-operators-key" not in str(failure) + small.log.read_text()


@pytest.mark.skipif(sys.platform != "linux", reason="the test looks for processes in /proc")
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_child_processes_end_with_their_worker_however_that_ends(start, peer, number):
    """With a trial under way in one of them."""
    arguments = ["--load", "e2e_programs", "--isolation", "process", "--max-trials", "1", "--grace-seconds", "1"]
    worker = start("serve", *arguments)
    pb = peer.program_pb2
    with grpc.insecure_channel(f"127.0.0.1:{worker.port}") as channel:
        stub = peer.program_pb2_grpc.SnakepitBridgeStub(channel)
        request = pb.ExecuteProgramRequest(
            program_spec=pb.ProgramSpecification(python_class="Sleeps"), inputs={"question": pack("q")}
        )
        running = stub.ExecuteProgram.future(request, timeout=50)
        settle(channel)
        started = Path(f"/proc/{worker.popen.pid}/task/{worker.popen.pid}/children").read_text().split()
        children = [os.pidfd_open(int(pid)) for pid in started]
        assert children
        ended = worker.stop(number)
        running.exception()
    assert ended == (0 if number is signal.SIGTERM else -signal.SIGKILL), worker.log.read_text()
    for child in children:
        assert select.select([child], [], [], 20) == ([child], [], [])
        os.close(child)
