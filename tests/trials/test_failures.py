import logging

import pytest

from dspex_trio.model.errors import FailureKind, InvalidInput, LmError, Overloaded, ProgramError, Stage
from dspex_trio.observing.redaction import Redactor
from dspex_trio.trials import failures
from dspex_trio.trials.failures import failure_of


def raised(error):
    """The error with a traceback, as `except` sees it."""
    try:
        raise error
    except BaseException as caught:  # noqa: BLE001
        return caught


def test_an_error_of_ours_tells_its_kind_its_own_stage_and_its_text():
    failure = failure_of(raised(InvalidInput("no input named 'x'")), Stage.HYDRATE, redact=str, trial_id="t")
    assert (failure.kind, failure.stage, failure.error_type, failure.error_message, failure.trial_id) == (
        FailureKind.INVALID_INPUT,
        Stage.EXECUTE,
        "dspex_trio.model.errors.InvalidInput",
        "no input named 'x'",
        "t",
    )
    assert not failure.retryable
    assert "InvalidInput: no input named 'x'" in failure.traceback


def test_a_wrapped_error_is_told_as_what_it_was():
    """The caller wants to see the program's ValueError, and our kind beside it."""
    try:
        try:
            raise ValueError("bad weight")
        except ValueError as error:
            raise ProgramError("ignored") from error
    except ProgramError as caught:
        failure = failure_of(caught, Stage.EXECUTE, redact=str)
    assert (failure.kind, failure.error_type, failure.error_message) == (
        FailureKind.PROGRAM_ERROR,
        "ValueError",
        "bad weight",
    )
    assert failure.causes == ()


def test_what_the_provider_said_about_another_try_is_kept():
    failure = failure_of(LmError("429", retryable=True, retry_after=1.5), Stage.EXECUTE, redact=str)
    assert (failure.retryable, failure.retry_after) == (True, 1.5)
    assert failure_of(Overloaded("full"), Stage.ADMISSION, redact=str).retryable


def test_causes_are_a_tree_of_chains_and_members():
    try:
        try:
            raise KeyError("inner")
        except KeyError:
            members = [raised(ValueError("one")), raised(OSError("two"))]
            raise ExceptionGroup("both", members)  # noqa: B904 - the context is the point
    except ExceptionGroup as group:
        failure = failure_of(LmError("x"), Stage.EXECUTE, redact=str)
        wrapper = ProgramError("x")
        wrapper.__cause__ = group
        failure = failure_of(wrapper, Stage.EXECUTE, redact=str)
    assert failure.error_type == "ExceptionGroup"
    assert [(c.relation, c.error_type, c.error_message) for c in failure.causes] == [
        ("context", "KeyError", "'inner'"),
        ("member", "ValueError", "one"),
        ("member", "OSError", "two"),
    ]


def test_a_cycle_and_an_endless_chain_of_causes_come_to_an_end():
    first, second = ValueError("1"), ValueError("2")
    first.__cause__, second.__cause__ = second, first
    [cause] = failure_of(InvalidInput("x"), Stage.EXECUTE, redact=str).causes or [None]
    assert cause is None
    wrapper = ProgramError("x")
    wrapper.__cause__ = first
    assert [c.causes for c in failure_of(wrapper, Stage.EXECUTE, redact=str).causes] == [()]

    error = top = ValueError("top")
    for n in range(200):
        error.__cause__ = ValueError(str(n))
        error = error.__cause__
    wrapper.__cause__ = top

    def depth(causes):
        return 1 + depth(causes[0].causes) if causes else 0

    assert depth(failure_of(wrapper, Stage.EXECUTE, redact=str).causes) == failures.MAX_CAUSES


@pytest.mark.parametrize("broken", [RuntimeError, SystemExit, KeyboardInterrupt])
def test_an_exception_whose_text_cannot_be_had_is_still_told(broken):
    """A `__str__` that exits would otherwise end the worker: failures are described on its own thread."""

    class Hostile(Exception):
        def __str__(self):
            raise broken("no")

    wrapper = ProgramError("x")
    wrapper.__cause__ = raised(Hostile())
    failure = failure_of(wrapper, Stage.EXECUTE, redact=str)
    assert failure.error_message == f"<its text cannot be had: __str__ raised {broken.__name__}>"
    assert "Hostile" in failure.traceback


