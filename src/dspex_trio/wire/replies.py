"""Replies of the program service: what becomes of an outcome when it leaves, in full and in brief."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from dspex_trio.model import TrialFailure, TrialOptions, TrialOutcome, TrialSuccess
from dspex_trio.wire.generated.program_pb2 import ExecuteProgramResponse
from dspex_trio.wire.reply_decoding import decode_outcome
from dspex_trio.wire.reply_encoding import encode_outcome


def encode_reply(
    outcome: TrialOutcome, options: TrialOptions, max_bytes: int, clock: Callable[[], float]
) -> ExecuteProgramResponse:
    """The reply that tells `outcome`, cut to the limits; what encoding takes is counted in its timings.

    Where an executor process made it already, that is the reply; and what it had pushed of a trial that was ended
    without it goes into the failure.

    Args:
        outcome: The outcome.
        options: What its caller wants left out.
        max_bytes: The longest reply.
        clock: In seconds.
    """
    if outcome.reply:
        made: ExecuteProgramResponse = ExecuteProgramResponse.FromString(outcome.reply)
        return made
    began = clock()
    response = encode_outcome(outcome, max_bytes=max_bytes, max_trace_bytes=options.max_trace_bytes)
    if isinstance(outcome, TrialFailure) and outcome.pushed:
        response = _with_pushed(response, outcome.pushed, options, max_bytes)
    spent_ms = (clock() - began) * 1e3
    timings = (response.success if response.HasField("success") else response.failure).timings
    timings.serialize_ms += spent_ms
    timings.total_ms += spent_ms
    return response


def _with_pushed(
    response: ExecuteProgramResponse, pushed: bytes, options: TrialOptions, max_bytes: int
) -> ExecuteProgramResponse:
    """The failure with the trace and the variables that were pushed, of the trace the last entries that fit."""
    merged: ExecuteProgramResponse = ExecuteProgramResponse.FromString(pushed)
    if merged.HasField("success"):  # it came too late to be one
        late = ExecuteProgramResponse.FromString(pushed).success
        merged.failure.partial_trace.extend(late.trace)
        for name, variable in late.variables.items():
            merged.failure.variables[name].CopyFrom(variable)
    merged.failure.ClearField("cost")  # the outcome knows it
    if options.omit_trace:
        merged.failure.ClearField("partial_trace")
    trace = merged.failure.partial_trace
    merged.MergeFrom(response)
    limit = min(max_bytes, options.max_trace_bytes or max_bytes)
    sizes = [entry.ByteSize() for entry in trace]
    room = max(min(limit, max_bytes - (merged.ByteSize() - sum(sizes)) - 16 * len(sizes)), 0)
    cut = 0
    while sum(sizes[cut:]) > room:
        cut += 1
    if cut:
        del trace[:cut]
        merged.failure.details["trace_truncated"] = "true"
    return merged


def in_full(outcome: TrialOutcome, options: TrialOptions, max_bytes: int) -> TrialOutcome:
    """The outcome with all that an executor process encoded of it, decoded."""
    if not outcome.reply and not (isinstance(outcome, TrialFailure) and outcome.pushed):
        return outcome
    return decode_outcome(encode_reply(outcome, options, max_bytes, lambda: 0.0))


def in_brief(outcome: TrialOutcome) -> TrialOutcome:
    """The outcome without values and texts that only its receiver reads: for logs, metrics and policies."""
    if isinstance(outcome, TrialSuccess):
        return replace(outcome, prediction={}, completions=(), trace=(), variables={}, warnings=())
    return replace(outcome, partial_trace=(), variables={}, causes=(), traceback="")
