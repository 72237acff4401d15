"""The nouns: what a trial is made of and what becomes of it, and the Protocols that join the rooms.

Everything here is plain data. Values of inputs, variables and predictions are ordinary Python values; the wire's forms
of them belong to `wire`. Times that end in `_ms` are milliseconds; a deadline is an absolute time of Trio's clock.
"""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Protocol, TypeAlias, final

from dspex_trio.errors import FailureKind, Stage


@final
class _Missing:
    """The type of MISSING."""

    def __repr__(self) -> str:
        return "MISSING"

    def __bool__(self) -> bool:
        return False


MISSING: Final = _Missing()
"""Says that there is no value, where None is one."""

EMPTY: Final[Mapping[str, Any]] = {}


# ---- what to run ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Field:
    """One input or output of a signature.

    Attributes:
        name: The field's name.
        type: A Python or JSON type name, such as `str`, `integer`, `list[str]` or `dspy.Image`.
        description: What the field means, for the prompt.
    """

    name: str
    type: str = "str"
    description: str = ""


@dataclass(frozen=True, slots=True)
class Signature:
    """What a program takes and gives: either `text` (`"question -> answer"`) or fields.

    Attributes:
        text: DSPy's signature notation; empty when fields are given.
        inputs: Input fields, in order.
        outputs: Output fields, in order.
        instructions: The task's description for the prompt; empty means DSPy's default.
        name: The signature's name; empty means DSPy's default.
    """

    text: str = ""
    inputs: tuple[Field, ...] = ()
    outputs: tuple[Field, ...] = ()
    instructions: str = ""
    name: str = ""


@dataclass(frozen=True, slots=True)
class Binding:
    """A parameter of the program that takes its value from a session variable.

    Attributes:
        parameter: A path on the module, such as `temperature` or `generate.instructions`.
        variable: The variable's name or id in the session.
        optional: Whether the parameter keeps its own value when the variable is missing.
        default: The value when the variable is missing; MISSING for none.
    """

    parameter: str
    variable: str
    optional: bool = False
    default: Any = MISSING


@dataclass(frozen=True, slots=True)
class LanguageModel:
    """The language model a program asks for.

    Attributes:
        model: The model's name, as `dspy.LM` takes it.
        params: Sampling keywords, such as `temperature`.
    """

    model: str
    params: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Program:
    """A declarative DSPy program (the spec's `DSPex.Program`).

    Attributes:
        python_class: A registered name, or a dotted path under an allowed prefix.
        signature: The signature to construct with; None for a class that needs none.
        config_space: Parameters bound to session variables.
        dependencies: Constructor keywords; `{"tool": "name"}` inside them is a registered tool.
        parameters: Fixed values, by the same paths as bindings.
        state: A DSPy `dump_state` document, loaded after construction; None for none.
        lm: The language model; None for the worker's own.
        name: What to call the program in logs and records.
        description: What it is for.
    """

    python_class: str
    signature: Signature | None = None
    config_space: tuple[Binding, ...] = ()
    dependencies: Mapping[str, Any] = field(default_factory=dict)
    parameters: Mapping[str, Any] = field(default_factory=dict)
    state: Mapping[str, Any] | None = None
    lm: LanguageModel | None = None
    name: str = ""
    description: str = ""


@dataclass(frozen=True, slots=True)
class TrialOptions:
    """What the answer leaves out, and whether DSPy's cache may serve it.

    Attributes:
        omit_trace: Leave the trace out.
        omit_prompts: Leave messages and responses of LM calls out of the trace.
        max_trace_bytes: The most bytes of trace in the answer; 0 for the message limit alone.
        no_cache: Ask the provider even where DSPy's cache has an answer.
    """

    omit_trace: bool = False
    omit_prompts: bool = False
    max_trace_bytes: int = 0
    no_cache: bool = False


@dataclass(frozen=True, slots=True)
class TrialRequest:
    """One trial: a program, its inputs, the session it reads, and the time it has.

    Attributes:
        program: What to run.
        inputs: Input field → value.
        session_id: The session whose variables the program is bound to; empty for none.
        trial_id: The caller's name for the trial, echoed in the outcome.
        arrived: When the request arrived, on Trio's clock.
        deadline: When the outcome must be on its way, on Trio's clock; the reply margin is already taken off.
        metadata: What the caller wants to see again in logs and records.
        options: What the answer leaves out.
    """

    program: Program
    inputs: Mapping[str, Any]
    session_id: str = ""
    trial_id: str = ""
    arrived: float = -math.inf
    deadline: float = math.inf
    metadata: Mapping[str, str] = field(default_factory=dict)
    options: TrialOptions = TrialOptions()


