"""Records read back: what is listed, how a trial is drawn, and that what a record holds is never obeyed."""

import datetime as dt
import io
import json
import random
import re
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from dspex_trio.cli.main import main
from dspex_trio.observing.records import CannotRead, page, read_records, shown
from dspex_trio.observing.records.waterfall import waterfall
from dspex_trio.wire import encode_json

TIMINGS = {"total_ms": 500.0}


def lm_call(started, took, *, answered=True, **more):
    usage = {"prompt_tokens": 7, "completion_tokens": 3} if answered else {}
    said = json.dumps({"outputs": ["four"]}) if answered else ""
    asked = json.dumps([{"role": "user", "content": "2+2?"}])
    return {"model": "m", "messages_json": asked, "response_json": said, "usage": usage,
            "started_ms": started, "latency_ms": took, **more}  # fmt: skip


def entry(*calls, outputs=None):
    return {"predictor": "solve", "class_name": "Predict", "inputs": {"q": "2+2?"}, "outputs": outputs or {},
            "lm_calls": list(calls), "started_ms": 0.0, "latency_ms": 300.0}  # fmt: skip


def events():
    stages = [{"stage": {"stage": f"STAGE_{name}"}, "at_ms": at} for name, at in (("HYDRATE", 0.0), ("EXECUTE", 100.0))]
    return [
        *stages,
        {"tool_started": {"call": 2, "tool": "search", "arguments": {"query": "cats"}}, "at_ms": 250.0},
        {"tool_finished": {"call": 2, "result": ["tom"], "error_type": "", "latency_ms": 50.0}, "at_ms": 300.0},
    ]


def record(trial_id="t1", *, ended_at="2026-01-31T12:00:00.000Z", failure=None, **more):
    good = {"timings": TIMINGS, "prediction": {"answer": "four"}, "trace": [entry(lm_call(10, 90), outputs={"a": "4"})]}
    outcome = {"success": good} if failure is None else {"failure": {"timings": TIMINGS, **failure}}
    program = {"python_class": "dspy.Predict", "name": "qa"}
    return {"format": "dspex_trio.trial/1", "trial_id": trial_id, "ended_at": ended_at, "session_id": "",
            "program": program, "inputs": {"q": "2+2?"}, "events": events(), "outcome": outcome, **more}  # fmt: skip


LATE = {"kind": "FAILURE_KIND_DEADLINE_EXCEEDED", "stage": "STAGE_EXECUTE", "error_message": "the deadline passed",
        "details": {"rung": "wake"}, "partial_trace": [entry(lm_call(10, 390, answered=False))]}  # fmt: skip


@pytest.fixture
def directory(tmp_path):
    def write(*records, name="trials-2026-01-31.jsonl"):
        (tmp_path / name).write_text("".join(json.dumps(each) + "\n" for each in records))
        return tmp_path

    return write


def run(*arguments):
    done = CliRunner().invoke(main, ["show", *map(str, arguments)], env={"COLUMNS": "120"})
    return done.exit_code, done.output


def test_bars_lie_where_the_trial_spent_its_time(directory):
    [trial], unreadable = read_records(directory(record()))
    drawn = waterfall(trial)
    assert [(bar.kind, bar.name, bar.start_ms, bar.end_ms) for bar in drawn.bars] == [
        ("stage", "HYDRATE", 0.0, 100.0),
        ("stage", "EXECUTE", 100.0, 500.0),
        ("predictor", "solve", 100.0, 400.0),
        ("lm", "m", 110.0, 200.0),
        ("tool", "search", 250.0, 300.0),
    ]
    assert (drawn.total_ms, drawn.deadline_ms, unreadable) == (500.0, None, 0)
    [prompt, reply] = drawn.bars[3].parts
    assert (prompt, reply) == (("user", "2+2?"), ("reply", "four"))
    assert drawn.bars[4].parts == (("query", "cats"), ("result", '[\n  "tom"\n]'))


