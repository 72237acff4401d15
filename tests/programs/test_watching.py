"""What a watched program tells while it runs; watched or not, it ends the same way."""

import json
import threading

import dspy
import pytest

import dspex_trio as dspex
from dspex_trio.model import LanguageModel, LmFinished, LmStarted, OutputChunk, ToolFinished, ToolStarted
from dspex_trio.model.errors import LmError
from dspex_trio.programs import ProgramSettings, open_programs
from dspex_trio.programs.record.streaming import Unstreamed, streamed_to, streaming_completion

from .fakes import Ended, Interrupt, Trial, answers, chat
from .provider import error, open_provider


@pytest.fixture
def told():
    return []


def texts(told):
    """(predictor, field) → the whole text."""
    found = {}
    for chunk in told:
        if isinstance(chunk, OutputChunk):
            key = (chunk.predictor, chunk.field)
            found[key] = found.get(key, "") + chunk.text
    return found


async def test_lm_calls_are_told_when_they_begin_and_when_they_end(trial, told):
    t = trial(python_class="dspy.ChainOfThought", signature="q -> answer", watch=told.append,
              model=answers(reasoning="r", answer="a"))  # fmt: skip
    await t.run(q="?")
    started, finished = told
    assert started == LmStarted(1, "predict", "dummy", {"temperature": 0.0, "max_tokens": 1000})
    assert isinstance(finished, LmFinished)
    assert (finished.call, finished.error_type) == (1, "")
    assert finished.lm_call == t.recording.trace[0].lm_calls[0]


async def test_tools_are_told_with_arguments_and_results(trial, told):
    def weather(city: str) -> dict:
        """The weather."""
        return {"in": city, "sky": "blue"}

    dspex.tool(weather)
    lm = answers(
        {"next_thought": "look", "next_tool_name": "weather", "next_tool_args": {"city": "Oslo"}},
        {"next_thought": "done", "next_tool_name": "finish", "next_tool_args": {}},
        {"reasoning": "r", "answer": "blue"},
    )
    t = trial(python_class="dspy.ReAct", signature="q -> answer", dependencies={"tools": [{"tool": "weather"}]},
              watch=told.append, model=lm)  # fmt: skip
    await t.run(q="?")
    [started, *_] = [event for event in told if isinstance(event, ToolStarted)]
    [finished, *_] = [event for event in told if isinstance(event, ToolFinished)]
    assert (started.tool, started.arguments) == ("weather", {"city": "Oslo"})
    assert (finished.call, finished.result, finished.error_type) == (started.call, {"in": "Oslo", "sky": "blue"}, "")
    numbers = [event.call for event in told if isinstance(event, LmStarted | ToolStarted)]
    assert numbers == sorted(set(numbers)), "one number each, in the order in which they began"


async def test_a_tool_that_raises_is_told_by_its_exception(trial, told):
    def broken() -> str:
        """Fails."""
        raise LookupError("nothing there")

    dspex.tool(broken)

    @dspex.register("Calls")
    class Calls(dspy.Module):
        def __init__(self, tool):
            super().__init__()
            self.tool = tool

        def forward(self):
            return self.tool()

    t = trial(python_class="Calls", dependencies={"tool": {"tool": "broken"}}, watch=told.append)
    with pytest.raises(dspex.TrialError):
        await t.run()
    assert (told[-1].error_type, told[-1].error_message) == ("LookupError", "nothing there")
    assert told[-1].result is None


class Wordless(LookupError):
    def __str__(self):
        raise AssertionError("nobody is to ask")


class Costly:
    def __str__(self):
        raise AssertionError("nobody is to ask")


@pytest.mark.parametrize("error", [Wordless("x"), LookupError(Costly())])
async def test_no_code_of_a_programs_is_run_to_tell_what_its_exceptions_say(trial, told, error):
    def broken() -> str:
        """Fails."""
        raise error

    dspex.tool(broken)

    @dspex.register("Calls")
    class Calls(dspy.Module):
        def __init__(self, tool):
            super().__init__()
            self.tool = tool

        def forward(self):
            try:
                self.tool()
            except LookupError:
                return dspy.Prediction(done=True)

    await trial(python_class="Calls", dependencies={"tool": {"tool": "broken"}}, watch=told.append).run()
    assert told[-1].error_type.endswith(type(error).__name__)
    assert told[-1].error_message == ""


async def test_a_call_that_is_interrupted_is_told_as_ended(trial, told):
    t = trial(python_class="dspy.Predict", signature="q -> answer", watch=told.append, interrupt=Interrupt(at=2))
    with pytest.raises(Ended):
        await t.run(q="?")
    assert [type(event) for event in told] == [LmStarted, LmFinished]
    assert told[1].error_type.endswith("Ended")


# ---- a provider that streams ----------------------------------------------------------------------------------------


