"""A runtime inside a Trio program: its deadline is the caller's scope, and it leaves nothing behind."""

import logging
import os
import signal
import socket
import sys
import threading
import time

import dspy
import pytest
import trio
from dspy.clients import base_lm
from dspy.utils import DummyLM
from trio.testing import wait_all_tasks_blocked

import dspex_trio as dspex
from dspex_trio.programs import MODULE_REGISTRY
from dspex_trio.trials.observer import Observer

SETTINGS = dspex.Settings(max_trials=2)
PREDICT = dspex.Program("dspy.Predict", dspex.Signature("question -> answer"))


@pytest.fixture
def registered():
    """Classes that a test registers are gone afterwards."""
    before = dict(MODULE_REGISTRY)
    yield
    MODULE_REGISTRY.clear()
    MODULE_REGISTRY.update(before)


@pytest.fixture
def blocking(registered):
    """A program that tells when it has begun and then waits for ever."""
    begun = threading.Event()

    @dspex.register("Blocks")
    class Blocks(dspy.Module):
        def forward(self, question):
            begun.set()
            threading.Event().wait()

    return begun


def answering():
    return DummyLM([{"answer": "42"}] * 20)


async def test_a_trial_runs_and_its_variables_come_from_the_embedded_store():
    async with dspex.open_runtime(SETTINGS, lm=answering()) as runtime:
        session = runtime.session("s")
        await session.initialize()
        await session.register("temp", "float", 0.5)
        await session.set("temp", 0.75)
        program = dspex.Program(
            "dspy.ChainOfThought",
            dspex.Signature("question -> answer"),
            config_space=(dspex.Binding("temperature", "temp"), dspex.Binding("predict.max_tokens", "m", default=99)),
        )
        outcome = await runtime.run_trial(program, {"question": "?"}, session=session, trial_id="t")
    assert isinstance(outcome, dspex.TrialFailure) or outcome.prediction["answer"] == "42"
    assert outcome.variables["temperature"].value == 0.75
    assert outcome.variables["temperature"].version == 2
    assert outcome.variables["predict.max_tokens"].from_default


async def test_a_program_may_be_given_in_its_json_form():
    async with dspex.open_runtime(SETTINGS, lm=answering()) as runtime:
        spec = {"python_class": "dspy.Predict", "signature": "question -> answer"}
        outcome = await runtime.run_trial(spec, {"question": "?"})
        assert outcome.prediction == {"answer": "42"}
        with pytest.raises(dspex.TrialError, match="python_klass"):
            await runtime.run_trial({"python_klass": "x"}, {})


async def test_a_cancel_from_outside_propagates_and_stops_the_thread(blocking):
    async with dspex.open_runtime(SETTINGS) as runtime, trio.open_nursery() as nursery:
        nursery.start_soon(runtime.run_trial, dspex.Program("Blocks"), {"question": "?"})
        await trio.to_thread.run_sync(blocking.wait, 10)
        nursery.cancel_scope.cancel()
    assert nursery.cancel_scope.cancelled_caught


async def test_an_error_of_the_body_comes_out_as_it_is():
    with pytest.raises(ZeroDivisionError):
        async with dspex.open_runtime(SETTINGS):
            1 / 0  # noqa: B018


def global_state():
    return {
        "signals": [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)],
        "environment": dict(os.environ),
        "cache": vars(dspy).get("cache"),
        "history": base_lm.GLOBAL_HISTORY,
        "settings": dspy.settings.copy(),
        "logging": (list(logging.root.handlers), logging.root.level),
        "path": list(sys.path),
        "calls": (time.sleep, socket.getaddrinfo, threading.Condition.wait, "recv" in vars(socket.socket)),
        "switch": sys.getswitchinterval(),
        "excepthooks": (sys.excepthook, threading.excepthook),
    }


