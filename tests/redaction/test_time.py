"""No text makes looking for secrets slow: the time grows with the text's length, never with its square."""

import re
from re import _constants as ops
from re import _parser as parser

import pytest

from dspex_trio.observing.redaction import Redactor, is_secret_name, printable, printable_json
from dspex_trio.observing.redaction.shapes import SHEET

BOUNDED = 300
"""Repetitions up to this many cost no more than that, however often they are tried."""
REPEATS = (ops.MAX_REPEAT, ops.MIN_REPEAT, ops.POSSESSIVE_REPEAT)


def endless(items, *, may_fail=False):
    """The body of every repetition without a limit after which its pattern may still fail."""
    items = list(items)
    for number, (op, argument) in enumerate(items):
        fails = may_fail or any(not _optional(*each) for each in items[number + 1 :])
        if op in REPEATS:
            _, most, body = argument
            if most > BOUNDED and fails:
                yield body
            yield from endless(body, may_fail=fails)
        elif op is ops.SUBPATTERN:
            yield from endless(argument[3], may_fail=fails)
        elif op is ops.BRANCH:
            for branch in argument[1]:
                yield from endless(branch, may_fail=fails)
        elif op in (ops.ASSERT, ops.ASSERT_NOT):
            yield from endless(argument[1], may_fail=True)


def _optional(op, argument):
    return op in REPEATS and argument[0] == 0


def takes(body, character):
    """Whether what is repeated takes that character at its start."""
    return any(_takes(op, argument, character) for op, argument in body)


def _takes(op, argument, character):
    match op:
        case ops.LITERAL:
            return chr(argument) == character
        case ops.RANGE:
            return argument[0] <= ord(character) <= argument[1]
        case ops.CATEGORY if argument is ops.CATEGORY_SPACE:
            return character.isspace()
        case ops.IN:
            negated = argument[0][0] is ops.NEGATE
            return negated is not any(_takes(*each, character) for each in argument[negated:])
        case ops.BRANCH:
            return any(takes(branch, character) for branch in argument[1])
        case ops.MAX_REPEAT:
            return takes(argument[2], character)
    raise AssertionError(f"teach this test about {op}")


@pytest.mark.parametrize("shape", SHEET, ids=lambda shape: shape.mark)
def test_no_attempt_that_may_fail_runs_over_the_place_where_the_next_one_begins(shape):
    """Then each character is looked at by the one attempt that began before it: so many in all as the text has.

    A repetition without a limit, after which the pattern may fail, ends before the next mark, since it does not take
    all of the mark's characters; or the shape begins a word, and the repetition takes letters and digits alone.
    """
    for pattern in (shape.pattern, shape.sign):
        for body in endless(parser.parse(pattern.pattern, pattern.flags)):
            begins_a_word = r"(?<!\w" in str(shape.pattern.pattern) and not any(takes(body, each) for each in "-_./\\")
            assert begins_a_word or not all(takes(body, each) for each in shape.mark)


def test_a_pattern_that_reads_on_and_fails_would_be_found():
    """As `eyJ…` in which every `eyJ` begins an attempt that reads to the end of the word."""
    [body] = endless(parser.parse(r"eyJ[A-Za-z0-9_-]{8,}\.x"))
    assert all(takes(body, each) for each in "eyJ-")
    assert not list(endless(parser.parse(r"sk-[\w-]{16,}(?:\.\w)?")))


@pytest.mark.parametrize("shape", SHEET, ids=lambda shape: shape.mark)
def test_a_text_of_nothing_but_beginnings_is_read_to_its_end(shape):
    """In a time that grew with the square of its length, this would not end before the run is given up."""
    for filler in ("", "a", "a:", "a" * 16, "-", ";a=b", "\\", " A: ", "PRIVATE KEY-----", "\\n"):
        text = (shape.mark + filler) * (100_000 // len(shape.mark + filler)) + "("
        Redactor()(text)
        Redactor().passes(text.encode())


def test_long_names_and_lines_are_read_to_their_end():
    for part in ("A", "a", "_key", "aA", "_public_key", "token_", "\u2028", "\x1b["):
        text = part * 100_000
        is_secret_name(text)
        assert printable(text).isprintable()
        assert re.search(rb"[\x80-\xff]", printable_json(text.encode())) is None
