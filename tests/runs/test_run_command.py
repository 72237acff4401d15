"""`dspex-trio run`: what it refuses before the first trial is paid for, and what it says."""

import gzip
import json
import os
import sys

import pytest
from click.testing import CliRunner

from dspex_trio.cli.kinds import KINDS_OPTION
from dspex_trio.cli.main import main
from dspex_trio.cli.run_report import summary
from dspex_trio.model.errors import FailureKind
from dspex_trio.runs import InvalidPlan, Line, export, open_results, read_plan, run_trials, summarized

from .kit import GOOD, PROGRAM, Worker, lines, plan


def run(*arguments):
    done = CliRunner().invoke(main, ["run", *map(str, arguments)])
    return done.exit_code, done.output


@pytest.fixture
def trials(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])  # the command puts the working directory there
    monkeypatch.delitem(sys.modules, "scores_it", raising=False)
    (tmp_path / "trials.jsonl").write_text('{"inputs": {"question": "?"}}\n')
    (tmp_path / "program.json").write_text(json.dumps(PROGRAM))
    (tmp_path / "settings.toml").write_text("max_trials = 1\n")
    (tmp_path / "results.jsonl").write_text("")
    (tmp_path / "scores_it.py").write_text("def metric(expected, prediction):\n    return 1\n")
    return tmp_path


READ = ("trials.jsonl", "program.json", "settings.toml", "results.jsonl", "scores_it.py")


@pytest.mark.parametrize("name", READ)
@pytest.mark.parametrize(
    "link", [None, "another path", os.symlink, os.link], ids=["it", "path", "symlink", "hard link"]
)
def test_a_table_is_not_written_over_what_the_run_reads(trials, name, link):
    """Prompts, replies and scores that were paid for would be gone, or the trials."""
    output = trials / name
    if link == "another path":
        output = trials / "nowhere" / ".." / name
        (trials / "nowhere").mkdir()
    elif link is not None:
        output = trials / "linked"
        link(trials / name, output)
    before = {name: (trials / name).read_text() for name in READ}
    code, told = run(
        "trials.jsonl", "--program", "program.json", "--config", "settings.toml", "--results", "results.jsonl",
        "--metric", "scores_it:metric", "--export", output,
    )  # fmt: skip
    assert code == 1
    assert f"--export {output} would be written over" in told
    assert {name: (trials / name).read_text() for name in READ} == before


def test_a_table_and_results_that_are_not_there_yet_are_not_one_file(trials):
    code, told = run("trials.jsonl", "--program", "program.json", "--results", "new", "--export", "./new")
    assert code == 1
    assert "--export new would be written over --results new" in told
    assert not (trials / "new").exists()


@pytest.mark.parametrize("name", ["trials.jsonl", "program.json", "settings.toml"])
def test_results_are_not_added_to_what_the_run_reads(trials, name):
    before = (trials / name).read_text()
    code, told = run(
        "trials.jsonl", "--program", "program.json", "--config", "settings.toml", "--results", trials / name
    )
    assert code == 1
    assert f"--results {trials / name} would be written over" in told
    assert (trials / name).read_text() == before


@pytest.mark.parametrize(
    ("output", "says"), [("nowhere/out.csv", "there is no directory nowhere"), (".", "is a directory")]
)
def test_a_table_that_has_no_place_is_refused_before_the_first_trial(trials, output, says):
    code, told = run("trials.jsonl", "--program", "program.json", "--export", output)
    assert code == 1
    assert says in told
    assert not (trials / "trials.jsonl.results.jsonl").exists()


# ---- files that hold no trials --------------------------------------------------------------------------------------

OBJECTS = [{"id": 1, "inputs": {"question": "a"}}, {"id": 2, "inputs": {"question": "b"}}]
TEXT = "\n".join(map(json.dumps, OBJECTS))


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"id,question\n1,a\n", "it looks like CSV."),
        (b'\xef\xbb\xbf"id","question"\n', "it looks like CSV."),
        (b"id\tquestion\n1\ta\n", "it looks like TSV."),
        (b"id;question\n1;a\n", "it looks like CSV with semicolons."),
        (b"PAR1\x15\x04\n", "it looks like Parquet."),
        (gzip.compress(TEXT.encode(), mtime=0), "it looks like gzip; unpack it first."),
        (b"PK\x03\x04\x14\n", "it looks like a ZIP archive or an Excel file."),
        (TEXT.encode("utf-16"), "it looks like UTF-16; save it as UTF-8."),
        (TEXT.encode("utf-16-le"), "UTF-16 or something binary"),
        (
            json.dumps(OBJECTS[0], indent=2).encode(),
            "it looks like JSON that goes over several lines (pretty-printed).",
        ),
        (json.dumps(OBJECTS, indent=2).encode(), "it looks like a JSON array."),
        (json.dumps(OBJECTS).encode(), "this is no JSON object, but an array."),
        (b'"text"', "this is no JSON object."),
    ],
)
def test_a_file_of_another_format_is_called_what_it_looks_like(trials, content, says):
    (trials / "trials.jsonl").write_bytes(content)
    code, told = run("trials.jsonl", "--program", "program.json")
    assert code == 1
    assert told.startswith("Error: trials.jsonl, line 1: ")
    assert says in told
    assert "text in UTF-8 with one JSON object on each line" in told


@pytest.mark.parametrize("line", ['{"inputs": {}', '{"inputs": {}},', '{"inputs": {}} {}', "plain text"])
def test_a_line_that_is_broken_is_no_other_format(line):
    with pytest.raises(InvalidPlan, match="line 2: this is no JSON: "):
        read_plan(['{"inputs": {}}\n', line + "\n"], program=PROGRAM)


