"""A script over HTTP: whoever asks is a stock `dspy.LM`, and what becomes of its connections is seen."""

import pytest
import trio

import dspex_trio as dspex
from dspex_trio.testing import (
    Answer,
    Drip,
    Hang,
    HangUp,
    Script,
    Timeline,
    TrialEnvironment,
    open_provider,
)

PREDICT = {"python_class": "dspy.Predict", "signature": "question -> answer"}
ASKED = {"question": "?"}
YES = {"answer": "yes"}


async def test_a_worker_finds_it_by_its_arguments_and_the_timeline_tells_of_requests():
    async with open_provider(YES, timeline=(timeline := Timeline())) as provider:
        settings = dspex.Settings(lm="openai/gpt-4o-mini", lm_args=provider.lm_args)
        async with dspex.open_runtime(settings) as runtime:
            outcome = await runtime.run_trial(PREDICT, ASKED)
        assert outcome.prediction == YES
        assert outcome.trace[0].lm_calls[0].model == "openai/gpt-4o-mini"
        assert (provider.connections, provider.closed_early, provider.owed) == (1, 0, 0)
    timeline.expect("provider_request", "provider_replied", only=["provider_closed"])


async def test_litellm_asks_it_too():
    async with open_provider(YES, HangUp()) as provider:
        environment = TrialEnvironment(lm=provider.lm(engine="litellm"))
        assert (await environment.run(PREDICT, **ASKED)).prediction == YES
        outcome = await environment.run(PREDICT, **ASKED)
        assert (outcome.kind.name, outcome.retryable) == ("LM_ERROR", True)


@pytest.mark.parametrize("reply", [Hang(), Hang("so far"), Drip("so far", every=0.001)])
@pytest.mark.parametrize("streaming", [True, False])
async def test_a_trial_that_is_ended_closes_its_connection_while_the_reply_is_under_way(reply, streaming):
    timeline = Timeline()
    async with open_provider(reply, timeline=timeline) as provider:
        async with dspex.open_runtime(lm=provider.lm()) as runtime, trio.open_nursery() as nursery:
            watch = (lambda _event: None) if streaming else None
            nursery.start_soon(lambda: runtime.run_trial(PREDICT, ASKED, watch=watch))
            await provider.wait_until(lambda seen: seen.owed == 1)
            assert provider.open == 1
            nursery.cancel_scope.cancel()
        await provider.wait_until(lambda seen: seen.open == 0)
        assert (provider.closed_early, provider.owed) == (1, 0)
    timeline.expect("provider_request", "provider_closed", only=["provider_replied"])


async def test_it_hangs_up_by_itself():
    timeline = Timeline()
    async with open_provider(HangUp("half"), timeline=timeline) as provider:
        outcome = await TrialEnvironment(lm=provider.lm()).run(PREDICT, **ASKED)
        assert (outcome.kind.name, outcome.retryable) == ("LM_ERROR", True)
        await provider.wait_until(lambda seen: seen.open == 0)
        assert provider.closed_early == 0
    timeline.expect("provider_request", "provider_hung_up", only=["provider_closed"])


async def test_whoever_asks_for_something_else_is_told_so():
    async with open_provider() as provider, await trio.open_tcp_stream("127.0.0.1", provider.port) as stream:
        await stream.send_all(b"GET /v1/models HTTP/1.1\r\nHost: here\r\nConnection: close\r\n\r\n")
        assert b"404" in b"".join([part async for part in stream])
        assert provider.script.asked == ()


async def test_connections_of_the_block_end_with_it():
    async with open_provider(Hang()) as provider:
        stream = await trio.open_tcp_stream("127.0.0.1", provider.port)
        await provider.wait_until(lambda seen: seen.open == 1)
    async with stream:
        assert await stream.receive_some() == b""
    with pytest.raises(OSError, match="connect"):
        await trio.open_tcp_stream("127.0.0.1", provider.port)


async def test_prompts_keep_calls_apart_that_come_at_once():
    script = Script(prompts={"the first": YES, "the second": {"answer": "no"}})
    async with open_provider(script=script) as provider, dspex.open_runtime(lm=provider.lm()) as runtime:
        found = {}

        async def ask(question):
            outcome = await runtime.run_trial(PREDICT, {"question": question})
            found[question] = outcome.prediction["answer"]

        async with trio.open_nursery() as nursery:
            for question in ("the first", "the second"):
                nursery.start_soon(ask, question)
    assert found == {"the first": "yes", "the second": "no"}


@pytest.mark.parametrize("streaming", [True, False])
async def test_a_deadline_closes_the_connection_of_a_reply_that_takes_too_long(virtual_clock, streaming):
    timeline = Timeline()
    answers = Answer(fields=YES, delay=3), Answer(fields=YES, delay=1, pause=30)
    async with open_provider(*answers, timeline=timeline) as provider:
        environment = TrialEnvironment(lm=provider.lm(), timeout=5, timeline=timeline if streaming else None)
        assert (await environment.run(PREDICT, **ASKED)).prediction == YES
        outcome = await environment.run(PREDICT, **ASKED)
        assert (outcome.kind.name, outcome.details["rung"]) == ("DEADLINE_EXCEEDED", "wake")
        await provider.wait_until(lambda seen: seen.owed == 0)
    timeline.expect("provider_request@0.0", "provider_replied@3.0", "provider_request@3.0", "provider_closed@8.0")


async def test_a_drip_keeps_no_deadline_from_coming(virtual_clock):
    timeline = Timeline()
    async with open_provider(Drip(), timeline=timeline) as provider:
        outcome = await TrialEnvironment(lm=provider.lm(), timeout=60).run(PREDICT, **ASKED)
        assert outcome.kind.name == "DEADLINE_EXCEEDED"
        await provider.wait_until(lambda seen: seen.owed == 0)
    timeline.expect("provider_closed@60.0")
