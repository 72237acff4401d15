"""Programs that use their session, in real threads against a real store."""

import json
import sys
import threading
from contextlib import asynccontextmanager
from functools import partial

import dspy
import pytest
import trio
from dspy.utils import DummyLM

import dspex_trio as dspex
from dspex_trio import rpc
from dspex_trio.programs.registry import MODULE_REGISTRY, TOOL_REGISTRY
from dspex_trio.sessions import MemoryStore
from dspex_trio.store.servicer import SessionStore
from dspex_trio.wire.generated import bridge_pb2
from dspex_trio.wire.generated.any_pb2 import Any as AnyMessage
from dspex_trio.wire.generated.bridge_grpc import BridgeServiceServicer

STRING = "type.googleapis.com/google.protobuf.StringValue"


@pytest.fixture(autouse=True)
def registered():
    """Classes and tools that a test registers are gone afterwards."""
    before = [(registry, dict(registry)) for registry in (MODULE_REGISTRY, TOOL_REGISTRY)]
    yield
    for registry, content in before:
        registry.clear()
        registry.update(content)


class Elixir(SessionStore):
    """A store whose sessions have Elixir tools too, as snakepit 0.13 answers them."""

    def __init__(self):
        self.memory = MemoryStore()
        self.memory.initialize("s")
        super().__init__(self.memory)
        self.requests = []
        self.held = None
        self.begun = trio.Event()
        self.ended = trio.Event()

    async def GetExposedElixirTools(self, request, call):
        query = bridge_pb2.ParameterSpec(name="query", type="string", required=True)
        return bridge_pb2.GetExposedElixirToolsResponse(
            tools=[
                bridge_pb2.ToolSpec(name="search", description="Search.", parameters=[query]),
                bridge_pb2.ToolSpec(name="fail"),
                bridge_pb2.ToolSpec(name="wait"),
            ]
        )

    async def ExecuteElixirTool(self, request, call):
        self.requests.append(request)
        match request.tool_name:
            case "search":
                return bridge_pb2.ExecuteElixirToolResponse(
                    success=True, result=AnyMessage(type_url=STRING, value=b'["found"]')
                )
            case "wait":
                self.begun.set()
                try:
                    await trio.sleep_forever()
                finally:
                    self.ended.set()
        return bridge_pb2.ExecuteElixirToolResponse(success=False, error_message="{:error, :no_index}")


class Snakepit13(BridgeServiceServicer):
    """Has tools and no variables: every call that is not here is UNIMPLEMENTED."""

    async def ExecuteElixirTool(self, request, call):
        names = json.loads(request.parameters["names"].value)
        values = {"temp": 0.25, "style": "brief"}
        found = {name: values[name] for name in names if name in values}
        result = AnyMessage(type_url=STRING, value=json.dumps(found).encode())
        return bridge_pb2.ExecuteElixirToolResponse(success=True, result=result)


CALLS_BOTH = """
import dspy
import dspex_trio as dspex

@dspex.register("CallsBoth")
class CallsBoth(dspy.Module):
    def __init__(self, helper):
        super().__init__()
        self.helper = helper

    def forward(self):
        found = self.helper(query=self.session.get("word"))
        self.session.set("word", "done")
        return {"result": found}
"""


@asynccontextmanager
async def served(store):
    """A store's address."""
    async with trio.open_nursery() as nursery:
        listeners = await nursery.start(partial(rpc.serve, [store], host="127.0.0.1", port=0))
        yield f"127.0.0.1:{listeners[0].socket.getsockname()[1]}"
        nursery.cancel_scope.cancel()


@pytest.fixture
async def elixir():
    """The store, and its address."""
    store = Elixir()
    async with served(store) as address:
        yield store, address


@asynccontextmanager
async def runtime_with(address, **options):
    settings = dspex.Settings(max_trials=1, max_queue=0, store=address, reply_margin_ms=200, **options)
    async with dspex.open_runtime(settings, lm=DummyLM([{"a": "b"}] * 20)) as runtime:
        yield runtime


def program_of(work):
    @dspex.register("Works")
    class Works(dspy.Module):
        def __init__(self, helper=None):
            super().__init__()
            self.helper = helper

        def forward(self):
            return {"result": work(self)}

    return dspex.Program("Works")


