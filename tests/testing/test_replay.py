"""What a live worker recorded comes to the same outcome again: in virtual time, without provider and without tools."""

import asyncio
import json
import socket
import threading
import time
from dataclasses import replace

import dspy
import pytest
import trio

import dspex_trio as dspex
from dspex_trio.model import TrialOptions
from dspex_trio.model.errors import FailureKind
from dspex_trio.observing.records import read_records
from dspex_trio.programs.registry import MODULE_REGISTRY, TOOL_REGISTRY
from dspex_trio.store.elixir_tools import ELIXIR_TOOLS
from dspex_trio.testing import (
    Answer,
    CannotReplay,
    Hang,
    Malformed,
    Refusal,
    Script,
    Timeline,
    open_provider,
    read_record,
    replay,
    replay_sync,
)
from dspex_trio.testing.faults import misbehaving

PREDICT = {"python_class": "dspy.Predict", "signature": "question -> answer"}
YES = {"answer": "yes"}


class Tries(dspy.Module):
    def __init__(self):
        super().__init__()
        self.ask = dspy.Predict("question -> answer")

    def forward(self, question):
        status = 0
        try:
            self.ask(question=question)
        except dspy.LMRateLimitError as error:
            status = error.status
            time.sleep(error.retry_after)
        return dspy.Prediction(status=status, answer=self.ask(question=question).answer)


@pytest.fixture(autouse=True)
def _registries():
    registries = (MODULE_REGISTRY, TOOL_REGISTRY, ELIXIR_TOOLS)
    before = [dict(registry) for registry in registries]
    yield
    for registry, kept in zip(registries, before, strict=True):
        registry.clear()
        registry.update(kept)


@pytest.fixture
def record(tmp_path):
    """Runs a trial on a worker whose provider is on loopback; gives its record."""

    async def run(program, *replies, inputs=None, variables=None, seconds=None, options=None, cancel_when=None, **more):
        async with open_provider(script=more.get("script") or Script(*replies)) as provider:
            settings = dspex.Settings(
                record=tmp_path,
                lm="openai/gpt-4o-mini",
                lm_args={**provider.lm_args, "num_retries": 0, **more.get("lm_args", {})},
                **more.get("settings", {}),
            )
            async with dspex.open_runtime(settings) as runtime:
                session = runtime.session("s")
                await session.initialize()
                for name, value in (variables or {}).items():
                    await session.register(name, "float" if isinstance(value, float) else "string", value)
                with trio.CancelScope() as scope:
                    async with trio.open_nursery() as nursery:

                        async def trial():
                            await runtime.run_trial(
                                program,
                                {"question": "?"} if inputs is None else inputs,
                                session=session,
                                trial_id="t",
                                options=options,
                                deadline=trio.current_time() + (60 if seconds is None else seconds),
                            )
                            nursery.cancel_scope.cancel()

                        nursery.start_soon(trial)
                        if cancel_when is not None:
                            await provider.wait_until(cancel_when)
                            scope.cancel()
                        await trio.sleep_forever()
        return read_record(tmp_path, "t")

    return run


@pytest.fixture
def no_network(monkeypatch):
    """What is replayed reaches nobody."""

    def refuse(self, address):
        raise AssertionError(f"connected to {address}")

    def forbid():
        monkeypatch.setattr(socket.socket, "connect", refuse)

    return forbid


async def same(recorded, **options):
    """Replay it in virtual time, in a thread of its own, and check that it came to the same."""
    replayed = await trio.to_thread.run_sync(lambda: replay_sync(recorded, **options))
    replayed.check()
    return replayed


async def test_an_answer_is_the_same_answer(record, no_network):
    recorded = await record(PREDICT, YES)
    no_network()
    replayed = await same(recorded)
    assert replayed.outcome.prediction == YES
    assert replayed.notes == ()
    [call], [then] = (
        replayed.outcome.trace[0].lm_calls,
        recorded.result["trace"][0]["lm_calls"],
    )
    assert call.messages_json == then["messages_json"]
    assert call.usage.total_tokens == then["usage"]["total_tokens"]
    assert (call.cost_usd, call.cost_known) == (then["cost_usd"], then["cost_known"])


