"""What a language model fails with, and what is cut of its answers: whose fault it is, and whether to try again."""

import http.client
import socket
import urllib.error

import dspy
import httpx
import openai
import pytest
import requests
import trio

import dspex_trio as dspex
from dspex_trio.model import LanguageModel, LmFinished
from dspex_trio.model.errors import LmError
from dspex_trio.programs import ProgramSettings, open_programs
from dspex_trio.programs.record.entries import cut_by
from dspex_trio.programs.record.lm_errors import passes, retry_after

from .fakes import Interrupt, Trial, chat
from .provider import error, open_provider

pytestmark = pytest.mark.filterwarnings("ignore:Implementing custom LMs:DeprecationWarning")

REQUEST = httpx.Request("POST", "http://127.0.0.1/")


def answered(status, **headers):
    return httpx.Response(status, headers=headers, request=REQUEST)


def from_requests(status):
    response = requests.Response()
    response.status_code = status
    return requests.HTTPError(response=response)


def caused_by(cause):
    error = RuntimeError("the model could not be asked")
    error.__cause__ = cause
    return error


PASSING = [
    httpx.ReadTimeout("no answer"),
    httpx.ConnectError("refused"),
    httpx.RemoteProtocolError("cut"),
    httpx.HTTPStatusError("busy", request=REQUEST, response=answered(503)),
    requests.ConnectionError(),
    requests.Timeout(),
    from_requests(429),
    ConnectionRefusedError(111, "Connection refused"),
    ConnectionResetError(),
    TimeoutError("timed out"),
    socket.gaierror(-3, "Temporary failure in name resolution"),
    http.client.RemoteDisconnected("closed"),
    http.client.IncompleteRead(b""),
    urllib.error.URLError(ConnectionRefusedError()),
    urllib.error.HTTPError("http://127.0.0.1/", 503, "busy", {}, None),
    openai.APITimeoutError(REQUEST),
    openai.RateLimitError("slow down", response=answered(429), body=None),
    caused_by(httpx.ReadTimeout("no answer")),
    dspy.LMUnexpectedError("an engine failed"),
]
PASSING[-1].__cause__ = ConnectionResetError()
STAYING = [
    KeyError("choices"),
    ValueError("no JSON"),
    FileNotFoundError(2, "no such file"),
    httpx.HTTPStatusError("no", request=REQUEST, response=answered(401)),
    openai.AuthenticationError("no", response=answered(401), body=None),
    urllib.error.HTTPError("http://127.0.0.1/", 404, "none", {}, None),
    dspy.LMAuthError("no"),
]


@pytest.mark.parametrize("error", PASSING, ids=repr)
def test_timeouts_lost_connections_and_busy_providers_are_worth_another_try(error):
    assert passes(error)


@pytest.mark.parametrize("error", STAYING, ids=repr)
def test_what_would_fail_again_is_not(error):
    assert not passes(error)


@pytest.mark.parametrize(
    ("error", "seconds"),
    [
        (openai.RateLimitError("slow down", response=answered(429, **{"Retry-After": "7"}), body=None), 7.0),
        (dspy.LMRateLimitError("slow down", retry_after=3.0), 3.0),
        (caused_by(openai.RateLimitError("slow down", response=answered(429, **{"retry-after": "5"}), body=None)), 5.0),
        (httpx.ReadTimeout("no answer"), None),
    ],
    ids=repr,
)
def test_what_the_provider_says_of_when_to_ask_again_is_found(error, seconds):
    assert retry_after(error) == seconds


# ---- language models of one's own


class Own(dspy.BaseLM):
    def __init__(self, how):
        super().__init__("own/x")
        self.how = how

    def forward(self, prompt=None, messages=None, **kwargs):
        return self.how()

    async def aforward(self, prompt=None, messages=None, **kwargs):
        return self.how()


class OwnCall(Own):
    def __call__(self, prompt=None, messages=None, **kwargs):
        return self.how()


class OwnEngine:
    def __init__(self, how):
        self.how = how

    def complete(self, request):
        return self.how()


def raising(error):
    def how():
        raise error

    return how


KINDS = [Own, OwnCall, lambda how: dspy.LM("own/x", engine=OwnEngine(how))]


@pytest.mark.parametrize("kind", KINDS, ids=["forward", "call", "engine"])
@pytest.mark.parametrize(("raised", "retryable"), [(httpx.ReadTimeout("slow"), True), (KeyError("choices"), False)])
async def test_what_it_raises_is_an_error_of_the_language_model(trial, kind, raised, retryable):
    t = trial(python_class="dspy.Predict", signature="q -> answer", model=kind(raising(raised)))
    with pytest.raises(LmError) as caught:
        await t.run(q="?")
    assert caught.value.retryable is retryable
    assert not t.recording.cost.known or kind is OwnCall  # which DSPy knows nothing of