def test_a_deadline_is_drawn_where_it_passed_and_what_it_cut_off_is_marked(directory):
    [trial], _ = read_records(directory(record(failure=LATE, time_ms=480.0)))
    drawn = waterfall(trial)
    assert drawn.deadline_ms == 480.0
    assert [bar.name for bar in drawn.bars if bar.failed] == ["EXECUTE", "solve", "m"]
    text = "\n".join(shown(trial, width=100))
    assert "DEADLINE_EXCEEDED in EXECUTE" in text
    assert "rung wake" in text
    assert "deadline, 480.0 ms ▲" in text


def test_a_thread_that_ended_later_is_told_with_its_trial(directory):
    ending = {"format": "dspex_trio.thread/1", "trial_id": "t1", "ended_at": "later", "details": {"rung_ms": "900"}}
    [trial], _ = read_records(directory(record(failure=LATE), ending))
    assert "its thread ended later, at later: rung_ms 900" in "\n".join(shown(trial, width=100))


def test_a_thread_that_ended_later_is_not_told_with_another_trial_of_its_id(directory):
    """Ids are the caller's: trials that are tried again share one, and those without a name all have the same."""
    ending = {"format": "dspex_trio.thread/1", "trial_id": "", "ended_at": "later", "details": {}}
    first, second = (record("", failure=LATE, ended_at=f"2026-01-31T1{hour}:00:00.000Z") for hour in (1, 2))
    trials, _ = read_records(directory(first, ending, record("", ended_at="2026-01-31T11:30:00.000Z"), second))
    assert [len(trial.late) for trial in trials] == [1, 0, 0]


def test_lines_that_are_no_records_are_counted_and_left_out(directory):
    """The last line may be half of one: its worker was killed while it wrote."""
    path = directory(record(), {"format": "dspex_trio.trial/2"}, {"format": "dspex_trio.trial/1"}, [1])
    with next(path.glob("*.jsonl")).open("a") as file:
        file.write(json.dumps(record())[:50])
    trials, unreadable = read_records(path)
    assert (len(trials), unreadable) == (1, 4)


def test_trials_are_listed_from_all_days_oldest_first(directory):
    path = directory(record("second", ended_at="2026-02-01T00:00:01.000Z"), name="trials-2026-02-01.jsonl")
    directory(record("first"), name="trials-2026-01-31.jsonl")
    code, output = run(path)
    assert code == 0
    assert re.findall("first|second", output) == ["first", "second"]
    assert "2 trials: 2 OK" in output


def test_a_list_is_narrowed_by_failure_kind_and_time(directory):
    now = dt.datetime.now(dt.UTC).isoformat()
    path = directory(
        record("old", failure=LATE),
        record("new", failure=LATE, ended_at=now),
        record("good", ended_at=now),
        name=f"trials-{now[:10]}.jsonl",
    )
    assert "2 trials" in run(path, "--failed")[1]
    assert "1 trials: 1 OK" in run(path, "--kind", "ok")[1]
    recent = run(path, "--since", "1h", "--failed")[1]
    assert "new" in recent
    assert "old" not in recent


def test_a_list_may_be_empty(directory):
    """Also where there is only one trial, which would be shown in full."""
    assert run(directory(record()), "--failed") == (0, "0 trials\n")


def test_the_last_of_several_trials_with_one_id_is_shown(directory):
    path = directory(record(failure=LATE), record(ended_at="2026-01-31T13:00:00.000Z"))
    code, output = run(path, "--trial", "t1")
    assert code == 0
    assert "answer: four" in output


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--trial", "nobody"], "there is no record of trial 'nobody'"),
        (["--html", "x.html"], "there are 2 records; name one by --trial"),
        (["--since", "soon"], "no time such as 90s"),
    ],
)
def test_what_cannot_be_shown_is_said_in_a_line(directory, arguments, says):
    code, output = run(directory(record("a"), record("b")), *arguments)
    assert code != 0
    assert says in output


def test_an_empty_directory_is_an_error(tmp_path):
    with pytest.raises(CannotRead, match="holds no records"):
        read_records(tmp_path)