async def test_variables_are_those_that_were_applied(record):
    program = {**PREDICT, "config_space": {"temperature": "heat", "instructions": "told"}}
    recorded = await record(program, YES, variables={"heat": 0.25, "told": "Be brief."})
    replayed = await same(recorded)
    assert {path: bound.value for path, bound in replayed.outcome.variables.items()} == {
        "temperature": 0.25,
        "instructions": "Be brief.",
    }
    assert replayed.notes == ()


async def test_an_agent_is_told_again_what_its_tools_returned_and_runs_none_of_them(record, no_network):
    calls = []

    @dspex.tool(name="tests.search")
    def search(word: str) -> list[str]:
        """Search."""
        calls.append(word)
        if len(calls) == 1:
            raise LookupError("nothing there")
        return ["nursery"]

    def step(tool, **arguments):
        return {"next_thought": "hm", "next_tool_name": tool, "next_tool_args": arguments}

    program = {
        "python_class": "dspy.ReAct",
        "signature": "question -> answer",
        "dependencies": {"tools": [{"tool": "tests.search"}]},
    }
    replies = step("tests.search", word="a"), step("tests.search", word="b"), step("finish"), {"reasoning": "r", **YES}
    recorded = await record(program, *replies)
    assert calls == ["a", "b"]
    no_network()
    replayed = await same(recorded)
    assert "nursery" in str(replayed.outcome.prediction["trajectory"])
    del TOOL_REGISTRY["tests.search"]
    await same(recorded)
    assert calls == ["a", "b"]
    assert "tests.search" not in TOOL_REGISTRY


async def test_elixir_tools_are_replayed_too(record):
    @dspex.elixir_tool
    def look_up(word: str) -> dict:
        """Look it up."""
        return {"found": word}

    @dspex.register("tests.LooksUp")
    class LooksUp(dspy.Module):
        def __init__(self, tools):
            super().__init__()
            self.tools = tools

        def forward(self, question):
            return dspy.Prediction(found=self.tools[0](word=question))

    program = {"python_class": "tests.LooksUp", "dependencies": {"tools": [{"elixir_tool": "look_up"}]}}
    recorded = await record(program)
    del ELIXIR_TOOLS["look_up"]
    replayed = await same(recorded)
    assert replayed.outcome.prediction == {"found": {"found": "?"}}
    assert "look_up" not in ELIXIR_TOOLS
    everything = {**program, "dependencies": {"tools": {"elixir_tools": "*"}}}
    await same({**recorded.record, "program": everything})


async def test_a_deadline_comes_at_its_time_while_the_model_is_still_asked(record, virtual_clock):
    recorded = await record(PREDICT, Hang(), seconds=5)
    assert recorded.kind == "DEADLINE_EXCEEDED"
    timeline = Timeline()
    replayed = await replay(recorded, timeline=timeline)
    replayed.check()
    assert replayed.outcome.stage.name == "EXECUTE"
    timeline.expect("lm_started@0.0", "rung:wake@4.9", "deadline@4.9")  # the reply margin is off


async def test_latencies_are_virtual(record, no_network):
    recorded = await record(PREDICT, YES)
    slow = json.loads(json.dumps(recorded.record))
    slow["outcome"]["success"]["trace"][0]["lm_calls"][0]["latency_ms"] = 50_000.0
    replayed = await same(slow)
    assert replayed.outcome.latency_ms == pytest.approx(50_000, abs=1)
    slow["time_ms"] = 40_000.0
    replayed = await trio.to_thread.run_sync(lambda: replay_sync(slow))
    assert replayed.outcome.kind is FailureKind.DEADLINE_EXCEEDED
    assert "it ended as DEADLINE_EXCEEDED in EXECUTE" in replayed.differences[0]


@pytest.mark.parametrize(
    ("reply", "error_type"),
    [
        (Refusal(429, retry_after=3), "LMRateLimitError"),
        (Refusal(500), "LMServerError"),
        (Refusal(401), "LMAuthError"),
        (Malformed(), "LMProviderError"),
    ],
)
async def test_what_the_provider_refuses_is_refused_again(record, reply, error_type):
    recorded = await record(PREDICT, reply)
    [failed] = [event["lm_failed"] for event in recorded.record["events"] if "lm_failed" in event]
    assert failed["error_type"].endswith(error_type)
    replayed = await same(recorded)
    assert replayed.outcome.error_type.endswith(error_type)
    assert replayed.outcome.retry_after == (3.0 if error_type == "LMRateLimitError" else None)
    assert replayed.outcome.error_message == recorded.failure["error_message"]


