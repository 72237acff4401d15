"""The commands, as a newcomer meets them."""

import json
import logging
import os
import socket
import subprocess
import sys
from copy import copy
from pathlib import Path

import pytest
from click.testing import CliRunner

from dspex_trio.cli import main
from dspex_trio.cli.log.setup import formatter
from dspex_trio.cli.process import announce, json_or_text
from dspex_trio.model import Program, TrialFailure, TrialRequest
from dspex_trio.model.errors import FailureKind, Stage
from dspex_trio.observing.correlation import correlated
from dspex_trio.runtime.settings import Settings
from dspex_trio.trials.observer import TrialLog


@pytest.fixture
def run(preloaded, tmp_path):
    """What becomes of a command."""

    def run(*arguments):
        return preloaded(["-m", "dspex_trio", *arguments], tmp_path, dict(os.environ))

    return run


def test_every_setting_is_an_option_of_serve():
    told = CliRunner().invoke(main, ["serve", "--help"]).output
    for name in Settings.model_fields:
        assert "--" + {"lm_args": "lm-arg"}.get(name, name).replace("_", "-") in told


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["serve", "--max-trials", "0"], "max_trials (--max-trials, DSPEX_TRIO_MAX_TRIALS)"),
        (["serve", "--lm-arg", "temperature"], "'temperature' is not KEY=VALUE"),
        (["serve", "--config", "nowhere.toml"], "nowhere.toml: there is no such file"),
        (["serve", "--loaf", "x"], "No such option"),
        (["store", "--port", "99999"], "99999 is not in the range 0<=x<=65535"),
        (["sevre"], "No such command"),
    ],
)
def test_a_wrong_command_line_says_what_is_wrong(arguments, told):
    done = CliRunner().invoke(main, arguments)
    assert done.exit_code == 2
    assert told in done.output


@pytest.mark.parametrize(
    ("source", "told"),
    [
        (None, "--load broken: there is no module 'broken'"),
        ("import nowhere_at_all", "--load broken: No module named 'nowhere_at_all'"),
        ("1 / 0", "--load broken: importing it raised ZeroDivisionError: division by zero"),
        ("raise SystemExit(3)", "--load broken: importing it raised SystemExit: 3"),
    ],
)
def test_a_module_that_cannot_be_loaded_is_named_in_one_line(run, tmp_path, source, told):
    if source is not None:
        (tmp_path / "broken.py").write_text(source)
    done = run("serve", "--port", "0", "--load", "broken")
    assert done.returncode == 1
    assert f"Error: {told}" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_port_that_is_taken_is_named_in_one_line(run):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        done = run("store", "--port", port)
    assert done.returncode == 1
    assert f"Error: cannot listen on 127.0.0.1:{port}" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    "name",
    [
        "max_connections",
        "max_connections_per_peer",
        "first_call_timeout",
        "max_undelivered_bytes",
        "undelivered_timeout",
    ],
)
def test_a_store_has_the_limits_of_connections_that_a_worker_has(name):
    option = "--" + name.replace("_", "-")
    told = " ".join(CliRunner().invoke(main, ["store", "--help"]).output.split())
    assert option in told
    assert f"[default: {Settings.model_fields[name].default}" in told
    wrong = CliRunner().invoke(main, ["store", option, "0"])
    assert wrong.exit_code == 2
    assert option in wrong.output


def test_a_ready_file_that_cannot_be_written_is_named_in_one_line(run, tmp_path):
    """Not as a port that cannot be listened on, which is what an OSError at that point looks like."""
    ready = tmp_path / "nowhere" / "ready"
    done = run("store", "--port", "0", "--ready-file", ready)
    assert done.returncode == 1
    assert f"Error: cannot write the ready file {ready}: No such file or directory" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("name", ["settings.toml", "cert.pem", "store.db"])
@pytest.mark.parametrize("aside", [False, True])
@pytest.mark.parametrize("link", [None, os.symlink, os.link])
@pytest.mark.parametrize("command", ["serve", "worker"])
def test_a_ready_file_is_not_written_over_what_the_command_reads(tmp_path, command, name, aside, link):
    """Nor is the file beside it, in which it is written first."""
    files = [tmp_path / each for each in ("settings.toml", "cert.pem", "store.db", "key.pem")]
    for file in files:
        file.touch()
    ready = tmp_path / name
    if link is not None:
        ready = tmp_path / ("ready.tmp" if aside else "ready")
        link(tmp_path / name, ready)
    elif aside:
        ready = (tmp_path / name).rename(tmp_path / f"{name}.tmp")
        files = [ready if file.name == name else file for file in files]
    config, certificate, persist, key = files
    given = ready.with_suffix("") if aside else ready
    done = CliRunner().invoke(
        main,
        [command, "--config", str(config), "--tls-certificate", str(certificate), "--tls-key", str(key),
         "--persist", str(persist), "--ready-file", str(given)],
    )  # fmt: skip
    assert done.exit_code == 1
    assert f"--ready-file {ready} would be written over" in done.output


