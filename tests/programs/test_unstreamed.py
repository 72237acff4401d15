"""Watching never changes the outcome: a provider that does not stream is asked again, as an unwatched trial would."""

import dspy
import pytest

from dspex_trio.model import LanguageModel, LmFinished, LmStarted, OutputChunk
from dspex_trio.model.errors import LmError
from dspex_trio.programs import ProgramSettings, open_programs
from dspex_trio.programs.record.streaming import Unstreamed

from .fakes import Trial, answers, chat
from .provider import error, open_provider


@pytest.fixture(params=["lm15", "litellm"])
def served(request):
    """`served(answer)` → (provider, make), with each of DSPy's engines; `make(watch)` makes a Trial of a predictor."""
    opened = []

    def start(answer, **arguments):
        context = open_provider(answer)
        provider = context.__enter__()
        opened.append(context)
        keywords = {"api_base": provider.address, "api_key": "k", "num_retries": 0, "engine": request.param}
        lm = LanguageModel("openai/gpt-4o-mini", {**keywords, **arguments})
        programs = open_programs(ProgramSettings(lm=lm, memory_cache=False))
        loader = programs.__enter__()
        opened.append(programs)
        return provider, lambda watch=None: Trial(
            loader, python_class="dspy.Predict", signature="question -> answer", watch=watch
        )

    yield start
    for context in reversed(opened):
        context.__exit__(None, None, None)


def completion(text):
    return 200, {}, {
        "id": "1", "object": "chat.completion", "created": 1, "model": "gpt-4o-mini-2024-07-18",
        "choices": [{"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": "stop"}],
        "usage": {"prompt_tokens": 10, "completion_tokens": 5, "total_tokens": 15},
    }  # fmt: skip


def refuses(body):
    return error(400, "Your organization must be verified to stream this model.") if body.get("stream") else FINE


def knows_no_options(body):
    return error(422, "stream_options: extra fields not permitted") if "stream_options" in body else FINE


def breaks(body):
    return error(500, "unhandled: stream") if body.get("stream") else FINE


def ignores(body):
    return FINE


FINE = completion(chat(answer="fine"))


@pytest.mark.parametrize("provider", [refuses, knows_no_options, breaks, ignores])
async def test_a_provider_that_does_not_stream_answers_a_watched_trial_as_any_other(served, provider):
    told = []
    _, make = served(provider)
    plain, watched = make(), make(told.append)
    assert await plain.run(question="?") == await watched.run(question="?") == {"answer": "fine"}
    assert watched.recording.cost.usage == plain.recording.cost.usage
    assert watched.tree() == plain.tree() == [("self", 1)]
    assert [type(event) for event in told] == [LmStarted, LmFinished, LmStarted, LmFinished]
    refused, answered = told[1], told[3]
    assert refused.error_type == "dspex_trio.NotStreamed"
    assert "asked again without streaming" in refused.error_message
    assert (refused.call, answered.call, answered.error_type) == (1, 2, "")


@pytest.mark.parametrize(("provider", "known"), [(refuses, True), (breaks, True), (ignores, False)])
async def test_the_cost_is_known_unless_an_answer_was_given_up(served, provider, known):
    _, make = served(provider)
    watched = make([].append)
    await watched.run(question="?")
    assert watched.recording.cost.known is known


@pytest.mark.parametrize(("provider", "asked"), [(refuses, 1), (ignores, 1), (breaks, 2)])
async def test_a_model_that_refused_once_is_not_asked_to_stream_again(served, provider, asked):
    """A server's trouble may pass."""
    server, make = served(provider)
    for _ in range(2):
        await make([].append).run(question="?")
    assert [bool(body.get("stream")) for body in server.bodies].count(True) == asked


async def test_a_provider_that_fails_without_streaming_too_is_asked_to_stream_again(served):
    server, make = served(lambda body: error(400))
    for _ in range(2):
        with pytest.raises(LmError):
            await make([].append).run(question="?")
    assert [bool(body.get("stream")) for body in server.bodies] == [True, False] * 2


@pytest.mark.parametrize("status", [401, 402, 429, 503])
async def test_what_has_nothing_to_do_with_streaming_is_not_asked_twice(served, status):
    server, make = served(lambda body: error(status))
    told = []
    with pytest.raises(LmError):
        await make(told.append).run(question="?")
    assert len(server.served) == 1
    assert [type(event) for event in told] == [LmStarted, LmFinished]


async def test_an_engine_whose_stream_fails_is_asked_for_the_whole_reply(trial):
    class Engine:
        def complete(self, request):
            return dspy.lm15.Response(
                id=None,
                model="own/x",
                message=dspy.lm15.Message(role="assistant", parts=[dspy.lm15.TextPart(text=chat(answer="fine"))]),
                finish_reason="stop",
                usage=dspy.lm15.Usage(input_tokens=3, output_tokens=2, total_tokens=5),
            )

        def stream(self, request):
            raise NotImplementedError("not yet")

    told = []
    lm = dspy.LM("own/x", engine=Engine())
    t = trial(python_class="dspy.Predict", signature="q -> answer", model=lm, watch=told.append)
    assert await t.run(q="?") == {"answer": "fine"}
    assert not [event for event in told if isinstance(event, OutputChunk)]


async def test_one_that_streams_nothing_to_begin_with_is_asked_once(trial):
    told = []
    await trial(python_class="dspy.Predict", signature="q -> a", model=answers(a="x"), watch=told.append).run(q="?")
    assert [type(event) for event in told] == [LmStarted, LmFinished]


def test_models_are_told_apart_by_their_addresses_and_those_found_first_are_forgotten_first():
    unstreamed = Unstreamed()
    keys = [unstreamed.key("m", {"api_base": f"http://127.0.0.1:{port}"}) for port in range(257)]
    for key in keys:
        unstreamed.add(key)
    assert keys[0] not in unstreamed
    assert all(key in unstreamed for key in keys[1:])
