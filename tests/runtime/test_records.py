"""A runtime that records: every trial leaves a record, whoever ran it and however it ended."""

import json
import threading

import dspy
import pytest
import trio
from dspy.utils import DummyLM

import dspex_trio as dspex
from dspex_trio.observing.records import CannotRecord

PROGRAM = {"python_class": "dspy.Predict", "signature": "question -> answer"}


def read(directory):
    return [json.loads(line) for file in directory.glob("*.jsonl") for line in file.read_text().splitlines()]


async def test_every_trial_leaves_a_record(tmp_path):
    lm = DummyLM([{"answer": "four"}])
    async with dspex.open_runtime(dspex.Settings(record=tmp_path), lm=lm) as runtime:
        await runtime.run_trial(PROGRAM, {"question": "2+2?"}, trial_id="good")
        await runtime.run_trial(PROGRAM, {"query": "2+2?"}, trial_id="bad")
    good, bad = read(tmp_path)
    assert (good["trial_id"], good["outcome"]["success"]["prediction"]) == ("good", {"answer": "four"})
    assert good["outcome"]["success"]["trace"][0]["lm_calls"][0]["messages_json"]
    stages = [event["stage"]["stage"] for event in good["events"]]
    assert stages == [f"STAGE_{name}" for name in ("ADMISSION", "SESSION", "HYDRATE", "SYNC", "EXECUTE", "SERIALIZE")]
    assert bad["outcome"]["failure"]["kind"] == "FAILURE_KIND_INVALID_INPUT"


async def test_a_trial_whose_caller_went_away_is_recorded_as_cancelled(tmp_path):
    @dspex.register("records.Waits")
    class Waits(dspy.Module):
        def forward(self):
            token.run_sync_soon(scope.cancel)
            threading.Event().wait()

    token = trio.lowlevel.current_trio_token()
    async with dspex.open_runtime(dspex.Settings(record=tmp_path)) as runtime:
        with trio.CancelScope() as scope:
            await runtime.run_trial({"python_class": "records.Waits"}, {})
    [record] = read(tmp_path)
    assert record["outcome"]["failure"]["kind"] == "FAILURE_KIND_CANCELLED"


async def test_a_directory_that_cannot_be_stops_the_start(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(CannotRecord):
        async with dspex.open_runtime(dspex.Settings(record=tmp_path / "file")):
            pass
