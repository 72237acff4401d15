"""Runs: every trial has exactly one result, whatever happens to workers, to the run, and to the file."""

import csv
import json
import os
import resource
import signal
import subprocess
import sys
import threading
from dataclasses import replace
from functools import partial
from itertools import pairwise
from pathlib import Path

import pytest
import trio
from click.testing import CliRunner

from dspex_trio import rpc
from dspex_trio.cli.main import main
from dspex_trio.model.errors import StoreUnavailable, VariableInvalid
from dspex_trio.runs import (
    CannotKeep,
    InvalidPlan,
    UnknownMetric,
    WorkerRefused,
    export,
    metric_named,
    open_results,
    read_plan,
    run_trials,
    summarized,
)
from dspex_trio.runs.summary import of_one_type
from dspex_trio.runs.workers import _Sessions
from dspex_trio.runtime.embedded import open_runtime
from dspex_trio.runtime.settings import Settings

from .kit import BROKEN, BUSY, GOOD, PROGRAM, Worker, in_file, lines, plan, traced

HERE = Path(__file__).parent


@pytest.fixture
def kept(tmp_path):
    with open_results(tmp_path / "results.jsonl") as results:
        yield results


# ---- the plan -------------------------------------------------------------------------------------------------------


def test_what_a_line_without_inputs_says_holds_for_those_that_follow():
    first, second = read_plan(
        lines({"program": PROGRAM, "timeout": 3}, {"inputs": {"q": 1}}, {"id": "x", "inputs": {}})
    )
    assert (first.id, second.id) == ("2", "x")
    assert first.timeout == second.timeout == 3.0
    assert first.program == second.program


def test_a_sweep_multiplies_every_trial():
    planned = plan(2, sweep={"t": [0, 0.5], "k": ["a"]}, variables={"fixed": True})
    assert [trial.id for trial in planned] == [
        't0[t=0,k="a"]', 't0[t=0.5,k="a"]', 't1[t=0,k="a"]', 't1[t=0.5,k="a"]',
    ]  # fmt: skip
    assert planned[1].variables == {"fixed": True, "t": 0.5, "k": "a"}


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("{", "line 1: this is no JSON"),
        ("[1]", "no JSON object"),
        ('{"inputs": {}, "imputs": 1}', "unknown key 'imputs'"),
        ('{"inputs": {}, "program": null}', "there is no program"),
        ('{"inputs": {}, "program": {"python_clas": "x"}}', "python_clas"),
        ('{"inputs": [1]}', "inputs is an object"),
        ('{"id": ["a"], "inputs": {}}', "id is a text or a number"),
        ('{"inputs": {}, "expected": "four"}', "expected is an object"),
        ('{"inputs": {}, "timeout": 0}', "timeout is in seconds"),
        ('{"inputs": {}, "timeout": NaN}', "timeout is in seconds"),
        ('{"inputs": {}, "options": {"omit": true}}', "options has no key 'omit'"),
        ('{"inputs": {}, "options": {"omit_trace": "no"}}', "options.omit_trace is 'no'; it takes true or false"),
        ('{"inputs": {}, "options": {"max_trace_bytes": -1}}', "options.max_trace_bytes is -1; it takes a count"),
        ('{"inputs": {}, "session": "s", "variables": {"t": 1}}', "not both"),
        ('{"inputs": {}, "variables": {"t": null}}', "null"),
        ('{"inputs": {}, "sweep": {"t": 1}}', "a list of values"),
        (json.dumps({"inputs": {}, "sweep": {name: [0] * 400 for name in "ab"}}), "160000 combinations"),
    ],
)
def test_what_cannot_be_run_is_said_with_its_line(line, says):
    with pytest.raises(InvalidPlan, match=says):
        read_plan([line], program=PROGRAM)


def test_a_trial_whose_id_is_null_is_called_by_its_line():
    assert [trial.id for trial in read_plan(lines({"id": None, "inputs": {}}, {"inputs": {}}), program=PROGRAM)] == [
        "1", "2",
    ]  # fmt: skip


