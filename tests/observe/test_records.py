"""Records: every trial leaves a line that says all of it, without secrets, and nobody waits for the disk."""

import json
import math
import threading
from dataclasses import replace

import pytest
import trio
import trio.testing

from dspex_trio.model import (
    LanguageModel,
    LmCall,
    LmFinished,
    LmStarted,
    OutputChunk,
    Program,
    Signature,
    StageStarted,
    ToolFinished,
    ToolStarted,
    TraceEntry,
    TrialFailure,
    TrialOptions,
    TrialRequest,
    TrialSuccess,
)
from dspex_trio.model.errors import FailureKind, Stage
from dspex_trio.observing.records import CannotRecord, open_records, read_records, records
from dspex_trio.observing.redaction import Redactor

PROGRAM = Program("dspy.Predict", signature=Signature("question -> answer"), name="qa")
KEY = "sk-abcdefghijklmnopqrst"


def request(**given):
    return TrialRequest(
        PROGRAM, {"question": "2+2?"}, trial_id="t1", session_id="s1", arrived=1.0, deadline=3.5, **given
    )


def read(directory):
    [file] = directory.glob("trials-*.jsonl")
    return [json.loads(line) for line in file.read_text().splitlines()]


async def test_a_trial_leaves_one_line_that_says_all_of_it(tmp_path):
    call = LmCall("m", messages_json='[{"role": "user"}]', response_json="{}")
    outcome = TrialSuccess(
        {"answer": 4}, trace=(TraceEntry("self", "Predict", "q -> a", {}, {}, lm_calls=(call,)),), trial_id="t1"
    )
    async with open_records(tmp_path / "made") as opened:
        asked = opened.begins(request(metadata={"generation": "7"}))
        asked.watch(StageStarted(Stage.EXECUTE))
        asked.watch(ToolStarted(1, "search", {"query": "cats"}))
        asked.watch(ToolFinished(1, ["tom"], "", 3.0))
        opened.trial_ended(asked, outcome)
    [file] = (tmp_path / "made").iterdir()
    assert file.stat().st_mode & 0o777 == 0o600
    [record] = read(tmp_path / "made")
    assert record["format"] == "dspex_trio.trial/1"
    assert (record["trial_id"], record["session_id"], record["metadata"]) == ("t1", "s1", {"generation": "7"})
    assert (record["inputs"], record["time_ms"]) == ({"question": "2+2?"}, 2500.0)
    assert record["program"] == {"python_class": "dspy.Predict", "signature": "question -> answer", "name": "qa"}
    assert record["outcome"]["success"]["prediction"] == {"answer": 4}
    [lm_call] = record["outcome"]["success"]["trace"][0]["lm_calls"]
    assert lm_call["messages_json"] == '[{"role": "user"}]'
    stage, started, finished = record["events"]
    assert stage["stage"] == {"stage": "STAGE_EXECUTE"}
    assert started["tool_started"] == {"call": 1, "tool": "search", "arguments": {"query": "cats"}}
    assert finished["tool_finished"]["result"] == ["tom"]
    assert record["worker"]["dspy"]


async def test_a_failure_and_a_thread_that_ended_late_are_recorded_too(tmp_path):
    failure = TrialFailure(FailureKind.DEADLINE_EXCEEDED, Stage.EXECUTE, "E", "late", details={"rung": "abandon"})
    async with open_records(tmp_path) as opened:
        opened.trial_ended(opened.begins(request()), failure)
        opened.thread_ended("t1", {"rung": "raise", "rung_ms": "312"})
    failed, late = read(tmp_path)
    assert failed["outcome"]["failure"]["details"] == {"rung": "abandon"}
    assert (late["format"], late["trial_id"]) == ("dspex_trio.thread/1", "t1")
    assert late["details"]["rung"] == "raise"


async def test_why_calls_failed_is_recorded_beside_the_trace_and_what_was_asked_is_not_twice(tmp_path):
    call = LmCall("m", messages_json='[{"role": "user"}]', started_ms=12.5)
    async with open_records(tmp_path, lm="openai/m") as opened:
        asked = opened.begins(request())
        asked.watch(LmFinished(1, call))
        asked.watch(LmFinished(2, call, "dspy.LMRateLimitError", "slow down", 429, 3.0))
        asked.watch(ToolFinished(3, None, "LookupError", 1.0, "nothing there"))
        opened.trial_ended(asked, TrialSuccess({}))
    [record] = read(tmp_path)
    assert record["worker"]["lm"] == "openai/m"
    failed, tool = record["events"]
    assert failed["lm_failed"] == {
        "call": 2, "started_ms": 12.5, "error_type": "dspy.LMRateLimitError", "error_message": "slow down",
        "status": 429, "retry_after": 3.0,
    }  # fmt: skip
    assert (tool["tool_finished"]["error_type"], tool["tool_finished"]["error_message"]) == (
        "LookupError",
        "nothing there",
    )


