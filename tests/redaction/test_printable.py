import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dspex_trio.observing.redaction import printable, printable_json

STEERING = (
    "\x00\x07\x08\r\x0b\x0c\x1b\x1c\x7f\x85\x9b\u2028\u2029\u061c\u200b\u200e\u200f\u202a\u202e\u2066\u2069\ufeff"
)


@pytest.mark.parametrize("character", [*STEERING, "\U000e0041", "\ud800"])
def test_what_steers_a_terminal_or_forges_a_line_becomes_its_escape(character):
    escape = character.encode("ascii", "backslashreplace").decode()
    escape = escape if escape != character else repr(character)[1:-1]
    assert printable(f"a{character}b") == f"a{escape}b"
    assert printable(f"a{character}b", lines=True) == f"a{escape}b"


@pytest.mark.parametrize("text", ["é ü ß", "日本\u3000語", "👨‍👩‍👧", "می‌خواهم", "a\u00a0b", 'quoted \\ "text"'])
def test_what_scripts_are_written_with_stays(text):
    assert printable(text) == text
    assert printable_json(text.encode()) == text.encode()


def test_line_feeds_and_tabs_stay_where_lines_are_wanted():
    assert printable("a\n\tb\r\n", lines=True) == "a\n\tb\\r\n"
    assert printable("a\n\tb") == "a\\n\\tb"


@given(st.text(st.characters(exclude_categories=["Cs"]) | st.sampled_from(STEERING.replace("\ud800", ""))))
def test_a_line_of_json_keeps_its_meaning_and_is_one_line_for_every_reader(text):
    line = printable_json(json.dumps({"x": text}, ensure_ascii=False).encode())
    assert json.loads(line) == {"x": text}
    assert len(line.decode().splitlines()) == 1
    assert not any(character in line.decode() for character in STEERING)