async def test_an_error_that_the_program_kept_to_itself_is_an_error_again(record):
    dspex.register("tests.Tries")(Tries)
    recorded = await record({"python_class": "tests.Tries"}, Refusal(429, retry_after=0.01), YES)
    replayed = await same(recorded)
    assert replayed.outcome.prediction == {"status": 429, "answer": "yes"}


async def test_a_reply_that_could_not_be_parsed_is_asked_for_again(record):
    replayed = await same(await record(PREDICT, "nonsense", YES))
    assert replayed.outcome.prediction == YES
    assert len(replayed.outcome.trace[0].lm_calls) == 2
    replayed = await same(await record(PREDICT, "nonsense", "more nonsense"))
    assert replayed.outcome.error_type.endswith("AdapterParseError")


async def test_dspys_own_retries_are_one_call_as_they_were(record):
    recorded = await record(PREDICT, Refusal(500, retry_after=0), YES, lm_args={"num_retries": 2})
    replayed = await same(recorded)
    assert len(replayed.outcome.trace[0].lm_calls) == 1


async def test_several_completions_and_streams_and_caches_make_no_difference(record):
    replayed = await same(await record({**PREDICT, "parameters": {"n": 2}}, YES, {"answer": "no"}))
    assert [one["answer"] for one in replayed.outcome.completions] == ["yes", "no"]

    @dspex.register("tests.Twice")
    class Twice(dspy.Module):
        def __init__(self):
            super().__init__()
            self.ask = dspy.Predict("question -> answer")

        def forward(self, question):
            return dspy.Prediction(answers=[self.ask(question=question).answer for _ in range(2)])

    recorded = await record({"python_class": "tests.Twice"}, {"answer": "once"}, inputs={"question": "cached?"})
    assert recorded.result["cost"]["cache_hits"] == 1
    replayed = await same(recorded)
    assert (replayed.outcome.cost.cache_hits, replayed.outcome.cost.lm_calls) == (1, 2)


async def test_questions_that_were_asked_at_once_get_their_own_answers(record):
    @dspex.register("tests.AtOnce")
    class AtOnce(dspy.Module):
        def __init__(self):
            super().__init__()
            self.ask = dspy.Predict("question -> answer")

        def forward(self, question):
            pairs = [(self.ask, {"question": f"{number}?"}) for number in range(6)]
            found = dspy.Parallel(num_threads=3, disable_progress_bar=True)(pairs)
            return dspy.Prediction(answers=[one.answer for one in found])

    script = Script(prompts={f"\n{number}?": {"answer": f"it is {number}"} for number in range(6)})
    recorded = await record({"python_class": "tests.AtOnce"}, script=script)
    replayed = await same(recorded)
    assert replayed.outcome.prediction == {"answers": [f"it is {number}" for number in range(6)]}
    assert replayed.notes == ()


async def test_whoever_awaits_its_model_gets_the_same_answer(record):
    @dspex.register("tests.Awaits")
    class Awaits(dspy.Module):
        def __init__(self):
            super().__init__()
            self.ask = dspy.Predict("question -> answer")

        def forward(self, question):
            return asyncio.run(self.ask.acall(question=question))

    replayed = await same(await record({"python_class": "tests.Awaits"}, YES))
    assert replayed.outcome.prediction == YES


async def test_the_programs_failures_and_those_of_its_tools_are_the_same(record):
    await same(await record({"python_class": "dspy.Nothing"}))
    await same(await record({**PREDICT, "config_space": {"temperature": "not there"}}))
    await same(await record(PREDICT, inputs={"query": "?"}))
    dspex.register("tests.Raises")(misbehaving.Raises)
    await same(await record({"python_class": "tests.Raises"}))

    @dspex.tool(name="tests.broken")
    def broken(word: str) -> str:
        """Fails."""
        raise LookupError(f"no {word}")

    @dspex.register("tests.Calls")
    class Calls(dspy.Module):
        def __init__(self, tool):
            super().__init__()
            self.tool = tool

        def forward(self, question):
            return self.tool(word=question)

    program = {"python_class": "tests.Calls", "dependencies": {"tool": {"tool": "tests.broken"}}}
    replayed = await same(await record(program))
    assert replayed.outcome.kind is FailureKind.TOOL_ERROR
    assert replayed.outcome.error_message == "no ?"