def test_a_ready_file_is_not_written_over_the_store(tmp_path):
    (tmp_path / "store.db").touch()
    ready = str(tmp_path / "." / "store.db")
    done = CliRunner().invoke(main, ["store", "--persist", str(tmp_path / "store.db"), "--ready-file", ready])
    assert done.exit_code == 1
    assert "--persist" in done.output


def test_the_ready_file_appears_whole(tmp_path):
    announce(tmp_path / "ready", 4711)
    assert (tmp_path / "ready").read_text() == "4711"
    assert [path.name for path in tmp_path.iterdir()] == ["ready"]
    announce(None, 1)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("0.2", 0.2),
        ("3", 3),
        ("true", True),
        ("null", None),
        ('{"a": [1]}', {"a": [1]}),
        ("gpt-4o", "gpt-4o"),
        ('"quoted"', "quoted"),
        ("NaN", "NaN"),
        ("", ""),
    ],
)
def test_language_model_arguments_are_json_where_they_parse_as_json(text, value):
    assert json_or_text(text) == value


def test_secrets_stay_out_of_the_log_whoever_logs_them(monkeypatch):
    """A library that logs its request, or a traceback with an argument in it, would tell the log's readers the key."""
    monkeypatch.setenv("SOME_API_KEY", "from-the-environment")
    try:
        raise ValueError("refused from-the-settings")
    except ValueError:
        record = logging.LogRecord(
            "a.library", logging.WARNING, __file__, 1, "key %s", ("from-the-environment",), sys.exc_info()
        )
    as_text = formatter(["from-the-settings"], as_json=False).format(copy(record))
    assert "key [redacted]" in as_text
    assert "ValueError: refused [redacted]" in as_text
    as_json = json.loads(formatter(["from-the-settings"], as_json=True).format(copy(record)))
    assert (as_json["event"], as_json["logger"], as_json["level"]) == ("key [redacted]", "a.library", "warning")
    assert as_json["exception"].endswith("ValueError: refused [redacted]")


def test_a_trials_line_is_one_object_for_machines_and_one_sentence_for_people(caplog):
    request = TrialRequest(Program("dspy.Predict", name="qa"), {}, trial_id="t1", session_id="s1")
    failure = TrialFailure(FailureKind.LM_ERROR, Stage.EXECUTE, "E", "no", details={"rung": "wake"}, retryable=True)
    with caplog.at_level(logging.INFO), correlated("c-7"):
        TrialLog(lambda _since: 0.0).on_outcome(request, failure)
        [record] = caplog.records
        line = json.loads(formatter(as_json=True).format(copy(record)))
        text = formatter(as_json=False).format(copy(record))
    assert {key: line[key] for key in ("trial_id", "session_id", "program", "kind", "stage", "correlation_id")} == {
        "trial_id": "t1", "session_id": "s1", "program": "qa", "kind": "LM_ERROR", "stage": "EXECUTE",
        "correlation_id": "c-7",
    }  # fmt: skip
    assert (line["outcome"], line["details"], line["total_ms"]) == ("failure", {"rung": "wake"}, 0.0)
    assert "trial 't1' of 'qa': LM_ERROR in EXECUTE after 0 ms" in text
    assert "session_id" not in text


def test_version_and_help_do_not_wait_for_dspy():
    done = subprocess.run(
        [sys.executable, "-X", "importtime", "-m", "dspex_trio", "--version"],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert done.stdout.startswith("dspex-trio, version ")
    assert " dspy\n" not in done.stderr


def test_the_users_type_checker_sees_the_types(tmp_path):
    """The package is typed: names, arguments and outcomes. With the settings, and so the cache, of `just check`."""
    script = tmp_path / "user.py"
    script.write_text(
        "import dspex_trio as dspex\n"
        "async def main() -> str:\n"
        "    async with dspex.open_client('x:1') as client:\n"
        "        outcome = await client.execute(dspex.Program('dspy.Predict'), {'q': 1})\n"
        "        match outcome:\n"
        "            case dspex.TrialSuccess():\n"
        "                reveal_type(outcome.cost.usage.total_tokens)\n"
        "                return 'ok'\n"
        "            case dspex.TrialFailure():\n"
        "                reveal_type(outcome.kind)\n"
        "                return outcome.error_message\n"
        "async def wrong() -> None:\n"
        "    async with dspex.open_runtime() as runtime:\n"
        "        await runtime.run_trial(5, {})\n"
    )
    done = subprocess.run(
        [sys.executable, "-m", "mypy", script],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
        cwd=Path(__file__).parents[2],
    )
    assert 'Revealed type is "int"' in done.stdout.replace("builtins.int", "int")
    assert "FailureKind" in done.stdout
    assert 'Argument 1 to "run_trial" of "Runtime" has incompatible type "int"' in done.stdout
    assert "Found 1 error" in done.stdout
