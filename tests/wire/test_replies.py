import json
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dspex_trio.model import (
    BoundVariable,
    Cause,
    Cost,
    LmCall,
    Timings,
    TraceEntry,
    TrialFailure,
    TrialSuccess,
    Usage,
)
from dspex_trio.model.errors import FailureKind, Stage, ValueNotDecodable
from dspex_trio.wire import decode_outcome, encode_json, encode_outcome, outcome_to_json
from dspex_trio.wire.generated import program_pb2

from .strategies import plain_values, text

LIMIT = 1 << 20
CALL = LmCall(
    model="m",
    messages_json="[]",
    response_json="{}",
    usage=Usage(1, 2, 3, 4, 5),
    cost_usd=0.25,
    cost_known=True,
    cache_hit=True,
    started_ms=1.5,
    latency_ms=2.5,
)


def entry(number, size=0):
    return TraceEntry(
        predictor=f"p{number}",
        class_name="dspy.Predict",
        signature="question -> answer",
        inputs={"question": "x" * size},
        outputs={"answer": [number]},
        lm_calls=(CALL,),
        started_ms=1.0,
        latency_ms=2.0,
    )


SUCCESS = TrialSuccess(
    prediction={"answer": "42", "scores": [1, 2.5, None], "blob": b"\x00"},
    completions=({"answer": "42"}, {"answer": "43"}),
    trace=(entry(1), entry(2)),
    latency_ms=12.5,
    cost=Cost(0.5, known=False, usage=Usage(prompt_tokens=7), lm_calls=2, cache_hits=1),
    timings=Timings(1.0, 2.0, 3.0, 4.0, 5.0, 15.0),
    variables={
        "temperature": BoundVariable("temperature", "t", 0.5, 7),
        "top_p": BoundVariable("top_p", "p", None, 0, from_default=True),
    },
    trial_id="t1",
    warnings=("answer: object cannot be expressed as JSON",),
    trace_truncated=True,
)
FAILURE = TrialFailure(
    kind=FailureKind.LM_ERROR,
    stage=Stage.EXECUTE,
    error_type="dspy.LMError",
    error_message="quota",
    traceback="Traceback …",
    retryable=True,
    retry_after=1.25,
    causes=(Cause("ExceptionGroup", "two", "", "cause", (Cause("ValueError", "a", "tb", "member"),)),),
    timings=Timings(total_ms=3.0),
    partial_trace=(entry(1),),
    cost=Cost(0.0, known=True),
    trial_id="t2",
    details={"rung": "wake"},
    variables={"temperature": BoundVariable("temperature", "t", 0.5, 7)},
)


@pytest.mark.parametrize(
    "outcome", [SUCCESS, FAILURE, TrialSuccess({}), TrialFailure(FailureKind.INTERNAL, Stage.SYNC, "E", "m")]
)
def test_an_outcome_arrives_as_it_was(outcome):
    sent = encode_outcome(outcome, max_bytes=LIMIT).SerializeToString()
    assert decode_outcome(program_pb2.ExecuteProgramResponse.FromString(sent)) == outcome


@given(st.dictionaries(text, plain_values, max_size=5), st.lists(text).map(tuple))
def test_any_prediction_arrives_as_it_was(prediction, warnings):
    outcome = TrialSuccess(prediction, warnings=warnings)
    assert decode_outcome(encode_outcome(outcome, max_bytes=LIMIT)) == outcome


def test_every_kind_and_stage_has_its_number_on_the_wire():
    for kind in FailureKind:
        assert program_pb2.FailureKind.Value(f"FAILURE_KIND_{kind.name}") == kind
    for stage in Stage:
        assert program_pb2.Stage.Value(f"STAGE_{stage.name}") == stage
    assert len(program_pb2.FailureKind.values()) == len(FailureKind) + 1
    assert len(program_pb2.Stage.values()) == len(Stage) + 1


def test_a_reply_that_says_nothing_is_an_error_of_its_own():
    with pytest.raises(ValueNotDecodable, match="neither success nor failure"):
        decode_outcome(program_pb2.ExecuteProgramResponse())
    later = program_pb2.ExecuteProgramResponse(failure={"kind": 99, "stage": 1})
    with pytest.raises(ValueNotDecodable, match="unknown here"):
        decode_outcome(later)


def test_a_trace_over_its_own_limit_keeps_its_first_entries():
    trace = tuple(entry(number, 1000) for number in range(10))
    response = encode_outcome(TrialSuccess({"a": 1}, trace=trace), max_bytes=LIMIT, max_trace_bytes=5_000)
    found = decode_outcome(response)
    assert found.trace == trace[: len(found.trace)]
    assert 2 <= len(found.trace) <= 4
    assert found.trace_truncated


def test_a_trace_that_fits_is_whole_and_says_so():
    response = encode_outcome(TrialSuccess({}, trace=(entry(1, 1000),)), max_bytes=LIMIT, max_trace_bytes=5_000)
    assert not response.success.trace_truncated
    assert len(response.success.trace) == 1