HOSTILE = "<script>alert(1)</script>\x1b[2J\"'&\u202e\u2066\u200b\x9b\x07."


def hostile():
    failure = {**LATE, "error_message": HOSTILE, "traceback": HOSTILE, "details": {HOSTILE: HOSTILE}, "kind": HOSTILE}
    program = {"python_class": HOSTILE, "name": HOSTILE}
    return record(HOSTILE, failure=failure, program=program, inputs={HOSTILE: HOSTILE}, session_id=HOSTILE)


def test_a_page_holds_what_a_record_says_as_text_and_asks_for_nothing_outside(directory):
    [trial], _ = read_records(directory(hostile()))
    made = page(trial)
    assert "<script" not in made
    assert "&lt;script&gt;" in made
    assert re.findall(r"(?:src|href|@import|url\()", made) == []
    assert not any(character in made for character in "\x1b\u202e\u2066\u200b\x9b\x07")
    assert "\\x1b[2J" in made
    assert "\\u202e" in made


def test_a_terminal_is_not_steered_by_what_a_record_says(directory):
    ending = {"format": "dspex_trio.thread/1", "trial_id": HOSTILE, "ended_at": HOSTILE, "details": {HOSTILE: HOSTILE}}
    [trial], _ = read_records(directory(hostile(), ending))
    assert trial.late
    code, output = run(directory(hostile(), record()))
    assert code == 0
    said = "\n".join(shown(trial, width=100)) + output
    assert "\x1b[2J" not in said
    assert not any(character in said for character in "\u202e\u2066\u200b\x9b\x07")


def test_a_page_is_written_where_it_is_asked_for(directory, tmp_path):
    code, _ = run(directory(record()), "--html", tmp_path / "page.html")
    text = (tmp_path / "page.html").read_text()
    assert code == 0
    assert text.startswith("<!doctype html>")
    assert "prefers-color-scheme: dark" in text
    assert "2+2?" in text


def test_a_page_is_written_of_whatever_text_there_is(directory, tmp_path):
    """JSON can name half of a pair of surrogates, which no encoding can write."""
    code, _ = run(directory(record(inputs={"q": "\ud83d"})), "--html", tmp_path / "page.html")
    assert code == 0


def test_a_page_that_cannot_be_written_is_said_in_a_line(directory, tmp_path):
    code, output = run(directory(record()), "--html", tmp_path / "nowhere" / "page.html")
    assert code == 1
    assert "cannot be written: No such file" in output


def test_days_before_since_are_not_read(directory, monkeypatch):
    """A year of records is gigabytes."""
    directory(record("old", ended_at="2026-01-30T23:00:00.000Z"), name="trials-2026-01-30.jsonl")
    path = directory(record("early", ended_at="2026-01-31T01:00:00.000Z"), record("late"))
    since = dt.datetime(2026, 1, 31, 11, tzinfo=dt.UTC)
    opened = []
    original = Path.open
    monkeypatch.setattr(Path, "open", lambda file, *given: opened.append(file.name) or original(file, *given))
    trials, _ = read_records(path, since=since)
    assert [trial.trial_id for trial in trials] == ["late"]
    assert opened == ["trials-2026-01-31.jsonl"]


EVIL = (None, True, -1, 1e308, float("nan"), float("inf"), 10**400, "", "x", "9", [], [1], [None], {}, {"a": 1}, [[]])


def places(value, found):
    match value:
        case dict():
            for key in value:
                found.append((value, key))
                places(value[key], found)
        case list():
            for index in range(len(value)):
                found.append((value, index))
                places(value[index], found)
    return found


