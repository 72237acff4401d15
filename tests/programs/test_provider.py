"""Stock `dspy.LM` against a provider over HTTP: what is recorded equals what was served; errors say whose fault."""

import json
import logging
import threading

import dspy
import pytest

import dspex_trio as dspex
from dspex_trio.model import LanguageModel, TrialOptions
from dspex_trio.model.errors import LmError
from dspex_trio.programs import ProgramSettings, open_programs

from .fakes import Interrupt, Trial, chat
from .provider import error, field, open_provider


@pytest.fixture
def served():
    """`served(answer)` → (provider, loader) whose operator chose that provider."""
    opened = []

    def start(answer, *, model="openai/gpt-4o-mini", **arguments):
        arguments = {"num_retries": 0, "api_key": "sk-of-the-operator", **arguments}
        context = open_provider(answer)
        provider = context.__enter__()
        opened.append(context)
        programs = open_programs(ProgramSettings(lm=LanguageModel(model, {"api_base": provider.address, **arguments})))
        loader = programs.__enter__()
        opened.append(programs)
        return provider, loader

    yield start
    for context in reversed(opened):
        context.__exit__(None, None, None)


def predict(loader, **program):
    return Trial(loader, python_class="dspy.Predict", signature="question -> answer", **program)


async def test_what_is_recorded_is_what_was_served(served):
    provider, loader = served(lambda body: chat(answer="four"))
    t = predict(loader, parameters={"temperature": 0.3, "max_tokens": 77})
    assert await t.run(question="2+2?") == {"answer": "four"}
    [(body, headers)] = provider.served
    assert (body["temperature"], body["model"]) == (0.3, "gpt-4o-mini")
    assert 77 in {body.get("max_tokens"), body.get("max_completion_tokens")}
    assert headers["authorization"] == "Bearer sk-of-the-operator"
    [call] = t.recording.trace[0].lm_calls
    assert json.loads(call.messages_json) == body["messages"]
    assert "four" in call.response_json
    assert call.model == "openai/gpt-4o-mini"
    assert call.usage.prompt_tokens == sum(len(message["content"]) for message in body["messages"])
    assert call.usage.completion_tokens == len(chat(answer="four"))
    assert call.cost_known
    assert call.cost_usd > 0
    assert t.recording.cost.total_usd == call.cost_usd
    assert "sk-of-the-operator" not in repr(t.recording)


async def test_an_answer_from_dspys_cache_costs_nothing(served):
    """DSPy keeps the old price with the entry; counting it would bill twice what was served once."""
    provider, loader = served(lambda body: chat(answer="four"))
    first, second = predict(loader), predict(loader)
    await first.run(question="2+2?")
    await second.run(question="2+2?")
    assert len(provider.served) == 1
    [call] = second.recording.trace[0].lm_calls
    assert call.cache_hit
    assert (call.cost_usd, call.cost_known, call.usage.total_tokens) == (0.0, True, 0)
    cost = second.recording.cost
    assert (cost.lm_calls, cost.cache_hits, cost.total_usd, cost.known) == (1, 1, 0.0, True)
    assert "four" in call.response_json


class AsksTwice(dspy.Module):
    """In the program's own thread, and in one of dspy.Parallel."""

    def __init__(self):
        super().__init__()
        self.ask = dspy.Predict("question -> answer")

    def forward(self, question):
        [one] = dspy.Parallel(num_threads=1, disable_progress_bar=True)([(self.ask, {"question": question})])
        return [one.answer, self.ask(question=f"{question}?").answer]


async def test_a_session_is_not_answered_from_what_another_has_asked(served):
    """Whoever can run trials could find out what others ask: what is answered at once and for nothing was asked."""
    dspex.register("AsksTwice")(AsksTwice)
    provider, loader = served(lambda body: chat(answer="four"))
    hits = []
    for session_id in ("one", "two", "one", "", "", "two"):
        t = Trial(loader, python_class="AsksTwice", session_id=session_id)
        await t.run(question="2+2?")
        hits.append(t.recording.cost.cache_hits)
    assert hits == [0, 0, 2, 0, 2, 2]
    assert len(provider.served) == 6