async def test_what_it_raises_is_its_error_for_a_program_that_awaits_it_too(trial):
    @dspex.register("Awaits")
    class Awaits(dspy.Module):
        async def forward(self):
            return await dspy.settings.lm.acall("?")

    with pytest.raises(LmError) as caught:
        await trial(python_class="Awaits", model=Own(raising(ConnectionRefusedError()))).run()
    assert caught.value.retryable


async def test_what_the_program_makes_of_such_an_error_is_the_programs(trial):
    @dspex.register("Wraps")
    class Wraps(dspy.Module):
        def forward(self):
            try:
                dspy.settings.lm("?")
            except ConnectionError as error:
                raise LookupError("I wanted an answer") from error

    with pytest.raises(LookupError):
        await trial(python_class="Wraps", model=Own(raising(ConnectionRefusedError()))).run()


@pytest.mark.parametrize("asynchronous", [False, True])
@pytest.mark.parametrize("nothing", [None, {"choices": []}, "text"])
async def test_one_that_gives_no_reply_is_told_so(trial, nothing, asynchronous):
    @dspex.register("Asks")
    class Asks(dspy.Module):
        def __init__(self):
            super().__init__()
            self.generate = dspy.Predict("q -> answer")

        def forward(self, q: str):
            return self.generate.acall(q=q) if asynchronous else self.generate(q=q)

    with pytest.raises(LmError) as caught:
        await trial(python_class="Asks", model=Own(lambda: nothing)).run(q="?")
    assert "gave no reply" in str(caught.value.__cause__)


# ---- providers


@pytest.fixture(params=["lm15", "litellm"])
def served(request):
    """`served(answer)` → (provider, a Trial of a predictor), with each of DSPy's engines."""
    opened = []

    def start(answer, **arguments):
        program = {key: arguments.pop(key) for key in ("interrupt", "watch") if key in arguments}
        context = open_provider(answer)
        provider = context.__enter__()
        opened.append(context)
        keywords = {"api_base": provider.address, "api_key": "k", "num_retries": 0, "engine": request.param}
        lm = LanguageModel("openai/gpt-4o-mini", {**keywords, **arguments})
        programs = open_programs(ProgramSettings(lm=lm, memory_cache=False))
        loader = programs.__enter__()
        opened.append(programs)
        return provider, Trial(loader, python_class="dspy.Predict", signature="question -> answer", **program)

    yield start
    for context in reversed(opened):
        context.__exit__(None, None, None)


def completion(content, finish_reason="stop"):
    return 200, {}, {
        "id": "1", "object": "chat.completion", "created": 1, "model": "gpt-4o-mini",
        "choices": [{"index": 0, "message": {"role": "assistant", "content": content}, "finish_reason": finish_reason}],
        "usage": {"prompt_tokens": 10, "completion_tokens": 5, "total_tokens": 15},
    }  # fmt: skip


@pytest.mark.parametrize("reason", ["length", "content_filter"])
async def test_an_answer_that_was_cut_is_a_success_with_a_warning(served, reason):
    _, t = served(lambda body: completion("[[ ## answer ## ]]\nhalf an ans", reason), max_tokens=77)
    assert await t.run(question="?") == {"answer": "half an ans"}
    [warning] = t.recording.warnings
    assert "predictor 'self'" in warning
    assert f"finish_reason {reason!r}" in warning
    assert ("max_tokens (77)" in warning) is (reason == "length")


async def test_a_whole_answer_has_none(served):
    _, t = served(lambda body: chat(answer="whole"))
    await t.run(question="?")
    assert (t.recording.warnings, t.recording.details) == ((), {})


@pytest.mark.parametrize("content", [None, "[[ ## ans"])
async def test_the_failure_of_an_answer_that_was_cut_says_so(served, content):
    """Models that reason use up max_tokens before they begin to answer."""
    _, t = served(lambda body: completion(content, "length"))
    with pytest.raises(LmError) as caught:
        await t.run(question="?")
    assert "finish_reason 'length'" in caught.value.note
    assert "max_tokens" in t.recording.details["cut_answers"]


def test_an_answer_of_dspys_own_responses_engine_that_was_cut_is_seen():

    reply = {"status": "incomplete", "incomplete_details": {"reason": "max_output_tokens"}, "output": []}
    assert cut_by({"response": reply}) == "max_output_tokens"
    assert cut_by({"response": {"status": "completed", "incomplete_details": None}}) == ""


