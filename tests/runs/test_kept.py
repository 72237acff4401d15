"""What is kept of a run: nothing that was paid for is lost, and nothing of one configuration is told as another's."""

import json
import os
import signal
import subprocess
import sys
import threading
from dataclasses import replace

import pytest
import trio

from dspex_trio.model.errors import FailureKind
from dspex_trio.runs import CannotKeep, compare, metric_named, of_plan, open_results, run_trials, summarized

from .kit import BROKEN, BUSY, GOOD, PROGRAM, Worker, in_file, plan, traced

FOUR = {"answer": "four"}
MINI, LARGE = {"model": "openai/mini"}, {"model": "openai/large"}


@pytest.fixture
def path(tmp_path):
    return tmp_path / "results.jsonl"


class Exits(BaseException):
    """Of a library that has its own way to end a process, as pytest has."""


class Unspeakable(Exception):
    def __str__(self):
        raise SystemExit(4)


def raising(error):
    def metric(expected, prediction):
        raise error

    return metric


# ---- metrics that fail ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (SystemExit(3), "SystemExit: 3"),
        (KeyboardInterrupt(), "KeyboardInterrupt: "),
        (GeneratorExit(), "GeneratorExit: "),
        (Exits("now"), "Exits: now"),
        (KeyError("anwser"), "KeyError: 'anwser'"),
        (Unspeakable(), "Unspeakable: its text cannot be had"),
    ],
)
async def test_what_a_metric_raises_is_its_own_failure_and_no_outcome_is_lost(path, error, told):
    with open_results(path) as results:
        progress = await run_trials(plan(3, expected=FOUR), [Worker(GOOD)], results, metric=raising(error))
        [line] = summarized(results.by_id.values())
    assert progress.ended == {"OK": 3}
    assert [(each["score"], each["metric_error"]) for each in in_file(path)] == [(None, told)] * 3
    assert (line.metric_asked, line.metric_failed, line.metric_error, line.score) == (3, 3, told, None)


async def test_an_outcome_is_written_before_a_metric_of_yours_sees_it(path):
    """It may end the process from below Python."""
    seen = []
    metric = lambda _expected, _prediction: seen.append(in_file(path)) or 1.0  # noqa: E731
    with open_results(path) as results:
        await run_trials(plan(expected=FOUR), [Worker(GOOD)], results, metric=metric)
    [[line]] = seen
    assert line["outcome"]["success"]["prediction"] == FOUR
    assert [each["score"] for each in in_file(path)] == [1.0]


async def test_a_metric_that_never_returns_is_left_and_the_next_run_scores_what_it_did_not(path):
    for_ever = threading.Event()
    trials = plan(3, expected=FOUR)
    with open_results(path) as results:
        progress = await run_trials(
            trials, [Worker(GOOD)], results, metric=lambda *_: for_ever.wait(), metric_seconds=0.01
        )
    for_ever.set()
    assert progress.metric_hangs
    assert progress.ended == {"OK": 3}
    errors = [each.get("metric_error") for each in in_file(path)]
    assert sorted(errors, key=str) == [None, None, "TimeoutError: it did not return within 0.01 s"]
    second = Worker(GOOD)
    with open_results(path) as results:
        await run_trials(trials, [second], results, metric=lambda *_: 1)
    assert second.ran == []
    assert [each["score"] for each in in_file(path)] == [1.0] * 3


async def test_a_metric_that_changes_what_it_is_given_changes_no_result(path):
    def metric(expected, prediction):
        expected.clear()
        return 1

    with open_results(path) as results:
        await run_trials(plan(expected=FOUR), [Worker(GOOD)], results, metric=metric)
    assert [each["expected"] for each in in_file(path)] == [FOUR]


# ---- scored again ---------------------------------------------------------------------------------------------------


async def run_again(path, trials, metric=None, worker=None, **options):
    """What the file is compared to, then the lines of the summary."""
    metric = None if metric is None else metric_named(metric)
    worker = worker or Worker(BROKEN)  # what must not be run again
    with open_results(path) as results:
        await run_trials(trials, [worker], results, metric=metric, **options)
        return summarized(of_plan(trials, results))


async def test_another_metric_and_a_corrected_expectation_score_what_is_there_again(path):
    good = Worker(GOOD)
    await run_again(path, plan(2, expected={"answer": "FOUR"}), "exact_match", good)
    assert [each["score"] for each in in_file(path)] == [0.0, 0.0]
    [line] = await run_again(path, plan(4, expected={"answer": "FOUR"}), "contains", good)
    assert (line.score, line.trials, line.metric) == (1.0, 4, "contains")
    [line] = await run_again(path, plan(4, expected={"answer": "five"}), "exact_match")
    assert (line.score, line.metric) == (0.0, "exact_match")
    [line] = await run_again(path, plan(4, expected=FOUR))
    assert (line.score, line.metric) == (None, None), "no metric says what the score is now"
    assert sorted(name for name, *_ in good.ran) == ["t0", "t1", "t2", "t3"]
    assert [each["expected"] for each in in_file(path)] == [FOUR] * 4