async def test_a_caller_that_went_away_goes_away_again(record):
    recorded = await record(PREDICT, Hang(), cancel_when=lambda seen: seen.owed == 1)
    assert recorded.kind == "CANCELLED"
    replayed = await same(recorded)
    assert replayed.outcome.stage.name == "EXECUTE"


async def test_a_thread_that_was_late_to_end_was_in_a_call_all_the_same(record):
    """On a busy machine, the caller is answered before it is known how the thread ended."""
    recorded = await record(PREDICT, Hang(), seconds=0.3)
    failure = {**recorded.failure, "details": {"rung": "abandon", "stuck": "true"}}
    replayed = await same({**recorded.record, "outcome": {"failure": failure}})
    assert replayed.outcome.details["rung"] == "wake"


async def test_what_a_program_wrote_is_written_again_and_what_it_read_can_be_given(record):
    @dspex.register("tests.Counts")
    class Counts(dspy.Module):
        def forward(self, question):
            self.session.set("heat", self.session.get("read") + 1)
            return dspy.Prediction(heat=self.session.get("heat"))

    recorded = await record({"python_class": "tests.Counts"}, variables={"heat": 0.5, "read": 2.0})
    replayed = await trio.to_thread.run_sync(lambda: replay_sync(recorded))
    assert replayed.outcome.kind is FailureKind.VARIABLE_NOT_FOUND
    replayed = await same(recorded, variables={"read": 2.0})
    assert replayed.outcome.variables["session:heat"].value == 3.0


@pytest.mark.parametrize("options", [TrialOptions(omit_trace=True), TrialOptions(omit_prompts=True)])
async def test_a_trial_without_prompts_or_trace_says_that_it_cannot_be_replayed(record, options):
    recorded = await record(PREDICT, YES, options=options)
    with pytest.raises(CannotReplay, match="the trial was run with omit_"):
        await replay(recorded)


async def test_what_ended_a_trial_from_outside_or_while_it_computed_is_not_replayed(record):
    recorded = await record(PREDICT, YES)
    failure = {
        "kind": "FAILURE_KIND_OVERLOADED",
        "stage": "STAGE_ADMISSION",
        "error_type": "E",
        "error_message": "full",
    }
    with pytest.raises(CannotReplay, match="OVERLOADED in ADMISSION: that was the worker's doing"):
        await replay({**recorded.record, "outcome": {"failure": failure}})
    for kind, details, said in [
        ("DEADLINE_EXCEEDED", {"rung": "raise"}, r"was computing, .* \(rung raise\)"),
        ("DEADLINE_EXCEEDED", {"rung": "abandon"}, r"was computing, .* \(rung abandon\)"),
        ("VARIABLE_INVALID", {}, "the record does not have its value"),
    ]:
        failure = {**failure, "kind": f"FAILURE_KIND_{kind}", "stage": "STAGE_EXECUTE", "details": details}
        with pytest.raises(CannotReplay, match=said):
            await replay({**recorded.record, "outcome": {"failure": failure}})


async def test_a_record_of_a_version_that_did_not_say_why_calls_failed_is_read_as_far_as_it_goes(record):
    recorded = json.loads(json.dumps((await record(PREDICT, Refusal(429, retry_after=3))).record))
    recorded["events"] = [event for event in recorded["events"] if "lm_failed" not in event]
    del recorded["worker"]["lm"]
    replayed = await same(recorded)
    assert replayed.outcome.retry_after == 3.0
    [entry] = recorded["outcome"]["failure"]["partial_trace"]
    entry["lm_calls"] *= 2
    with pytest.raises(CannotReplay, match="the record does not say why"):
        await replay(recorded)


