import json
from collections import Counter

import pytest

from dspex_trio.demo.trials import DEFAULT_FILE, InvalidTrials, Trial, read_trials
from dspex_trio.model.errors import FailureKind, Stage

SESSION = '{"session": "s", "variables": {"temperature": {"type": "float", "value": 0.5, "constraints": {"max": 1}}}}'
PROGRAM = '{"program": "p", "spec": {"python_class": "dspy.Predict", "signature": "question -> answer"}}'
TRIAL = '{"trial": "t", "program": "p", "session": "s", "inputs": {"question": "?"}, "answers": ["yes"], "timeout": 2}'


@pytest.fixture
def write(tmp_path):
    def run(*lines):
        path = tmp_path / "trials.jsonl"
        path.write_text("\n".join(lines), encoding="utf-8")
        return path

    return run


def trial(**more):
    return Trial(id="t", program={}, session="", inputs={}, **more)


def test_a_file_is_sessions_programs_and_trials(write):
    found = read_trials(write(SESSION, "", PROGRAM, TRIAL))
    assert found.sessions["s"]["temperature"].value == 0.5
    (one,) = found.trials
    assert one.program["python_class"] == "dspy.Predict"
    assert (one.id, one.session, one.inputs, one.timeout) == ("t", "s", {"question": "?"}, 2)
    assert (one.kind, one.stage, one.client_cancels) == (None, None, False)


def test_an_expected_failure_has_a_kind_and_a_stage(write):
    line = json.loads(TRIAL) | {"expect": {"kind": "DEADLINE_EXCEEDED", "stage": "EXECUTE"}}
    (one,) = read_trials(write(SESSION, PROGRAM, json.dumps(line))).trials
    assert (one.kind, one.stage) == (FailureKind.DEADLINE_EXCEEDED, Stage.EXECUTE)


@pytest.mark.parametrize(
    ("lines", "said"),
    [
        (["{"], "line 1: is no JSON"),
        (["[]"], "line 1: is neither"),
        ([SESSION, SESSION], "line 2: session 's' is there twice"),
        ([SESSION, TRIAL], "line 2: there is no program 'p' above"),
        ([PROGRAM, TRIAL], "line 2: there is no session 's' above"),
        ([SESSION, PROGRAM, TRIAL.replace("answers", "anwsers")], "line 3: anwsers"),
        ([SESSION, PROGRAM, TRIAL.replace('"timeout": 2', '"timeout": -2')], "line 3: timeout"),
        ([SESSION, PROGRAM, TRIAL.replace('"timeout": 2', '"expect": {"kind": "BAD_LUCK"}')], "line 3: expect.kind"),
    ],
)
def test_a_bad_line_is_named_with_its_fault(write, lines, said):
    with pytest.raises(InvalidTrials) as error:
        read_trials(write(*lines))
    assert str(error.value).startswith(said)


@pytest.mark.parametrize(
    ("answers", "said", "right"),
    [
        (["The Red Sea"], "red sea", True),
        (["5,895 metres"], "5895 metres", True),
        (["100.0"], 100.0, True),
        (["True"], True, True),
        (["Peru, Colombia"], ["Peru", "Colombia"], True),
        (["a", "b"], "b", True),
        (["1.5"], "15", False),
        (["Red Sea"], "Dead Sea", False),
        (["Red Sea"], None, False),
        ([], "anything", True),
    ],
)
def test_answers_are_compared_without_case_punctuation_and_articles(answers, said, right):
    assert trial(answers=tuple(answers)).accepts(said) is right


def test_an_answer_can_be_asked_for_to_the_letter():
    assert trial(answers=("MADRID",), exactly=True).accepts("MADRID")
    assert not trial(answers=("MADRID",), exactly=True).accepts("Madrid")


def test_the_demos_own_trials_cover_what_the_demo_promises():
    found = read_trials(DEFAULT_FILE)
    classes = Counter(each.program["python_class"] for each in found.trials if each.kind is None)
    assert sum(classes.values()) >= 30
    assert {"dspy.Predict", "dspy.ChainOfThought", "dspy.ReAct", "CitedAnswer", "Deliberation"} <= classes.keys()
    assert all(each.inputs["question"] and each.answers for each in found.trials)
    kinds = {each.kind for each in found.trials}
    assert {FailureKind.PROGRAM_ERROR, FailureKind.DEADLINE_EXCEEDED, FailureKind.CANCELLED} <= kinds
    assert any(each.client_cancels for each in found.trials)
    variables = {name for session in found.sessions.values() for name in session}
    assert {"temperature", "max_tokens", "style", "steps", "strict", "drafts"} <= variables
    assert len({str(session["temperature"].value) for session in found.sessions.values()}) >= 4
