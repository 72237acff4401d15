"""What a pool of either generation gets from a worker."""

import json
import os
import subprocess
import sys
import threading
from contextlib import suppress

import grpc
import pytest
from google.protobuf import any_pb2

from .generations import V013, V04
from .pool_worker import ToolFailed, outcome
from .waiting import wait_until


def trial(worker, python_class, inputs=None, **parameters):
    return outcome(worker.trial(python_class, inputs, **parameters))


def test_arguments_that_it_does_not_know_did_not_stop_it(worker):
    wait_until(lambda: "arguments that mean nothing here are ignored: --max-workers, --frobnicate" in worker.log)
    assert "secret" not in worker.log
    assert "token-of-this-pool" not in worker.log
    assert os.getpgid(worker.pid) == worker.pid


def test_a_trial_that_succeeds(worker):
    kind, success = trial(worker, "Echo", {"question": "world"}, trial_id="t-1")
    assert kind == "success"
    assert success["prediction"] == {"answer": "hello, world"}
    assert success["trial_id"] == "t-1"
    assert success["timings"]["total_ms"] > 0


FAILURES = {
    "PROGRAM_ERROR": ("EXECUTE", {"python_class": "Raises"}, {"question": "why"}, {}),
    "DEADLINE_EXCEEDED": (None, {"python_class": "Sleeps"}, {"question": ""}, {"timeout_ms": 60}),
    "CLASS_NOT_FOUND": ("HYDRATE", {"python_class": "Ecko"}, {}, {}),
    "IMPORT_NOT_ALLOWED": ("HYDRATE", {"python_class": "os.path"}, {}, {}),
    "INVALID_SPEC": ("HYDRATE", {"python_class": "Echo", "depencies": {}}, {}, {}),
    "INVALID_INPUT": ("EXECUTE", {"python_class": "Echo"}, {"questoin": "why"}, {}),
    "SERIALIZATION_ERROR": ("SERIALIZE", {"python_class": "GivesTooMuch"}, {"question": ""}, {}),
    "VARIABLE_NOT_FOUND": (
        "SYNC",
        {"python_class": "Echo", "config_space": {"greeting": "gone"}},
        {"question": ""},
        {"session_id": ""},
    ),
}


def test_hundreds_of_trials_with_every_outcome(worker):
    """One after the other, as a pool sends them; each failure is a result that says what, where and why."""
    for number in range(200):
        wanted = [*FAILURES, "success"][number % (len(FAILURES) + 1)]
        if wanted == "SERIALIZATION_ERROR" and number > 2 * len(FAILURES):
            continue  # twenty-four megabytes each
        stage, spec, inputs, more = FAILURES.get(wanted, ("", {"python_class": "Echo"}, {"question": "x"}, {}))
        parameters = {"program_spec": spec, "inputs": inputs, "trial_id": f"t{number}", **more}
        [(kind, found)] = worker.execute("execute_program", parameters).items()
        assert found["trial_id"] == f"t{number}"
        if kind == "failure":
            assert found["kind"] == f"FAILURE_KIND_{wanted}", found
            assert stage is None or found["stage"] == f"STAGE_{stage}"  # a deadline strikes where it likes
        else:
            assert wanted == "success"


@pytest.mark.parametrize(
    ("parameters", "told"),
    [
        ({}, "program_spec is None"),
        ({"program_spec": []}, "program_spec is []"),
        ({"program_spec": {"python_class": "Echo"}, "timout_ms": 5}, "did you mean timeout_ms?"),
        ({"program_spec": {"python_class": "Echo"}, "timeout_ms": "5"}, "timeout_ms is '5'"),
        ({"program_spec": {"python_class": "Echo"}, "inputs": [1]}, "inputs is [1]"),
        ({"program_spec": {"python_class": "Echo"}, "options": {"omit": True}}, "options has no key 'omit'"),
        ({"program_spec": {"python_class": "Echo"}, "options": {"no_cache": 1}}, "options.no_cache is 1"),
        ({"program_spec": {"python_class": "Echo"}, "metadata": 1}, "metadata is 1"),
    ],
)
def test_arguments_that_mean_nothing_are_a_failure_that_names_them(worker, parameters, told):
    failure = worker.execute("execute_program", parameters)["failure"]
    assert failure["kind"] in ("FAILURE_KIND_INVALID_SPEC", "FAILURE_KIND_INVALID_INPUT")
    assert told in failure["error_message"]