def using(work, tool, kind="elixir_tool"):
    program_of(work)
    return dspex.Program("Works", dependencies={"helper": {kind: tool}})


using_python = partial(using, kind="tool")


async def test_a_program_reads_and_writes_its_session_from_every_thread_of_its_own():
    """dspy.Parallel's threads have no context of the trial's; they reach the loop all the same."""

    class Step(dspy.Module):
        def __init__(self, session):
            super().__init__()
            self.of_program = session

        def forward(self, name):
            return dspy.Prediction(version=self.of_program.set(name, self.of_program.get(name) + 1))

    def work(module):
        step = Step(module.session)
        pairs = [(step, dspy.Example(name=f"v{i}").with_inputs("name")) for i in range(6)]
        done = dspy.Parallel(num_threads=3)(pairs)
        return [[one.version for one in done], module.session.get("v5"), threading.active_count() > 1]

    async with dspex.open_runtime(dspex.Settings(max_trials=2), lm=DummyLM([{"a": "b"}])) as runtime:
        session = runtime.session("s")
        await session.initialize()
        for i in range(6):
            await session.register(f"v{i}", "integer", i)
        outcome = await runtime.run_trial(program_of(work), {}, session=session)
        assert isinstance(outcome, dspex.TrialSuccess), outcome
        assert outcome.prediction["result"] == [[2] * 6, 6, True]
        assert {key: (one.value, one.version) for key, one in outcome.variables.items()} == {
            f"session:v{i}": (i + 1, 2) for i in range(6)
        }
        assert await session.get("v0") == 1


@pytest.mark.parametrize(
    ("work", "kind", "told"),
    [
        (lambda m: m.session.set("t", "warm"), "VARIABLE_INVALID", "'warm' is no float"),
        (lambda m: m.session.set("t", 9), "VARIABLE_INVALID", "constraint max"),
        (lambda m: m.session.set("t", 0.1, expected_version=7), "VARIABLE_INVALID", "version"),
        (lambda m: m.session.set("u", 1), "VARIABLE_NOT_FOUND", "u"),
        (lambda m: m.session.get("u"), "VARIABLE_NOT_FOUND", "no variable 'u'"),
        (lambda m: m.session.set("t", object()), "VARIABLE_INVALID", "object"),
    ],
)
async def test_what_the_session_refuses_is_a_failure_of_its_own_kind_with_the_writes_before_it(work, kind, told):
    def both(module):
        module.session.set("t", 0.75)
        work(module)

    async with dspex.open_runtime(dspex.Settings(max_trials=1)) as runtime:
        session = runtime.session("s")
        await session.initialize()
        await session.register("t", "float", 0.5, constraints={"max": 1})
        outcome = await runtime.run_trial(program_of(both), {}, session=session)
    assert isinstance(outcome, dspex.TrialFailure)
    assert (outcome.kind.name, outcome.retryable) == (kind, False)
    assert told in outcome.error_message
    assert {key: (one.value, one.version) for key, one in outcome.variables.items()} == {"session:t": (0.75, 2)}


async def test_a_program_without_a_session_has_none_to_use():
    async with dspex.open_runtime(dspex.Settings(max_trials=1)) as runtime:
        outcome = await runtime.run_trial(program_of(lambda module: module.session.get("t")), {})
    assert outcome.kind.name == "VARIABLE_NOT_FOUND"
    assert "no session is named" in outcome.error_message


async def test_an_elixir_tool_is_called_with_json_and_answers_a_value(elixir):
    store, address = elixir
    async with runtime_with(address) as runtime:
        program = using(lambda module: module.helper(query="cats"), "search")
        outcome = await runtime.run_trial(program, {}, session="s")
    assert outcome.prediction["result"] == ["found"]
    argument = store.requests[0].parameters["query"]
    assert (argument.type_url, argument.value) == (STRING, b'"cats"'), "snakepit refuses a packed one"


async def test_an_elixir_tools_failure_that_a_program_lets_out_is_a_tool_error_with_its_text(elixir):
    _, address = elixir
    async with runtime_with(address) as runtime:
        outcome = await runtime.run_trial(using(lambda module: module.helper(), "fail"), {}, session="s")
    assert (outcome.kind.name, outcome.stage.name, outcome.retryable) == ("TOOL_ERROR", "EXECUTE", False)
    assert outcome.error_message == "Elixir tool 'fail': {:error, :no_index}"