async def test_nothing_global_is_left_behind():
    before = global_state()
    async with dspex.open_runtime(SETTINGS, lm=answering()) as runtime:
        assert global_state()["signals"] == before["signals"]
        assert global_state()["logging"] == before["logging"]
        async with dspex.open_runtime(SETTINGS, lm=answering()):
            pass
        assert isinstance(await runtime.run_trial(PREDICT, {"question": "?"}), dspex.TrialSuccess)
    assert global_state() == before
    assert len(base_lm.GLOBAL_HISTORY) == len(before["history"])


@pytest.mark.parametrize("allowed", [False, True])
async def test_what_is_no_json_in_a_prediction_is_shown_only_where_the_operator_allows_it(registered, allowed):
    """A `repr` may tell more than anybody thought of."""

    class Engine:
        def __repr__(self):
            return "<Engine with sk-0123456789abcdefghij>"

    @dspex.register("Shows")
    class Shows(dspy.Module):
        def forward(self):
            return {"engine": Engine()}

    async with dspex.open_runtime(dspex.Settings(allow_repr=allowed)) as runtime:
        outcome = await runtime.run_trial(dspex.Program("Shows"), {})
    assert outcome.prediction["engine"]["__ffi_unserializable__"] is True
    shown = "<Engine with [redacted]>" if allowed else None
    assert outcome.prediction["engine"].get("__repr__") == shown


async def test_a_users_own_dspy_configuration_is_not_touched():
    own = answering()
    with dspy.context(lm=own):
        async with dspex.open_runtime(SETTINGS, lm=answering()) as runtime:
            await runtime.run_trial(PREDICT, {"question": "?"})
            assert dspy.settings.lm is own
    assert own.history == []


async def test_serve_tells_its_listeners_once_it_answers_and_ends_when_cancelled():
    async with trio.open_nursery() as nursery:
        [listener, *_] = await nursery.start(
            lambda task_status: dspex.serve(dspex.Settings(port=0), lm=answering(), task_status=task_status)
        )
        port = listener.socket.getsockname()[1]
        async with dspex.open_client(f"127.0.0.1:{port}") as client:
            session = await client.initialize_session("s")
            await session.register("temp", "float", 0.5)
            bound = {"python_class": "dspy.Predict", "signature": "question -> answer"}
            bound["config_space"] = {"temperature": "temp"}
            outcome = await client.execute(bound, {"question": "?"}, session_id="s", timeout=30)
            assert outcome.prediction == {"answer": "42"}
            assert outcome.variables["temperature"].value == 0.5
        nursery.cancel_scope.cancel()
    with pytest.raises(OSError, match="connect"):
        await trio.open_tcp_stream("127.0.0.1", port)


async def test_a_served_runtime_that_is_told_to_stop_lets_its_trial_end(blocking):
    stopping = trio.Event()
    outcomes = []
    async with trio.open_nursery() as nursery:
        settings = dspex.Settings(port=0, grace_seconds=0.05)
        [listener, *_] = await nursery.start(
            lambda task_status: dspex.serve(settings, stopping=stopping, task_status=task_status)
        )

        async def call():
            async with dspex.open_client(f"127.0.0.1:{listener.socket.getsockname()[1]}") as client:
                outcomes.append(await client.execute(dspex.Program("Blocks"), {"question": "?"}))

        nursery.start_soon(call)
        await trio.to_thread.run_sync(blocking.wait, 10)
        stopping.set()
    assert [outcome.kind for outcome in outcomes] == [dspex.FailureKind.SHUTTING_DOWN]