def test_the_deadline_is_the_earlier_of_timeout_ms_and_of_the_call(worker):
    """The header is the caller's time in whole seconds, rounded down; the failure arrives before its own timer."""
    kind, failure = trial(worker, "Sleeps", {"question": ""}, timeout=1, timeout_ms=60_000)
    assert (kind, failure["kind"]) == ("failure", "FAILURE_KIND_DEADLINE_EXCEEDED")
    kind, failure = trial(worker, "Sleeps", {"question": ""}, timeout_ms=0)
    assert (kind, failure["stage"]) == ("failure", "STAGE_ADMISSION")


def test_a_stream_tells_the_stages_and_then_the_outcome(worker):
    parameters = {"program_spec": {"python_class": "Echo"}, "inputs": {"question": "world"}}
    *events, last = worker.stream("execute_program", parameters)
    stages = [event["stage"]["stage"].removeprefix("STAGE_") for event in events if "stage" in event]
    assert stages == ["ADMISSION", "SESSION", "HYDRATE", "SYNC", "EXECUTE", "SERIALIZE"]
    assert last["response"]["success"]["prediction"] == {"answer": "hello, world"}
    times = [event["at_ms"] for event in (*events, last)]
    assert times == sorted(times)


def test_a_stream_that_fails_ends_in_order(worker):
    last = worker.stream("execute_program", {"program_spec": {"python_class": "Raises"}, "inputs": {"question": ""}})[
        -1
    ]
    assert last["response"]["failure"]["kind"] == "FAILURE_KIND_PROGRAM_ERROR"
    assert worker.stream("add", {"a": 2}) == [3]
    [problem] = worker.stream("not_there", {})
    assert problem["error"]["type"] == "ToolNotFound"


def test_a_tool_that_yields_is_streamed_value_by_value_or_called_for_the_list(worker):
    assert worker.stream("counts", {"count": 3}) == [{"number": 0}, {"number": 1}, {"number": 2}]
    assert worker.stream("counts_later", {"count": 1000}) == [*range(1000)]
    assert worker.stream("counts", {"count": 0}) == []
    assert worker.execute("counts", {"count": 2}) == [{"number": 0}, {"number": 1}]
    assert worker.execute("counts_later", {"count": 2}) == [0, 1]
    *values, problem = worker.stream("counts", {"count": 3, "fail_after": 2})
    assert values == [{"number": 0}, {"number": 1}]
    assert problem["error"]["message"] == "nothing more"
    reply = worker.stub.InitializeSession(
        worker.pool.generated.pb2.InitializeSessionRequest(session_id=worker.session_id), timeout=30
    )
    streaming = {name for name, tool in reply.available_tools.items() if tool.supports_streaming}
    assert streaming == {"execute_program", "counts", "counts_later", "counts_for_ever"}


@pytest.mark.parametrize("leaves", [True, False], ids=["the reader leaves", "the deadline passes"])
def test_a_streamed_tool_is_closed_with_its_stream(worker, tmp_path, leaves):
    mark = tmp_path / "mark"
    request = worker.request("counts_for_ever", {"mark": str(mark)}, stream=True)
    chunks = worker.stub.ExecuteStreamingTool(request, timeout=30 if leaves else 1)
    assert json.loads(next(chunks).data) == 0
    if leaves:
        chunks.cancel()
    else:
        with suppress(grpc.RpcError):
            assert any(b"DEADLINE_EXCEEDED" in chunk.data for chunk in chunks)
    wait_until(mark.exists)
    assert worker.execute("add", {"a": 1}) == 2


def test_a_stream_whose_reader_leaves_cancels_its_trial(worker):
    request = worker.request(
        "execute_program", {"program_spec": {"python_class": "Sleeps"}, "inputs": {"question": ""}}, stream=True
    )
    chunks = worker.stub.ExecuteStreamingTool(request, timeout=30)
    assert any("EXECUTE" in chunk.data.decode() for chunk in chunks)
    chunks.cancel()
    kind, _ = trial(worker, "Echo", {"question": ""})  # it gets the only slot
    assert kind == "success"


def test_the_workers_own_tools(worker):
    assert worker.execute("ping", {"message": "x"}) == {"status": "ok", "message": "x"}
    programs = {each["name"]: each for each in worker.execute("list_programs")["programs"]}
    assert programs["Echo"] == {
        "name": "Echo",
        "python_class": "pool_programs.Echo",
        "description": "Answers with the question.",
    }
    described = worker.execute("describe_program", {"name": "Echo"})
    assert described["description"] == "Answers with the question.\n\nAsks nobody."
    assert described["dependencies"] == [{"name": "greeting", "type": "str", "required": False}]
    assert described["inputs"] == [{"name": "question", "type": "str", "required": True}]
    status = worker.execute("worker_status")
    assert (status["pid"], status["max_trials"], status["running"]) == (worker.pid, 1, 0)
    assert status["run_id"] == worker.pool.run_id