def test_the_order_of_keys_makes_no_other_trial():
    """A file that another tool wrote again would be run, and paid for, a second time."""
    one = read_plan(['{"inputs": {"a": {"x": 1, "y": [{"p": 1, "q": 2}]}, "b": 2}}'], program=PROGRAM)
    again = read_plan(
        ['{"inputs": {"b": 2, "a": {"y": [{"q": 2, "p": 1}], "x": 1}}}'], program=dict(reversed(PROGRAM.items()))
    )
    other = read_plan(['{"inputs": {"a": {"x": 1, "y": [{"p": 1, "q": 3}]}, "b": 2}}'], program=PROGRAM)
    assert one[0].digest == again[0].digest != other[0].digest


def test_two_trials_of_one_name_are_refused():
    with pytest.raises(InvalidPlan, match="line 2: there is another trial 'a'"):
        read_plan(lines({"id": "a", "inputs": {}}, {"id": "a", "inputs": {}}), program=PROGRAM)


# ---- running --------------------------------------------------------------------------------------------------------


async def test_every_trial_gets_one_result(kept):
    worker = Worker(GOOD)
    progress = await run_trials(plan(20), [worker], kept, concurrency=3)
    assert sorted(name for name, *_ in worker.ran) == sorted(kept.by_id) == sorted(f"t{n}" for n in range(20))
    assert (progress.ended, progress.tokens, progress.cost_usd) == ({"OK": 20}, 100, 10.0)


async def test_what_may_succeed_later_is_tried_again_after_a_while(kept, virtual_clock):
    worker = Worker(BUSY, rpc.RpcError(rpc.StatusCode.UNAVAILABLE, "gone"), StoreUnavailable("store away"), GOOD)
    progress = await run_trials(plan(), [worker], kept, concurrency=1)
    [result] = kept.by_id.values()
    assert result["outcome"]["success"]["prediction"] == {"answer": "four"}
    assert (result["tries"], progress.tries) == (4, 3)
    times = [at for _, at, _ in worker.ran]
    assert times[1] - times[0] >= 7, "as long as the failure asked for"


async def test_whoever_is_idle_does_not_try_again_before_its_time(kept, virtual_clock):
    """At the end of a run most are idle: all tries would be used up at once."""
    workers = [Worker(BUSY, GOOD, name=name) for name in "ab"]
    await run_trials(plan(), workers, kept, concurrency=8)
    times = sorted(at for worker in workers for _, at, _ in worker.ran)
    assert len(times) > 1
    assert all(later - earlier >= 7 for earlier, later in pairwise(times))


async def test_a_failure_that_stays_is_a_result_and_is_not_tried_again(kept):
    worker = Worker(BROKEN)
    progress = await run_trials(plan(), [worker], kept)
    assert (len(worker.ran), progress.ended) == (1, {"PROGRAM_ERROR": 1})


async def test_a_retryable_failure_is_a_result_in_the_end(kept, virtual_clock):
    progress = await run_trials(plan(), [Worker(BUSY)], kept, retries=2)
    assert (progress.ended, progress.given_up) == ({"OVERLOADED": 1}, {})


async def test_a_trial_whose_calls_fail_has_no_result_and_is_tried_by_the_next_run(kept, virtual_clock):
    gone = Worker(rpc.RpcError(rpc.StatusCode.UNAVAILABLE, "connection refused"))
    progress = await run_trials(plan(), [gone], kept, retries=1)
    assert progress.done == 1
    assert "connection refused" in progress.given_up["t0"]
    assert kept.by_id == {}
    await run_trials(plan(), [Worker(GOOD)], kept)
    assert set(kept.by_id) == {"t0"}


async def test_another_worker_takes_the_trials_of_one_that_is_gone(kept, virtual_clock):
    gone, there = Worker(rpc.RpcError(rpc.StatusCode.UNAVAILABLE, "gone"), name="gone"), Worker(GOOD, name="there")
    progress = await run_trials(plan(30), [gone, there], kept, concurrency=2)
    assert progress.ended == {"OK": 30}
    assert {result["worker"] for result in kept.by_id.values()} == {"there"}