@pytest.mark.parametrize("limit", [2_000, 3_000, 5_000, 9_999, 30_000])
def test_no_reply_is_longer_than_the_limit_even_after_its_timings_are_completed(limit):
    trace = tuple(entry(number, 700) for number in range(20))
    for outcome in (
        TrialSuccess({"a": "x"}, trace=trace),
        TrialSuccess({"a": "x" * 50_000}, trace=trace),
        TrialFailure(FailureKind.PROGRAM_ERROR, Stage.EXECUTE, "E", "m", partial_trace=trace),
        TrialFailure(
            FailureKind.PROGRAM_ERROR, Stage.EXECUTE, "E", "é" * 50_000, traceback="t" * 50_000, partial_trace=trace
        ),
    ):
        response = encode_outcome(outcome, max_bytes=limit)
        timings = (response.success if response.HasField("success") else response.failure).timings
        timings.serialize_ms = timings.total_ms = 1.5
        assert response.ByteSize() <= limit


def test_an_outcome_over_the_limit_without_its_trace_is_a_failure_that_says_by_how_much():
    outcome = TrialSuccess(
        {"a": "x" * 10_000}, trace=(entry(1),), cost=Cost(1.5), trial_id="t1", timings=Timings(total_ms=9)
    )
    found = decode_outcome(encode_outcome(outcome, max_bytes=5_000))
    assert (found.kind, found.stage, found.retryable) == (FailureKind.SERIALIZATION_ERROR, Stage.SERIALIZE, False)
    assert "bytes even without its trace, and the limit is 5000 (--max-message-bytes)" in found.error_message
    assert (found.trial_id, found.cost, found.timings) == ("t1", Cost(1.5), Timings(total_ms=9))
    assert found.partial_trace == outcome.trace


def test_a_failure_keeps_the_end_of_its_trace_where_it_broke():
    trace = tuple(entry(number, 1000) for number in range(10))
    failure = TrialFailure(FailureKind.PROGRAM_ERROR, Stage.EXECUTE, "E", "m", partial_trace=trace)
    found = decode_outcome(encode_outcome(failure, max_bytes=LIMIT, max_trace_bytes=3_000))
    assert found.partial_trace == trace[-len(found.partial_trace) :]
    assert found.details == {"trace_truncated": "true"}


def test_text_that_utf8_cannot_carry_fails_nothing():
    """Undecodable file names in a message, or a surrogate cut in two by a model."""
    bad = "a\ud800"
    failure = TrialFailure(
        FailureKind.PROGRAM_ERROR,
        Stage.EXECUTE,
        bad,
        bad,
        traceback=bad,
        causes=(Cause(bad, bad, bad, "cause"),),
        details={bad: bad},
    )
    assert encode_outcome(failure, max_bytes=LIMIT).failure.error_message == "a\ufffd"
    call = LmCall(bad, bad, bad)
    trace = (TraceEntry(bad, bad, bad, {bad: bad}, {}, (call,)),)
    success = TrialSuccess({bad: bad}, completions=({bad: bad},), trace=trace, warnings=(bad,))
    assert decode_outcome(encode_outcome(success, max_bytes=LIMIT)).prediction == {"a\ufffd": "a\ufffd"}


def test_counts_out_of_range_are_cut():
    """A provider's usage may be anything."""
    outcome = TrialSuccess({}, cost=Cost(usage=Usage(prompt_tokens=-1, total_tokens=2**40)))
    usage = decode_outcome(encode_outcome(outcome, max_bytes=LIMIT)).cost.usage
    assert (usage.prompt_tokens, usage.total_tokens) == (0, 2**32 - 1)


# ---- the JSON form --------------------------------------------------------------------------------------------------


def field_names(message):
    return {field.name for field in message.DESCRIPTOR.fields}


def test_the_json_form_has_every_field_of_the_messages_by_its_name():
    success = outcome_to_json(SUCCESS)["success"]
    failure = outcome_to_json(FAILURE)["failure"]
    for found, message in [
        (success, program_pb2.TrialSuccess),
        (failure, program_pb2.TrialFailure),
        (success["trace"][0], program_pb2.TraceEntry),
        (success["trace"][0]["lm_calls"][0], program_pb2.LmCall),
        (success["cost"], program_pb2.Cost),
        (success["cost"]["usage"], program_pb2.Usage),
        (success["timings"], program_pb2.Timings),
        (success["variables"]["temperature"], program_pb2.BoundVariable),
        (success["completions"][0], program_pb2.Completion),
        (failure["causes"][0], program_pb2.Cause),
    ]:
        assert found.keys() == field_names(message)


def test_the_json_form_says_enums_by_name_and_durations_in_seconds():
    failure = outcome_to_json(FAILURE)["failure"]
    assert (failure["kind"], failure["stage"]) == ("FAILURE_KIND_LM_ERROR", "STAGE_EXECUTE")
    assert failure["retry_after"] == "1.25s"
    assert "retry_after" not in outcome_to_json(TrialFailure(FailureKind.INTERNAL, Stage.SYNC, "E", "m"))["failure"]


def test_the_json_form_holds_plain_json_values():
    json_form = outcome_to_json(TrialSuccess({"a": math.nan, "b": b"\x00", "c": 10**5000, "d": {"e": [1]}}))
    written = encode_json(json_form)
    assert json.loads(written, parse_int=str)["success"]["prediction"] == {
        "a": "NaN",
        "b": {"__bytes__": "AA=="},
        "c": "1" + "0" * 5000,
        "d": {"e": ["1"]},
    }