def test_an_operators_tool(worker):
    assert worker.execute("add", {"a": 1, "b": 2}) == 3
    assert worker.execute("nothing") is None
    assert worker.execute("later", {"text": "x"}) == "x"
    assert worker.execute("size", binary={"data": b"\0\1\2"}) == 3


@pytest.mark.parametrize(
    ("tool", "parameters", "kind", "told"),
    [
        ("fails", {}, "LookupError", "nothing found with [redacted]"),
        ("add", {"a": 1, "c": 2}, "ValueError", "cannot be called like this"),
        ("much", {}, "SerializationFailed", "the result has 20000002 bytes"),
        ("execute_progam", {}, "ToolNotFound", "did you mean execute_program?"),
        ("describe_program", {"name": "Ecko"}, "InvalidInput", "no program is registered"),
        ("describe_program", {}, "InvalidInput", "needs the parameter name"),
        ("ping", {"mesage": ""}, "InvalidInput", "has no parameter 'mesage'"),
    ],
)
def test_a_tool_that_fails_is_an_answer_that_snakepit_understands(worker, tool, parameters, kind, told):
    with pytest.raises(ToolFailed) as caught:
        worker.execute(tool, parameters)
    problem = caught.value.problem
    assert problem["type"] == kind
    assert told in problem["message"]
    assert problem["context"]["tool"] == tool
    assert all(isinstance(line, str) for line in problem["stacktrace"])
    assert isinstance(problem["traceback"], str)


@pytest.mark.parametrize("tool", ["waits", "later_still"])
def test_a_tool_ends_at_the_deadline_of_its_call_and_its_slot_is_free(worker, tool):
    with pytest.raises(ToolFailed) as caught:
        worker.execute(tool, timeout=1)
    assert caught.value.problem["type"] == "DeadlineExceeded"
    assert worker.execute("add", {"a": 1}) == 2


def test_binary_parameters_are_never_unpickled(worker):
    request = worker.request("size", {}, binary={"data": b"\x80\x04."})
    request.metadata["binary_format:data"] = "pickle"
    reply = worker.stub.ExecuteTool(request, timeout=30)
    assert not reply.success
    assert "not in a format that is safe" in json.loads(reply.error_message)["message"]


def test_sessions_are_noted_here_and_made_known_in_elixir(worker):
    pb2, store = worker.pool.generated.pb2, worker.pool.store
    tools = worker.stub.InitializeSession(pb2.InitializeSessionRequest(session_id="mine"), timeout=30).available_tools
    assert {"execute_program", "ping", "add"} <= set(tools)
    assert worker.stub.Heartbeat(pb2.HeartbeatRequest(session_id="any"), timeout=30).session_valid
    assert worker.stub.GetSession(pb2.GetSessionRequest(session_id="mine"), timeout=30).tool_count == len(tools)
    assert worker.stub.CleanupSession(pb2.CleanupSessionRequest(session_id="mine"), timeout=30).success
    with pytest.raises(grpc.RpcError) as caught:
        worker.stub.GetSession(pb2.GetSessionRequest(session_id="mine"), timeout=30)
    assert caught.value.code() is grpc.StatusCode.NOT_FOUND
    worker.execute("ping")  # whose session 0.4 names in calls alone
    wait_until(lambda: {"mine", worker.session_id} <= set(store.tools))
    assert {"mine", worker.session_id} <= set(store.sessions)
    assert store.tools[worker.session_id] == list(dict.fromkeys(store.tools[worker.session_id]))
    assert set(store.tools[worker.session_id]) == set(tools)


def test_telemetry_tells_of_tool_calls_for_as_long_as_the_pool_listens(worker):
    pb2 = worker.pool.generated.pb2
    allow = pb2.TelemetryControl(filter=pb2.TelemetryEventFilter(allow=["tool.execution.*"]))
    events = worker.stub.StreamTelemetry(iter([allow]), timeout=30)
    told = []
    listener = threading.Thread(target=listen, args=(events, told))
    listener.start()
    # The first ones may be over before the stream has begun.
    wait_until(lambda: worker.execute("ping", correlation_id="c-6") and told)
    worker.execute("ping", correlation_id="c-7")
    wait_until(lambda: (told[-1].correlation_id, told[-1].event_parts[-1]) == ("c-7", "stop"))
    events.cancel()
    listener.join(20)
    assert {tuple(event.event_parts) for event in told} <= {
        ("tool", "execution", "start"),
        ("tool", "execution", "stop"),
        ("tool", "result_size"),  # until the control was read
    }
    assert told[-1].metadata["tool"] == "ping"