@pytest.mark.parametrize(
    ("reply", "known"),
    [(error(500), True), (error(429), True), (error(401), True), ((200, {}, "<html>busy</html>"), False)],
)
async def test_a_refusal_costs_nothing_and_of_a_reply_that_cannot_be_read_nobody_knows(served, reply, known):
    _, t = served(lambda body: reply)
    with pytest.raises(LmError):
        await t.run(question="?")
    assert t.recording.cost.known is known


@pytest.mark.parametrize("status", [429, 503])
async def test_a_provider_that_wants_to_be_left_alone_for_longer_than_is_left_ends_the_trial_at_once(served, status):
    provider, t = served(
        lambda body: error(status, **{"retry-after": "30"}), num_retries=3, interrupt=Interrupt(left=4)
    )
    with pytest.raises(LmError) as caught:
        await t.run(question="?")
    assert (caught.value.retryable, caught.value.retry_after) == (True, 30.0)
    assert len(provider.served) == 1


async def test_so_does_a_pause_of_dspys_own_that_is_longer_than_what_is_left(served):
    provider, t = served(lambda body: error(503), num_retries=3, interrupt=Interrupt(left=0.5))
    with pytest.raises(LmError) as caught:
        await t.run(question="?")
    assert (caught.value.retryable, caught.value.retry_after) == (True, None)
    assert len(provider.served) == 1


async def test_what_the_provider_said_last_is_told_of_a_trial_whose_deadline_passes_while_dspy_tries_again(
    virtual_clock,
):
    tried = []

    def complete(request):
        tried.append(request)
        if len(tried) == 1:
            raise dspy.lm15.RateLimitError("slow down", status=429, retry_after=60.0)
        dspy.settings.hold()

    events = []
    hold = trio.Event()
    engine = OwnEngine(None)
    engine.complete = complete
    lm = dspy.LM("own/x", engine=engine)
    settings = dspex.Settings(max_trial_seconds=1e6)
    async with dspex.open_runtime(settings, lm=lm) as runtime:

        @dspex.tool
        async def forever() -> None:
            """Wait."""
            await hold.wait()

        @dspex.register("Holds")
        class Holds(dspy.Module):
            def __init__(self, tool):
                super().__init__()
                self.tool = tool

            def forward(self):
                with dspy.context(hold=self.tool):
                    return {"said": dspy.settings.lm("?")}

        program = dspex.Program("Holds", dependencies={"tool": {"tool": "forever"}})
        with trio.fail_after(3600):
            outcome = await runtime.run_trial(program, {}, watch=events.append)
    assert outcome.kind.name == "DEADLINE_EXCEEDED"
    assert "RateLimitError 429: slow down" in outcome.details["lm_error"]
    assert len(tried) == 2
    assert "429" in next(event.error_message for event in events if isinstance(event, LmFinished))


async def test_the_deadline_that_counts_is_that_of_the_trial(virtual_clock):
    """Its own clock, its own seconds: a pause that fits is made, one that does not is not."""

    def complete(request):
        raise dspy.lm15.ServerError("busy", status=503, retry_after=40.0)

    engine = OwnEngine(None)
    engine.complete = complete
    settings = dspex.Settings(max_trial_seconds=1e6)
    async with dspex.open_runtime(settings, lm=dspy.LM("own/x", engine=engine)) as runtime:
        program = dspex.Program("dspy.Predict", dspex.Signature("q -> answer"))
        began = trio.current_time()
        with trio.fail_after(100):
            outcome = await runtime.run_trial(program, {"q": "?"})
        assert trio.current_time() - began == pytest.approx(80)
    assert (outcome.kind.name, outcome.retryable, outcome.retry_after) == ("LM_ERROR", True, 40.0)


async def test_the_outcome_has_the_warnings(virtual_clock):
    async with dspex.open_runtime(lm=Own(lambda: completion("[[ ## answer ## ]]\nhalf", "length")[2])) as runtime:
        program = dspex.Program("dspy.Predict", dspex.Signature("q -> answer"))
        outcome = await runtime.run_trial(program, {"q": "?"})
        assert "finish_reason 'length'" in outcome.warnings[0]
        failed = await runtime.run_trial(dspex.Program("dspy.Predict", dspex.Signature("q -> n: int")), {"q": "?"})
    assert "finish_reason 'length'" in failed.error_message
    assert "finish_reason 'length'" in failed.details["cut_answers"]
