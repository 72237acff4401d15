"""A scripted model: what a program sees of it is what it sees of a provider, in process and over HTTP alike."""

import asyncio
import copy
import json

import dspy
import pytest
import trio

import dspex_trio as dspex
from dspex_trio.model import OutputChunk
from dspex_trio.programs import MODULE_REGISTRY
from dspex_trio.testing import (
    Answer,
    Drip,
    Hang,
    HangUp,
    Malformed,
    Refusal,
    Script,
    ScriptedLM,
    Timeline,
    Token,
    ToolCall,
    TrialEnvironment,
    VirtualClock,
    open_provider,
)
from dspex_trio.testing.scripted.replies import tokens_of

PREDICT = {"python_class": "dspy.Predict", "signature": "question -> answer"}
ASKED = {"question": "?"}
YES = {"answer": "yes"}


def kind(outcome):
    return outcome.kind.name, outcome.error_type.rpartition(".")[2], outcome.retryable, outcome.retry_after


def in_virtual_time(main):
    virtual_clock = VirtualClock()
    timeline = Timeline(virtual_clock)
    return trio.run(main, timeline, clock=virtual_clock, instruments=[virtual_clock]), timeline


# ---- over HTTP and in process, which must be the same ---------------------------------------------------------------


@pytest.fixture(params=["in process", "over HTTP"])
async def asking(request, nursery):
    """`asking(*replies)` → a trial's outcome, and the script."""

    async def ask(*replies, program=PREDICT, watch=None, **arguments):
        arguments = {"model": "openai/gpt-4o-mini", **arguments}
        script = Script(*replies)
        async with open_provider(script=script) as provider:
            in_process = request.param == "in process"
            lm = ScriptedLM(script=script, **arguments) if in_process else provider.lm(**arguments)
            async with dspex.open_runtime(lm=lm) as runtime:
                outcome = await runtime.run_trial(program, ASKED, watch=watch)
                lm.close()
        return outcome, script

    return ask


async def test_an_answer_is_an_answer(asking):
    outcome, script = await asking(YES)
    assert outcome.prediction == YES
    [asked] = script.asked
    assert [message["role"] for message in asked.messages] == ["system", "user"]
    assert "question" in asked.prompt
    [call] = outcome.trace[0].lm_calls
    assert json.loads(call.messages_json) == asked.messages
    assert call.usage.total_tokens == call.usage.prompt_tokens + call.usage.completion_tokens > 0


@pytest.mark.parametrize(
    ("reply", "expected"),
    [
        (Refusal(429, retry_after=3), ("LM_ERROR", "LMRateLimitError", True, 3.0)),
        (Refusal(500), ("LM_ERROR", "LMServerError", True, None)),
        (Refusal(503, retry_after=1.5), ("LM_ERROR", "LMServerError", True, 1.5)),
        (Refusal(401), ("LM_ERROR", "LMAuthError", False, None)),
        (Refusal(402), ("LM_ERROR", "LMBillingError", False, None)),
        (Refusal(404), ("LM_ERROR", "LMInvalidRequestError", False, None)),
        (Refusal(408), ("LM_ERROR", "LMTimeoutError", True, None)),
        (Refusal(400, code="context_length_exceeded"), ("LM_ERROR", "ContextWindowExceededError", False, None)),
        (Malformed(), ("LM_ERROR", "LMProviderError", False, None)),
        (HangUp(), ("LM_ERROR", "LMTransportError", True, None)),
        (HangUp("half of it"), ("LM_ERROR", "LMTransportError", True, None)),
    ],
)
async def test_an_error_is_the_error_that_a_provider_makes(asking, reply, expected):
    outcome, _ = await asking(reply)
    assert kind(outcome) == expected


@pytest.mark.parametrize("reply", [Malformed(), HangUp("half of it"), Refusal(500)])
async def test_an_error_in_a_stream_is_the_same_error(asking, reply):
    unwatched, _ = await asking(reply)
    watched, _ = await asking(reply, watch=lambda _event: None)
    assert watched.kind is unwatched.kind
    assert watched.kind.name == "LM_ERROR"