@pytest.mark.parametrize(
    "error", [rpc.RpcError(rpc.StatusCode.UNAVAILABLE, "gone"), StoreUnavailable("gone", retryable=True)]
)
async def test_a_worker_that_is_gone_uses_up_no_tries_while_another_is_busy(kept, virtual_clock, error):
    """The idle lanes of the dead one would take the trials again and again until they are given up.

    A trial with variables notices by the worker's store, which is gone too.
    """

    class Busy(Worker):
        async def run(self, trial, timeout):  # noqa: ASYNC109 - as in the Protocol
            await trio.sleep(100)
            return await super().run(trial, timeout)

    gone = Worker(error, name="gone")
    progress = await run_trials(plan(12), [gone, Busy(GOOD, name="busy")], kept, concurrency=2, retries=0)
    assert (progress.ended, progress.given_up) == ({"OK": 12}, {})
    assert len(gone.ran) == len({name for name, *_ in gone.ran})


async def test_a_trial_that_ends_every_worker_is_given_up(kept, virtual_clock):
    """What costs no try is bounded by the number of workers."""
    workers = [Worker(rpc.RpcError(rpc.StatusCode.UNAVAILABLE, "crashed"), name=name) for name in "abc"]
    progress = await run_trials(plan(), workers, kept, retries=1)
    assert "crashed" in progress.given_up["t0"]
    assert sum(len(worker.ran) for worker in workers) <= len(workers) + 2


async def test_variables_that_the_store_refuses_are_not_tried_again(kept):
    worker = Worker(VariableInvalid("no such type"))
    progress = await run_trials(plan(), [worker], kept)
    assert (len(worker.ran), list(progress.given_up.values())) == (1, ["no such type"])


async def test_a_worker_that_refuses_all_trials_ends_the_run(kept):
    with pytest.RaisesGroup(pytest.RaisesExc(WorkerRefused, match="w refuses to run trials")):
        await run_trials(plan(9), [Worker(rpc.RpcError(rpc.StatusCode.UNAUTHENTICATED, "no token"))], kept)


async def test_a_worker_that_never_answers_is_not_waited_for(kept, virtual_clock):
    class Silent(Worker):
        async def run(self, trial, timeout):  # noqa: ASYNC109 - as in the Protocol
            await trio.sleep_forever()

    progress = await run_trials(plan(timeout=5), [Silent(GOOD)], kept, retries=0)
    assert "no answer" in progress.given_up["t0"]
    assert trio.current_time() >= 5


async def test_a_run_goes_on_where_it_stopped(tmp_path):
    path = tmp_path / "results.jsonl"
    with open_results(path) as results:
        await run_trials(plan(3), [Worker(GOOD)], results)
    with path.open("a") as file:
        file.write('{"id": "t3", "dig')  # its process was killed while it wrote
    second = Worker(GOOD)
    with open_results(path) as results:
        await run_trials(plan(5), [second], results)
    assert sorted(name for name, *_ in second.ran) == ["t3", "t4"]
    assert sorted(json.loads(line)["id"] for line in path.read_text().splitlines()) == [f"t{n}" for n in range(5)]


async def test_results_of_other_trials_are_not_taken_for_these(tmp_path):
    with open_results(tmp_path / "r") as results:
        await run_trials(plan(), [Worker(GOOD)], results)
        with pytest.raises(CannotKeep, match="trial 't0', which was another one"):
            await run_trials(plan(variables={"t": 1}), [Worker(GOOD)], results)


async def test_memory_keeps_no_traces_and_the_file_does(tmp_path):
    """A hundred thousand results with their prompts are more than memory holds."""
    outcome = replace(GOOD, trace=traced("m"))
    path = tmp_path / "r"
    with open_results(path) as results:
        await run_trials(plan(), [Worker(outcome)], results)
        assert "trace" not in results.by_id["t0"]["outcome"]["success"]
    assert json.loads(path.read_text())["outcome"]["success"]["trace"]
    with open_results(path) as results:
        assert "trace" not in results.by_id["t0"]["outcome"]["success"]


