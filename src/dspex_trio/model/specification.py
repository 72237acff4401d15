"""What to run: a trial's program, inputs and options, as data."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import count
from types import NoneType
from typing import Any, Final, cast, final

from dspex_trio.interface.arguments import check_texts, check_type
from dspex_trio.model.events import Watch

_numbers = count(1)


@final
class _Missing:
    """The type of MISSING."""

    def __repr__(self) -> str:
        return "MISSING"

    def __bool__(self) -> bool:
        return False


MISSING: Final = _Missing()
"""Says that there is no value, where None is one."""


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

    def __post_init__(self) -> None:
        for name in ("name", "type", "description"):
            check_type(f"Field.{name}", getattr(self, name), str, "text")


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

    def __post_init__(self) -> None:
        for name in ("text", "instructions", "name"):
            check_type(f"Signature.{name}", getattr(self, name), str, "text")
        for name in ("inputs", "outputs"):
            _check_each(f"Signature.{name}", getattr(self, name), Field, "a dspex.Field")


MODULE_CHOICE: Final = "python_class"
"""The parameter of a binding that picks the program's class; it is read before there is a module to bind."""


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

    def __post_init__(self) -> None:
        check_type("Binding.parameter", self.parameter, str, "text, a path on the module")
        check_type("Binding.variable", self.variable, str, "text, a variable's name")


@dataclass(frozen=True, slots=True)
class LanguageModel:
    """The language model a program asks for.

    Attributes:
        model: The model's name, as `dspy.LM` takes it.
        params: Sampling keywords, such as `temperature`.
    """

    model: str
    params: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        check_type("LanguageModel.model", self.model, str, "text, a model's name")
        check_type("LanguageModel.params", self.params, Mapping, "a mapping, keyword → value")


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

    def __post_init__(self) -> None:
        check_type(
            "Program.python_class", self.python_class, str, "text: the name of a registered class, or its dotted path"
        )
        says = 'a dspex.Signature, such as Signature("question -> answer"), or None'
        check_type("Program.signature", self.signature, (Signature, NoneType), says)
        _check_each("Program.config_space", self.config_space, Binding, "a dspex.Binding")
        check_type("Program.dependencies", self.dependencies, Mapping, "a mapping, constructor keyword → value")
        check_type("Program.parameters", self.parameters, Mapping, "a mapping, parameter path → value")
        check_type("Program.state", self.state, (Mapping, NoneType), "a mapping, as dump_state gives it, or None")
        says = 'a dspex.LanguageModel, such as LanguageModel("openai/gpt-4o-mini"), or None'
        check_type("Program.lm", self.lm, (LanguageModel, NoneType), says)
        check_type("Program.name", self.name, str, "text")
        check_type("Program.description", self.description, str, "text")


def _check_each(name: str, values: object, wanted: type, says: str) -> None:
    check_type(name, values, (tuple, list), f"a sequence, each {says}")
    for number, value in enumerate(cast("Sequence[object]", values)):
        check_type(f"{name}[{number}]", value, wanted, says)


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

    def __post_init__(self) -> None:
        for name in ("omit_trace", "omit_prompts", "no_cache"):
            check_type(f"TrialOptions.{name}", getattr(self, name), bool, "True or False")
        check_type("TrialOptions.max_trace_bytes", self.max_trace_bytes, int, "a number of bytes")


def check_trial(
    program: object, inputs: object, *, session_id: object, trial_id: object, options: object, metadata: object
) -> None:
    """Refuse what no trial can be made of, where a user calls: further on it would be a fault of somebody else's.

    Raises:
        TypeError: One of them is of the wrong type; says which, and what would be right.
    """
    says = 'a dspex.Program or its JSON form, a mapping such as {"python_class": "dspy.Predict", …}'
    check_type("program", program, (Program, Mapping), says)
    check_type("inputs", inputs, Mapping, "a mapping, input field → value")
    for name in cast("Mapping[object, object]", inputs):
        check_type("a name in inputs", name, str, "text")
    check_type("session_id", session_id, str, "text")
    check_type("trial_id", trial_id, str, "text")
    check_type("options", options, (TrialOptions, NoneType), "a dspex.TrialOptions")
    if metadata is not None:
        check_texts("metadata", metadata)


@dataclass(frozen=True, slots=True)
class TrialRequest:
    """One trial: a program, its inputs, the session it reads, and the time it has.

    Attributes:
        program: What to run.
        inputs: Input field → value.
        session_id: The session whose variables the program is bound to; empty for none.
        trial_id: The caller's name for the trial, echoed in the outcome; where it is empty, the runtime makes one.
        arrived: When the request arrived, on Trio's clock.
        deadline: When the outcome must be on its way, on Trio's clock; the reply margin is already taken off.
        margin: The reply margin, in seconds.
        metadata: What the caller wants to see again in logs and records.
        options: What the answer leaves out.
        watch: Called with the trial's events while it is under way; None for none, which costs nothing.
        stream_output: Whether it gets output too, which the provider is then asked to stream.
        key: The trial's own; it stays the same where another request is made of this one.
        encoded: The request as it came, where another process decodes it: an ExecuteProgramRequest. Program and inputs
            then hold what is needed to name and to place the trial, and nothing else.
    """

    program: Program
    inputs: Mapping[str, Any]
    session_id: str = ""
    trial_id: str = ""
    arrived: float = -math.inf
    deadline: float = math.inf
    margin: float = 0.0
    metadata: Mapping[str, str] = field(default_factory=dict)
    options: TrialOptions = TrialOptions()
    watch: Watch | None = None
    stream_output: bool = True
    key: int = field(default_factory=_numbers.__next__, repr=False, compare=False)
    encoded: bytes = field(default=b"", repr=False, compare=False)