async def test_a_metric_that_is_given_to_a_finished_run_scores_it(path):
    await run_again(path, plan(2, expected=FOUR), None, Worker(GOOD))
    [line] = await run_again(path, plan(2, expected=FOUR), "exact_match")
    assert line.score == 1.0


async def test_a_metric_whose_file_has_changed_is_another_one(path, tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(sys, "dont_write_bytecode", True)  # as old as the file, to the second
    trials = plan(expected=FOUR)
    for number in (1, 2):
        (tmp_path / "changing.py").write_text(f"def metric(expected, prediction):\n    return 0.{number}\n")
        monkeypatch.delitem(sys.modules, "changing", raising=False)
        [line] = await run_again(path, trials, "changing:metric", Worker(GOOD))
        assert line.score == number / 10
        assert line.metric == "changing:metric"


async def test_true_is_not_one_where_it_is_expected(path):
    await run_again(path, plan(expected={"answer": 1}), "exact_match", Worker(GOOD))
    with open_results(path) as results:
        assert compare(plan(expected={"answer": 1}), results).stale == []
        assert len(compare(plan(expected={"answer": True}), results).stale) == 1


# ---- configurations -------------------------------------------------------------------------------------------------


async def test_another_language_model_is_another_configuration_with_a_row_of_its_own(path):
    await run_again(path, plan(3), worker=Worker(GOOD), lm=MINI)
    worker = Worker(GOOD)
    found = await run_again(path, plan(4), worker=worker, lm=LARGE)
    assert len(worker.ran) == 4
    assert sorted((line.lm["model"], line.trials) for line in found) == [("openai/large", 4), ("openai/mini", 3)]
    hot = {**MINI, "temperature": 1}
    await run_again(path, plan(3), worker=(worker := Worker(GOOD)), lm=hot)
    assert len(worker.ran) == 3, "other arguments make another one"
    await run_again(path, plan(3), lm=MINI)
    assert len(in_file(path)) == 10


async def test_a_program_that_names_its_model_is_not_another_one_with_another_default(path):
    named = {**PROGRAM, "lm": "openai/own"}
    await run_again(path, plan(program=named), worker=Worker(GOOD), lm=MINI)
    [line] = await run_again(path, plan(program=named), lm=LARGE)
    assert (line.lm, line.kinds) == ({"model": "openai/own"}, {"OK": 1})


async def test_another_program_is_another_configuration_with_a_row_of_its_own(path):
    await run_again(path, plan(2), worker=Worker(GOOD))
    other = {**PROGRAM, "signature": "question -> answer: int"}
    found = await run_again(path, plan(2, program=other), worker=Worker(BROKEN))
    assert [line.trials for line in found] == [2, 2]
    assert len({line.program for line in found}) == 2
    assert all(line.program.startswith("dspy.Predict#") for line in found)


async def test_workers_with_different_models_have_rows_by_what_their_calls_say(path):
    """Which model a worker elsewhere is started with is not told in advance."""
    answers = [replace(GOOD, trace=traced("a")), replace(GOOD, trace=traced("b")), replace(GOOD, trace=traced("b"))]
    found = await run_again(path, plan(3), worker=Worker(*answers))
    assert sorted((line.lm["model"], line.trials) for line in found) == [("a", 1), ("b", 2)]


async def test_a_trial_that_failed_before_its_first_call_stands_with_the_others(path):
    found = await run_again(path, plan(2), worker=Worker(BROKEN, replace(GOOD, trace=traced("a"))))
    assert [(line.lm, line.trials) for line in found] == [({"model": "a"}, 2)]


def old(path, count=2, **more):
    """Results as the version before wrote them: nothing of program, model and metric."""
    trials = plan(count, expected=FOUR)
    call = {"model": "openai/mini"}
    success = {"prediction": FOUR, "trace": [{"lm_calls": [call]}], "timings": {"total_ms": 1.0}}
    path.write_text(
        "".join(
            json.dumps({"id": each.id, "digest": each.digest, "variables": {}, "expected": FOUR, **more,
                        "outcome": {"success": success}}) + "\n"
            for each in trials
        )
    )  # fmt: skip
    return trials


async def test_results_of_an_older_version_go_on_and_it_is_known_what_is_not(path):
    trials = old(path, score=0.25)
    with open_results(path) as results:
        kept = compare(trials, results, lm=LARGE)
        assert (kept.missing, kept.unknown_models, kept.unknown_metrics) == ([], 2, 2)
        scoring = compare(trials, results, lm=LARGE, metric={"metric": "exact_match", "metric_digest": ""})
        assert scoring.reasons == {"nobody knows which metric scored them": 2}
    [line] = await run_again(path, trials, "exact_match", lm=LARGE)
    assert (line.score, line.lm) == (1.0, {"model": "openai/mini"})
    assert len(in_file(path)) == 2


# ---- failures, run again --------------------------------------------------------------------------------------------


async def test_failures_are_run_again_where_that_is_asked_for_and_replaced(path):
    trials = plan(3, expected=FOUR)
    await run_again(path, trials, worker=Worker(BROKEN, BUSY, GOOD), retries=0)
    busy = frozenset({FailureKind.OVERLOADED})
    await run_again(path, trials, worker=(worker := Worker(GOOD)), retry_failed=busy)
    assert len(worker.ran) == 1
    kinds = [next(iter(each["outcome"])) for each in sorted(in_file(path), key=lambda each: each["id"])]
    assert sorted(kinds) == ["failure", "success", "success"]
    [line] = await run_again(path, trials, "exact_match", Worker(GOOD), retry_failed=frozenset(FailureKind))
    assert (line.kinds, line.score) == ({"OK": 3}, 1.0)
    assert sorted(each["id"] for each in in_file(path)) == ["t0", "t1", "t2"]


async def test_a_failure_that_cannot_be_run_again_is_still_there(path, virtual_clock):
    await run_again(path, plan(), worker=Worker(BROKEN))
    gone = Worker(trio.TooSlowError())
    [line] = await run_again(path, plan(), worker=gone, retry_failed=frozenset(FailureKind), retries=0)
    assert line.kinds == {"PROGRAM_ERROR": 1}


async def test_a_failure_of_an_older_version_is_replaced_too(path):
    trials = old(path, 1)
    text = path.read_text().replace('"success": {', '"failure": {"kind": "FAILURE_KIND_LM_ERROR", ')
    path.write_text(text)
    await run_again(path, trials, worker=Worker(GOOD), lm=MINI, retry_failed=frozenset(FailureKind))
    [line] = in_file(path)
    assert "success" in line["outcome"]


KILLED = """
import os, signal, sys
from pathlib import Path
from dspex_trio.runs import open_results
with open_results(Path(sys.argv[1])) as results:
    [old] = results.of("t0")
    results.add({**old, "outcome": {"success": {"prediction": {"answer": "four"}}}})
    results.score(old, {"expected": None, "score": 0.5})
    os.kill(os.getpid(), signal.SIGKILL)
"""


async def test_a_run_that_is_killed_while_it_replaces_results_loses_none(path):
    """What it has added counts, and the next run tidies up."""
    await run_again(path, plan(2), worker=Worker(BROKEN))
    done = subprocess.run([sys.executable, "-c", KILLED, path], check=False)  # noqa: ASYNC221 - ours, and short
    assert done.returncode == -signal.SIGKILL
    assert len(path.read_text().splitlines()) == 4
    with open_results(path) as results:
        assert "success" in results.by_id["t0"]["outcome"]
    first, second = sorted(in_file(path), key=lambda each: each["id"])
    assert (first["id"], first["score"], first["outcome"]["success"]["prediction"]) == ("t0", 0.5, FOUR)
    assert second["outcome"]["failure"]["error_message"] == "broken"


async def test_a_file_that_cannot_be_tidied_keeps_all_lines_and_the_last_ones_count(path, monkeypatch, caplog):
    await run_again(path, plan(), worker=Worker(BROKEN))

    def refuse(*_arguments):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", refuse)
    await run_again(path, plan(), worker=Worker(GOOD), retry_failed=frozenset(FailureKind))
    assert "No space left" in caplog.text
    assert len(path.read_text().splitlines()) == 2
    assert [each.name for each in path.parent.iterdir()] == [path.name]
    monkeypatch.undo()
    with open_results(path) as results:
        assert "success" in results.by_id["t0"]["outcome"]
    assert len(in_file(path)) == 1


async def test_a_link_to_the_results_stays_one_and_their_mode_stays(path, tmp_path):
    await run_again(path, plan(), worker=Worker(BROKEN))
    path.chmod(0o640)
    link = tmp_path / "link"
    link.symlink_to(path)
    await run_again(link, plan(), worker=Worker(GOOD), retry_failed=frozenset(FailureKind))
    assert link.is_symlink()
    assert path.stat().st_mode & 0o777 == 0o640
    assert len(in_file(path)) == 1


@pytest.mark.parametrize(
    "text", ['{"id":"a","inputs":{}}', '{"python_class": "x"}', "no JSON", '{"id":"a","digest":"d","scored":{}}']
)
def test_a_file_without_an_end_of_line_that_holds_something_else_is_not_cut(path, text):
    """Half a line is cut off, and a whole file of one line looked like one."""
    path.write_text(text)
    with pytest.raises(CannotKeep, match="line 1: this is no result"), open_results(path):
        pass
    assert path.read_text() == text


async def test_a_result_of_which_only_the_end_of_line_is_missing_counts(path):
    await run_again(path, plan(), worker=Worker(GOOD))
    path.write_bytes(path.read_bytes().rstrip(b"\n"))
    await run_again(path, plan(2), worker=(worker := Worker(GOOD)))
    assert [name for name, *_ in worker.ran] == ["t1"]
    assert len(in_file(path)) == 2


async def test_long_integers_are_read_again_from_results(path):
    outcome = replace(GOOD, prediction={"answer": 10**5000})
    await run_again(path, plan(), worker=Worker(outcome))
    with open_results(path) as results:
        assert results.by_id["t0"]["outcome"]["success"]["prediction"] == {"answer": 10**5000}