def test_a_file_that_is_no_results_is_left_as_it_is(tmp_path):
    (tmp_path / "r").write_text('{"inputs": {}}\n')
    with pytest.raises(CannotKeep, match="line 1: this is no result"), open_results(tmp_path / "r"):
        pass
    assert (tmp_path / "r").read_text() == '{"inputs": {}}\n'


def test_a_disk_that_takes_half_a_result_leaves_the_others_whole(tmp_path):
    """A line of which half was written would stand before the next one, and the file could not be read any more."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    result = {"id": "a", "digest": "d", "outcome": {"success": {}}}
    with open_results(tmp_path / "r") as results:
        results.add(result)
        whole = (tmp_path / "r").read_bytes()
        resource.setrlimit(resource.RLIMIT_FSIZE, (len(whole) + 9, hard))
        try:
            with pytest.raises(CannotKeep, match="too large"):
                results.add({**result, "id": "b"})
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        assert set(results.by_id) == {"a"}
    assert (tmp_path / "r").read_bytes() == whole


def test_two_runs_do_not_share_a_file(tmp_path):
    with open_results(tmp_path / "r"), pytest.raises(CannotKeep, match="another run"), open_results(tmp_path / "r"):
        pass


# ---- scores and tables ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("metric", "expected", "score"),
    [
        ("exact_match", {"answer": " four"}, 1.0),
        ("exact_match", {"answer": "Four"}, 0.0),
        ("exact_match", {"missing": "four"}, 0.0),
        ("contains", {"answer": "OU"}, 1.0),
        ("contains", {"answer": 4}, 0.0),
        ("json:loads", {"answer": "four"}, None),
    ],
)
async def test_a_success_is_scored_by_what_was_expected(kept, metric, expected, score):
    await run_trials(plan(expected=expected), [Worker(GOOD)], kept, metric=metric_named(metric))
    result = kept.by_id["t0"]
    assert result["score"] == score
    assert ("metric_error" in result) is (score is None)


async def test_what_a_metric_says_when_it_fails_is_kept_without_secrets(kept, monkeypatch):
    monkeypatch.setenv("JUDGE_KEY", "oddly-shaped")

    def metric(_expected, _prediction):
        raise ValueError("refused oddly-shaped and sk-abcdefghijklmnop1234")

    await run_trials(plan(expected={"answer": "four"}), [Worker(GOOD)], kept, metric=metric)
    assert kept.by_id["t0"]["metric_error"] == "ValueError: refused [redacted] and [redacted]"


async def test_what_is_no_number_is_no_score(kept):
    """A mean of it would be none either, and JSON has no form for it."""
    trials = plan(expected={"answer": "four"})
    await run_trials(trials, [Worker(GOOD)], kept, metric=lambda _expected, _prediction: float("nan"))
    [result] = kept.by_id.values()
    assert (result["score"], result["metric_error"]) == (None, "nan is no score")
    assert summarized([result])[0].score is None


async def test_what_has_ended_is_scored_and_kept_when_the_run_is_cancelled(kept):
    """It has been paid for; also where it waits while another one is scored."""
    scoring, go_on = threading.Event(), threading.Event()

    def metric(_expected, _prediction):
        scoring.set()
        return float(go_on.wait(30))

    async with trio.open_nursery() as nursery:
        planned = plan(2, expected={"answer": "four"})
        nursery.start_soon(partial(run_trials, planned, [Worker(GOOD)], kept, metric=metric))
        await trio.to_thread.run_sync(scoring.wait, 30)
        await trio.testing.wait_all_tasks_blocked()
        nursery.cancel_scope.cancel()
        go_on.set()
    assert {name: result["score"] for name, result in kept.by_id.items()} == {"t0": 1.0, "t1": 1.0}


async def test_a_failure_scores_nothing(kept):
    await run_trials(plan(expected={"answer": "4"}), [Worker(BROKEN)], kept, metric=metric_named("exact_match"))
    assert kept.by_id["t0"]["score"] == 0.0


@pytest.mark.parametrize("name", ["exact", "nowhere.to_be:found", "json:nothing"])
def test_an_unknown_metric_is_said(name):
    with pytest.raises(UnknownMetric, match="metric"):
        metric_named(name)


async def test_the_summary_is_by_configuration_the_best_first_and_the_table_has_it_all(kept, tmp_path):
    planned = plan(2, sweep={"t": [0, 1]}, expected={"answer": "four"})
    answers = {0: GOOD, 1: BROKEN}

    class Both(Worker):
        async def run(self, trial, timeout):  # noqa: ASYNC109 - as in the Protocol
            await trio.lowlevel.checkpoint()
            return answers[trial.variables["t"]]

    await run_trials(planned, [Both(GOOD)], kept, metric=metric_named("exact_match"))
    best, worst = summarized(kept.by_id.values())
    assert (best.configuration, best.score, best.kinds, best.trials) == ({"t": 0}, 1.0, {"OK": 2}, 2)
    assert (best.tokens, best.cost_usd, best.cost_known, best.p99_ms) == (10, 1.0, True, 20.0)
    assert (worst.score, worst.kinds) == (0.0, {"PROGRAM_ERROR": 2})
    export(kept.by_id.values(), tmp_path / "table.csv")
    with (tmp_path / "table.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["kind"] for row in rows].count("OK") == 2
    assert {row["variable.t"] for row in rows} == {"0", "1"}
    assert rows[0]["expected.answer"] == "four"


@pytest.mark.parametrize(
    ("values", "column"),
    [
        ([1, 0.5, None], [1.0, 0.5, None]),
        ([1, None], [1, None]),
        ([1, "a"], ["1", "a"]),
        ([True, 2], ["true", "2"]),
        ([2**63], [str(2**63)]),
        ([2**53 + 1, 0.5], [str(2**53 + 1), "0.5"]),
        ([10**5000, None], ["1" + "0" * 5000, None]),
    ],
)
def test_a_column_has_one_type(values, column):
    assert of_one_type(values) == column


async def test_a_session_that_is_made_for_a_trial_has_the_variables_that_the_trial_says():
    """Programs may write to theirs, and a store may lose some."""
    async with open_runtime(Settings(load=())) as runtime:
        session = _Sessions(runtime.session)
        [trial] = plan(variables={"t": 1, "k": "a"})
        made = runtime.session(await session.with_variables_of(trial))
        await made.set("t", 5)
        await made.delete("k")
        assert await session.with_variables_of(trial) == made.session_id
        assert (await made.get("t"), await made.get("k")) == (1, "a")
        assert not session._making


# ---- the command ----------------------------------------------------------------------------------------------------


COMMAND = ("-m", "dspex_trio", "run", "trials.jsonl", "--load", "runs_programs")
ENVIRONMENT = {**os.environ, "PYTHONPATH": os.pathsep.join([str(HERE), os.environ.get("PYTHONPATH", "")])}


def command(directory, *arguments):
    """The command under way, to be ended from outside."""
    whole = [sys.executable, *COMMAND, *arguments]
    return subprocess.Popen(
        whole, cwd=directory, env=ENVIRONMENT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


@pytest.fixture
def finished(preloaded, tmp_path):
    """What becomes of the command."""
    return lambda *arguments: preloaded([*COMMAND, *arguments], tmp_path, ENVIRONMENT)


SHOUT = {"program": {"python_class": "runs.Shout", "config_space": {"mark": "mark"}}, "sweep": {"mark": ["!", "?"]}}


def test_a_file_is_run_in_this_process_and_summed_up(finished, tmp_path):
    trials = lines(SHOUT, {"id": "a", "inputs": {"question": "hm"}, "expected": {"answer": "HM?"}})
    (tmp_path / "trials.jsonl").write_text("\n".join(trials))
    done = finished("--metric", "exact_match", "--export", "out.csv")
    assert done.returncode == 0, done.stderr
    table = [line.split() for line in done.stdout.splitlines()]
    assert table[1][:4] == ['mark="?"', "1", "1", "1.000"]
    assert table[2][:4] == ['mark="!"', "1", "1", "0.000"]
    assert len((tmp_path / "trials.jsonl.results.jsonl").read_text().splitlines()) == 2
    assert len((tmp_path / "out.csv").read_text().splitlines()) == 3


@pytest.mark.parametrize(("text", "says"), [("{", "is no JSON"), ("[]", "holds no JSON object")])
def test_a_program_that_is_none_is_said_in_a_line(tmp_path, text, says):
    (tmp_path / "trials.jsonl").write_text('{"inputs": {}}')
    (tmp_path / "program.json").write_text(text)
    done = CliRunner().invoke(
        main, ["run", str(tmp_path / "trials.jsonl"), "--program", str(tmp_path / "program.json")]
    )
    assert done.exit_code == 1
    assert says in done.output


def test_a_run_that_is_killed_and_started_again_gives_every_trial_one_result(tmp_path):
    count = 250
    trials = lines(
        {"program": {"python_class": "runs.Shout"}}, *({"inputs": {"question": str(n)}} for n in range(count))
    )
    (tmp_path / "trials.jsonl").write_text("\n".join(trials))
    first = command(tmp_path)
    assert "a hundred\n" in iter(first.stderr.readline, "")  # what programs print goes to standard error
    os.kill(first.pid, signal.SIGKILL)
    first.communicate(timeout=60)
    kept = (tmp_path / "trials.jsonl.results.jsonl").read_bytes().count(b"\n")
    second = command(tmp_path)
    _, errors = second.communicate(timeout=120)
    assert second.returncode == 0, errors
    assert f"{kept} of {count} trials have a result" in errors
    results = [json.loads(line) for line in (tmp_path / "trials.jsonl.results.jsonl").read_text().splitlines()]
    assert sorted(int(result["id"]) for result in results) == list(range(2, count + 2))
    assert all(result["outcome"]["success"]["prediction"] for result in results)
    assert 0 < kept < count


def test_a_second_signal_ends_a_run_at_once(tmp_path):
    """The first one waits for the metric of what has been answered, and that may take for ever."""
    trials = lines({"program": {"python_class": "runs.Shout"}}, {"inputs": {"question": "?"}, "expected": {}})
    (tmp_path / "trials.jsonl").write_text("\n".join(trials))
    running = command(tmp_path, "--metric", "runs_programs:hangs")
    assert running.stdout.readline() == "scoring\n"
    running.send_signal(signal.SIGINT)
    assert any("once more ends at once" in line for line in running.stderr)
    running.send_signal(signal.SIGTERM)  # the same one could be taken for its repeat
    running.communicate(timeout=60)
    assert running.returncode == 130


def test_sigusr1_tells_where_a_run_is_and_sighup_ends_it_as_other_signals_do(tmp_path):
    trials = lines({"program": {"python_class": "runs.Shout"}}, {"inputs": {"question": "?"}, "expected": {}})
    (tmp_path / "trials.jsonl").write_text("\n".join(trials))
    running = command(tmp_path, "--metric", "runs_programs:hangs")
    assert running.stdout.readline() == "scoring\n"
    running.send_signal(signal.SIGUSR1)
    assert any("SIGUSR1: 1/1" in line for line in running.stderr), "it has been answered, and is being scored"
    running.send_signal(signal.SIGHUP)
    assert any("once more ends at once" in line for line in running.stderr)
    running.send_signal(signal.SIGTERM)
    running.communicate(timeout=60)
    assert running.returncode == 130
    [result] = in_file(tmp_path / "trials.jsonl.results.jsonl")
    assert result["outcome"]["success"]["prediction"], "it is kept without its score"


def test_a_worker_that_is_not_there_is_said_and_the_exit_code_says_that_not_all_ended(finished, tmp_path):
    (tmp_path / "trials.jsonl").write_text(
        "\n".join(lines({"program": {"python_class": "runs.Shout"}}, {"id": "a", "inputs": {"question": "?"}}))
    )
    done = finished("--worker", "127.0.0.1:1", "--retries", "0")
    assert done.returncode == 1
    assert "did not end" in done.stderr