def test_long_texts_keep_both_ends():
    failure = failure_of(InvalidInput("a" * 20_000 + "b"), Stage.EXECUTE, redact=str)
    assert len(failure.error_message) < failures.MAX_MESSAGE_CHARS + 100
    assert failure.error_message.startswith("aaa")
    assert failure.error_message.endswith("b")
    assert "characters left out" in failure.error_message


def test_a_fault_of_ours_is_logged_under_an_id_and_only_the_id_is_told(caplog):
    with caplog.at_level(logging.ERROR):
        failure = failure_of(raised(RuntimeError("our secret state")), Stage.SYNC, redact=str, trial_id="t9")
    assert (failure.kind, failure.stage) == (FailureKind.INTERNAL, Stage.SYNC)
    assert "our secret state" not in failure.error_message + failure.traceback
    assert failure.details["error_id"] in failure.error_message
    assert failure.details["error_id"] in caplog.text
    assert "our secret state" in caplog.text


@pytest.mark.parametrize(
    "text",
    [
        "key operator-key-123 refused",
        "from-the-environment",
        "Incorrect API key provided: sk-proj-abcdefghijklmnopqrstuv",
        "Authorization: Bearer abcdef.ghijkl",
        "https://user:pa55word@host/",
    ],
)
def test_secrets_are_taken_out_of_messages_and_tracebacks(text):
    redact = Redactor(
        ["operator-key-123", "short"], {"OPENAI_API_KEY": "from-the-environment", "HOME": "innocent-words"}
    )
    failure = failure_of(raised(InvalidInput(text)), Stage.EXECUTE, redact=redact)
    assert "[redacted]" in failure.error_message
    for secret in ("operator-key-123", "from-the-environment", "sk-proj", "abcdef.ghijkl", "pa55word"):
        assert secret not in failure.error_message + failure.traceback.split("raise error")[-1]
    assert redact("short innocent-words") == "short innocent-words"


def test_the_name_of_an_exceptions_class_holds_no_secret_either():
    """A class may be made while the program runs, and named after whatever it holds."""
    named = type("sk-abcdefghijklmnop1234", (ValueError,), {"__module__": "a"})
    try:
        try:
            raise named("first")
        except ValueError as error:
            raise ProgramError("ignored") from error
    except ProgramError as caught:
        failure = failure_of(caught, Stage.EXECUTE, redact=Redactor())
    behind = failure_of(raised(InvalidInput("no").with_traceback(None)), Stage.EXECUTE, redact=Redactor())
    assert (failure.error_type, behind.error_type) == ("a.[redacted]", "dspex_trio.model.errors.InvalidInput")
    assert "sk-" not in failure.traceback.splitlines()[-1]
    grouped = failure_of(ExceptionGroup("two", [named("one")]), Stage.EXECUTE, redact=Redactor())
    assert grouped.kind is FailureKind.INTERNAL
    [cause] = failures.describe(ExceptionGroup("two", [named("one")]), Redactor()).causes
    assert cause.error_type == "a.[redacted]"


def test_an_exception_is_described_by_what_it_is_and_not_by_what_its_class_makes_of_its_attributes():
    class Hostile(Exception):
        @property
        def __cause__(self):
            raise SystemExit("no")

        __context__ = __traceback__ = __suppress_context__ = __cause__

    try:
        try:
            raise KeyError("behind")
        except KeyError as behind:
            raise Hostile("in front") from behind
    except Hostile as caught:
        error = caught
    wrapper = ProgramError("x")
    BaseException.__cause__.__set__(wrapper, error)
    failure = failure_of(wrapper, Stage.EXECUTE, redact=str)
    assert (failure.error_message, [cause.error_message for cause in failure.causes]) == ("in front", ["'behind'"])
    assert "test_an_exception_is_described" in failure.traceback


def test_what_ends_a_trial_while_its_exception_is_described_comes_out_of_there():
    """Else the interrupt would be taken for a `__str__` that raised, and the thread would go on describing."""

    class Ended(BaseException):
        pass

    class Slow(Exception):
        def __str__(self):
            raise Ended

    def check():
        raise Ended

    with pytest.raises(Ended):
        failures.describe(Slow(), str, check)
