import math

import click
import pytest

from dspex_trio.demo.report import progress_line, report
from dspex_trio.demo.results import CallFailed, ClientCancelled, Result, add_up, percentile
from dspex_trio.demo.trials import Trial
from dspex_trio.model import BoundVariable, Cost, TrialFailure, TrialSuccess, Usage
from dspex_trio.model.errors import FailureKind, Stage


def trial(name="t", **more):
    return Trial(id=name, program={"python_class": "dspy.Predict"}, session="s", inputs={}, **more)


def success(answer, **more):
    return TrialSuccess(prediction={"answer": answer}, **more)


def failure(kind=FailureKind.PROGRAM_ERROR, stage=Stage.EXECUTE, message="it is\nbroken"):
    return TrialFailure(kind=kind, stage=stage, error_type="pkg.Broken", error_message=message)


RAISES = trial(kind=FailureKind.PROGRAM_ERROR, stage=Stage.EXECUTE)
CANCELS = trial(kind=FailureKind.CANCELLED, client_cancels=True)


@pytest.mark.parametrize(
    ("wanted", "outcome", "as_expected"),
    [
        (trial(answers=("yes",)), success("yes"), True),
        (trial(answers=("yes",)), success("no"), False),
        (trial(answers=("yes",)), failure(), False),
        (RAISES, failure(), True),
        (RAISES, failure(stage=Stage.HYDRATE), False),
        (RAISES, failure(kind=FailureKind.INTERNAL), False),
        (RAISES, success("yes"), False),
        (CANCELS, ClientCancelled(), True),
        (CANCELS, success("too fast"), False),
        (trial(), ClientCancelled(), False),
        (trial(), CallFailed("UNAVAILABLE"), False),
    ],
)
def test_a_trial_is_as_expected_only_if_it_ended_as_its_line_says(wanted, outcome, as_expected):
    assert Result(wanted, outcome, 1.0).as_expected is as_expected


def test_a_real_model_may_be_wrong():
    result = Result(trial(answers=("yes",)), success("no"), 1.0, answers_count=False)
    assert (result.as_expected, result.right, result.ending) == (True, False, "wrong")


def test_the_table_shows_what_the_caller_learnt():
    bound = BoundVariable("temperature", "temp", 0.5, version=1)
    default = BoundVariable("max_tokens", "most", 300, from_default=True)
    cost = Cost(0.0, known=False, usage=Usage(20, 5, 25), lm_calls=1)
    results = [
        Result(trial("one", answers=("yes",)), success("yes", cost=cost, variables={"a": bound, "b": default}), 12.4),
        Result(RAISES, failure(), 3.0),
    ]
    lines = [click.unstyle(line) for line in report(results, seconds=1.5, width=None)]
    one = next(line for line in lines if " one " in line)
    assert " ".join(one.split()) == "ok one Predict right 12 ms 20+5 max_tokens=300* temperature=0.5"
    assert any("PROGRAM_ERROR" in line and "EXECUTE" in line for line in lines)
    assert any(line.endswith("Broken: it is broken") for line in lines)
    assert any("2 of 2 ended as expected" in line for line in lines)
    assert any(line.startswith("cost") and "unknown" in line for line in lines)


def test_what_was_not_as_expected_says_what_was_wanted():
    results = [Result(trial("odd", answers=("yes", "y")), failure(), 1.0)]
    text = click.unstyle("\n".join(report(results, seconds=1, width=None)))
    assert "!!" in text
    assert "wanted 'yes' or 'y', got PROGRAM_ERROR in EXECUTE: Broken: it is broken" in text


def test_a_narrow_terminal_gets_lines_that_are_cut():
    style = BoundVariable("instructions", "style", "a very long text indeed " * 3)
    results = [Result(trial("one"), success("yes", variables={"i": style}), 1.0), Result(RAISES, failure(), 1.0)]
    table = [click.unstyle(line) for line in report(results, seconds=1, width=100)]
    assert max(map(len, table)) <= 100


def test_progress_is_one_plain_line_each():
    """So that it reads in a log file too."""
    line = click.unstyle(progress_line(Result(RAISES, failure(), 1.0), 7, 45))
    assert line.startswith("[ 7/45] ok t ")
    assert "PROGRAM_ERROR in EXECUTE: Broken: it is broken" in line
    assert "\n" not in line


def test_totals_are_sums_and_one_unknown_price_makes_the_cost_a_lower_bound():
    known = success("yes", cost=Cost(0.25, usage=Usage(10, 5, 15), lm_calls=2))
    unknown = success("yes", cost=Cost(0.0, known=False, usage=Usage(1, 1, 2), lm_calls=1))
    totals = add_up(
        [Result(trial(), known, 10.0), Result(trial(), unknown, 30.0), Result(CANCELS, ClientCancelled(), 20.0)]
    )
    assert (totals.prompt_tokens, totals.completion_tokens, totals.lm_calls) == (11, 6, 3)
    assert (totals.cost_usd, totals.cost_known) == (0.25, False)
    assert (totals.trials, totals.as_expected, totals.answered, totals.right) == (3, 3, 2, 2)
    assert (totals.p50_ms, totals.p99_ms) == (20.0, 30.0)


@pytest.mark.parametrize(("percent", "value"), [(0, 1), (50, 2), (51, 3), (99, 4), (100, 4)])
def test_percentiles_are_values_that_occurred(percent, value):
    assert percentile([4, 1, 3, 2], percent) == value


def test_a_percentile_of_nothing_is_no_number():
    assert math.isnan(percentile([], 50))
