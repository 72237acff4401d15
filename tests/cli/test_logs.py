"""What a log's line may hold: no secret, no second line, nothing that steers a terminal."""

import json
import logging

import pytest

from dspex_trio.cli.log.setup import formatter

STEERING = 'a\u2028{"level": "forged"}\u202e\x1b[31m\x85\x9b\x07\r\x7f\x0b'


def entry(message, *, exception=None, **extra):
    exc_info = None if exception is None else (type(exception), exception, None)
    record = logging.LogRecord("a.library", logging.WARNING, __file__, 1, message, (), exc_info)
    vars(record).update(extra)
    return record


def test_a_line_for_machines_is_one_line_for_every_reader_and_says_the_same():
    line = formatter(as_json=True).format(entry(f"trial {STEERING}", trial_id=STEERING, half="\ud800"))
    assert json.loads(line)["event"] == f"trial {STEERING}"
    assert json.loads(line)["trial_id"] == STEERING
    assert len(line.splitlines()) == 1
    assert not any(character in line for character in "\u2028\u202e\x1b\x85\x9b\x07\r\x7f\x0b")
    line.encode()


def test_an_entry_for_people_steers_nothing_and_forges_no_other_entry():
    forged = "2026-01-01T00:00:00Z [info     ] all is well"
    text = formatter(as_json=False).format(
        entry(f"trial {STEERING}\n{forged}", exception=ValueError(f"{STEERING}\n{forged}"))
    )
    assert "\\u2028" in text
    assert "\\x1b[31m" in text
    assert not any(character in text for character in "\u2028\u202e\x1b\x85\x9b\x07\r\x7f\x0b")
    assert all(line.startswith("  ") for line in text.splitlines()[1:])
    assert sum("all is well" in line for line in text.splitlines()) == 2


@pytest.mark.parametrize(
    ("name", "value", "left"),
    [
        ("db_password", "oddly-shaped", "[redacted]"),
        ("headers", {"Authorization": "oddly-shaped", "x": "json"}, {"Authorization": "[redacted]", "x": "json"}),
        ("api_keys", ["one", "two"], ["[redacted]", "[redacted]"]),
        ("nested", [{"token": "oddly-shaped"}, ("oddly-known", 1)], [{"token": "[redacted]"}, ["[redacted]", 1]]),
        ("error", ValueError("refused sk-abcdefghijklmnop1234"), "refused [redacted]"),
        ("max_tokens", 4096, 4096),
        ("token_count", "12345678", "12345678"),
    ],
)  # fmt: skip
def test_secrets_stay_out_of_what_is_logged_beside_the_message(name, value, left):
    line = json.loads(formatter(["oddly-known"], as_json=True).format(entry("said", **{name: value})))
    assert line[name] == left