async def test_a_text_that_cannot_be_parsed_is_asked_for_again_as_json(asking):
    outcome, script = await asking("nonsense", YES)
    assert outcome.prediction == YES
    assert [asked.as_json for asked in script.asked] == [False, True]


async def test_dspys_own_retries_take_one_reply_each(asking):
    outcome, script = await asking(Refusal(500, retry_after=0), YES, num_retries=2)
    assert outcome.prediction == YES
    assert len(script.asked) == 2


async def test_output_is_told_while_it_comes(asking):
    told = []
    reply = Answer(tokens=["[[ ## answer", " ## ]]\n", "four ", "and four", "\n\n[[ ## completed ## ]]"])
    outcome, _ = await asking(reply, watch=told.append)
    assert outcome.prediction == {"answer": "four and four"}
    chunks = [event.text for event in told if isinstance(event, OutputChunk)]
    assert "".join(chunks) == "four and four"
    assert len(chunks) > 1


async def test_tools_and_thoughts_are_the_providers_own(asking):
    @dspex.register("tests.CallsTools")
    class CallsTools(dspy.Module):
        def __init__(self):
            super().__init__()
            adapter = dspy.ChatAdapter(use_native_function_calling=True)
            self.adapter = adapter
            self.ask = dspy.Predict(dspy.Signature("question, tools: list[dspy.Tool] -> calls: dspy.ToolCalls"))

        def forward(self, question):
            def look_up(word: str) -> str:
                """Look it up."""

            with dspy.context(adapter=self.adapter):
                asked = self.ask(question=question, tools=[dspy.Tool(look_up)])
            return dspy.Prediction(calls=[(call.name, call.args) for call in asked.calls.tool_calls])

    try:
        reply = Answer(tool_calls=[ToolCall("look_up", {"word": "trio"})], reasoning="Hm.")
        outcome, script = await asking(reply, program={"python_class": "tests.CallsTools"})
    finally:
        del MODULE_REGISTRY["tests.CallsTools"]
    assert outcome.prediction["calls"] == [["look_up", {"word": "trio"}]]
    assert script.asked[0].arguments["tools"][0]["function"]["name"] == "look_up"


async def test_a_call_without_a_reply_fails_and_says_so(asking):
    outcome, script = await asking()
    assert outcome.kind.name == "LM_ERROR"
    assert "the script has no reply for call 1" in outcome.error_message
    with pytest.raises(AssertionError, match="call 1"):
        script.check()


async def test_several_choices_are_several_replies_or_the_same_one(asking):
    outcome, script = await asking(YES, YES, program={**PREDICT, "parameters": {"n": 2}})
    assert [dict(one) for one in outcome.completions] == [YES, YES]
    assert len(script.asked) == 2, "DSPy's own engine asks for one at a time"


# ---- in process: time is virtual ------------------------------------------------------------------------------------


def test_a_reply_that_takes_five_minutes_takes_no_time_and_comes_when_it_is_due():
    async def main(timeline):
        lm = ScriptedLM(Answer(fields=YES, delay=300))
        outcome = await TrialEnvironment(lm=lm, timeline=timeline).run(PREDICT, **ASKED)
        return outcome, lm

    (outcome, lm), timeline = in_virtual_time(main)
    assert outcome.prediction == YES
    timeline.expect("lm_started@0.0", "lm_finished@300.0", "success@300.0")
    assert [(asked.predictor, asked.at) for asked in lm.asked] == [("self", 0.0)]


def test_a_stream_takes_its_time_between_tokens():
    reply = Answer(tokens=[Token("[[ ## answer ## ]]\n", 1), Token("four ", 2), Token("and four", 3)], delay=10)

    async def main(timeline):
        return await TrialEnvironment(lm=ScriptedLM(reply), timeline=timeline).run(PREDICT, **ASKED)

    outcome, timeline = in_virtual_time(main)
    assert outcome.prediction == {"answer": "four and four"}
    assert [one.at for one in timeline.happenings if one.name == "output"][:1] == [13.0]
    timeline.expect("lm_finished@16.0")