# ---- session variables ----------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Variable:
    """A session variable as the store had it at one moment.

    Attributes:
        name: The variable's name, unique in its session.
        type: One of float, integer, string, boolean, choice, module, embedding, tensor, map, list; empty for untyped.
        value: The decoded value.
        version: Counts the writes, from 1; 0 when the store does not tell.
        id: The store's identifier.
        constraints: The declared constraints, such as `{"min": 0}`.
        metadata: What the store keeps beside the value.
    """

    name: str
    type: str
    value: Any
    version: int = 0
    id: str = ""
    constraints: Mapping[str, Any] = field(default_factory=dict)
    metadata: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class BoundVariable:
    """The value that a parameter really had in one trial.

    Attributes:
        parameter: The parameter's path.
        variable: The variable's name or id, as bound.
        value: The value that was applied.
        version: The variable's version; 0 when the value is a default.
        from_default: Whether the binding's default was used.
    """

    parameter: str
    variable: str
    value: Any
    version: int = 0
    from_default: bool = False


# ---- what became of it ----------------------------------------------------------------------------------------------


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
        known: Whether every billed call's cost is known; without it `total_usd` is a lower bound.
        usage: The tokens of all billed calls.
        lm_calls: LM calls that ended, cache hits included.
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
        response_json: The response as JSON text; empty when prompts are omitted.
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
        lm_calls: The LM calls it made.
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
    """

    trace: tuple[TraceEntry, ...] = ()
    cost: Cost = Cost()
    truncated: bool = False


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
        variables: Parameter path → the value it had.
        trial_id: As requested.
        warnings: What could not be expressed as it was.
        trace_truncated: Whether something was left out of the trace because of a limit.
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


@dataclass(frozen=True, slots=True)
class TrialFailure:
    """The trial ended without a result.

    Attributes:
        kind: Why, in terms a caller can act on.
        stage: Where on the road.
        error_type: The qualified Python type of the exception.
        error_message: Its text.
        traceback: Its formatted traceback.
        retryable: Whether trying again may help.
        retry_after: Seconds after which it may; None when unknown.
        causes: The exceptions behind it, as a tree.
        timings: Where the time went until then.
        partial_trace: The predictors that had ended.
        cost: What was spent until then.
        trial_id: As requested.
        details: At least `rung`, `rung_ms`, `stuck`, `error_id` where they apply.
        variables: Parameter path → the value it had, as far as they were applied.
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


TrialOutcome: TypeAlias = TrialSuccess | TrialFailure


# ---- the joints between the rooms -----------------------------------------------------------------------------------


class VariableSource(Protocol):
    """Where a trial's session variables come from."""

    async def get_variables(self, identifiers: Sequence[str], *, not_before: float) -> Mapping[str, Variable | None]:
        """Read all of them at once, by name or id.

        Args:
            identifiers: Names or ids, each once.
            not_before: A time of Trio's clock; no value read from the store before it may answer.

        Returns:
            Identifier → variable; None for one that the store does not have.

        Raises:
            VariableNotFound: The store does not have the session.
            VariableInvalid: A value cannot be decoded.
            StoreUnavailable: The store cannot be reached or does not answer as a store.
        """
        ...


class HydratedProgram(Protocol):
    """A program instance made for one trial, with its parameters bound to variables."""

    async def sync_variables(self) -> Mapping[str, BoundVariable]:
        """Fetch every bound variable, check and apply it; returns parameter path → what was applied.

        Raises what `VariableSource.get_variables` raises, and VariableInvalid for a value that its parameter refuses.
        """
        ...

    def call(self, inputs: Mapping[str, Any], interrupt: Interrupt) -> Prediction:
        """Run the program on `inputs`; blocking, for a worker thread.

        `interrupt` is checked at every LM call, tool call and predictor end, in whatever thread of the program.

        Raises InvalidInput before the program starts, LmError and ToolError for what those layers raised, and whatever
        else the program's code raises, as it is.
        """
        ...

    def recording(self) -> Recording:
        """What was seen until now; may be called from any thread, also while the program runs."""
        ...


class Interrupt(Protocol):
    """How running code learns, from any of its threads, that its trial is over."""

    def check(self) -> None:
        """Return at once, or raise a BaseException that ends the program."""
        ...

    def on_cancel(self, callback: Callable[[], object]) -> Callable[[], None]:
        """Have `callback` called when the trial is to end (at once if it already is); returns a way to take it back.

        The callback must not block: it runs on the loop's thread.
        """
        ...


class ProgramLoader(Protocol):
    """Makes instances from specifications."""

    async def hydrate(
        self, request: TrialRequest, source: VariableSource, run_in_thread: RunInThread
    ) -> HydratedProgram:
        """Resolve, construct and bind the program of `request`.

        User code (imports, constructors) runs through `run_in_thread`, in the trial's own slot.

        Raises:
            InvalidSpec, ClassNotFound, ImportNotAllowed: The specification is at fault.
            ProgramError: The program's own code raised on import or in its constructor.
            VariableNotFound, VariableInvalid, StoreUnavailable: `python_class` comes from a variable.
        """
        ...


class RunInThread(Protocol):
    """Runs blocking code in the trial's worker thread and returns what it returns; cancellation stops it."""

    def __call__(self, function: Callable[..., Any], /, *args: Any) -> Awaitable[Any]:
        """Run `function(*args)`."""
        ...
