"""The public test kit. Names are imported when they are first used: a pytest plugin must cost nothing until then."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from dspex_trio.testing.environment import TrialEnvironment
    from dspex_trio.testing.faults.links import Carried, Direction, Link
    from dspex_trio.testing.replays.recorded import CannotReplay
    from dspex_trio.testing.replays.replaying import Replayed, read_record, replay, replay_sync
    from dspex_trio.testing.scripted.lm import ScriptedLM
    from dspex_trio.testing.scripted.provider import ScriptedProvider, open_provider
    from dspex_trio.testing.scripted.replies import Answer, Drip, Hang, HangUp, Malformed, Refusal, Token, ToolCall
    from dspex_trio.testing.scripted.script import Asked, NoReply, Script
    from dspex_trio.testing.scripted.store import Fault, FaultyStore, StoreCall
    from dspex_trio.testing.scripted.tools import Fails, Returns, ScriptedTool, ToolUse
    from dspex_trio.testing.systems import Links, System, system
    from dspex_trio.testing.time.clock import VirtualClock
    from dspex_trio.testing.time.leaks import Leaked, no_leaks
    from dspex_trio.testing.time.seeds import Endless, NotReplayable, Schedule, run_schedule, schedules
    from dspex_trio.testing.time.timeline import Happening, Timeline
    from dspex_trio.testing.watching import record_outcome, watching

__all__ = [
    "Answer",
    "Asked",
    "CannotReplay",
    "Carried",
    "Direction",
    "Drip",
    "Endless",
    "Fails",
    "Fault",
    "FaultyStore",
    "Hang",
    "HangUp",
    "Happening",
    "Leaked",
    "Link",
    "Links",
    "Malformed",
    "NoReply",
    "NotReplayable",
    "Refusal",
    "Replayed",
    "Returns",
    "Schedule",
    "Script",
    "ScriptedLM",
    "ScriptedProvider",
    "ScriptedTool",
    "StoreCall",
    "System",
    "Timeline",
    "Token",
    "ToolCall",
    "ToolUse",
    "TrialEnvironment",
    "VirtualClock",
    "no_leaks",
    "open_provider",
    "read_record",
    "record_outcome",
    "replay",
    "replay_sync",
    "run_schedule",
    "schedules",
    "system",
    "watching",
]

_HOMES = {
    "VirtualClock": "time.clock",
    "TrialEnvironment": "environment",
    "Leaked": "time.leaks",
    "no_leaks": "time.leaks",
    "Carried": "faults.links",
    "Direction": "faults.links",
    "Link": "faults.links",
    "ScriptedLM": "scripted.lm",
    "ScriptedProvider": "scripted.provider",
    "open_provider": "scripted.provider",
    "CannotReplay": "replays.recorded",
    "Replayed": "replays.replaying",
    "read_record": "replays.replaying",
    "replay": "replays.replaying",
    "replay_sync": "replays.replaying",
    "Answer": "scripted.replies",
    "Drip": "scripted.replies",
    "Hang": "scripted.replies",
    "HangUp": "scripted.replies",
    "Malformed": "scripted.replies",
    "Refusal": "scripted.replies",
    "Token": "scripted.replies",
    "ToolCall": "scripted.replies",
    "Asked": "scripted.script",
    "NoReply": "scripted.script",
    "Script": "scripted.script",
    "Endless": "time.seeds",
    "NotReplayable": "time.seeds",
    "Schedule": "time.seeds",
    "run_schedule": "time.seeds",
    "schedules": "time.seeds",
    "Fault": "scripted.store",
    "FaultyStore": "scripted.store",
    "StoreCall": "scripted.store",
    "Links": "systems",
    "System": "systems",
    "system": "systems",
    "Happening": "time.timeline",
    "Timeline": "time.timeline",
    "Fails": "scripted.tools",
    "Returns": "scripted.tools",
    "ScriptedTool": "scripted.tools",
    "ToolUse": "scripted.tools",
    "record_outcome": "watching",
    "watching": "watching",
}


def __getattr__(name: str) -> Any:
    if name == "misbehaving":
        return import_module(f"{__name__}.faults.misbehaving")
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
