"""The Python-side runtime of dspex: DSPy trials over gRPC on Trio, with deadlines that stop the work.

`import dspex_trio as dspex` is the documented spelling. Names are imported when they are first used, so that
`dspex_trio.rpc` or the command line's help do not wait for DSPy.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from dspex_trio.model import (
        MISSING,
        Binding,
        BoundVariable,
        Cause,
        Cost,
        Field,
        LanguageModel,
        LmCall,
        Program,
        Signature,
        Timings,
        TraceEntry,
        TrialFailure,
        TrialOptions,
        TrialOutcome,
        TrialSuccess,
        Usage,
        Variable,
    )
    from dspex_trio.model.errors import FailureKind, Stage, TrialError, WorkerStuck
    from dspex_trio.observing.telemetry.providers import Telemetry as Telemetry
    from dspex_trio.programs.registry import get_module_class, register, tool
    from dspex_trio.runtime.client import Client, open_client
    from dspex_trio.runtime.embedded import Runtime, RuntimeStatus, open_runtime
    from dspex_trio.runtime.serving import serve
    from dspex_trio.runtime.settings import InvalidSettings, Settings
    from dspex_trio.sessions import SessionContext
    from dspex_trio.store.elixir_tools import elixir_tool

__all__ = [
    "MISSING",
    "Binding",
    "BoundVariable",
    "Cause",
    "Client",
    "Cost",
    "FailureKind",
    "Field",
    "InvalidSettings",
    "LanguageModel",
    "LmCall",
    "Program",
    "Runtime",
    "RuntimeStatus",
    "SessionContext",
    "Settings",
    "Signature",
    "Stage",
    "Timings",
    "TraceEntry",
    "TrialError",
    "TrialFailure",
    "TrialOptions",
    "TrialOutcome",
    "TrialSuccess",
    "Usage",
    "Variable",
    "WorkerStuck",
    "elixir_tool",
    "get_module_class",
    "open_client",
    "open_runtime",
    "register",
    "serve",
    "tool",
]

_HOMES = {
    "Client": "runtime.client",
    "open_client": "runtime.client",
    "InvalidSettings": "runtime.settings",
    "Settings": "runtime.settings",
    "FailureKind": "model.errors",
    "Stage": "model.errors",
    "TrialError": "model.errors",
    "WorkerStuck": "model.errors",
    "get_module_class": "programs.registry",
    "register": "programs.registry",
    "tool": "programs.registry",
    "Runtime": "runtime.embedded",
    "RuntimeStatus": "runtime.embedded",
    "open_runtime": "runtime.embedded",
    "elixir_tool": "store.elixir_tools",
    "serve": "runtime.serving",
    "SessionContext": "sessions",
    "Telemetry": "observing.telemetry.providers",
}


# Needs an extra, so that `import *` must not ask for it.
_OF_AN_EXTRA = "Telemetry"


def __getattr__(name: str) -> Any:
    if name == "testing":
        return import_module(f"{__name__}.testing")
    if name not in __all__ and name != _OF_AN_EXTRA:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f"{__name__}.{_HOMES.get(name, 'model')}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__, _OF_AN_EXTRA})