async def test_secrets_are_redacted_wherever_they_are(tmp_path):
    async with open_records(tmp_path, redact=Redactor()) as opened:
        asked = TrialRequest(PROGRAM, {"question": f"my key is {KEY}"}, metadata={KEY: KEY})
        opened.trial_ended(opened.begins(asked), TrialSuccess({"answer": [KEY]}))
    assert KEY not in next(tmp_path.glob("*.jsonl")).read_text()
    assert read(tmp_path)[0]["inputs"] == {"question": "my key is [redacted]"}


async def test_a_key_that_the_request_brings_is_no_part_of_its_record(tmp_path):
    """Whatever its shape, also where it is refused: its name says what it is."""
    lm = LanguageModel("openai/x", {"api_key": "oddly-shaped", "temperature": 1})
    asked = TrialRequest(replace(PROGRAM, lm=lm), {"question": "oddly-shaped?"})
    async with open_records(tmp_path) as opened:
        opened.trial_ended(opened.begins(asked), TrialSuccess({}))
    [record] = read(tmp_path)
    assert record["program"]["lm"]["params"] == {"api_key": "[redacted]", "temperature": 1}
    assert record["inputs"] == {"question": "[redacted]?"}


async def test_metadata_with_the_name_of_a_secret_is_no_part_of_its_record(tmp_path):
    async with open_records(tmp_path) as opened:
        asked = opened.begins(request(metadata={"Authorization": "oddly-shaped", "generation": "7"}))
        opened.trial_ended(asked, TrialSuccess({"answer": "oddly-shaped?"}))
    [record] = read(tmp_path)
    assert record["metadata"] == {"Authorization": "[redacted]", "generation": "7"}
    assert record["outcome"]["success"]["prediction"] == {"answer": "[redacted]?"}


@pytest.mark.parametrize("also", ["", KEY], ids=["written at once", "redacted first"])
async def test_a_record_is_one_line_for_every_reader(tmp_path, also):
    forged = 'a\u2028{"format": "dspex_trio.trial/1"}\u202e\x85\x7f'
    async with open_records(tmp_path) as opened:
        opened.trial_ended(opened.begins(request()), TrialSuccess({"answer": forged, "also": also}))
    [file] = tmp_path.glob("trials-*.jsonl")
    [line] = file.read_text().splitlines()
    assert not any(character in line for character in "\u2028\u202e\x85\x7f")
    assert json.loads(line)["outcome"]["success"]["prediction"]["answer"] == forged


async def test_a_trial_that_leaves_out_its_trace_leaves_no_tool_calls_in_its_record(tmp_path):
    """What tools were told and answered is as private as what models were."""
    async with open_records(tmp_path) as opened:
        asked = opened.begins(request(options=TrialOptions(omit_trace=True)))
        asked.watch(StageStarted(Stage.EXECUTE))
        asked.watch(ToolStarted(1, "search", {"query": "cats"}))
        asked.watch(ToolFinished(1, ["tom"], "", 3.0))
        opened.trial_ended(asked, TrialSuccess({}))
    assert [set(event) - {"at_ms"} for event in read(tmp_path)[0]["events"]] == [{"stage"}]


async def test_who_watches_besides_hears_everything_and_the_record_keeps_what_it_needs(tmp_path):
    heard = []
    events = [LmStarted(1, "self", "m"), OutputChunk("self", "answer", "x", False), StageStarted(Stage.SYNC)]
    async with open_records(tmp_path) as opened:
        asked = opened.begins(request(watch=heard.append))
        assert asked.stream_output
        for event in events:
            asked.watch(event)
        opened.trial_ended(asked, TrialSuccess({}))
    assert heard == events
    assert [set(event) - {"at_ms"} for event in read(tmp_path)[0]["events"]] == [{"stage"}]


async def test_recording_alone_asks_no_provider_to_stream(tmp_path):
    async with open_records(tmp_path) as opened:
        assert not opened.begins(request()).stream_output


