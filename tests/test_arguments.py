"""What the public face is called with, and where: what is wrong is refused at once, in words that say what is right."""

import asyncio
import functools
import json

import anyio
import dspy
import pytest
import trio
from dspy.utils import DummyLM

import dspex_trio as dspex
from dspex_trio import rpc
from dspex_trio.interface.arguments import check_callback
from dspex_trio.runs import run_trials
from dspex_trio.testing import TrialEnvironment, open_provider, replay, system
from dspex_trio.trials.observer import Observer

PROGRAM = {"python_class": "dspy.Predict", "signature": "question -> answer"}
INPUTS = {"question": "2+2?"}
A_NAME = r"lm is a dspy\.BaseLM; a name goes into Settings\(lm=…\); got a value of type str"


@pytest.fixture
async def runtime():
    async with dspex.open_runtime(lm=DummyLM([{"answer": "four"}] * 9)) as opened:
        yield opened


@pytest.fixture
async def client(runtime):
    async with trio.open_nursery() as nursery:
        [listener] = await nursery.start(functools.partial(rpc.serve, runtime.servicers))
        async with dspex.open_client(f"127.0.0.1:{listener.socket.getsockname()[1]}") as opened:
            yield opened
        nursery.cancel_scope.cancel()


# ---- a runtime, a server, a client -----------------------------------------------------------------------------------


async def test_the_name_of_a_model_where_a_model_belongs_is_refused_wherever_one_is_taken():
    """It was found out by the first trial, as an AttributeError in the log and INTERNAL for the caller."""
    with pytest.raises(TypeError, match=A_NAME):
        async with dspex.open_runtime(lm="openai/gpt-4o-mini"):
            pass
    with pytest.raises(TypeError, match=A_NAME):
        await dspex.serve(lm="openai/gpt-4o-mini")
    with pytest.raises(TypeError, match=A_NAME):
        TrialEnvironment(lm="openai/gpt-4o-mini")
    with pytest.raises(TypeError, match=A_NAME):
        async with system(lm="openai/gpt-4o-mini"):
            pass
    with pytest.raises(TypeError, match=r"lm is a dspy\.BaseLM; .* got the class LM"):
        async with dspex.open_runtime(lm=dspy.LM):
            pass


class Half(Observer):
    on_outcome = None


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"settings": {"max_trials": 1}}, "settings is a dspex.Settings; got a value of type dict"),
        ({"settings": dspex.Settings}, "settings is a dspex.Settings; got the class Settings"),
        ({"store": 50051}, 'a target is text such as "host:port"'),
        ({"store": b"localhost:1"}, "a target is text .* got a value of type bytes"),
        ({"observers": Observer()}, "observers is a list of observers; got a value of type Observer"),
        ({"observers": [Observer(), Half()]}, r"observers\[1\] is an observer .* which has no on_outcome"),
        ({"observers": [Observer]}, r"observers\[0\] is an observer of trials; got the class Observer"),
        ({"telemetry": True}, "telemetry is a dspex.Telemetry; got a value of type bool"),
    ],
)
async def test_a_runtime_refuses_arguments_of_another_type(given, says):
    with pytest.raises(TypeError, match=says):
        async with dspex.open_runtime(**given):
            pass


async def test_a_server_refuses_them_too():
    for given in ({"settings": {}}, {"stopping": threading_event()}, {"telemetry": 1}):
        with pytest.raises(TypeError, match=f"{next(iter(given))} is a "):
            await dspex.serve(**given)


def threading_event():
    import threading

    return threading.Event()


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"target": 50051}, 'a target is text such as "host:port".*got a value of type int'),
        ({"target": None}, "got None"),
        ({"target": "localhost:1", "token": b"secret"}, "token is text; got a value of type bytes"),
        ({"target": "localhost:1", "tls": True}, r"tls is an ssl\.SSLContext, such as client_tls\(\) makes"),
        ({"target": "localhost:1", "settings": dspex.Settings()}, "settings is an rpc.ChannelSettings"),
        ({"target": "localhost:1", "store": 5}, "a target is text"),
        ({"target": "localhost:1", "telemetry": "yes"}, "telemetry is a dspex.Telemetry"),
    ],
)
async def test_a_client_refuses_arguments_of_another_type(given, says):
    with pytest.raises(TypeError, match=says):
        async with dspex.open_client(**given):
            pass