async def test_the_deadline_ends_a_call_of_an_elixir_tool_and_frees_the_slot(elixir):
    """On the Elixir side too: the call's stream is reset."""
    store, address = elixir
    program = using(lambda module: module.helper(), "wait")
    async with runtime_with(address) as runtime:
        with trio.move_on_after(1.0):
            outcome = await runtime.run_trial(program, {}, session="s")
        assert (outcome.kind.name, outcome.stage.name) == ("DEADLINE_EXCEEDED", "EXECUTE")
        assert outcome.details["rung"] == "wake"
        await store.ended.wait()
        MODULE_REGISTRY.clear()
        after = await runtime.run_trial(program_of(lambda module: "free"), {})
    assert isinstance(after, dspex.TrialSuccess)


async def test_an_asynchronous_tool_runs_in_the_loop_for_every_thread_of_a_program():
    """It needs no session; dspy.Parallel's threads reach the loop as well, and what it raises comes out of the call."""
    loop = threading.get_ident()

    @dspex.tool
    async def work(number: int) -> int:
        await trio.lowlevel.checkpoint()
        if number < 0:
            raise ZeroDivisionError("below zero")
        return number * 2 if threading.get_ident() == loop else 0

    class Doubled(dspy.Module):
        def __init__(self, tool):
            super().__init__()
            self.tool = tool

        def forward(self, number):
            return self.tool(number=number)

    def calls(module):
        pairs = [(Doubled(module.helper), {"number": number}) for number in (2, 3)]
        parallel = dspy.Parallel(num_threads=2, disable_progress_bar=True)
        return [module.helper(number=1), *parallel(pairs)]

    async with dspex.open_runtime(dspex.Settings(max_trials=1)) as runtime:
        outcome = await runtime.run_trial(using_python(calls, "work"), {})
        assert outcome.prediction == {"result": [2, 4, 6]}
        MODULE_REGISTRY.clear()
        failed = await runtime.run_trial(using_python(lambda module: module.helper(number=-1), "work"), {})
    assert (failed.kind.name, failed.stage.name) == ("TOOL_ERROR", "EXECUTE")
    assert "below zero" in failed.error_message


async def test_the_deadline_cancels_an_asynchronous_tool_and_frees_the_slot():
    """Like any task: what it holds is let go of, and no thread has to be woken by force."""
    ended = trio.Event()

    @dspex.tool
    async def wait() -> None:
        try:
            await trio.sleep_forever()
        finally:
            ended.set()

    async with dspex.open_runtime(dspex.Settings(max_trials=1)) as runtime:
        with trio.move_on_after(1.0):
            outcome = await runtime.run_trial(using_python(lambda module: module.helper(), "wait"), {})
        assert (outcome.kind.name, outcome.stage.name) == ("DEADLINE_EXCEEDED", "EXECUTE")
        assert outcome.details["rung"] == "wake"
        await ended.wait()
        MODULE_REGISTRY.clear()
        after = await runtime.run_trial(program_of(lambda module: "free"), {})
    assert isinstance(after, dspex.TrialSuccess)


async def test_without_a_session_there_are_no_elixir_tools():
    async with dspex.open_runtime(dspex.Settings(max_trials=1)) as runtime:
        outcome = await runtime.run_trial(using(lambda module: module.helper(), "search"), {})
    assert outcome.kind.name == "VARIABLE_NOT_FOUND"
    assert "no session is named" in outcome.error_message