def test_who_asks_for_no_stream_waits_for_all_of_it():
    async def main(_timeline):
        async with dspex.open_runtime(lm=ScriptedLM(Answer(fields=YES, delay=1, pause=0.5))) as runtime:
            await runtime.run_trial(PREDICT, ASKED)
        return trio.current_time()

    seconds, _ = in_virtual_time(main)
    assert seconds == 1 + 0.5 * len(tokens_of(Answer(fields=YES), "[[ ## answer ## ]]"))


@pytest.mark.parametrize("reply", [Hang(), Hang("so far"), Drip(), Answer(fields=YES, delay=600)])
@pytest.mark.parametrize("streaming", [True, False])
def test_what_never_answers_is_ended_by_the_deadline(reply, streaming):
    async def main(timeline):
        environment = TrialEnvironment(lm=ScriptedLM(reply), timeout=5, timeline=timeline if streaming else None)
        return await environment.run(PREDICT, **ASKED)

    outcome, _ = in_virtual_time(main)
    assert (outcome.kind.name, outcome.stage.name) == ("DEADLINE_EXCEEDED", "EXECUTE")
    assert outcome.details["stuck"] == "false"


def test_a_pause_that_the_provider_asks_for_is_virtual_too():
    lm = ScriptedLM(Refusal(429, retry_after=120), YES, num_retries=1)
    outcome = TrialEnvironment(lm=lm).run_sync(PREDICT, **ASKED)
    assert outcome.prediction == YES
    assert [asked.at for asked in lm.asked] == [0.0, 120.0]


def test_each_predictor_has_replies_of_its_own():
    class Both(dspy.Module):
        def __init__(self):
            super().__init__()
            self.write = dspy.Predict("question -> answer")
            self.judge = dspy.Predict("answer -> good: bool")

        def forward(self, question):
            written = self.write(question=question).answer
            return dspy.Prediction(answer=written, good=self.judge(answer=written).good)

    script = Script(predictors={"write": YES, "judge": [{"good": True}]})
    outcome = TrialEnvironment(lm=ScriptedLM(script=script)).run_sync(Both, **ASKED)
    assert outcome.prediction == {"answer": "yes", "good": True}
    assert [asked.predictor for asked in script.asked] == ["write", "judge"]
    script.check()


def test_each_adapter_is_answered_in_its_own_format():
    for adapter in (dspy.ChatAdapter(), dspy.JSONAdapter(), dspy.XMLAdapter()):
        with dspy.context(lm=ScriptedLM({"answer": "1 < 2 & so on", "score": 3}), adapter=adapter):
            found = dspy.Predict("question -> answer, score: int")(question="?")
        assert (found.answer, found.score) == ("1 < 2 & so on", 3), adapter


def test_copies_ask_the_same_script():
    lm = ScriptedLM("a", "b", "c")
    assert [lm.copy(temperature=0.5)("?"), copy.copy(lm)("?"), lm("?")] == [["a"], ["b"], ["c"]]
    assert [asked.arguments.get("temperature") for asked in lm.asked] == [0.5, None, None]


def test_whoever_awaits_is_answered_too():
    lm = ScriptedLM("a", Refusal(500), HangUp(), HangUp("half"), Answer("b", pause=0.001))

    async def main():
        found = [await lm.acall("?")]
        for _ in range(3):
            try:
                await lm.acall("?")
            except dspy.LMError as error:
                found.append(type(error))
        return [*found, await lm.acall("?")]

    assert asyncio.run(main()) == [["a"], dspy.LMServerError, dspy.LMTransportError, dspy.LMTransportError, ["b"]]


def test_a_stream_is_awaited_as_well():
    async def main():
        with dspy.context(lm=ScriptedLM(Answer(fields=YES))):
            found = dspy.streamify(dspy.Predict("question -> answer"))(question="?")
            return [item async for item in found][-1]

    assert asyncio.run(main()).answer == "yes"


def test_replies_and_a_script_are_two_answers():
    with pytest.raises(ValueError, match="or by a script"):
        ScriptedLM("a", script=Script())