async def test_sessions_share_what_was_asked_where_the_operator_says_so():
    dspex.register("AsksTwice")(AsksTwice)
    with open_provider(lambda body: chat(answer="four")) as provider:
        model = LanguageModel("openai/gpt-4o-mini", {"api_base": provider.address, "api_key": "sk-of-the-operator"})
        with open_programs(ProgramSettings(lm=model, shared_cache=True)) as loader:
            for session_id in ("one", "two", ""):
                await Trial(loader, python_class="AsksTwice", session_id=session_id).run(question="2+2?")
        assert len(provider.served) == 2


async def test_no_cache_asks_the_provider(served):
    provider, loader = served(lambda body: chat(answer="four"))
    for _ in range(2):
        await predict(loader, options=TrialOptions(no_cache=True)).run(question="2+2?")
    assert len(provider.served) == 2


async def test_the_cache_does_not_answer_for_another_endpoint_or_key(served):
    """DSPy's own key knows neither; two tenants of one process would get each other's answers."""
    one, first = served(lambda body: chat(answer="one"))
    two, second = served(lambda body: chat(answer="two"))
    assert await predict(first).run(question="?") == {"answer": "one"}
    assert await predict(second).run(question="?") == {"answer": "two"}
    assert await predict(first).run(question="?") == {"answer": "one"}
    assert (len(one.served), len(two.served)) == (1, 1)
    other = dspy.LM("openai/gpt-4o-mini", api_base=one.address, api_key="sk-other", num_retries=0)
    with open_programs(ProgramSettings(), lm=other) as another:
        await predict(another).run(question="?")
    assert len(one.served) == 2


async def test_what_was_billed_for_a_call_that_failed_is_in_the_usage(served):
    """Of two replies, asked for one after the other, the second fails: the first one's tokens are paid for."""
    provider, loader = served(lambda body: "")

    def answer(body):
        return chat(answer="a") if len(provider.served) == 1 else error(500)

    provider.says = answer
    t = await Trial(loader, python_class="dspy.Predict", signature="q -> a", parameters={"n": 2}).ready()
    with pytest.raises(LmError):
        t.call(q="?")
    cost = t.recording.cost
    assert len(provider.served) == 2
    assert (cost.lm_calls, cost.known) == (0, False)
    assert cost.usage.prompt_tokens == sum(len(m["content"]) for m in provider.bodies[0]["messages"])


@pytest.mark.parametrize(
    ("reply", "error_type", "retryable", "retry_after"),
    [
        (error(401), "LMAuthError", False, None),
        (error(429, **{"retry-after": "3"}), "LMRateLimitError", True, 3.0),
        (error(500), "LMServerError", True, None),
        (error(400), "LMInvalidRequestError", False, None),
        (error(404), "LMInvalidRequestError", False, None),
        (error(402), "LMBillingError", False, None),
        ((200, {}, {"not": "a completion"}), None, False, None),
        ("nothing to be parsed", "AdapterParseError", False, None),
    ],
)
async def test_what_the_provider_answers_instead(served, reply, error_type, retryable, retry_after):
    provider, loader = served(lambda body: reply)
    t = predict(loader)
    with pytest.raises(LmError) as caught:
        await t.run(question="?")
    assert (caught.value.retryable, caught.value.retry_after) == (retryable, retry_after)
    if error_type is not None:
        assert type(caught.value.__cause__).__name__ == error_type
    assert "sk-of-the-operator" not in str(caught.value)
    [entry] = t.recording.trace
    assert [json.loads(call.messages_json) for call in entry.lm_calls] == [body["messages"] for body in provider.bodies]
    refused = isinstance(reply, tuple) and reply[0] != 200
    assert all(call.response_json == "" for call in entry.lm_calls) is refused
    assert t.recording.cost.lm_calls == (0 if refused else len(entry.lm_calls))
    if refused:
        assert t.recording.cost.known, "a refusal costs nothing"


async def test_a_provider_that_is_not_there_may_be_there_later(served):
    provider, loader = served(lambda body: chat(answer="a"))
    provider.stop()
    t = predict(loader)
    with pytest.raises(LmError) as caught:
        await t.run(question="?")
    assert caught.value.retryable
    assert not t.recording.cost.known
    assert isinstance(caught.value.__cause__, dspy.LMTransportError)