async def test_a_stage_that_was_too_slow_or_a_store_that_failed_is_so_again(record):
    dspex.register("tests.SleepsInConstructor")(misbehaving.SleepsInConstructor)
    recorded = await record({"python_class": "tests.SleepsInConstructor"}, inputs={}, settings={"hydrate_timeout": 0.1})
    replayed = await same(recorded)
    assert replayed.outcome.details["budget"] == "hydrate_timeout"
    failure = {**recorded.failure, "stage": "STAGE_SYNC", "details": {}, "variables": {}}
    program = {**PREDICT, "config_space": {"temperature": "heat"}}
    events = [event for event in recorded.record["events"] if event.get("stage", {}).get("stage") != "STAGE_EXECUTE"]
    hung = {**recorded.record, "program": program, "inputs": {"question": "?"}, "time_ms": 2000.0, "events": events}
    await same({**hung, "outcome": {"failure": failure}})
    failure = {
        **failure,
        "kind": "FAILURE_KIND_STORE_UNAVAILABLE",
        "error_type": "dspex_trio.model.errors.StoreUnavailable",
    }
    await same({**hung, "time_ms": 60_000.0, "outcome": {"failure": failure}})


async def test_another_outcome_is_told_so_that_people_see_what_differs(record):
    version = 1

    @dspex.register("tests.Changes")
    class Changes(dspy.Module):
        def __init__(self):
            super().__init__()
            self.ask = dspy.Predict("question -> answer" if version == 1 else "question, hint -> answer")

        def forward(self, question):
            if version == 1:
                return dspy.Prediction(answer=self.ask(question=question).answer, gone=1)
            self.ask(question=question, hint="none")
            answer = self.ask(question=question, hint="none").answer
            return dspy.Prediction(answer=answer)

    recorded = await record({"python_class": "tests.Changes"}, YES)
    version = 2
    replayed = await trio.to_thread.run_sync(lambda: replay_sync(recorded))
    with pytest.raises(AssertionError) as caught:
        replayed.check()
    said = str(caught.value)
    assert "the replay of trial 't' came to another outcome:" in said
    assert "it ended as PROGRAM_ERROR in EXECUTE" in said
    assert "NotRecorded: predictor 'ask' asked its model once more than in the record" in said
    assert "note: predictor 'ask' asked with another prompt than in the record" in said
    recorded.record["outcome"]["success"]["prediction"] = {"answer": "no", "gone": 1, "new": 2}
    version = 1
    replayed = await trio.to_thread.run_sync(lambda: replay_sync(recorded))
    assert replayed.differences == (
        "prediction.answer is 'yes'; recorded is 'no'",
        "prediction.new is missing; recorded is 2",
    )


async def test_isolated_programs_are_replayed_in_this_process(record):
    seen = []
    recorded = await record({**PREDICT}, YES)  # before there is anything to start a child for

    @dspex.register("tests.Isolated", isolation="process")
    class Isolated(dspy.Module):
        def __init__(self):
            super().__init__()
            self.ask = dspy.Predict("question -> answer")

        def forward(self, question):
            seen.append(threading.get_ident())
            return self.ask(question=question)

    trace = json.loads(json.dumps(recorded.record["outcome"]["success"]["trace"]).replace('"self"', '"ask"'))
    outcome = {"success": {**recorded.record["outcome"]["success"], "trace": trace}}
    await same({**recorded.record, "program": {"python_class": "tests.Isolated"}, "outcome": outcome})
    assert len(seen) == 1


async def test_a_record_is_found_by_its_trial_in_a_file_or_a_directory(record, tmp_path):
    await record(PREDICT, YES)
    [file] = tmp_path.glob("*.jsonl")
    assert read_record(file, "t").trial_id == read_record(str(tmp_path), "t").trial_id == "t"
    with pytest.raises(LookupError, match="no record of trial 'x' \\(it has 1 others\\)"):
        read_record(tmp_path, "x")
    assert len(read_records(tmp_path)[0]) == 1


def test_what_an_option_leaves_out_is_the_requests_alone():
    """`max_trace_bytes` cuts an answer, and would cut what is compared."""
    assert replace(TrialOptions(max_trace_bytes=10), max_trace_bytes=0) == TrialOptions()


async def test_a_delay_of_the_provider_is_part_of_the_record(record):
    recorded = await record(PREDICT, Answer(fields=YES, delay=0.05))
    replayed = await same(recorded)
    assert replayed.outcome.latency_ms >= 50