async def test_two_hundred_trials_at_once_do_not_mix(registered):
    """Different variables, language models and questions; each sees its own in prediction, trace and variables."""

    @dspex.register("Asks", reusable=True)
    class Asks(dspy.Module):
        def __init__(self):
            super().__init__()
            self.flavour = ""
            self.ask = dspy.Predict("question -> answer")

        def forward(self, question):
            with dspy.context(lm=DummyLM([{"answer": f"{self.flavour} {question}"}])):
                return self.ask(question=question)

    async def one(runtime, n, seen):
        program = dspex.Program("Asks", config_space=(dspex.Binding("flavour", f"v{n % 7}"),))
        seen[n] = await runtime.run_trial(program, {"question": f"q{n}"}, session="s", trial_id=str(n))

    seen = {}
    async with dspex.open_runtime(dspex.Settings(max_trials=8, max_queue=200)) as runtime:
        session = runtime.session("s")
        await session.initialize()
        for n in range(7):
            await session.register(f"v{n}", "string", f"flavour{n}")
        async with trio.open_nursery() as nursery:
            for n in range(200):
                nursery.start_soon(one, runtime, n, seen)
    for n, outcome in seen.items():
        assert outcome.prediction == {"answer": f"flavour{n % 7} q{n}"}
        assert outcome.trial_id == str(n)
        assert outcome.variables["flavour"].value == f"flavour{n % 7}"
        [entry] = outcome.trace
        assert entry.inputs == {"question": f"q{n}"}
        [call] = entry.lm_calls
        assert f"q{n}" in call.messages_json
        assert outcome.cost.lm_calls == 1


async def test_drain_tells_waiting_trials_at_once(blocking):
    outcomes = []

    async def run(runtime):
        outcomes.append(await runtime.run_trial(dspex.Program("Blocks"), {"question": "?"}))

    async with dspex.open_runtime(dspex.Settings(max_trials=1)) as runtime, trio.open_nursery() as nursery:
        nursery.start_soon(run, runtime)
        await trio.to_thread.run_sync(blocking.wait, 10)
        nursery.start_soon(run, runtime)
        await wait_all_tasks_blocked()
        await runtime.drain(0)
    assert [outcome.kind.name for outcome in outcomes] == ["SHUTTING_DOWN"] * 2


async def test_what_a_caller_names_a_trial_cannot_forge_or_flood_the_log(caplog):
    """A newline in a trial's id would look like a line of its own; an id may be as long as a message."""
    program = dspex.Program("no.such.Class", name="harmless\n2026-01-01 ERROR forged" + "x" * 100_000)
    with caplog.at_level("INFO", logger="dspex_trio.trials"):
        async with dspex.open_runtime(SETTINGS) as runtime:
            outcome = await runtime.run_trial(program, {}, trial_id="also\nforged" + "x" * 100_000)
    assert len(outcome.trial_id) > 100_000  # the caller gets it back whole
    [line] = [record.getMessage() for record in caplog.records]
    assert line.startswith(r"trial 'also\nforged")
    assert "IMPORT_NOT_ALLOWED in HYDRATE" in line
    assert "\n" not in line
    assert len(line) < 500


@pytest.mark.parametrize("error", [SystemExit(3), ValueError("mine"), GeneratorExit()])
async def test_an_observer_that_raises_or_exits_ends_no_trial(caplog, error):
    class Fails(Observer):
        def begins(self, request):
            raise error

        def on_outcome(self, request, outcome):
            raise error

    async with dspex.open_runtime(lm=answering(), observers=[Fails()]) as runtime:
        outcome = await runtime.run_trial(PREDICT, {"question": "2+2?"})
    assert isinstance(outcome, dspex.TrialSuccess)
    assert [each.message for each in caplog.records].count("an observer of trials failed") >= 2


@pytest.mark.parametrize("error", [SystemExit(3), ValueError("mine")])
async def test_a_log_handler_that_raises_or_exits_ends_no_trial(capsys, error):
    """`logging` hands on whatever a handler raises, to the worker's loop, which logs a line for each trial."""

    class Fails(logging.Handler):
        def emit(self, record):
            raise error

    log, handler = logging.getLogger("dspex_trio.trials.observer"), Fails()
    log.addHandler(handler)
    log.setLevel(logging.INFO)
    try:
        async with dspex.open_runtime(lm=answering()) as runtime:
            assert isinstance(await runtime.run_trial(PREDICT, {"question": "2+2?"}), dspex.TrialSuccess)
    finally:
        log.removeHandler(handler)
        log.setLevel(logging.NOTSET)
    assert "--- Logging error ---" in capsys.readouterr().err