async def test_retries_are_dspys_and_one_call(served, monkeypatch):
    replies = iter([error(500, **{"retry-after": "0"}), chat(answer="at last")])
    provider, loader = served(lambda body: next(replies), num_retries=2)
    t = predict(loader)
    assert await t.run(question="?") == {"answer": "at last"}
    assert len(provider.served) == 2
    assert t.tree() == [("self", 1)]


async def test_two_hundred_trials_at_once_keep_their_values_traces_usage_and_histories_apart(served):
    """Each with its own temperature, question and model, in its own thread, through one provider and one loader."""
    barrier = threading.Barrier(200)

    def answer(body):
        return chat(reasoning=f"t={body['temperature']}", answer=f"{field(body, 'question')}@{body['model']}")

    provider, loader = served(answer)
    count = 200
    trials = []
    for n in range(count):
        t = Trial(
            loader,
            python_class="dspy.ChainOfThought",
            signature="question -> answer",
            lm=LanguageModel(f"openai/m{n % 5}"),
            parameters={"temperature": n / 1000, "instructions": f"Be number {n}."},
            interrupt=Interrupt(),
        )
        trials.append(await t.ready())
    results = {}

    def work(n):
        barrier.wait(30)
        results[n] = trials[n].call(question=f"q{n}")

    threads = [threading.Thread(target=work, args=(n,)) for n in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert len(provider.served) == count
    for n, t in enumerate(trials):
        assert results[n] == {"reasoning": f"t={n / 1000}", "answer": f"q{n}@m{n % 5}"}
        [entry] = t.recording.trace
        assert entry.inputs == {"question": f"q{n}"}
        [call] = entry.lm_calls
        [system, user] = json.loads(call.messages_json)
        assert f"Be number {n}." in system["content"]
        assert f"\nq{n}\n" in user["content"]
        assert call.usage.prompt_tokens == len(system["content"]) + len(user["content"])
        assert t.recording.cost.usage == call.usage
        assert len(t.module.predict.history) == 1
        assert len(t.hydrated._model.lm.history) == 1


async def test_trace_usage_and_cost_of_mixed_programs_equal_what_was_served(served, caplog):
    """Parse failures, retries by the program, Parallel, cache hits: nothing is counted twice or lost."""
    caplog.set_level(logging.CRITICAL)

    def answer(body):
        asked = body["messages"][-1]["content"]
        if "unparsable" in asked:
            return "nonsense"
        return chat(answer="yes")

    provider, loader = served(answer)

    @dspex.register("Mixed")
    class Mixed(dspy.Module):
        def __init__(self):
            super().__init__()
            self.generate = dspy.Predict("q -> answer")

        def forward(self, n: int):
            pairs = [(self.generate, {"q": f"unparsable {n}" if i % 3 == 0 else f"{n}-{i % 4}"}) for i in range(12)]
            dspy.Parallel(num_threads=4, disable_progress_bar=True, max_errors=99)(pairs)
            return dspy.Prediction(done=True)

    trials = [await Trial(loader, python_class="Mixed").ready() for _ in range(8)]
    threads = [threading.Thread(target=t.call, kwargs={"n": n}) for n, t in enumerate(trials)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)

    calls = [call for t in trials for entry in t.recording.trace for call in entry.lm_calls]
    billed = [call for call in calls if not call.cache_hit]
    assert len(billed) == len(provider.served)
    assert sorted(call.messages_json for call in billed) == sorted(
        json.dumps(body["messages"], ensure_ascii=False) for body in provider.bodies
    )
    for t in trials:
        cost = t.recording.cost
        mine = [call for entry in t.recording.trace for call in entry.lm_calls]
        assert cost.lm_calls == len(mine)
        assert cost.cache_hits == sum(call.cache_hit for call in mine)
        assert cost.usage.total_tokens == sum(call.usage.total_tokens for call in mine)
        assert cost.total_usd == pytest.approx(sum(call.cost_usd for call in mine))
        assert sum(bool(entry.outputs) for entry in t.recording.trace) == 8