def listen(events, told):
    with suppress(grpc.RpcError):
        for event in events:
            told.append(event)


def test_telemetry_ends_in_order_before_the_pools_deadline(worker):
    """A pool gives the stream five seconds, and writes a warning about each that ends in another way."""
    events = worker.stub.StreamTelemetry(iter([worker.pool.generated.pb2.TelemetryControl()]), timeout=1)
    assert list(events) == []
    assert events.code() is grpc.StatusCode.OK


def test_variables_of_the_session_come_from_elixir_under_the_trials_correlation_id(worker):
    if worker.pool.generation is V013:
        kind, failure = trial(
            worker,
            {"python_class": "Echo", "config_space": {"greeting": "word"}},
            {"question": ""},
            session_id=worker.session_id,
        )
        assert (kind, failure["kind"]) == ("failure", "FAILURE_KIND_VARIABLE_NOT_FOUND")
        assert not failure.get("retryable")
        assert "--variables-tool NAME" in failure["error_message"]
        return
    assert worker.pool.generation is V04
    pb2, store = worker.pool.generated.pb2, worker.pool.store
    with grpc.insecure_channel(worker.pool.server.address) as channel:
        elixir = worker.pool.generated.grpc.BridgeServiceStub(channel)
        elixir.InitializeSession(pb2.InitializeSessionRequest(session_id="s1"))
        value = any_pb2.Any(type_url="type.googleapis.com/snakepit.string", value=b'"good day"')
        elixir.RegisterVariable(
            pb2.RegisterVariableRequest(session_id="s1", name="word", type="string", initial_value=value)
        )
    outcome = worker.execute(
        "execute_program",
        {
            "program_spec": {"python_class": "Echo", "config_space": {"greeting": "word"}},
            "inputs": {"question": "world"},
            "session_id": "s1",
        },
        correlation_id="c-42",
    )
    assert outcome["success"]["prediction"] == {"answer": "good day, world"}
    assert "c-42" in store.correlations
    wait_until(lambda: "c-42" in worker.log)


@pytest.fixture
def store(tmp_path, generated):
    """A store of ours beside the pool: its address, and a stub of it."""
    ready = tmp_path / "store_ready"
    command = [sys.executable, "-m", "dspex_trio", "store", "--port", "0", "--ready-file", ready]
    with subprocess.Popen(command, stderr=subprocess.DEVNULL) as process:
        try:
            wait_until(ready.exists, 60)
            address = f"127.0.0.1:{ready.read_text()}"
            with grpc.insecure_channel(address) as channel:
                yield address, generated.grpc.BridgeServiceStub(channel)
        finally:
            process.kill()


def test_tools_come_from_the_pool_and_variables_from_the_store_beside_it(make_pool, store, generated):
    """Snakepit 0.13 has no variables, which is why there is another store; its tools are Elixir's all the same."""
    address, stub = store
    pool = make_pool(V013, arguments=["--load", "pool_programs", "--store", address])
    pool.store.specs["shout"] = {"description": "Shouts."}
    pool.store.tools["shout"] = lambda parameters: parameters["text"].upper()
    worker = pool.start()
    value = any_pb2.Any(type_url="type.googleapis.com/snakepit.float", value=b"0.5")
    pb2 = generated.pb2
    stub.InitializeSession(pb2.InitializeSessionRequest(session_id=worker.session_id))
    stub.RegisterVariable(
        pb2.RegisterVariableRequest(session_id=worker.session_id, name="temp", type="float", initial_value=value)
    )
    spec = {
        "python_class": "UsesATool",
        "dependencies": {"tool": {"elixir_tool": "shout"}},
        "config_space": {"temperature": "temp"},
    }
    kind, success = trial(worker, spec, {"text": "hi"}, session_id=worker.session_id)
    assert kind == "success", success
    assert success["prediction"] == {"answer": "HI"}
    assert success["variables"]["temperature"]["value"] == 0.5


def test_health_and_the_program_service_are_on_the_same_port(worker):
    """For probes and for clients without snakepit."""
    check = worker.channel.unary_unary("/grpc.health.v1.Health/Check")
    assert check(b"", timeout=30) == b"\x08\x01"
    execute = worker.channel.unary_unary("/snakepit.bridge.SnakepitBridge/ExecuteProgram")
    assert b"python_class is empty" in execute(b"", timeout=30)