# ---- a trial ---------------------------------------------------------------------------------------------------------

WRONG = [
    ({"program": "QA"}, "program is a dspex.Program or its JSON form, a mapping"),
    ({"program": dspy.Predict}, "program is a dspex.Program .*; got the class Predict"),
    ({"inputs": ["2+2?"]}, "inputs is a mapping, input field → value; got a value of type list"),
    ({"inputs": None}, "inputs is a mapping, input field → value; got None"),
    ({"inputs": {1: "x"}}, "a name in inputs is text; got a value of type int"),
    ({"trial_id": 3}, "trial_id is text; got a value of type int"),
    ({"options": {"omit_trace": True}}, "options is a dspex.TrialOptions; got a value of type dict"),
    ({"metadata": ["x"]}, "metadata is a mapping of text to text"),
    ({"metadata": {"generation": 7}}, r"metadata\['generation'\] is text; got a value of type int"),
]


@pytest.mark.parametrize(
    ("given", "says"),
    [
        *WRONG,
        ({"session": 3}, "session_id is text; got a value of type int"),
        ({"deadline": "3"}, "deadline is a time of Trio's clock, in seconds"),
        ({"watch": 3}, r"watch is a function of 1 argument, \(event\); got a value of type int"),
        ({"watch": lambda event, at_ms: None}, "the one that was given takes .event, at_ms."),
        ({"watch": lambda: None}, r"watch is a function of 1 argument, \(event\)"),
    ],
)
async def test_a_trial_is_refused_that_could_only_become_a_fault_of_ours(runtime, given, says):
    """An id that was no text killed a thread of ours, and the trial waited for its deadline."""
    with pytest.raises(TypeError, match=says):
        await runtime.run_trial(**{"program": PROGRAM, "inputs": INPUTS, **given})
    assert runtime.running == 0


@pytest.mark.parametrize(
    ("given", "says"),
    [
        *WRONG,
        ({"session_id": 3}, "session_id is text"),
        ({"timeout": "3"}, "timeout is a number of seconds"),
        ({"on_event": lambda event: None}, r"on_event is a function of 2 arguments, \(event, at_ms\)"),
    ],
)
async def test_a_clients_trial_is_refused_before_anything_is_sent(client, given, says):
    with pytest.raises(TypeError, match=says):
        await client.execute(**{"program": PROGRAM, "inputs": INPUTS, **given})


async def test_what_is_right_is_taken(runtime, client):
    seen = []
    outcome = await runtime.run_trial(
        dspex.Program("dspy.Predict", signature=dspex.Signature("question -> answer"), config_space=[]),
        INPUTS, session="s", trial_id="t", options=dspex.TrialOptions(), metadata={"a": "b"}, watch=seen.append,
    )  # fmt: skip
    assert isinstance(outcome, dspex.TrialSuccess)
    assert seen
    outcome = await client.execute(PROGRAM, INPUTS, timeout=5, on_event=lambda *event: seen.append(event))
    assert isinstance(outcome, dspex.TrialSuccess)


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: dspex.Program(dspy.Predict), "Program.python_class is text: .* got the class Predict"),
        (
            lambda: dspex.Program("x", signature="q -> a"),
            r'Program.signature is a dspex.Signature, such as Signature\("',
        ),
        (
            lambda: dspex.Program("x", config_space={"t": "t"}),
            "Program.config_space is a sequence, each a dspex.Binding",
        ),
        (lambda: dspex.Program("x", config_space=[("t", "t")]), r"Program.config_space\[0\] is a dspex.Binding"),
        (
            lambda: dspex.Program("x", lm="openai/gpt-4o"),
            r'Program.lm is a dspex.LanguageModel, such as LanguageModel\("',
        ),
        (lambda: dspex.Program("x", state="program.json"), "Program.state is a mapping, as dump_state gives it"),
        (lambda: dspex.Program("x", parameters=[1]), "Program.parameters is a mapping"),
        (lambda: dspex.Program("x", dependencies=[print]), "Program.dependencies is a mapping"),
        (lambda: dspex.Program("x", name=3), "Program.name is text"),
        (
            lambda: dspex.Signature(inputs=["question"]),
            r"Signature.inputs\[0\] is a dspex.Field; got a value of type str",
        ),
        (lambda: dspex.Signature(("q", "a")), "Signature.text is text"),
        (lambda: dspex.Field("q", type=str), "Field.type is text; got the class str"),
        (lambda: dspex.Binding("temperature", 0.5), "Binding.variable is text, a variable's name"),
        (lambda: dspex.LanguageModel(DummyLM([])), "LanguageModel.model is text, a model's name"),
        (lambda: dspex.TrialOptions(omit_trace="no"), "TrialOptions.omit_trace is True or False"),
    ],
)
def test_a_specification_says_which_part_of_it_is_of_another_type(make, says):
    with pytest.raises(TypeError, match=says):
        make()