@pytest.mark.parametrize("seed", range(4))
def test_a_damaged_record_never_gives_a_traceback(directory, seed):
    """Whatever stands in the file: it is shown, left out, or named in one line."""
    dice = random.Random(seed)
    for _ in range(250):
        damaged = record(failure=LATE, time_ms=480.0) if dice.random() < 0.5 else record(loop_late_ms=3.0)
        damaged["outcome"] = json.loads(json.dumps(damaged["outcome"]))  # its parts are shared with other records
        for _ in range(dice.randint(1, 3)):
            holder, key = dice.choice(places(damaged, []))
            if isinstance(holder, dict) and dice.random() < 0.3:
                del holder[key]
            else:
                holder[key] = dice.choice(EVIL)
        path = directory(damaged, record("t2"))
        for arguments in ((), ("--trial", "t1"), ("--trial", "t1", "--html", path / "page.html")):
            done = CliRunner().invoke(main, ["show", str(path), *map(str, arguments)])
            assert done.exit_code in {0, 1}
            assert done.exception is None or isinstance(done.exception, SystemExit), (damaged, done.exception)
            assert done.exit_code == 0 or done.output.splitlines()[-1].startswith("Error: ")


LONG_ID = "run-of-the-31st/question-" + "0123456789" * 6
SAYS = "the provider answered " + "and answered " * 40 + "at last"


def test_a_pipe_or_a_file_gets_all_of_it(directory):
    """Whatever reads it looks for ids and messages in it."""
    failure = {**LATE, "error_message": "\n".join([SAYS] * 20), "details": {"why": SAYS}}
    program = {"python_class": "a" * 40}
    path = directory(record(LONG_ID, failure=failure, program=program), record("other"))
    _, output = run(path)
    assert f"{LONG_ID}  {'a' * 40}" in output
    assert output.count(SAYS) == 20
    _, output = run(path, "--trial", LONG_ID)
    assert f"trial {LONG_ID}" in output
    assert output.count(SAYS) == 21
    assert "…" not in output


def on_a_terminal(monkeypatch, columns, *arguments):
    """What is printed on a terminal of that width, without its colours."""
    told = []
    monkeypatch.setattr("sys.stdout", Terminal())
    monkeypatch.setattr("click.echo", lambda line="", **_: told.append(click.unstyle(line)))
    monkeypatch.setenv("COLUMNS", str(columns))
    main.main(["show", *map(str, arguments)], standalone_mode=False)
    return told


class Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.mark.parametrize("columns", [80, 120, 200])
def test_a_terminal_gets_ids_whole_and_messages_cut(directory, monkeypatch, columns):
    """An id of which the end is missing cannot be given to --trial."""
    path = directory(record(LONG_ID, failure={**LATE, "error_message": SAYS}), record("other"))
    first, *_ = on_a_terminal(monkeypatch, columns, path)
    assert f" {LONG_ID} " in first
    assert "DEADLINE_EXCEEDED" in first
    assert first.endswith("…")
    assert len(first) <= max(columns, len(LONG_ID) + 100)


def test_a_terminal_is_told_how_many_lines_of_a_message_are_left_out(directory, monkeypatch):
    path = directory(record(failure={**LATE, "error_message": "line\n" * 20}))
    assert "  … 8 more lines" in on_a_terminal(monkeypatch, 100, path, "--trial", "t1")


def test_long_integers_are_read_and_shown(tmp_path):
    """What is recorded can be read again: Python's own limit is 4,300 digits."""
    value = 10**5000
    good = {"timings": TIMINGS, "prediction": {"answer": value}, "variables": {"n": {"value": value}}}
    made = record("big", inputs={"n": [value]}, outcome={"success": good})
    (tmp_path / "trials-2026-01-31.jsonl").write_bytes(encode_json(made) + b"\n")
    trials, unreadable = read_records(tmp_path)
    assert (trials[0].result["prediction"], unreadable) == ({"answer": value}, 0)
    code, output = run(tmp_path, "--trial", "big")
    assert (code, output.count("1" + "0" * 5000)) == (0, 3)
    assert "1" + "0" * 5000 in page(trials[0])


def test_a_page_is_not_written_over_records(directory, tmp_path):
    path = directory(record())
    [file] = path.glob("*.jsonl")
    before = file.read_text()
    (tmp_path / "linked.html").symlink_to(file)
    for given in (path, file):
        for output in (file, tmp_path / "linked.html"):
            code, told = run(given, "--html", output)
            assert code == 1
            assert "would be written over the records in" in told
    assert file.read_text() == before