def test_trials_with_long_integers_are_read():
    [trial] = read_plan(
        ['{"id": 1' + "0" * 5000 + ', "inputs": {"n": 1' + "0" * 5000 + '}, "metadata": {"n": -1' + "0" * 5000 + "}}"],
        program=PROGRAM,
    )
    assert trial.inputs == {"n": 10**5000}
    assert len(trial.id) == len(trial.metadata["n"]) - 1 == 5001
    for timeout in ("-1" + "0" * 5000, "1" + "0" * 5000):
        with pytest.raises(InvalidPlan, match="timeout is in seconds, more than 0; got an integer of 16610 bits"):
            read_plan([f'{{"inputs": {{}}, "timeout": {timeout}}}'], program=PROGRAM)


async def test_a_table_has_long_integers_as_text(tmp_path):
    with open_results(tmp_path / "r") as results:
        trials = plan(variables={"n": 10**5000}, expected={"n": 10**5000})
        await run_trials(trials, [Worker(GOOD)], results)
        assert summarized(results.by_id.values())[0].configuration == {"n": 10**5000}
        export(results.by_id.values(), tmp_path / "table.csv")
        [label, *_] = list(summary(summarized(results.by_id.values()), ()))[1].split()
    assert (tmp_path / "table.csv").read_text().count("1" + "0" * 5000) == 2
    assert label == "n=1" + "0" * 5000


# ---- kinds of failures ----------------------------------------------------------------------------------------------


TWO = {FailureKind.LM_ERROR, FailureKind.OVERLOADED}


@pytest.mark.parametrize(
    ("arguments", "kinds"),
    [
        (["file"], frozenset()),
        (["file", KINDS_OPTION], frozenset(FailureKind)),
        ([KINDS_OPTION, "file"], frozenset(FailureKind)),
        ([KINDS_OPTION, "LM_ERROR", "overloaded", "file"], TWO),
        (["file", KINDS_OPTION, "LM_ERROR,OVERLOADED", "--retries", "1"], TWO),
        (["file", f"{KINDS_OPTION}=lm_error"], {FailureKind.LM_ERROR}),
        ([KINDS_OPTION, "--", "LM_ERROR"], frozenset(FailureKind)),
    ],
)
def test_kinds_are_those_that_follow_the_option(tmp_path, monkeypatch, arguments, kinds):
    monkeypatch.chdir(tmp_path)
    for name in ("file", "LM_ERROR"):
        (tmp_path / name).touch()
    with main.commands["run"].make_context("run", arguments) as context:
        assert context.params["retry_failed"] == kinds


def test_a_kind_that_there_is_not_is_said_with_those_that_there_are(trials):
    code, told = run("trials.jsonl", f"{KINDS_OPTION}=LM_EROR")
    assert code == 2
    assert "'LM_EROR' is no kind of failure; there are" in told
    assert "LM_ERROR" in told


# ---- what it says ---------------------------------------------------------------------------------------------------


def line(**more):
    return Line({}, {"OK": 2}, 1.0, 1.0, 1.0, 0, 0.0, True, **more)


def test_lines_are_told_apart_by_what_differs():
    told = list(
        summary(
            [
                line(program="p", lm={"model": "a", "temperature": 1}, metric="exact_match"),
                line(program="q", lm=None, metric="contains"),
            ],
            (),
        )
    )
    assert [each.split("  ")[0] for each in told[1:]] == [
        "program=p, model=a, temperature=1, metric=exact_match",
        "program=q, model=?, metric=contains",
    ]
    assert list(summary([line(program="p", lm={"model": "a"})], ()))[1].startswith("(as given)")


def test_a_metric_that_fails_is_said_in_the_table_and_at_the_end():
    told = list(summary([line(metric_asked=2, metric_failed=1, metric_error="KeyError: 'a\nb'")], ()))
    assert told[0].endswith("metric failed")
    assert told[1].endswith("1 of 2")
    assert told[-1] == "metric failed for 1 of 2 trials: KeyError: 'a b'"


EXITS = "import sys\ndef metric(expected, prediction):\n    sys.exit(3)\n"


def test_a_run_says_what_was_there_and_what_becomes_of_it(trials):
    """All of it in processes' own words: the exit code of a metric is not the run's."""
    (trials / "scores_it.py").write_text(EXITS)
    (trials / "trials.jsonl").write_text("\n".join(lines({"inputs": {"question": "?"}, "expected": {"answer": "4"}})))
    common = ("trials.jsonl", "--program", "program.json", "--retries", "0", "--lm-arg", "num_retries=0")
    refused = ("--lm-arg", "api_base=http://127.0.0.1:9/v1", "--lm-arg", "api_key=none")
    code, told = run(*common, *refused, "--lm", "openai/a")
    assert code == 0
    assert "LM_ERROR, such as 1: " in told
    code, told = run(*common, *refused, "--lm", "openai/b", "--metric", "scores_it:metric")
    assert "1 trials have results of openai/a, or of other arguments for it" in told
    assert "1 results are scored again by scores_it:metric: they had no score" in told
    assert "model=openai/a" in told
    assert "model=openai/b" in told
    code, told = run(*common, *refused, "--lm", "openai/b", KINDS_OPTION, "OVERLOADED")
    assert "1 of 1 trials have a result in trials.jsonl.results.jsonl already" in told
    assert "1 of these are failures, which are kept; --retry-failed runs them again" in told
    assert code == 0