# ---- callbacks -------------------------------------------------------------------------------------------------------


class Method:
    def __call__(self, event):
        return event

    def two(self, event, at_ms):
        return event, at_ms


async def awaited(event):
    return event


class Awaited:
    async def __call__(self, event):
        return event


@pytest.mark.parametrize(
    "callback", [Method(), print, [].append, functools.partial(Method().two, at_ms=1), lambda *a: a]
)
def test_whatever_can_be_called_with_the_argument_is_a_callback(callback):
    check_callback("watch", callback, "event")


@pytest.mark.parametrize(
    "callback", [Method().two, lambda: 1, lambda event, *, at_ms: 1, awaited, Awaited(), None, "x"]
)
def test_what_cannot_or_has_to_be_awaited_is_none(callback):
    with pytest.raises(TypeError, match=r"watch is a function of 1 argument, \(event\)"):
        check_callback("watch", callback, "event")


# ---- Trio ------------------------------------------------------------------------------------------------------------


async def opened(opening):
    async with opening:
        pass


CALLS = {
    "open_runtime": lambda: opened(dspex.open_runtime()),
    "open_client": lambda: opened(dspex.open_client("127.0.0.1:1")),
    "serve": dspex.serve,
    "open_channel": lambda: opened(rpc.open_channel("127.0.0.1:1")),
    "rpc.serve": lambda: rpc.serve([]),
    "TrialEnvironment.run": lambda: TrialEnvironment().run("x"),
    "testing.system": lambda: opened(system()),
    "open_provider": lambda: opened(open_provider()),
    "replay": lambda: replay({}),
    "run_trials": lambda: run_trials([], [], None),
}


@pytest.mark.parametrize("name", CALLS)
@pytest.mark.parametrize("run", [asyncio.run, anyio.run], ids=["asyncio", "anyio"])
def test_under_asyncio_whatever_is_async_says_that_it_needs_trio(name, run):
    async def main():
        await CALLS[name]()

    says = f"^needs Trio: {name.rpartition('.')[2] if name == 'rpc.serve' else name} was called under asyncio"
    with pytest.raises(RuntimeError, match=says):
        run(main) if run is anyio.run else run(main())


def test_so_it_does_where_no_loop_runs_at_all():
    with pytest.raises(RuntimeError, match="needs Trio: serve was called outside of it"):
        dspex.serve().send(None)


def test_a_trial_of_a_runtime_that_trio_opened_needs_trio_where_it_is_run_too():
    """A runtime that somebody hands to another thread's asyncio."""

    async def main():
        async with dspex.open_runtime() as runtime, dspex.open_client("127.0.0.1:1") as client:
            for name, call in (("run_trial", runtime.run_trial), ("execute", client.execute)):
                with pytest.raises(RuntimeError, match=f"needs Trio: {name} was called under asyncio"):
                    await trio.to_thread.run_sync(lambda call=call: asyncio.run(call(PROGRAM, INPUTS)))

    trio.run(main)


def test_anyio_on_trio_is_trio():
    async def main():
        async with dspex.open_runtime(lm=DummyLM([{"answer": "four"}])) as runtime:
            return await runtime.run_trial(PROGRAM, INPUTS)

    assert isinstance(anyio.run(main, backend="trio"), dspex.TrialSuccess)


# ---- names -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("each", [*dspex.FailureKind, *dspex.Stage, *rpc.StatusCode])
def test_an_enumeration_prints_its_names_and_stays_its_number_everywhere_else(each):
    number = int(each)
    assert (str(each), f"{each}", "%s" % each, f"{each:>20}") == (each.name, each.name, each.name, each.name.rjust(20))  # noqa: UP031
    assert (each == number, f"{each:02d}", "%d" % each, json.dumps([each])) == (  # noqa: UP031
        True, f"{number:02d}", str(number), f"[{number}]",
    )  # fmt: skip
    assert type(each)(number) is each
