"""An outcome as a JSON object: `ExecuteProgramResponse` in protobuf's JSON names, snake case, values as plain JSON."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

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
from dspex_trio.wire.jsontext import jsonable


def outcome_to_json(outcome: TrialOutcome) -> dict[str, Any]:
    """`{"success": …}` or `{"failure": …}`, with every field present but an unknown `retry_after`.

    Enums are their names (`STAGE_EXECUTE`), a duration is text in seconds (`"1.5s"`). Values are plain JSON: bytes and
    special floats as they are on the wire. Integers may have any size: write the object with `encode_json`.
    """
    match outcome:
        case TrialSuccess():
            return {"success": _success(outcome)}
        case TrialFailure():
            return {"failure": _failure(outcome)}


def _success(outcome: TrialSuccess) -> dict[str, Any]:
    return {
        "prediction": jsonable(dict(outcome.prediction)),
        "trace": [_entry(entry) for entry in outcome.trace],
        "latency_ms": outcome.latency_ms,
        "cost": _cost(outcome.cost),
        "timings": _timings(outcome.timings),
        "variables": _variables(outcome.variables),
        "trial_id": outcome.trial_id,
        "warnings": list(outcome.warnings),
        "trace_truncated": outcome.trace_truncated,
        "completions": [{"fields": jsonable(dict(fields))} for fields in outcome.completions],
    }


def _failure(outcome: TrialFailure) -> dict[str, Any]:
    failure: dict[str, Any] = {
        "error_type": outcome.error_type,
        "error_message": outcome.error_message,
        "traceback": outcome.traceback,
        "kind": f"FAILURE_KIND_{outcome.kind.name}",
        "stage": f"STAGE_{outcome.stage.name}",
        "retryable": outcome.retryable,
        "causes": [_cause(cause) for cause in outcome.causes],
        "timings": _timings(outcome.timings),
        "partial_trace": [_entry(entry) for entry in outcome.partial_trace],
        "cost": _cost(outcome.cost),
        "trial_id": outcome.trial_id,
        "details": dict(outcome.details),
        "variables": _variables(outcome.variables),
    }
    if outcome.retry_after is not None:
        failure["retry_after"] = f"{outcome.retry_after:.9f}".rstrip("0").rstrip(".") + "s"
    return failure


def _cause(cause: Cause) -> dict[str, Any]:
    return {
        "error_type": cause.error_type,
        "error_message": cause.error_message,
        "traceback": cause.traceback,
        "causes": [_cause(behind) for behind in cause.causes],
        "relation": cause.relation,
    }


def _entry(entry: TraceEntry) -> dict[str, Any]:
    return {
        "predictor": entry.predictor,
        "class_name": entry.class_name,
        "signature": entry.signature,
        "inputs": jsonable(dict(entry.inputs)),
        "outputs": jsonable(dict(entry.outputs)),
        "lm_calls": [lm_call_to_json(call) for call in entry.lm_calls],
        "started_ms": entry.started_ms,
        "latency_ms": entry.latency_ms,
    }


def lm_call_to_json(call: LmCall) -> dict[str, Any]:
    """One call of a language model."""
    return {
        "model": call.model,
        "messages_json": call.messages_json,
        "response_json": call.response_json,
        "usage": _usage(call.usage),
        "cost_usd": jsonable(call.cost_usd),
        "cost_known": call.cost_known,
        "cache_hit": call.cache_hit,
        "started_ms": call.started_ms,
        "latency_ms": call.latency_ms,
    }


def _variables(variables: Mapping[str, BoundVariable]) -> dict[str, Any]:
    return {
        parameter: {
            "variable": bound.variable,
            "value": jsonable(bound.value),
            "version": bound.version,
            "from_default": bound.from_default,
            "parameter": bound.parameter,
        }
        for parameter, bound in variables.items()
    }


def _cost(cost: Cost) -> dict[str, Any]:
    return {
        "total_usd": jsonable(cost.total_usd),
        "known": cost.known,
        "usage": _usage(cost.usage),
        "lm_calls": cost.lm_calls,
        "cache_hits": cost.cache_hits,
    }


def _usage(usage: Usage) -> dict[str, int]:
    return {
        "prompt_tokens": usage.prompt_tokens,
        "completion_tokens": usage.completion_tokens,
        "total_tokens": usage.total_tokens,
        "cached_tokens": usage.cached_tokens,
        "reasoning_tokens": usage.reasoning_tokens,
    }


def _timings(timings: Timings) -> dict[str, float]:
    return {
        "queued_ms": timings.queued_ms,
        "hydrate_ms": timings.hydrate_ms,
        "sync_ms": timings.sync_ms,
        "execute_ms": timings.execute_ms,
        "serialize_ms": timings.serialize_ms,
        "total_ms": timings.total_ms,
    }