@pytest.fixture
def served(told):
    """`served(answer, model, watched=True)` → (provider, a Trial of a predictor)."""
    opened = []

    def start(answer, model="openai/gpt-4o-mini", *, watched=True, signature="question -> answer", **arguments):
        context = open_provider(answer)
        provider = context.__enter__()
        opened.append(context)
        keywords = {"api_base": provider.address, "api_key": "sk-of-the-operator", "num_retries": 0, **arguments}
        programs = open_programs(ProgramSettings(lm=LanguageModel(model, keywords)))
        loader = programs.__enter__()
        opened.append(programs)
        return provider, Trial(loader, python_class="dspy.Predict", signature=signature,
                               watch=told.append if watched else None)  # fmt: skip

    yield start
    for context in reversed(opened):
        context.__exit__(None, None, None)


async def test_output_is_told_by_field_while_it_comes_and_the_record_is_the_same(served, told):
    reply = chat(reasoning="two and two", answer="are four, always")
    fields = {"reasoning": "two and two", "answer": "are four, always"}
    signature = "question -> reasoning, answer"
    provider, watched = served(lambda body: reply, signature=signature)
    assert await watched.run(question="2+2?") == fields
    assert provider.bodies[0]["stream"] is True
    assert texts(told) == {("self", name): text for name, text in fields.items()}
    assert len([event for event in told if isinstance(event, OutputChunk)]) > 2
    assert isinstance(told[-1], LmFinished)

    _, unwatched = served(lambda body: reply, watched=False, signature=signature)
    assert await unwatched.run(question="2+2?") == fields
    one, other = (t.recording for t in (watched, unwatched))
    assert one.cost == other.cost
    assert one.cost.known
    [call], [plain] = one.trace[0].lm_calls, other.trace[0].lm_calls
    assert (call.messages_json, call.usage) == (plain.messages_json, plain.usage)
    assert json.loads(call.response_json)["outputs"] == json.loads(plain.response_json)["outputs"]


async def test_litellm_is_streamed_in_the_programs_own_thread(served, told):
    provider, t = served(lambda body: chat(answer="four and four"), engine="litellm")
    assert await t.run(question="2+2?") == {"answer": "four and four"}
    assert provider.bodies[0]["stream"] is True
    assert texts(told) == {("self", "answer"): "four and four"}
    usage = t.recording.cost.usage
    assert usage.prompt_tokens == sum(len(message["content"]) for message in provider.bodies[0]["messages"])


def test_whoever_awaits_litellm_is_given_what_dspy_gives():
    """Ours does not await: it would hold up the program's event loop, and what it returns cannot be awaited."""

    def theirs(_request, _cache, sync=True, headers=None):
        return sync, headers

    def opened():
        raise AssertionError("nothing is streamed")

    with streamed_to(opened):
        assert streaming_completion(theirs, Unstreamed())({}, {}, sync=False, headers={"a": "b"}) == (False, {"a": "b"})


async def test_what_is_retried_comes_again(served, told):
    """DSPy alone would not retry what has begun to stream, and a watched trial would fail where another does not."""
    replies = iter([error(503, **{"retry-after": "0"}), chat(answer="at last")])
    provider, t = served(lambda body: next(replies), num_retries=2)
    assert await t.run(question="?") == {"answer": "at last"}
    assert len(provider.served) == 2
    assert texts(told) == {("self", "answer"): "at last"}


async def test_an_unparsable_reply_falls_back_as_it_does_unwatched(served, told):
    replies = iter(["nothing to be parsed", '{"answer": "json"}'])
    _, t = served(lambda body: next(replies))
    assert await t.run(question="?") == {"answer": "json"}


@pytest.mark.parametrize("reply", [error(429), error(401), error(500)])
async def test_a_failure_is_the_same_failure(served, told, reply):
    failures = []
    for watched in (True, False):
        _, t = served(lambda body: reply, watched=watched)
        with pytest.raises(LmError) as caught:
            await t.run(question="?")
        failures.append((type(caught.value.__cause__), caught.value.retryable, t.recording.cost.known))
    assert failures[0] == failures[1]
    assert told[-1].status == reply[0]
    assert "no" in told[-1].error_message


async def test_parallel_predictors_each_tell_their_own_text(served, told):
    @dspex.register("Both")
    class Both(dspy.Module):
        def __init__(self):
            super().__init__()
            self.one = dspy.Predict("question -> answer")
            self.two = dspy.Predict("question -> answer")

        def forward(self, question):
            pairs = [(self.one, {"question": "one"}), (self.two, {"question": "two"})]
            results = dspy.Parallel(num_threads=2, disable_progress_bar=True)(pairs)
            return dspy.Prediction(answers=[result.answer for result in results])

    barrier = threading.Barrier(2)

    def answer(body):
        barrier.wait(20)
        return chat(answer="the answer to " + body["messages"][-1]["content"].split("\n")[1])

    _, t = served(answer)
    t.program = type(t.program)(python_class="Both")
    await t.run(question="?")
    assert texts(told) == {("one", "answer"): "the answer to one", ("two", "answer"): "the answer to two"}
