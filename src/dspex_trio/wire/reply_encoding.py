"""`TrialOutcome` → `ExecuteProgramResponse`, kept under the limits on message and trace."""

from __future__ import annotations

from collections.abc import Mapping, MutableMapping
from dataclasses import replace
from typing import Any, Final

from dspex_trio.model import (
    BoundVariable,
    Cause,
    Cost,
    LmCall,
    Timings,
    TraceEntry,
    TrialFailure,
    TrialOutcome,
    TrialSuccess,
    Usage,
)
from dspex_trio.model.errors import FailureKind, SerializationFailed, Stage
from dspex_trio.wire.anys import write_any
from dspex_trio.wire.generated import any_pb2, program_pb2
from dspex_trio.wire.jsontext import text_of, utf8
from dspex_trio.wire.requests import MAX_SECONDS

# For what is added after the sizes were taken: the flag, the timings of serialising, the length prefixes.
_SLACK: Final = 128
_UINT32_MAX: Final = 2**32 - 1


def encode_outcome(
    outcome: TrialOutcome, *, max_bytes: int, max_trace_bytes: int = 0
) -> program_pb2.ExecuteProgramResponse:
    """The reply that tells `outcome`, at most `max_bytes` long.

    A trace that does not fit (or is over `max_trace_bytes`, where that is not 0) is cut: a success keeps its first
    entries and says `trace_truncated`; a failure keeps its last ones, where it broke, and says so in its details. An
    outcome that does not fit even without its trace becomes a SERIALIZATION_ERROR.
    """
    match outcome:
        case TrialSuccess():
            return _encode_success(outcome, max_bytes, max_trace_bytes)
        case TrialFailure():
            return _encode_failure(outcome, max_bytes, max_trace_bytes)


def _encode_success(outcome: TrialSuccess, max_bytes: int, max_trace_bytes: int) -> program_pb2.ExecuteProgramResponse:
    response = program_pb2.ExecuteProgramResponse()
    success = response.success
    success.latency_ms = outcome.latency_ms
    success.trial_id = text_of(outcome.trial_id)
    success.warnings.extend(map(text_of, outcome.warnings))
    success.trace_truncated = outcome.trace_truncated
    _write_values(success.prediction, outcome.prediction)
    for completion in outcome.completions:
        _write_values(success.completions.add().fields, completion)
    _write_variables(success.variables, outcome.variables)
    _write_cost(success.cost, outcome.cost)
    _write_timings(success.timings, outcome.timings)
    room = max_bytes - _SLACK - response.ByteSize()
    if room < 0:
        return _encode_failure(_too_large(outcome, max_bytes - room, max_bytes), max_bytes, max_trace_bytes)
    trace = [_encode_entry(entry) for entry in outcome.trace]
    kept = _fitting(trace, min(room, max_trace_bytes or room))
    success.trace.extend(kept)
    if len(kept) < len(trace):
        success.trace_truncated = True
    return response