async def test_what_has_no_json_form_does_not_stop_the_record(tmp_path):
    async with open_records(tmp_path) as opened:
        asked = TrialRequest(PROGRAM, {"question": object(), "x": float("nan"), "n": 2**70, "b": b"\xff"})
        opened.trial_ended(opened.begins(asked), TrialSuccess({"answer": object()}))
    assert read(tmp_path)[0]["inputs"]["n"] == 2**70


@pytest.mark.parametrize("answer", ["sound", KEY, "half an emoji: \ud83d"], ids=["sound", "secret", "half"])
async def test_a_record_means_the_same_whichever_way_it_is_written(tmp_path, answer):
    """Most are written at once; those that hold a secret, or what is no JSON, take more work."""
    inputs = {"nested": [{"n": float("inf"), "b": b"\xff"}, None, True, 0.1, 2**70], "keys": {1: "one"}}
    async with open_records(tmp_path) as opened:
        opened.trial_ended(opened.begins(TrialRequest(PROGRAM, inputs)), TrialSuccess({"answer": answer}))
    nested = [{"n": "Infinity", "b": {"__bytes__": "/w=="}}, None, True, 0.1, 2**70]
    assert read(tmp_path)[0]["inputs"] == {"nested": nested, "keys": {"1": "one"}}


async def test_a_full_queue_drops_records_and_says_how_many(tmp_path, monkeypatch, caplog):
    """The disk stands still; the trials do not wait for it."""
    monkeypatch.setattr(records, "MAX_WAITING", 3)
    monkeypatch.setattr(records, "GATHER_SECONDS", 0)
    moving, writing = threading.Event(), trio.Event()
    token = trio.lowlevel.current_trio_token()
    original = records.Records._write

    def slow(self, lines):
        token.run_sync_soon(writing.set)
        moving.wait(30)
        original(self, lines)

    monkeypatch.setattr(records.Records, "_write", slow)
    async with open_records(tmp_path) as opened:
        opened.trial_ended(opened.begins(request()), TrialSuccess({}))
        await writing.wait()
        for _ in range(10):
            opened.trial_ended(opened.begins(request()), TrialSuccess({}))
        assert opened.dropped == 7
        moving.set()
    assert len(read(tmp_path)) == 4
    assert "7 trial records were dropped" in caplog.text


async def test_trials_that_end_within_a_moment_are_written_together(tmp_path, monkeypatch, virtual_clock):
    """A thread and a file for each of them would cost more than all the rest."""
    writes, token, written = [], trio.lowlevel.current_trio_token(), trio.Event()

    def append(_file, text):
        writes.append(text.count(b"\n"))
        token.run_sync_soon(written.set)

    monkeypatch.setattr(records, "_append", append)
    async with open_records(tmp_path) as opened:
        for _ in range(3):
            opened.trial_ended(opened.begins(request()), TrialSuccess({}))
            await trio.testing.wait_all_tasks_blocked()
            virtual_clock.jump(0.03)
        assert writes == []
        virtual_clock.jump(0.02)
        await written.wait()
        opened.trial_ended(opened.begins(request()), TrialSuccess({}))
    assert writes == [3, 1]


@pytest.mark.parametrize("bound", ["MAX_WAITING", "MAX_WAITING_CHARS"])
async def test_records_that_wait_for_others_are_written_before_one_would_be_dropped(tmp_path, monkeypatch, bound):
    monkeypatch.setattr(records, bound, 4)
    monkeypatch.setattr(records, "GATHER_SECONDS", math.inf)
    token, written = trio.lowlevel.current_trio_token(), trio.Event()
    monkeypatch.setattr(records, "_append", lambda *_: token.run_sync_soon(written.set))
    async with open_records(tmp_path) as opened:
        for _ in range(4):
            opened.trial_ended(opened.begins(TrialRequest(PROGRAM, {})), TrialSuccess({"a": ""}))
            await trio.testing.wait_all_tasks_blocked()
        await written.wait()
        assert opened.dropped == 0


async def test_what_waits_for_others_is_written_when_everything_ends(tmp_path, monkeypatch):
    monkeypatch.setattr(records, "GATHER_SECONDS", math.inf)
    async with open_records(tmp_path) as opened:
        opened.trial_ended(opened.begins(request()), TrialSuccess({}))
        await trio.testing.wait_all_tasks_blocked()
    assert len(read(tmp_path)) == 1


