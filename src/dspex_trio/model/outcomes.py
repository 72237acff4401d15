"""What became of a trial: success or failure, with what was seen and spent."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from dspex_trio.model.errors import FailureKind, Stage
from dspex_trio.model.variables import BoundVariable


@dataclass(frozen=True, slots=True)
class Usage:
    """Tokens, as the provider counted them."""

    prompt_tokens: int = 0
    completion_tokens: int = 0
    total_tokens: int = 0
    cached_tokens: int = 0
    reasoning_tokens: int = 0


@dataclass(frozen=True, slots=True)
class Cost:
    """What the provider's calls of a trial cost.

    Attributes:
        total_usd: The sum of the known costs, in US dollars.
        known: Whether the cost of every call that may be billed is known; without it `total_usd` is a lower bound.
        usage: The tokens of all billed calls.
        lm_calls: LM calls that were answered, cache hits included.
        cache_hits: LM calls that DSPy's cache answered; they cost nothing.
    """

    total_usd: float = 0.0
    known: bool = True
    usage: Usage = Usage()
    lm_calls: int = 0
    cache_hits: int = 0


@dataclass(frozen=True, slots=True)
class Timings:
    """Milliseconds that a trial spent in each stage."""

    queued_ms: float = 0.0
    hydrate_ms: float = 0.0
    sync_ms: float = 0.0
    execute_ms: float = 0.0
    serialize_ms: float = 0.0
    total_ms: float = 0.0


@dataclass(frozen=True, slots=True)
class LmCall:
    """One call of a language model.

    Attributes:
        model: The model that was asked.
        messages_json: The prompt's messages as JSON text; empty when prompts are omitted.
        response_json: The response as JSON text; empty when prompts are omitted, or when there was none: the call
            failed, or was under way when the trial ended.
        usage: The tokens of this call; zeros for a cache hit.
        cost_usd: The price in US dollars; 0 when unknown or a cache hit.
        cost_known: Whether the price is known.
        cache_hit: Whether DSPy's cache answered.
        started_ms: When it began, after the start of EXECUTE.
        latency_ms: How long it took.
    """

    model: str
    messages_json: str = ""
    response_json: str = ""
    usage: Usage = Usage()
    cost_usd: float = 0.0
    cost_known: bool = False
    cache_hit: bool = False
    started_ms: float = 0.0
    latency_ms: float = 0.0


@dataclass(frozen=True, slots=True)
class TraceEntry:
    """One call of a predictor.

    Attributes:
        predictor: The predictor's dotted name inside the module.
        class_name: Its class.
        signature: Its signature, in DSPy's notation.
        inputs: Input field → value.
        outputs: Output field → value.
        lm_calls: The LM calls it made, failed ones and those still under way included.
        started_ms: When it began, after the start of EXECUTE.
        latency_ms: How long it took.
    """

    predictor: str
    class_name: str
    signature: str
    inputs: Mapping[str, Any]
    outputs: Mapping[str, Any]
    lm_calls: tuple[LmCall, ...] = ()
    started_ms: float = 0.0
    latency_ms: float = 0.0


@dataclass(frozen=True, slots=True)
class Recording:
    """What was seen of a program while it ran; whole after success, partial after failure.

    Attributes:
        trace: The predictors' calls, in the order in which they ended.
        cost: What it cost.
        truncated: Whether something was left out of the trace because there was too much of it.
        written: `session:NAME` → the last value that the program gave that session variable.
        pushed: Trace and variables as an executor process encoded them while it ran the program: an
            ExecuteProgramResponse with a failure in it. `trace` and `written` are empty then.
        warnings: What the outcome is to say of it.
        details: What a failure's details are to say of it.
    """

    trace: tuple[TraceEntry, ...] = ()
    cost: Cost = Cost()
    truncated: bool = False
    written: Mapping[str, BoundVariable] = field(default_factory=dict)
    pushed: bytes = field(default=b"", repr=False)
    warnings: tuple[str, ...] = ()
    details: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Prediction:
    """What a program returned.

    Attributes:
        fields: Output field → JSON-safe value.
        completions: Every completion, first one first; empty when there is only the one above.
        warnings: What could not be expressed as it was.
    """

    fields: Mapping[str, Any]
    completions: tuple[Mapping[str, Any], ...] = ()
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Cause:
    """An exception behind another one.

    Attributes:
        error_type: The qualified Python type.
        error_message: Its text.
        traceback: Its formatted traceback.
        relation: `cause` (raised from), `context` (raised while handling) or `member` (of an exception group).
        causes: What is behind this one.
    """

    error_type: str
    error_message: str
    traceback: str
    relation: str
    causes: tuple[Cause, ...] = ()


@dataclass(frozen=True, slots=True)
class TrialSuccess:
    """The program returned.

    Attributes:
        prediction: Output field → value.
        completions: Every completion, if there were several.
        trace: The predictors' calls, in the order in which they ended.
        latency_ms: How long the program ran.
        cost: What it cost.
        timings: Where the time went.
        variables: Parameter path → the value it had; `session:NAME` → what the program wrote to a session variable.
        trial_id: As requested; where the request had none, the one that the runtime made for its log and records.
        warnings: What could not be expressed as it was, answers that were cut, what the program changed in its process.
        trace_truncated: Whether something was left out of the trace because of a limit.
        reply: The encoded reply, where an executor process made it; prediction, completions, trace, variables and
            warnings stand in it alone then.
    """

    prediction: Mapping[str, Any]
    completions: tuple[Mapping[str, Any], ...] = ()
    trace: tuple[TraceEntry, ...] = ()
    latency_ms: float = 0.0
    cost: Cost = Cost()
    timings: Timings = Timings()
    variables: Mapping[str, BoundVariable] = field(default_factory=dict)
    trial_id: str = ""
    warnings: tuple[str, ...] = ()
    trace_truncated: bool = False
    reply: bytes = field(default=b"", repr=False, compare=False)


@dataclass(frozen=True, slots=True)
class TrialFailure:
    """The trial ended without a result.

    Attributes:
        kind: Why, in terms a caller can act on.
        stage: The stage in which it failed.
        error_type: The qualified Python type of the exception.
        error_message: Its text.
        traceback: Its formatted traceback.
        retryable: Whether trying again may help.
        retry_after: Seconds after which it may; None when unknown.
        causes: The exceptions behind it, as a tree.
        timings: Where the time went until then.
        partial_trace: The predictors' calls that had ended, in that order. Behind them, one entry for each that had
            asked a language model and had not ended, with those LM calls, also one that was under way, and without
            inputs and outputs.
        cost: What was spent until then.
        trial_id: As requested; where the request had none, the one that the runtime made for its log and records.
        details: At least `rung`, `rung_ms`, `stuck`, `error_id`, `lm_error`, `cut_answers` where they apply.
        variables: Parameter path → the value it had, as far as they were applied; `session:NAME` as in TrialSuccess.
        reply: As in TrialSuccess; traceback, causes, partial trace and variables stand in it alone then.
        pushed: Partial trace and variables as an executor process encoded them before this process ended the trial
            without it: see `Recording`.
    """

    kind: FailureKind
    stage: Stage
    error_type: str
    error_message: str
    traceback: str = ""
    retryable: bool = False
    retry_after: float | None = None
    causes: tuple[Cause, ...] = ()
    timings: Timings = Timings()
    partial_trace: tuple[TraceEntry, ...] = ()
    cost: Cost = Cost()
    trial_id: str = ""
    details: Mapping[str, str] = field(default_factory=dict)
    variables: Mapping[str, BoundVariable] = field(default_factory=dict)
    reply: bytes = field(default=b"", repr=False, compare=False)
    pushed: bytes = field(default=b"", repr=False, compare=False)


TrialOutcome: TypeAlias = TrialSuccess | TrialFailure
