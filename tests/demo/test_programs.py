import dspy
import pytest
from dspy.utils import DummyLM

from dspex_trio.demo import programs

CONTEXT = "The violin has four strings. The cello was first described by Silvestro Ganassi in 1542."


def run(module, replies, **inputs):
    with dspy.context(lm=DummyLM(replies), trace=[]):
        return module(context=CONTEXT, **inputs)


@pytest.mark.parametrize(
    ("topic", "begins"),
    [
        ("Marie Curie", "Marie Curie was a physicist"),
        ("the whale", "The blue whale"),
        ("telephones", "The telephone"),
        ("Wilhelm Steinitz", "Chess came"),
        ("Atlantis", "Nothing found."),
        ("", "Nothing found."),
    ],
)
def test_lookup_finds_the_article_by_its_title_first_and_else_by_its_text(topic, begins):
    assert programs.lookup(topic).startswith(begins)


@pytest.mark.parametrize(
    ("expression", "result"),
    [("17 * 24", "408"), ("1 / 8", "0.125"), ("-(2 + 3) * 4", "-20"), ("10000000 * 3", "30000000"), ("7 - 7", "0")],
)
def test_the_calculator_calculates(expression, result):
    assert programs.calculator(expression) == result


@pytest.mark.parametrize("expression", ["__import__('os')", "2 ** 9", "x + 1", "'a' * 3", "1 +", "True + 1", "[1]"])
def test_the_calculator_evaluates_nothing_but_arithmetic(expression):
    with pytest.raises((ValueError, SyntaxError)):
        programs.calculator(expression)


def test_a_cited_answer_quotes_its_sentence():
    reply = {"reasoning": "It says so.", "answer": "Silvestro Ganassi"}
    prediction = run(programs.CitedAnswer(), [reply], question="Who described the cello?")
    assert prediction.quote == "The cello was first described by Silvestro Ganassi in 1542."


@pytest.mark.parametrize("strict", [True, False])
def test_an_answer_that_the_context_does_not_hold_is_an_error_only_when_strict(strict):
    module = programs.CitedAnswer()
    module.strict = strict
    replies = [{"reasoning": "I guess.", "answer": "Antonio Stradivari"}]
    if strict:
        with pytest.raises(programs.UnsupportedAnswer, match="does not say 'Antonio Stradivari'"):
            run(module, replies, question="Who described the cello?")
    else:
        assert run(module, replies, question="Who described the cello?").quote == ""


def test_a_deliberation_answers_what_most_drafts_say():
    module = programs.Deliberation()
    module.drafts = 3
    replies = [{"answer": answer} for answer in ("five", "four", "four")]
    prediction = run(module, replies, question="How many strings does the violin have?")
    assert (prediction.answer, prediction.votes) == ("four", 2)