async def test_what_waits_is_bounded_by_its_size_too(tmp_path, monkeypatch):
    """A thousand trials may hold gigabytes of prompts."""
    monkeypatch.setattr(records, "MAX_WAITING_CHARS", 100)
    call = LmCall("m", messages_json="x" * 40, response_json="y" * 20)
    outcome = TrialSuccess({}, trace=(TraceEntry("self", "Predict", "q -> a", {}, {}, lm_calls=(call,)),))
    async with open_records(tmp_path) as opened:
        for _ in range(4):
            opened.trial_ended(opened.begins(request()), outcome)
        assert opened.dropped == 3
        opened.thread_ended("t1", {})
    async with open_records(tmp_path) as opened:
        opened.trial_ended(opened.begins(request()), TrialSuccess({"answer": "x" * 500}))
        assert opened.dropped == 0, "one that is larger than the limit is taken where none waits"
    assert len(read(tmp_path)) == 3


async def test_room_is_made_again_when_records_are_written(tmp_path, monkeypatch):
    monkeypatch.setattr(records, "MAX_WAITING_CHARS", 100)
    async with open_records(tmp_path) as opened:
        for _ in range(5):
            opened.trial_ended(opened.begins(request()), TrialSuccess({"answer": "x" * 80}))
            while opened._chars:
                await trio.lowlevel.checkpoint()
        assert opened.dropped == 0
    assert len(read(tmp_path)) == 5


async def test_tool_calls_of_one_record_are_bounded_by_their_size(tmp_path, monkeypatch):
    monkeypatch.setattr(records, "MAX_EVENT_CHARS", 100)
    async with open_records(tmp_path) as opened:
        asked = opened.begins(request())
        asked.watch(ToolStarted(1, "search", {"query": "cats"}))
        asked.watch(ToolFinished(1, "x" * 200, "", 3.0))
        asked.watch(StageStarted(Stage.SERIALIZE))
        opened.trial_ended(asked, TrialSuccess({}))
    assert [set(event) - {"at_ms"} for event in read(tmp_path)[0]["events"]] == [{"tool_started"}, {"stage"}]


async def test_a_record_says_how_late_the_loop_was_meanwhile(tmp_path):
    async with open_records(tmp_path, late_since={1.0: 0.0125}.__getitem__) as opened:
        opened.trial_ended(opened.begins(request()), TrialSuccess({}))
    assert read(tmp_path)[0]["loop_late_ms"] == 12.5


async def test_a_disk_that_hangs_does_not_keep_the_worker_from_ending(tmp_path, monkeypatch, caplog, virtual_clock):
    moving, written = threading.Event(), threading.Event()

    def hangs(*_args):
        moving.wait(30)
        written.set()

    monkeypatch.setattr(records, "_append", hangs)
    try:
        async with open_records(tmp_path) as opened:
            opened.trial_ended(opened.begins(request()), TrialSuccess({}))
            await trio.testing.wait_all_tasks_blocked()
            opened.trial_ended(opened.begins(request()), TrialSuccess({}))
    finally:
        moving.set()
        written.wait(30)
    assert opened.dropped == 2
    assert "2 trial records were dropped" in caplog.text


async def test_a_disk_that_refuses_is_logged_and_counted_and_the_trials_go_on(tmp_path, caplog):
    async with open_records(tmp_path) as opened:
        [file] = tmp_path.glob("*.jsonl")
        file.unlink()
        file.mkdir()
        opened.trial_ended(opened.begins(request()), TrialSuccess({}))
    assert opened.dropped == 1
    assert "records cannot be written" in caplog.text


async def test_half_a_line_that_a_killed_worker_left_takes_no_other_line_along(tmp_path):
    async with open_records(tmp_path) as opened:
        [file] = tmp_path.glob("*.jsonl")
        file.write_text('{"format": "dspex_trio.tri')
        opened.trial_ended(opened.begins(request()), TrialSuccess({}))
    trials, unreadable = read_records(tmp_path)
    assert ([trial.trial_id for trial in trials], unreadable) == (["t1"], 1)


async def test_a_directory_that_cannot_be_is_told_at_the_start(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(CannotRecord, match="records cannot be written to"):
        async with open_records(tmp_path / "file" / "below"):
            pass


async def test_records_are_written_when_the_block_is_cancelled(tmp_path):
    with trio.CancelScope() as scope:
        async with open_records(tmp_path) as opened:
            opened.trial_ended(opened.begins(request()), TrialSuccess({}))
            scope.cancel()
            await trio.lowlevel.checkpoint()
    assert len(read(tmp_path)) == 1
