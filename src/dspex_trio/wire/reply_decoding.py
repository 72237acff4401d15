"""`ExecuteProgramResponse` → `TrialOutcome`, for the caller's side."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
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
from dspex_trio.model.errors import FailureKind, Stage, ValueNotDecodable
from dspex_trio.wire.anys import decode_any
from dspex_trio.wire.generated import any_pb2, program_pb2

_USAGE: Final = ("prompt_tokens", "completion_tokens", "total_tokens", "cached_tokens", "reasoning_tokens")
_TIMINGS: Final = ("queued_ms", "hydrate_ms", "sync_ms", "execute_ms", "serialize_ms", "total_ms")


def decode_outcome(message: program_pb2.ExecuteProgramResponse) -> TrialOutcome:
    """The outcome that a reply tells.

    Raises:
        ValueNotDecodable: The reply says neither success nor failure, names a kind or stage that this version does not
            know, or holds a value that cannot be decoded.
    """
    match message.WhichOneof("result"):
        case "success":
            return _decode_success(message.success)
        case "failure":
            return _decode_failure(message.failure)
        case _:
            raise ValueNotDecodable("the reply holds neither success nor failure")


def _decode_success(message: program_pb2.TrialSuccess) -> TrialSuccess:
    return TrialSuccess(
        prediction=_decode_values(message.prediction),
        completions=tuple(_decode_values(completion.fields) for completion in message.completions),
        trace=_decode_trace(message.trace),
        latency_ms=message.latency_ms,
        cost=decode_cost(message.cost),
        timings=_decode_timings(message.timings),
        variables=_decode_variables(message.variables),
        trial_id=message.trial_id,
        warnings=tuple(message.warnings),
        trace_truncated=message.trace_truncated,
    )


def _decode_failure(message: program_pb2.TrialFailure) -> TrialFailure:
    try:
        kind, stage = FailureKind(message.kind), Stage(message.stage)
    except ValueError as error:
        raise ValueNotDecodable(f"the failure is of a kind or stage unknown here: {error}") from None
    after = message.retry_after
    return TrialFailure(
        kind=kind,
        stage=stage,
        error_type=message.error_type,
        error_message=message.error_message,
        traceback=message.traceback,
        retryable=message.retryable,
        retry_after=after.seconds + after.nanos / 1e9 if message.HasField("retry_after") else None,
        causes=tuple(map(_decode_cause, message.causes)),
        timings=_decode_timings(message.timings),
        partial_trace=_decode_trace(message.partial_trace),
        cost=decode_cost(message.cost),
        trial_id=message.trial_id,
        details=dict(message.details),
        variables=_decode_variables(message.variables),
    )


def _decode_trace(entries: Iterable[program_pb2.TraceEntry]) -> tuple[TraceEntry, ...]:
    return tuple(
        TraceEntry(
            predictor=entry.predictor,
            class_name=entry.class_name,
            signature=entry.signature,
            inputs=_decode_values(entry.inputs),
            outputs=_decode_values(entry.outputs),
            lm_calls=tuple(map(decode_lm_call, entry.lm_calls)),
            started_ms=entry.started_ms,
            latency_ms=entry.latency_ms,
        )
        for entry in entries
    )


def decode_lm_call(message: program_pb2.LmCall) -> LmCall:
    """One call of a language model, as a trace and a progress event carry it."""
    return LmCall(
        model=message.model,
        messages_json=message.messages_json,
        response_json=message.response_json,
        usage=_decode_usage(message.usage),
        cost_usd=message.cost_usd,
        cost_known=message.cost_known,
        cache_hit=message.cache_hit,
        started_ms=message.started_ms,
        latency_ms=message.latency_ms,
    )


def _decode_cause(message: program_pb2.Cause) -> Cause:
    return Cause(
        error_type=message.error_type,
        error_message=message.error_message,
        traceback=message.traceback,
        relation=message.relation,
        causes=tuple(map(_decode_cause, message.causes)),
    )


def _decode_values(values: Mapping[str, any_pb2.Any]) -> dict[str, Any]:
    decoded = {}
    for name, value in values.items():
        try:
            decoded[name] = decode_any(value)
        except ValueNotDecodable as error:
            raise ValueNotDecodable(f"{name}: {error}") from None
    return decoded


def _decode_variables(variables: Mapping[str, program_pb2.BoundVariable]) -> dict[str, BoundVariable]:
    return {
        parameter: BoundVariable(
            parameter=bound.parameter,
            variable=bound.variable,
            value=decode_any(bound.value),
            version=bound.version,
            from_default=bound.from_default,
        )
        for parameter, bound in variables.items()
    }


def decode_cost(message: program_pb2.Cost) -> Cost:
    """What a trial cost."""
    return Cost(
        total_usd=message.total_usd,
        known=message.known,
        usage=_decode_usage(message.usage),
        lm_calls=message.lm_calls,
        cache_hits=message.cache_hits,
    )


def _decode_usage(message: program_pb2.Usage) -> Usage:
    return Usage(**{name: getattr(message, name) for name in _USAGE})


def _decode_timings(message: program_pb2.Timings) -> Timings:
    return Timings(**{name: getattr(message, name) for name in _TIMINGS})