def _encode_failure(outcome: TrialFailure, max_bytes: int, max_trace_bytes: int) -> program_pb2.ExecuteProgramResponse:
    response = _failure_without_trace(outcome)
    room = max_bytes - _SLACK - response.ByteSize()
    if room < 0:
        # The kind, the stage and the message are what a caller acts on; the rest goes first.
        outcome = replace(outcome, causes=(), variables={}, traceback="", details={})
        outcome = replace(outcome, error_message=_shortened(outcome.error_message, max_bytes // 4))
        response = _failure_without_trace(outcome)
        room = max(max_bytes - _SLACK - response.ByteSize(), 0)
    failure = response.failure
    trace = [_encode_entry(entry) for entry in outcome.partial_trace]
    kept = _fitting(trace[::-1], min(room, max_trace_bytes or room))[::-1]
    failure.partial_trace.extend(kept)
    if len(kept) < len(trace):
        failure.details["trace_truncated"] = "true"
    return response


def _failure_without_trace(outcome: TrialFailure) -> program_pb2.ExecuteProgramResponse:
    response = program_pb2.ExecuteProgramResponse()
    failure = response.failure
    failure.kind = outcome.kind.value  # type: ignore[assignment]
    failure.stage = outcome.stage.value  # type: ignore[assignment]
    failure.error_type = text_of(outcome.error_type)
    failure.error_message = text_of(outcome.error_message)
    failure.traceback = text_of(outcome.traceback)
    failure.retryable = outcome.retryable
    failure.trial_id = text_of(outcome.trial_id)
    if outcome.retry_after is not None:
        nanos = round(min(max(outcome.retry_after, 0.0), MAX_SECONDS) * 1e9)
        failure.retry_after.seconds, failure.retry_after.nanos = divmod(nanos, 10**9)
        failure.retry_after.SetInParent()
    failure.causes.extend(map(_encode_cause, outcome.causes))
    for key, value in outcome.details.items():
        failure.details[text_of(key)] = text_of(value)
    _write_variables(failure.variables, outcome.variables)
    _write_cost(failure.cost, outcome.cost)
    _write_timings(failure.timings, outcome.timings)
    return response


def _too_large(outcome: TrialSuccess, size: int, limit: int) -> TrialFailure:
    return TrialFailure(
        kind=FailureKind.SERIALIZATION_ERROR,
        stage=Stage.SERIALIZE,
        error_type=f"{SerializationFailed.__module__}.{SerializationFailed.__qualname__}",
        error_message=(
            f"the outcome has {size} bytes even without its trace, and the limit is {limit} "
            f"(--max-message-bytes); let the program return less, or raise the limit on both sides"
        ),
        timings=outcome.timings,
        partial_trace=outcome.trace,
        cost=outcome.cost,
        trial_id=outcome.trial_id,
    )


def _fitting(entries: list[program_pb2.TraceEntry], room: int) -> list[program_pb2.TraceEntry]:
    """The first entries, as many as fit into `room` bytes with their tags and lengths."""
    used = 0
    for count, entry in enumerate(entries):
        used += entry.ByteSize() + 6
        if used > room:
            return entries[:count]
    return entries


def _shortened(text: str, limit: int) -> str:
    return utf8(text)[:limit].decode("utf-8", "ignore")


def _encode_entry(entry: TraceEntry) -> program_pb2.TraceEntry:
    message = program_pb2.TraceEntry(
        predictor=text_of(entry.predictor),
        class_name=text_of(entry.class_name),
        signature=text_of(entry.signature),
        started_ms=entry.started_ms,
        latency_ms=entry.latency_ms,
        lm_calls=[encode_lm_call(call) for call in entry.lm_calls],
    )
    _write_values(message.inputs, entry.inputs)
    _write_values(message.outputs, entry.outputs)
    return message


def encode_lm_call(call: LmCall) -> program_pb2.LmCall:
    """One call of a language model, as a trace and a progress event carry it."""
    message = program_pb2.LmCall(
        model=text_of(call.model),
        messages_json=text_of(call.messages_json),
        response_json=text_of(call.response_json),
        cost_usd=call.cost_usd,
        cost_known=call.cost_known,
        cache_hit=call.cache_hit,
        started_ms=call.started_ms,
        latency_ms=call.latency_ms,
    )
    _write_usage(message.usage, call.usage)
    return message


def _encode_cause(cause: Cause) -> program_pb2.Cause:
    return program_pb2.Cause(
        error_type=text_of(cause.error_type),
        error_message=text_of(cause.error_message),
        traceback=text_of(cause.traceback),
        relation=cause.relation,
        causes=map(_encode_cause, cause.causes),
    )


def _write_values(target: MutableMapping[str, any_pb2.Any], values: Mapping[str, Any]) -> None:
    for name, value in values.items():
        write_any(target[text_of(name)], value)


def _write_variables(
    target: MutableMapping[str, program_pb2.BoundVariable], variables: Mapping[str, BoundVariable]
) -> None:
    for parameter, bound in variables.items():
        message = target[parameter]
        message.parameter = bound.parameter
        message.variable = bound.variable
        message.version = bound.version
        message.from_default = bound.from_default
        message.value.SetInParent()
        write_any(message.value, bound.value)


def _write_cost(message: program_pb2.Cost, cost: Cost) -> None:
    message.total_usd = cost.total_usd
    message.known = cost.known
    message.lm_calls = cost.lm_calls
    message.cache_hits = cost.cache_hits
    _write_usage(message.usage, cost.usage)


def _write_usage(message: program_pb2.Usage, usage: Usage) -> None:
    """Counts come from providers: anything out of range is cut, not an error."""
    for name in _USAGE:
        if (count := getattr(usage, name)) > 0:
            setattr(message, name, min(count, _UINT32_MAX))
    message.SetInParent()


def _write_timings(message: program_pb2.Timings, timings: Timings) -> None:
    for name in _TIMINGS:
        setattr(message, name, getattr(timings, name))


_USAGE: Final = ("prompt_tokens", "completion_tokens", "total_tokens", "cached_tokens", "reasoning_tokens")
_TIMINGS: Final = ("queued_ms", "hydrate_ms", "sync_ms", "execute_ms", "serialize_ms", "total_ms")
