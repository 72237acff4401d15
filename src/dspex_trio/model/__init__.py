"""The nouns: what a trial is made of and what becomes of it, and the Protocols between the packages.

Everything here is plain data. Values of inputs, variables and predictions are ordinary Python values; the wire's forms
of them belong to `wire`. Times that end in `_ms` are milliseconds; a deadline is an absolute time of Trio's clock.
"""

from dspex_trio.model.events import (
    EventCallback,
    EventsDropped,
    LmFinished,
    LmStarted,
    OutputChunk,
    StageStarted,
    ToolFinished,
    ToolStarted,
    TrialEvent,
    Watch,
)
from dspex_trio.model.outcomes import (
    Cause,
    Cost,
    LmCall,
    Prediction,
    Recording,
    Timings,
    TraceEntry,
    TrialFailure,
    TrialOutcome,
    TrialSuccess,
    Usage,
)
from dspex_trio.model.protocols import (
    HydratedProgram,
    Interrupt,
    ProgramLoader,
    RunInLoop,
    RunInThread,
    TrialSession,
    VariableSource,
)
from dspex_trio.model.specification import (
    MISSING,
    MODULE_CHOICE,
    Binding,
    Field,
    LanguageModel,
    Program,
    Signature,
    TrialOptions,
    TrialRequest,
    check_trial,
)
from dspex_trio.model.tools import ToolParameter, ToolSpec
from dspex_trio.model.variables import (
    BoundVariable,
    Variable,
)

__all__ = [
    "MISSING",
    "MODULE_CHOICE",
    "Binding",
    "BoundVariable",
    "Cause",
    "Cost",
    "EventCallback",
    "EventsDropped",
    "Field",
    "HydratedProgram",
    "Interrupt",
    "LanguageModel",
    "LmCall",
    "LmFinished",
    "LmStarted",
    "OutputChunk",
    "Prediction",
    "Program",
    "ProgramLoader",
    "Recording",
    "RunInLoop",
    "RunInThread",
    "Signature",
    "StageStarted",
    "Timings",
    "ToolFinished",
    "ToolParameter",
    "ToolSpec",
    "ToolStarted",
    "TraceEntry",
    "TrialEvent",
    "TrialFailure",
    "TrialOptions",
    "TrialOutcome",
    "TrialRequest",
    "TrialSession",
    "TrialSuccess",
    "Usage",
    "Variable",
    "VariableSource",
    "Watch",
    "check_trial",
]