async def test_a_store_without_variables_is_read_through_the_elixir_tool_that_the_operator_names():
    bindings = (dspex.Binding("temperature", "temp"), dspex.Binding("seed", "missing", default=7))
    program = dspex.Program("dspy.Predict", dspex.Signature("q -> a"), config_space=bindings)
    async with served(Snakepit13()) as address:
        async with runtime_with(address) as runtime:
            without = await runtime.run_trial(program, {"q": "?"}, session="s")
        async with runtime_with(address, variables_tool="read_variables") as runtime:
            outcome = await runtime.run_trial(program, {"q": "?"}, session="s")
            read = await runtime.run_trial(program_of(lambda m: m.session.get("style")), {}, session="s")
            MODULE_REGISTRY.clear()
            write = await runtime.run_trial(program_of(lambda m: m.session.set("style", "x")), {}, session="s")
    assert (without.kind.name, without.retryable) == ("VARIABLE_NOT_FOUND", False)
    assert "has no variable calls" in without.error_message
    assert "--variables-tool NAME" in without.error_message
    assert "--store HOST:PORT" in without.error_message
    assert {path: one.value for path, one in outcome.variables.items()} == {"temperature": 0.25, "seed": 7}
    assert read.prediction["result"] == "brief"
    assert (write.kind.name, write.retryable) == ("VARIABLE_NOT_FOUND", False), "a tool that reads does not write"


@pytest.mark.parametrize("isolation", ["thread", "process"])
async def test_bindings_that_can_do_without_take_their_defaults_where_a_store_has_no_variables(isolation):
    """A program that is also run elsewhere, or before anybody has a store for it, runs here too."""
    bindings = (
        dspex.Binding("temperature", "temp", optional=True),
        dspex.Binding("seed", "seed", default=7),
        dspex.Binding("python_class", "class", default="dspy.ChainOfThought"),
    )
    program = dspex.Program("dspy.Predict", dspex.Signature("q -> a"), config_space=bindings)
    needing = dspex.Program(
        "dspy.Predict", dspex.Signature("q -> a"), config_space=(*bindings, dspex.Binding("top_p", "top"))
    )
    async with served(Snakepit13()) as address:
        settings = dspex.Settings(max_trials=1, store=address, isolation=isolation)
        async with dspex.open_runtime(settings) as runtime:
            outcome = await runtime.run_trial(program, {"q": "?"}, session="s")
            failure = await runtime.run_trial(needing, {"q": "?"}, session="s")
    assert {path: (one.value, one.from_default) for path, one in outcome.variables.items()} == {
        "seed": (7, True),
        "python_class": ("dspy.ChainOfThought", True),
    }
    assert (failure.kind.name, failure.retryable) == ("VARIABLE_NOT_FOUND", False)


async def test_a_program_that_has_a_default_reads_it_where_a_store_has_no_variables():
    async with served(Snakepit13()) as address, runtime_with(address) as runtime:
        read = await runtime.run_trial(program_of(lambda m: m.session.get("style", "brief")), {}, session="s")
    assert read.prediction["result"] == "brief"


@pytest.mark.parametrize("isolation", ["thread", "process"])
async def test_tools_may_be_elsewhere_than_variables(isolation, tmp_path, monkeypatch):
    """As beside a pool that has no variables: tools are listed and called there, variables read and written here."""
    (tmp_path / "calls_both.py").write_text(CALLS_BOTH)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "calls_both", raising=False)
    memory = MemoryStore()
    memory.initialize("s")
    memory.register("s", "word", "string", "trio")
    program = dspex.Program("CallsBoth", dependencies={"helper": {"elixir_tool": "search"}})
    pool = Elixir()
    async with served(SessionStore(memory)) as store, served(pool) as address:
        settings = dspex.Settings(max_trials=1, store=store, isolation=isolation, load=("calls_both",))
        async with dspex.open_runtime(settings, tools=address) as runtime:
            outcome = await runtime.run_trial(program, {}, session="s")
            assert isinstance(outcome, dspex.TrialSuccess), outcome
    assert outcome.prediction["result"] == ["found"]
    assert [request.parameters["query"].value for request in pool.requests] == [b'"trio"']
    assert memory.get("s", "word").variable.value == "done"


async def test_a_variables_tool_is_where_the_tools_are():
    bindings = (dspex.Binding("temperature", "temp"),)
    program = dspex.Program("dspy.Predict", dspex.Signature("q -> a"), config_space=bindings)
    async with served(SessionStore(MemoryStore())) as store, served(Snakepit13()) as pool:
        settings = dspex.Settings(max_trials=1, store=store, variables_tool="read_variables")
        async with dspex.open_runtime(settings, lm=DummyLM([{"a": "b"}]), tools=pool) as runtime:
            outcome = await runtime.run_trial(program, {"q": "?"}, session="s")
    assert {path: one.value for path, one in outcome.variables.items()} == {"temperature": 0.25}
